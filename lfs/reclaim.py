"""Objects that no repository has a link to: their time, and their end.

First the row goes, in a transaction that proves that no link exists, then the bytes. An upload of the same
content in between stores it under another key, so what is deleted here is never what somebody just stored.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

import structlog
from sqlalchemy import delete, exists, select, update

from core import failpoints
from core.access import SYSTEM
from core.audit import Action, record
from core.database import Database
from core.models import LfsLink, LfsObject, now
from lfs.stores import Stores
from storage.protocol import StoreUnavailable

log = structlog.get_logger(__name__)

BEFORE_PURGE = failpoints.declare(
    "lfs.gc.before-purge", "objects without a link are old enough to go, and their rows are still there"
)
AFTER_ROW = failpoints.declare("lfs.gc.after-row", "the rows are gone, the bytes are not")
AFTER_KEY = failpoints.declare("lfs.gc.after-key", "the bytes of the first object are gone as well")

_BATCH = 100
# Whether any repository has a link to an object, be it in the trash.
LINKED = exists().where(LfsLink.oid == LfsObject.oid)


@dataclass(frozen=True, slots=True)
class Purged:
    """What went for good. Of `left` the rows are gone, and the orphan sweep will delete the bytes."""

    objects: int = 0
    bytes: int = 0
    left: int = 0


class Reclaimer:
    """Deletes objects that have been without a link for long enough."""

    def __init__(self, database: Database, stores: Stores) -> None:
        self._database = database
        self._stores = stores

    async def note(self) -> int:
        """Starts the clock of objects that have lost their last link; returns how many."""
        async with self._database.transaction() as session:
            # A link that came while the last collection looked may have missed its clearing.
            await session.execute(
                update(LfsObject)
                .where(LfsObject.unlinked_at.is_not(None), LINKED)
                .values(unlinked_at=None)
                .execution_options(synchronize_session=False)
            )
            found = await session.scalars(
                update(LfsObject)
                .where(LfsObject.unlinked_at.is_(None), ~LINKED)
                .values(unlinked_at=now())
                .returning(LfsObject.oid)
                .execution_options(synchronize_session=False)
            )
            return len(found.all())

    async def purge(self, age: timedelta) -> Purged:
        """Deletes what has had no link for `age`, in stores that are configured."""
        objects = size = left = 0
        cutoff, after = now() - age, ""
        while batch := await self._candidates(cutoff, after):
            after = batch[-1]
            failpoints.reach(BEFORE_PURGE)
            gone = await self._forget(batch, cutoff)
            failpoints.reach(AFTER_ROW)
            for one in gone:
                objects, size = objects + 1, size + one.size
                try:
                    await self._stores[one.store].delete(one.key)
                except StoreUnavailable as error:
                    left += 1
                    log.warning("lfs.gc.key_left", key=one.key, error=error.message)
                failpoints.reach(AFTER_KEY)
        return Purged(objects, size, left)

    async def _candidates(self, cutoff: datetime, after: str) -> Sequence[str]:
        query = (
            select(LfsObject.oid)
            .where(
                LfsObject.unlinked_at < cutoff,
                LfsObject.oid > after,
                LfsObject.store.in_(self._stores.kinds()),
            )
            .order_by(LfsObject.oid)
            .limit(_BATCH)
        )
        async with self._database.read() as session:
            return (await session.scalars(query)).all()

    async def _forget(self, oids: Sequence[str], cutoff: datetime) -> list[LfsObject]:
        async with self._database.transaction() as session:
            # The lock holds off new links, which refer to the row; a second statement then sees all others.
            rows = await session.scalars(
                select(LfsObject)
                .where(LfsObject.oid.in_(oids), LfsObject.unlinked_at < cutoff)
                .order_by(LfsObject.oid)
                .with_for_update()
            )
            objects = {row.oid: row for row in rows}
            linked = set(
                await session.scalars(select(LfsLink.oid).where(LfsLink.oid.in_(objects)).distinct())
            )
            for oid in linked:
                objects.pop(oid).unlinked_at = None
            if objects:
                await session.execute(
                    delete(LfsObject)
                    .where(LfsObject.oid.in_(objects))
                    .execution_options(synchronize_session=False)
                )
                size = sum(one.size for one in objects.values())
                record(session, SYSTEM, Action.LFS_PURGE, "large files", objects=len(objects), bytes=size)
            gone = list(objects.values())
            for one in gone:
                session.expunge(one)
            return gone
