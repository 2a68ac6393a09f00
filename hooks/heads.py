"""What the head of each default branch says, ready to be searched: facets, and the number of parameters."""

import asyncio
import time
from typing import Any

import msgspec
import structlog
from sqlalchemy import ColumnElement, delete, exists, or_, select, tuple_
from sqlalchemy.ext.asyncio import AsyncSession

from core.database import Database
from core.errors import ModelyardError
from core.models import (
    ModelVersion,
    PostReceiveTask,
    Ref,
    Repository,
    RepositoryFacet,
    RepositoryHead,
    RepositoryType,
    now,
)
from core.outbox import EventName, emit
from core.polling import Poll
from gitserver.publish import lock_repository
from hooks.summary import facets
from hooks.version import VERSION, Version
from hooks.versions import Versions, store

log = structlog.get_logger(__name__)

_AT_ONCE = 100
# A look at a hundred thousand repositories takes the database a second.
_POLL_SECONDS = 600.0
_PATIENCE_SECONDS = 300.0


class Heads:
    """Follows default branches: pushes move them, and so does choosing another one."""

    def __init__(
        self, database: Database, versions: Versions, *, poll_seconds: float = _POLL_SECONDS
    ) -> None:
        self._database = database
        self._versions = versions
        self._poll = Poll("heads", poll_seconds)
        self._hinted = asyncio.Event()
        self._hints: set[str] = set()
        # Repositories that cannot be followed just now, and since when.
        self._failed: dict[str, float] = {}

    def hint(self, repository_id: str) -> None:
        """The default branch of this repository is another one now: look soon."""
        self._hints.add(repository_id)
        self._hinted.set()

    async def run_forever(self) -> None:
        """Catches up now and then, and follows single branches when it is told to."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._follow_hints())
            await self._poll.forever(self.catch_up)

    async def _follow_hints(self) -> None:
        while True:
            await self._hinted.wait()
            self._hinted.clear()
            while self._hints:
                await self._try(self._hints.pop())

    async def catch_up(self) -> int:
        """Follows every branch that nobody follows; returns how many.

        Those are default branches newly chosen, what was there before this was, and what another version of
        the code understood. Whatever a queued push will do is left to it.
        """
        followed, after = 0, ""
        patient = time.monotonic() - _PATIENCE_SECONDS
        self._failed = {one: since for one, since in self._failed.items() if since > patient}
        while behind := await self._behind(after):
            after = behind[-1]
            for repository_id in behind:
                if repository_id not in self._failed:
                    followed += await self._try(repository_id)
        return followed

    async def _try(self, repository_id: str) -> bool:
        try:
            return await self.follow(repository_id)
        except ModelyardError as error:
            log.info("heads.not_followed", repository_id=repository_id, reason=error.message)
        except Exception:
            # A fault that one repository brings out must not end the server, nor keep others waiting.
            log.exception("heads.fault", repository_id=repository_id)
        self._failed[repository_id] = time.monotonic()
        return False

    async def follow(self, repository_id: str) -> bool:
        """Understands the head of the default branch, and makes it what is searched; False: it was already.

        Raises as `Versions.look`.
        """
        async with self._database.read() as session:
            found = await session.execute(_HEADS.where(Repository.id == repository_id, _BEHIND))
            row = found.one_or_none()
        if row is None:
            return False
        version = await self._versions.look(repository_id, row.oid)
        async with self._database.transaction() as session:
            repository = await lock_repository(session, repository_id)
            if not version.stored:
                await store(session, version)
            return await set_head(session, repository, version)

    async def _behind(self, after: str) -> list[str]:
        queued = exists().where(PostReceiveTask.repository_id == Repository.id)
        query = _HEADS.where(_BEHIND, ~queued, Repository.id > after).order_by(Repository.id).limit(_AT_ONCE)
        async with self._database.read() as session:
            return [row.id for row in await session.execute(query)]


_HEADS = (
    select(Repository.id, Ref.oid)
    .join(Ref, (Ref.repository_id == Repository.id) & (Ref.name == "refs/heads/" + Repository.default_branch))
    .outerjoin(RepositoryHead, RepositoryHead.repository_id == Repository.id)
    .outerjoin(
        ModelVersion,
        (ModelVersion.repository_id == Repository.id) & (ModelVersion.commit == RepositoryHead.commit),
    )
)
_BEHIND: ColumnElement[bool] = or_(
    RepositoryHead.commit.is_(None),
    RepositoryHead.commit != Ref.oid,
    ModelVersion.version.is_(None),
    ModelVersion.version != VERSION,
)


async def set_head(session: AsyncSession, repository: Repository, version: Version) -> bool:
    """Makes a stored version what is searched, if the default branch is at its commit; False otherwise.

    The repository's row is locked. Whoever listens is told what is new since the version before.
    """
    tip = await session.scalar(
        select(Ref.oid).where(
            Ref.repository_id == repository.id, Ref.name == f"refs/heads/{repository.default_branch}"
        )
    )
    if tip != version.commit:
        return False
    head = await session.get(RepositoryHead, repository.id, populate_existing=True)
    if head is None:
        head = RepositoryHead(repository_id=repository.id, commit=version.commit)
        session.add(head)
    elif head.commit != version.commit:
        before = await session.scalar(
            select(ModelVersion.summary).where(
                ModelVersion.repository_id == repository.id, ModelVersion.commit == head.commit
            )
        )
        _tell(session, repository, head.commit, before or {}, version)
    head.commit, head.parameters, head.updated_at = version.commit, version.summary.parameters, now()
    await _set_facets(session, repository.id, facets(version.summary))
    return True


def _tell(
    session: AsyncSession, repository: Repository, previous: str, before: dict[str, Any], version: Version
) -> None:
    after = msgspec.json.decode(msgspec.json.encode(version.summary))  # as it was stored
    changes = {
        key: {"before": before.get(key), "after": after.get(key)}
        for key in sorted({*before, *after} - {"findings"})
        if before.get(key) != after.get(key)
    }
    if changes and repository.type == RepositoryType.MODEL:
        payload = {"commit": version.commit, "previous": previous, "changes": changes}
        emit(session, EventName.MODEL_METADATA_UPDATED, repository.id, payload)


async def _set_facets(session: AsyncSession, repository_id: str, wanted: set[tuple[str, str]]) -> None:
    rows = await session.execute(
        select(RepositoryFacet.kind, RepositoryFacet.value).where(
            RepositoryFacet.repository_id == repository_id
        )
    )
    there = {(kind, value) for kind, value in rows}
    if gone := there - wanted:
        await session.execute(
            delete(RepositoryFacet).where(
                RepositoryFacet.repository_id == repository_id,
                tuple_(RepositoryFacet.kind, RepositoryFacet.value).in_(sorted(gone)),
            )
        )
    session.add_all(
        RepositoryFacet(repository_id=repository_id, kind=kind, value=value)
        for kind, value in sorted(wanted - there)
    )
