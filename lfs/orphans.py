"""Bytes in the stores that no row names: what crashes, lost races and moves between stores leave behind.

Keys are random and never used twice, so what is judged here cannot come back to life.
"""

import re
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum

import structlog
from sqlalchemy import select

from core.database import Database
from core.models import LfsObject, LfsUpload, StoreKind, now
from core.settings import MaintenanceSettings
from lfs.links import MAX_LINK_SECONDS
from lfs.stores import Stores
from storage.protocol import ObjectInfo, ObjectStore

log = structlog.get_logger(__name__)

PREFIX = "lfs/"

_BATCH = 500
# As `lfs.objects.new_key` makes them; anything else below the prefix is not ours to delete.
_KEY = re.compile(r"lfs/[0-9a-f]{2}/[0-9a-f]{2}/([0-9a-f]{64})\.[0-9a-f]{16}")
# A link to the key that an object had before it moved may still be in somebody's hands.
_LINK_LIFE = timedelta(seconds=MAX_LINK_SECONDS)


class Claim(StrEnum):
    """What a key in a store is to the database."""

    OBJECT = "object"
    UPLOAD = "unfinished_upload"
    FOREIGN = "foreign"  # not of our making; never deleted
    REPLACED = "replaced"  # the object lies elsewhere now, and links to this place may still be good
    YOUNG = "young_orphan"
    ORPHAN = "orphan"


@dataclass(frozen=True, slots=True)
class Swept:
    """How much went, in objects and bytes of the stores."""

    objects: int = 0
    bytes: int = 0


class Orphans:
    """Finds and deletes them, in every configured store. Any number may sweep at once."""

    def __init__(self, database: Database, stores: Stores, settings: MaintenanceSettings) -> None:
        self._database = database
        self._stores = stores
        self._age = timedelta(seconds=settings.orphan_seconds)

    async def sweep(self, *, orphan_seconds: float | None = None) -> Swept:
        """Deletes orphans that are older than the settings say, unless given here.

        The age must exceed the time between the last byte of an upload and the commit of its row.

        Raises:
            StoreUnavailable, DatabaseUnavailable: the rest is left to the next pass; nothing is deleted that
                was not asked about.
        """
        age = self._age if orphan_seconds is None else timedelta(seconds=orphan_seconds)
        objects = size = 0
        for kind in self._stores.kinds():
            store = self._stores[kind]
            async for batch in batches(store):
                claims = await self.claims(kind, batch, age=age)
                for info in batch:
                    if claims[info.key] is Claim.ORPHAN:
                        await store.delete(info.key)
                        objects, size = objects + 1, size + info.size
        if objects:
            log.info("lfs.orphans.swept", objects=objects, bytes=size)
        return Swept(objects, size)

    async def claims(
        self, kind: StoreKind, batch: Sequence[ObjectInfo], *, age: timedelta | None = None
    ) -> dict[str, Claim]:
        """What each of these keys of one store is, in one snapshot of the database."""
        names = {info.key: match[1] for info in batch if (match := _KEY.fullmatch(info.key))}
        async with self._database.read() as session:
            rows = await session.execute(
                select(LfsObject.oid, LfsObject.store, LfsObject.key, LfsObject.verified_at).where(
                    LfsObject.oid.in_(set(names.values()))
                )
            )
            objects = {oid: (store, key, verified_at) for oid, store, key, verified_at in rows}
            uploads = await session.execute(
                select(LfsUpload.store, LfsUpload.key).where(LfsUpload.key.in_(names))
            )
            uploading = {(store, key) for store, key in uploads}
        moment = now()
        cutoff = moment - (self._age if age is None else age)

        def claim(info: ObjectInfo) -> Claim:
            if info.key not in names:
                return Claim.FOREIGN
            if (kind, info.key) in uploading:
                return Claim.UPLOAD
            store, key, verified_at = objects.get(names[info.key], (None, "", None))
            if (store, key) == (kind, info.key):
                return Claim.OBJECT
            if verified_at is not None and verified_at > moment - _LINK_LIFE:
                return Claim.REPLACED
            return Claim.YOUNG if info.modified > cutoff else Claim.ORPHAN

        return {info.key: claim(info) for info in batch}


async def batches(store: ObjectStore) -> AsyncIterator[list[ObjectInfo]]:
    """What a store holds of large files, some hundreds at a time."""
    batch: list[ObjectInfo] = []
    async for info in store.list(PREFIX):
        batch.append(info)
        if len(batch) == _BATCH:
            yield batch
            batch = []
    if batch:
        yield batch
