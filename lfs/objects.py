"""Which large files a repository has, and where their bytes lie."""

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from secrets import token_hex

from sqlalchemy import ColumnElement, Select, bindparam, func, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from core.database import Database
from core.models import LfsLink, LfsObject, Repository, StoreKind, now
from lfs.errors import ObjectMissing

# So many parameters fit into one statement of either database, several times over.
_AT_ONCE = 10_000

# `touched_at` decides about weeks, so a day more or less costs nothing and saves most writes.
_TOUCH_AFTER = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class StoredObject:
    """An object that a repository has; `damaged`: until somebody uploads it again, its bytes are no good."""

    oid: str
    size: int
    store: StoreKind
    key: str
    damaged: bool


@dataclass(frozen=True, slots=True)
class LinkedObject:
    """An object as its repository sees it; `trashed_at` is None unless it is in the trash."""

    oid: str
    size: int
    damaged: bool
    linked_at: datetime
    touched_at: datetime
    trashed_at: datetime | None


@dataclass(frozen=True, slots=True)
class Usage:
    """How much a repository or an owner has. An object in two repositories counts twice: it is used twice."""

    objects: int = 0
    bytes: int = 0
    trashed_objects: int = 0
    trashed_bytes: int = 0


def new_key(oid: str) -> str:
    """A place in a store that nothing ever had or will have again."""
    return f"lfs/{oid[:2]}/{oid[2:4]}/{oid}.{token_hex(8)}"


async def usage_where(session: AsyncSession, *conditions: ColumnElement[bool]) -> Usage:
    """The usage of the links for which the conditions on `Repository` and `LfsLink` hold."""
    trashed = LfsLink.trashed_at.is_not(None)
    query = (
        select(trashed, func.count(), func.sum(LfsObject.size))
        .select_from(LfsLink)
        .join(LfsObject, LfsObject.oid == LfsLink.oid)
        .join(Repository, Repository.id == LfsLink.repository_id)
        .where(*conditions)
        .group_by(trashed)
    )
    found = {bool(gone): (objects, int(size)) for gone, objects, size in await session.execute(query)}
    return Usage(*found.get(False, (0, 0)), *found.get(True, (0, 0)))


# Built once: every batch and every download asks.
_LIVE = (
    select(LfsObject.oid, LfsObject.size, LfsObject.store, LfsObject.key, LfsObject.damaged_at.is_not(None))
    .join(LfsLink, LfsLink.oid == LfsObject.oid)
    .where(LfsLink.repository_id == bindparam("repository_id"), LfsLink.trashed_at.is_(None))
    .where(LfsLink.oid.in_(bindparam("oids", expanding=True)))
)


class Objects:
    """Reads by repository: an object without a live link there does not exist for it (invariant I7)."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def find(self, repository_id: str, oids: Collection[str]) -> dict[str, StoredObject]:
        """Those of `oids` that the repository has, damaged ones included; up to 10,000 in one query."""
        found: dict[str, StoredObject] = {}
        for some in _slices(oids):
            rows = await self._database.rows(_LIVE, {"repository_id": repository_id, "oids": some})
            found.update((row.oid, row) for row in (StoredObject(*columns) for columns in rows))
        return found

    async def missing(self, repository_id: str, oids: Collection[str]) -> set[str]:
        """Those of `oids` that the repository could not serve: it never got them, or they are damaged."""
        found = await self.find(repository_id, oids)
        return {oid for oid in oids if oid not in found or found[oid].damaged}

    async def touch(self, repository_id: str, oids: Collection[str]) -> None:
        """Notes that a client relies on these links now, exact to a day; others are passed over."""
        if not oids:
            return
        moment = now()
        stale = (
            LfsLink.repository_id == repository_id,
            LfsLink.trashed_at.is_(None),
            LfsLink.touched_at < moment - _TOUCH_AFTER,
        )
        async with self._database.read() as session:
            old = [
                oid
                for some in _slices(oids)
                for oid in await session.scalars(select(LfsLink.oid).where(*stale, LfsLink.oid.in_(some)))
            ]
        if not old:  # as nearly always: no write, no queueing behind other writers
            return
        async with self._database.transaction() as session:
            for some in _slices(old):
                # In one order everywhere, so that two batches cannot wait for each other.
                locked = select(LfsLink.oid).where(*stale, LfsLink.oid.in_(some)).order_by(LfsLink.oid)
                rows = list(await session.scalars(locked.with_for_update()))
                change = update(LfsLink).where(LfsLink.repository_id == repository_id, LfsLink.oid.in_(rows))
                await session.execute(change.values(touched_at=moment))

    async def usage(self, repository_id: str) -> Usage:
        """All zeros for a repository that does not exist."""
        async with self._database.read() as session:
            return await usage_where(session, LfsLink.repository_id == repository_id)

    async def owner_usage(self, owner_id: int) -> Usage:
        """Over all repositories of a user or organisation."""
        async with self._database.read() as session:
            return await usage_where(session, Repository.owner_id == owner_id)

    async def list(
        self, repository_id: str, *, limit: int, after: str | None = None, trashed: bool = False
    ) -> list[LinkedObject]:
        """By oid, from behind `after`: what the repository has, or with `trashed` what is in its trash."""
        query = _linked(repository_id, trashed=trashed).order_by(LfsLink.oid).limit(limit)
        if after is not None:
            query = query.where(LfsLink.oid > after)
        async with self._database.read() as session:
            return [LinkedObject(*columns) for columns in await session.execute(query)]

    async def get(self, repository_id: str, oid: str) -> LinkedObject:
        """One object that the repository has. Raises `ObjectMissing`."""
        async with self._database.read() as session:
            query = _linked(repository_id, trashed=False).where(LfsLink.oid == oid)
            columns = (await session.execute(query)).one_or_none()
        if columns is None:
            raise ObjectMissing("the repository has no such object", oid=oid)
        return LinkedObject(*columns)


def _linked(
    repository_id: str, *, trashed: bool
) -> Select[str, int, bool, datetime, datetime, datetime | None]:
    return (
        select(
            LfsObject.oid,
            LfsObject.size,
            LfsObject.damaged_at.is_not(None),
            LfsLink.created_at,
            LfsLink.touched_at,
            LfsLink.trashed_at,
        )
        .join(LfsLink, LfsLink.oid == LfsObject.oid)
        .where(LfsLink.repository_id == repository_id)
        .where(LfsLink.trashed_at.is_not(None) if trashed else LfsLink.trashed_at.is_(None))
    )


def _slices(oids: Collection[str]) -> Iterator[list[str]]:
    every = list(oids)
    for start in range(0, len(every), _AT_ONCE):
        yield every[start : start + _AT_ONCE]
