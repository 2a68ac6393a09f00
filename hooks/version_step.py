"""The post-receive step "metadata": the tips of a push are understood, stored, announced, and told of."""

from collections.abc import Sequence
from typing import Any

import msgspec
from sqlalchemy import false, update
from sqlalchemy.ext.asyncio import AsyncSession

from core import failpoints
from core.database import Database
from core.errors import PayloadTooLarge, RevisionNotFound
from core.models import ModelVersion, RepositoryType
from core.outbox import EventName, emit
from gitserver.objects import Kind
from gitserver.publish import lock_repository
from gitserver.queries import TooExpensive
from gitserver.reading import Reader
from hooks.formats.parsed import Finding, Severity
from hooks.heads import set_head
from hooks.received import ReceivedPush, Report
from hooks.version import Version
from hooks.version_lines import describe
from hooks.versions import Versions, store

BEFORE_STORE = failpoints.declare(
    "metadata.before-store", "the tips of a push are understood, and no row or event says so"
)
AFTER_STORE = failpoints.declare(
    "metadata.after-store", "a version and its event are committed, and the step is not yet done"
)

# A mirror has thousands of branches and tags; what is left out is understood when somebody asks for it.
_MAX_TIPS = 100
_FINDINGS_SENT = 100
_FINDINGS_TOLD = 20
_SUMMARIES_TOLD = 3

_HEADS, _TAGS = "refs/heads/", "refs/tags/"
_CREATED = {
    RepositoryType.MODEL: EventName.MODEL_VERSION_CREATED,
    RepositoryType.DATASET: EventName.DATASET_VERSION_CREATED,
}


class UnderstandVersions:
    """See `hooks.received.PostReceiveStep`."""

    name = "metadata"

    def __init__(self, database: Database, versions: Versions, reader: Reader) -> None:
        self._database = database
        self._versions = versions
        self._reader = reader

    async def run(self, push: ReceivedPush, report: Report) -> None:
        """Tips that are gone meanwhile, or that git cannot list, are left out."""
        understood: dict[str, tuple[str, Version]] = {}
        for ref, commit in await self._tips(push):
            try:
                version = await self._versions.look(push.repository.id, commit)
            except RevisionNotFound:
                continue
            except TooExpensive as error:
                report.say(f"{_short(ref)}: {error.message}")
                continue
            failpoints.reach(BEFORE_STORE)
            async with self._database.transaction() as session:
                repository = await lock_repository(session, push.repository.id)
                if not version.stored:
                    await store(session, version)
                await _announce(session, push, ref, version)
                await set_head(session, repository, version)
            failpoints.reach(AFTER_STORE)
            understood[commit] = (ref, version)
        _tell(report, list(understood.values()))

    async def _tips(self, push: ReceivedPush) -> list[tuple[str, str]]:
        """Refs and commits, each commit once, the default branch first."""
        default = _HEADS + push.repository.default_branch
        moved = [one for one in push.updates if not one.deletes and one.name.startswith((_HEADS, _TAGS))]
        moved.sort(key=lambda one: (one.name != default, not one.name.startswith(_HEADS)))
        tips: dict[str, str] = {}
        for one in moved[:_MAX_TIPS]:
            commit = one.new if one.name.startswith(_HEADS) else await self._tagged(push, one.new)
            if commit is not None:
                tips.setdefault(commit, one.name)
        return [(ref, commit) for commit, ref in tips.items()]

    async def _tagged(self, push: ReceivedPush, oid: str) -> str | None:
        """The commit behind a tag, if it is one; none behind a tag of more than half a megabyte."""
        try:
            found = await self._reader.resolve(push.repository.id, oid)
        except (RevisionNotFound, PayloadTooLarge):
            return None
        return found.oid if found.kind is Kind.COMMIT else None


async def _announce(session: AsyncSession, push: ReceivedPush, ref: str, version: Version) -> None:
    """Tells whoever listens, once for each commit of a repository."""
    row = (ModelVersion.repository_id == version.repository_id, ModelVersion.commit == version.commit)
    first = await session.execute(
        update(ModelVersion)
        .where(*row, ModelVersion.announced == false())
        .values(announced=True)
        .returning(ModelVersion.commit)
    )
    if first.one_or_none() is None:
        return
    payload: dict[str, Any] = {
        "actor": push.actor,
        "push_id": push.id,
        "ref": ref,
        "commit": version.commit,
        "summary": msgspec.to_builtins(version.summary),
        "findings": msgspec.to_builtins(version.findings[:_FINDINGS_SENT]),
    }
    emit(session, _CREATED[version.type], version.repository_id, payload)


def _tell(report: Report, understood: Sequence[tuple[str, Version]]) -> None:
    for ref, version in understood[:_SUMMARIES_TOLD]:
        if line := describe(version.type, version.summary):
            report.say(line if len(understood) == 1 else f"{_short(ref)}: {line}")
    serious = dict.fromkeys(
        one
        for _, version in understood
        for one in version.findings
        if one.severity in {Severity.ERROR, Severity.WARNING}
    )
    for one in list(serious)[:_FINDINGS_TOLD]:
        report.say(_finding(one))
    if len(serious) > _FINDINGS_TOLD:
        report.say(f"and {len(serious) - _FINDINGS_TOLD} more")


def _finding(one: Finding) -> str:
    place = one.path + (f":{one.line}" if one.path and one.line else "")
    return f"{one.severity}: {place}: {one.message}" if place else f"{one.severity}: {one.message}"


def _short(ref: str) -> str:
    return ref.removeprefix(_HEADS).removeprefix("refs/")
