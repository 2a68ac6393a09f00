"""The rows that make bytes an object of a repository. Everything here runs in the caller's transaction."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from core.errors import RepositoryNotFound
from core.models import Base, LfsLink, LfsObject, Repository, StoreKind, now
from core.upsert import insert_into
from lfs.pending import take_up


@dataclass(frozen=True, slots=True)
class Place:
    """Where bytes lie: which store, and the key there."""

    store: StoreKind
    key: str


async def hold_repository(session: AsyncSession, repository_id: str) -> Repository:
    """The repository; until the transaction ends nobody deletes, moves or prunes it.

    Raises:
        RepositoryNotFound: it was deleted meanwhile.
    """
    repository = await session.get(
        Repository, repository_id, with_for_update={"read": True}, populate_existing=True
    )
    if repository is None:
        raise RepositoryNotFound("no such repository")
    return repository


async def record_object(
    session: AsyncSession, oid: str, size: int, place: Place, *, doubted: Place | None
) -> Place | None:
    """Makes `oid` an object with verified bytes at `place`, unless it is one already and is sound.

    Bytes at `doubted`, and those of a damaged object, are replaced. Returns the place that no row names now
    and whose bytes may go: `place` itself, or that of the bytes it replaced. The row is locked afterwards.
    """
    row = await _insert_or_lock(session, oid, size, place)
    former = Place(row.store, row.key)
    left: Place | None = None
    if former != place:
        if row.damaged_at is None and former != doubted:
            left = place
        else:
            row.store, row.key, row.verified_at = place.store, place.key, now()
            left = former
    row.damaged_at = row.unlinked_at = None
    return left


async def record_link(session: AsyncSession, repository_id: str, oid: str) -> None:
    """Lets the repository reach the object, whose row is locked; from the trash if it was there."""
    link = await session.get(LfsLink, (repository_id, oid), populate_existing=True)
    if link is None:
        session.add(LfsLink(repository_id=repository_id, oid=oid))
    else:
        link.touched_at, link.trashed_at = now(), None


async def is_linked(session: AsyncSession, repository_id: str, oid: str) -> bool:
    """Whether the repository reaches a sound object of this name."""
    query = (
        select(LfsLink.oid)
        .join(LfsObject, LfsObject.oid == LfsLink.oid)
        .where(LfsLink.repository_id == repository_id, LfsLink.oid == oid)
        .where(LfsLink.trashed_at.is_(None), LfsObject.damaged_at.is_(None))
    )
    return await session.scalar(query) is not None


async def end_upload(session: AsyncSession, repository_id: str, oid: str, key: str) -> bool:
    """Forgets that bytes were on their way to this key; False if they are not, or a sweeper has begun.

    In the transaction that makes them an object, or else a sweeper would take them for abandoned.
    """
    upload = await take_up(session, repository_id, oid)
    if upload is None or upload.key != key:
        return False
    await session.delete(upload)
    return True


async def insert_missing(session: AsyncSession, kind: type[Base], values: Sequence[dict[str, Any]]) -> None:
    """Adds the rows that collide with none, and waits for whoever adds one of the others at this moment."""
    await session.execute(insert_into(session, kind).on_conflict_do_nothing(), values)


async def _insert_or_lock(session: AsyncSession, oid: str, size: int, place: Place) -> LfsObject:
    values = {"oid": oid, "size": size, "store": place.store, "key": place.key}
    while True:
        # Afterwards there is a row to lock, unless a collector deleted it in between.
        await insert_missing(session, LfsObject, [values])
        row: LfsObject | None = await session.get(
            LfsObject, oid, with_for_update=True, populate_existing=True
        )
        if row is not None:
            return row
