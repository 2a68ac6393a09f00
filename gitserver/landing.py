"""From complete objects in quarantine to written refs: the one way of pushes and of commits made here."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from core import failpoints
from core.access import Actor
from core.models import PackKind, Transport
from core.repositories import RepositoryInfo
from core.together import together
from gitserver.commands import with_peeled
from gitserver.inspection import inspect
from gitserver.policy import PreReceive, ProposedPush
from gitserver.process import GitRunner
from gitserver.publish import Publisher
from gitserver.remarks import Remarks, one_line
from gitserver.updates import RefUpdate, Verdict

AFTER_CHECK = failpoints.declare("push.after-check", "the objects are complete and the policies agree")


@dataclass(frozen=True, slots=True)
class Landing:
    """What became of each update: denied by a check, or judged by the transaction.

    `messages` are lines for whoever pushes, whatever came of it; `push_id` is None when nothing was written.
    """

    denied: Mapping[str, str]
    verdicts: Sequence[Verdict]
    messages: Sequence[str] = ()
    push_id: int | None = None

    def error_of(self, name: str) -> str | None:
        """None when that ref was written, else the reason."""
        if name in self.denied:
            return self.denied[name]
        return next((one.error for one in self.verdicts if one.name == name), "atomic push failed")


class Lander:
    """Checks updates, asks the policies, and publishes (design section 4, steps 5 to 8).

    Each of `policies` is asked about everything, all at the same time, and whoever pushes hears all that is
    wrong, in the order of the policies.
    Those of `last` may have effects, as Git's hooks do: they are asked only about what nobody has refused.
    """

    def __init__(
        self,
        publisher: Publisher,
        git: GitRunner,
        policies: Sequence[PreReceive],
        last: Sequence[PreReceive] = (),
    ) -> None:
        self._publisher = publisher
        self._git = git
        self._policies = policies
        self._last = last

    async def refusals(
        self, repository: RepositoryInfo, actor: Actor, updates: Sequence[RefUpdate]
    ) -> dict[str, str]:
        """What the policies refuse before any object is looked at: `{ref name: reason}`."""
        refused: dict[str, str] = {}
        for policy in (*self._policies, *self._last):
            answer = await policy.before_pack(repository, actor, updates)
            refused |= {name: one_line(reason) for name, reason in answer.items()}
        return refused

    async def land(
        self, push: ProposedPush, *, transport: Transport, atomic: bool, kind: PackKind = PackKind.PUSH
    ) -> Landing:
        """Lands what may land; with `atomic` all or nothing.

        Raises:
            StaleConnectivity: objects were dropped since the snapshot of the quarantine was taken; nothing
                was written. Take a new one and land again.
            Unavailable: nothing was written.
        """
        # Before the check: a pack that vanishes with the cache afterwards cannot be stored, and says so. The
        # other way round a push that counts on it would be published without it.
        files = await push.quarantine.pack()
        found = await inspect(self._git, push.quarantine, push.updates)
        sound = with_peeled([one for one in push.updates if one.name not in found.refused], found.peeled)
        checked = replace(push, updates=sound, transport=transport)
        by_name, answers = await together(
            # Again, because rules may have changed while the pack came in.
            self.refusals(push.repository, push.actor, sound),
            together(*(_ask(policy, checked) for policy in self._policies)),
        )
        denied = found.refused | by_name
        for asked, refused in answers:
            denied |= {name: one_line(reason) for name, reason in refused.items()}
            for line in asked.remarks.lines:
                push.say(line)
            push.overrides.extend(asked.overrides)
        wanted = _left(sound, denied, atomic=atomic)
        for policy in self._last:
            if wanted:
                refused = await policy.check(replace(checked, updates=wanted))
                denied |= {name: one_line(reason) for name, reason in refused.items()}
                wanted = _left(wanted, denied, atomic=atomic)
        if not wanted:
            return Landing(denied, (), push.remarks.lines)
        failpoints.reach(AFTER_CHECK)
        published = await self._publisher.publish(
            push.repository.id,
            wanted,
            files if files is not None and files.objects else None,
            actor=push.actor,
            transport=transport,
            options=push.options,
            atomic=atomic,
            epoch=push.quarantine.snapshot.prune_epoch,
            kind=kind,
            audit=push.overrides,
        )
        return Landing(denied, published.verdicts, push.remarks.lines, published.push_id)


async def _ask(policy: PreReceive, push: ProposedPush) -> tuple[ProposedPush, Mapping[str, str]]:
    """The policy's answer, and what it says beside, apart from what the others say at the same time."""
    asked = replace(push, remarks=Remarks(), overrides=[])
    return asked, await policy.check(asked)


def _left(updates: Sequence[RefUpdate], denied: Mapping[str, str], *, atomic: bool) -> list[RefUpdate]:
    return [] if atomic and denied else [one for one in updates if one.name not in denied]
