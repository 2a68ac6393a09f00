"""What a repository's large files are to it: in use, young, or ready for the trash. Only reads."""

from collections.abc import AsyncIterator, Collection
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Protocol

from sqlalchemy import select

from core.database import Database
from core.errors import RepositoryNotFound, Unavailable
from core.models import LfsLink, LfsObject, Push, Repository, now
from core.settings import LfsSettings, MaintenanceSettings

_PAGE = 5000


class RepositoryUnreadable(Unavailable):
    """What a repository refers to cannot be told, so nothing of it may be judged."""

    code = "repository_unreadable"


class PointerSource(Protocol):
    """Where the pointers of a repository are read; the Git engine, seen from here."""

    async def reachable(self, repository_id: str, tips: Collection[str]) -> set[str]:
        """The oids of all pointers that any ref reaches, or any of these commits and tags still stored.

        Raises:
            RepositoryUnreadable: something cannot be read, so that the answer would not be complete.
            ModelyardError: the repository is gone, or a part of the server is out of reach.
        """
        ...


class Standing(StrEnum):
    """What becomes of a link, weightiest first: an object is kept for the weightiest of its links."""

    REFERENCED = "referenced"
    RESTORABLE = "trashed_but_referenced"  # comes back at the next collection
    UNJUDGED = "unjudged"  # its repository cannot be read, so it stays as it is
    YOUNG = "young"
    UNREFERENCED = "to_trash"
    TRASHED = "in_trash"
    EXPIRED = "to_purge"


@dataclass(frozen=True, slots=True)
class LinkInfo:
    """One link, with the size of its object in bytes."""

    oid: str
    size: int
    touched_at: datetime
    trashed_at: datetime | None


@dataclass(frozen=True, slots=True)
class Judgement:
    """What was found about the links of one repository, when its refs were in this state."""

    repository_id: str
    version: int
    state: str
    reachable: Collection[str]
    untouched_since: datetime
    trashed_since: datetime

    def of(self, link: LinkInfo) -> Standing:
        """The standing of one link of this repository."""
        if link.oid in self.reachable:
            return Standing.REFERENCED if link.trashed_at is None else Standing.RESTORABLE
        if link.trashed_at is not None:
            return Standing.EXPIRED if link.trashed_at < self.trashed_since else Standing.TRASHED
        return Standing.UNREFERENCED if link.touched_at < self.untouched_since else Standing.YOUNG


class Judge:
    """Judges repositories by what their refs and their pushes of the last weeks reach."""

    def __init__(
        self,
        database: Database,
        pointers: PointerSource,
        settings: LfsSettings,
        maintenance: MaintenanceSettings,
    ) -> None:
        self._database = database
        self._pointers = pointers
        self._unreferenced = timedelta(days=settings.unreferenced_days)
        self._trash = timedelta(days=settings.trash_days)
        self._pushes = timedelta(days=maintenance.unreachable_days)

    @property
    def trash_time(self) -> timedelta:
        """How long a link, or an object without one, waits before it goes for good."""
        return self._trash

    async def judge(self, repository_id: str) -> Judgement:
        """Reads everything that the repository refers to.

        Raises:
            RepositoryNotFound: it was deleted.
            RepositoryUnreadable, ModelyardError: as `PointerSource`; then nothing is known.
        """
        async with self._database.read() as session:
            repository = await session.get(Repository, repository_id)
            if repository is None:
                raise RepositoryNotFound("no such repository")
            pushes = await session.scalars(
                select(Push.updates).where(
                    Push.repository_id == repository_id, Push.created_at >= now() - self._pushes
                )
            )
            tips = {update[side] for updates in pushes for update in updates for side in ("old", "new")}
        # Refs may move meanwhile. Whoever acts on the judgement compares `state`: if it is still the same,
        # it was the same when the pointers were read.
        reachable = await self._pointers.reachable(
            repository_id, sorted(tip for tip in tips if tip.strip("0"))
        )
        moment = now()
        return Judgement(
            repository_id=repository_id,
            version=repository.refs_version,
            state=repository.state,
            reachable=reachable,
            untouched_since=moment - self._unreferenced,
            trashed_since=moment - self._trash,
        )

    async def links(self, repository_id: str) -> AsyncIterator[LinkInfo]:
        """Every link of a repository, by oid."""
        after = ""
        while True:
            query = (
                select(LfsLink.oid, LfsObject.size, LfsLink.touched_at, LfsLink.trashed_at)
                .join(LfsObject, LfsObject.oid == LfsLink.oid)
                .where(LfsLink.repository_id == repository_id, LfsLink.oid > after)
                .order_by(LfsLink.oid)
                .limit(_PAGE)
            )
            async with self._database.read() as session:
                rows = (await session.execute(query)).all()
            for row in rows:
                yield LinkInfo(*row)
            if len(rows) < _PAGE:
                return
            after = rows[-1][0]

    async def pending(self, repository_id: str) -> bool:
        """Whether a judgement could change anything: some link is old enough, or in the trash."""
        query = (
            select(LfsLink.oid)
            .where(
                LfsLink.repository_id == repository_id,
                (LfsLink.touched_at < now() - self._unreferenced) | LfsLink.trashed_at.is_not(None),
            )
            .limit(1)
        )
        async with self._database.read() as session:
            return await session.scalar(query) is not None
