"""Moving large files from one store to the other, while everything is being served."""

from collections.abc import Callable
from contextlib import aclosing
from dataclasses import dataclass, field

import structlog
from sqlalchemy import func, select, update

from core import failpoints
from core.access import Actor
from core.audit import Action, record
from core.database import Database
from core.models import LfsObject, LfsUpload, StoreKind, now
from lfs.checking import checked
from lfs.errors import WrongBytes
from lfs.objects import new_key
from lfs.stores import Stores
from lfs.walking import each_object
from storage.protocol import ObjectNotFound

log = structlog.get_logger(__name__)

BEFORE_COPY = failpoints.declare("lfs.migrate.before-copy", "an object is chosen, nothing of it is copied")
AFTER_COPY = failpoints.declare(
    "lfs.migrate.after-copy", "the copy is stored and verified, the row names the old place"
)
AFTER_SWITCH = failpoints.declare(
    "lfs.migrate.after-switch", "the row names the copy, the old bytes are there"
)

_AT_ONCE = 2


@dataclass(slots=True)
class Moved:
    """What was moved. Of `failed`, by oid, the reason; those are where they were.

    `left` objects and `uploads` under way are still in another store at the end.
    """

    objects: int = 0
    bytes: int = 0
    failed: dict[str, str] = field(default_factory=dict)
    left: int = 0
    uploads: int = 0


class Relocation:
    """Copies object by object: hashed on the way, under a new key, and only then is the row switched.

    Whatever stops it, each object is whole in one place; run it again for the rest. The old bytes stay for a
    week, because links to them may still be in use, and are then swept as orphans.
    """

    def __init__(self, database: Database, stores: Stores) -> None:
        self._database = database
        self._stores = stores

    async def run(
        self, actor: Actor, target: StoreKind, *, progress: Callable[[Moved], None] | None = None
    ) -> Moved:
        """Moves every object that is in another store to `target`.

        Raises:
            StoreUnavailable, DatabaseUnavailable: one does not answer, or a store is not configured; what
                was moved is moved.
        """
        await self._stores[target].check()
        moved = Moved()

        async def work(row: LfsObject) -> None:
            try:
                if await self._move(row, target):
                    moved.objects += 1
                    moved.bytes += row.size
            except (WrongBytes, ObjectNotFound) as error:
                if await self._is_there(row):  # else it was collected, replaced or moved meanwhile
                    # Damaged: `lfs fsck` says so in the row, and the next upload replaces it.
                    moved.failed[row.oid] = error.message
                    log.warning("lfs.migrate.failed", oid=row.oid, error=error.message)
            if progress is not None:
                progress(moved)

        await each_object(self._database, [LfsObject.store != target], work, at_once=_AT_ONCE)
        async with self._database.transaction() as session:
            elsewhere = select(func.count()).where(LfsObject.store != target)
            moved.left = await session.scalar(elsewhere) or 0
            uploads = select(func.count()).where(LfsUpload.store != target)
            moved.uploads = await session.scalar(uploads) or 0
            record(
                session,
                actor,
                Action.LFS_MIGRATE,
                "large files",
                to=target,
                objects=moved.objects,
                bytes=moved.bytes,
                failed=len(moved.failed),
            )
        return moved

    async def _is_there(self, row: LfsObject) -> bool:
        """Whether the object is still said to be in that place."""
        async with self._database.read() as session:
            current = await session.get(LfsObject, row.oid)
        return current is not None and (current.store, current.key) == (row.store, row.key)

    async def _move(self, row: LfsObject, target: StoreKind) -> bool:
        """False if the object was deleted or replaced meanwhile."""
        failpoints.reach(BEFORE_COPY)
        key = new_key(row.oid)
        async with (
            self._stores[row.store].open(row.key) as chunks,
            aclosing(checked(chunks, row.oid, row.size)) as whole,
        ):
            await self._stores[target].put(key, whole)
        failpoints.reach(AFTER_COPY)
        async with self._database.transaction() as session:
            switched = await session.scalars(
                update(LfsObject)
                .where(LfsObject.oid == row.oid, LfsObject.store == row.store, LfsObject.key == row.key)
                # The time tells the orphan sweep how long the old key may still be asked for.
                .values(store=target, key=key, verified_at=now(), damaged_at=None)
                .returning(LfsObject.oid)
                .execution_options(synchronize_session=False)
            )
            done = switched.one_or_none() is not None
        failpoints.reach(AFTER_SWITCH)
        if not done:
            await self._stores[target].delete(key)
        return done
