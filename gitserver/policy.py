"""What may be pushed: the Protocol of pre-receive policies, and the rules of protected branches."""

from collections.abc import Awaitable, Callable, Mapping, Sequence, Set
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Protocol, runtime_checkable

from sqlalchemy import Row, bindparam, select

from core.access import Actor, ActorKind
from core.audit import Action, entry
from core.database import Database
from core.models import AuditEntry, BranchRule, Transport
from core.repositories import RepositoryInfo
from gitserver.process import GitFailed, GitRunner
from gitserver.quarantine import Quarantine
from gitserver.remarks import Remarks
from gitserver.updates import RefUpdate

_HEADS = "refs/heads/"
_REFS_NOTED = 100
_BLAME_AT_MOST = 20


_RULES = select(
    BranchRule.pattern, BranchRule.allow_force, BranchRule.allow_delete, BranchRule.pushers
).where(BranchRule.repository_id == bindparam("repository_id"))


@dataclass(frozen=True, slots=True)
class ProposedPush:
    """A push whose objects are complete and whose refs are not yet written.

    What it adds is listed: `gitserver.small_blobs.new_blobs`, `gitserver.touches.changed_paths`. `transport`
    is known to policies, not to whoever lands it. `cleared` has the binary names of blobs that need not be
    searched again, see `gitserver.glance.Clearing`.
    """

    repository: RepositoryInfo
    actor: Actor
    updates: Sequence[RefUpdate]
    options: Sequence[str]
    quarantine: Quarantine
    remarks: Remarks = field(default_factory=Remarks)
    overrides: list[AuditEntry] = field(default_factory=list)
    transport: Transport | None = None
    cleared: Set[bytes] = frozenset()

    def say(self, line: str) -> None:
        """Tells whoever pushes something, accepted or not: lists, warnings, what to do."""
        self.remarks.add(line)

    def override(self, rule: str, **details: object) -> None:
        """Notes for the audit log that a rule was set aside; written if and when the push is."""
        refs = [one.name for one in self.updates[:_REFS_NOTED]]
        self.overrides.append(
            entry(self.actor, Action.PUSH_OVERRIDE, self.repository.path, rule=rule, refs=refs, **details)
        )


@runtime_checkable
class PreReceive(Protocol):
    """A policy that may refuse updates. It must not change anything; reasons are one line each.

    Policies are asked at the same time, and know nothing of each other.
    """

    async def before_pack(
        self, repository: RepositoryInfo, actor: Actor, updates: Sequence[RefUpdate]
    ) -> Mapping[str, str]:
        """Cheap refusals, known before the pack is read: `{ref name: reason}`."""
        ...

    async def check(self, push: ProposedPush) -> Mapping[str, str]:
        """Refusals that need the objects: `{ref name: reason}`. An exception refuses the whole push."""
        ...


class PostReceive(Protocol):
    """What is done about an acknowledged push. It is queued with the push and will be done in any case."""

    async def reports(self, push: ProposedPush) -> bool:
        """Whether there may be lines for whoever pushes this; `received` is not asked otherwise.

        It is asked while the push is checked and written: objects may be missing, nothing is listed yet, and
        it may be refused. Whoever pushes waits for the answer.
        """
        ...

    async def received(self, push_id: int) -> Sequence[str]:
        """Lines for whoever pushed, or what there is of them when they have waited for long enough.

        It never raises, and whoever stops to wait stops nothing.
        """
        ...


async def guilty(
    updates: Sequence[RefUpdate], is_guilty: Callable[[RefUpdate], Awaitable[bool]]
) -> list[RefUpdate]:
    """Which updates of a push bring what was found in it; all, where asking for each would cost too much."""
    suspects = [one for one in updates if not one.deletes]
    if not 1 < len(suspects) <= _BLAME_AT_MOST:
        return suspects
    return [one for one in suspects if await is_guilty(one)] or suspects


class BranchRules:
    """Protected branches: who may push, no force, no deletion. The default branch is never deleted.

    A rule binds everybody but the administration command line; an administrator who must force a push
    changes the rule first, which leaves a trace in the audit log.
    """

    def __init__(self, database: Database, git: GitRunner) -> None:
        self._database = database
        self._git = git

    async def before_pack(
        self, repository: RepositoryInfo, actor: Actor, updates: Sequence[RefUpdate]
    ) -> Mapping[str, str]:
        """Refuses by name alone."""
        refused = {
            one.name: "the default branch cannot be deleted; choose another default branch first"
            for one in updates
            if one.deletes and one.name == _HEADS + repository.default_branch
        }
        for one, rule in await self._bound(repository.id, actor, updates):
            if rule.pushers is not None and actor.name not in rule.pushers:
                refused[one.name] = f"protected branch: {rule.pattern} takes pushes of chosen users only"
            elif one.deletes and not rule.allow_delete:
                refused[one.name] = f"protected branch: {rule.pattern} may not be deleted"
        return refused

    async def check(self, push: ProposedPush) -> Mapping[str, str]:
        """Refuses updates that drop commits."""
        refused = {}
        for one, rule in await self._bound(push.repository.id, push.actor, push.updates):
            if one.creates or one.deletes or rule.allow_force:
                continue
            if not await self._is_ancestor(push.quarantine, one.old, one.new):
                refused[one.name] = f"protected branch: {rule.pattern} takes no force push"
        return refused

    async def _bound(
        self, repository_id: str, actor: Actor, updates: Sequence[RefUpdate]
    ) -> list[tuple[RefUpdate, Row[str, bool, bool, list[str] | None]]]:
        branches = [one for one in updates if one.name.startswith(_HEADS)]
        if not branches or actor.kind is ActorKind.SYSTEM:
            return []
        rules = await self._database.rows(_RULES, {"repository_id": repository_id})
        return [
            (one, rule)
            for one in branches
            for rule in rules
            if fnmatchcase(one.name.removeprefix(_HEADS), rule.pattern)
        ]

    async def _is_ancestor(self, quarantine: Quarantine, old: str, new: str) -> bool:
        try:
            await self._git.run(
                ["merge-base", "--is-ancestor", old, new],
                environment=self._git.environment(extra=quarantine.environment()),
            )
        except GitFailed:
            return False  # status 1 is "no"; anything else must not pass for "yes"
        return True
