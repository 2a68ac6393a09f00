"""Uploads past this server, or in parts, that nobody goes on with."""

from datetime import datetime, timedelta

import structlog
from sqlalchemy import delete, select, update

from core import failpoints
from core.database import Database
from core.models import LfsObject, LfsUpload, now
from core.settings import LfsSettings
from lfs.pending import GIVEN_UP
from lfs.stores import Stores
from storage.protocol import StoreUnavailable

log = structlog.get_logger(__name__)

AFTER_MARK = failpoints.declare(
    "lfs.abandoned.after-mark", "an abandoned upload is marked, its bytes are there"
)
AFTER_BYTES = failpoints.declare("lfs.abandoned.after-bytes", "its bytes are deleted, its row is there")

_BATCH = 500
# Parts that no row names any more, left by a crash, go this much later than those that a row names.
_PARTS_GRACE = timedelta(days=1)


class AbandonedUploads:
    """Drops them with their bytes. Any number may sweep at once."""

    def __init__(self, database: Database, stores: Stores, settings: LfsSettings) -> None:
        self._database = database
        self._stores = stores
        self._age = timedelta(days=settings.upload_days)

    async def sweep(self) -> int:
        """Drops what was not touched for `[lfs] upload_days`; returns how many uploads went.

        A day later so do parts that no row names. What a store out of reach has stays for the next pass,
        and does not keep the rest.

        Raises:
            DatabaseUnavailable: the rest is left to the next pass.
        """
        cutoff = now() - self._age
        dropped, last = 0, ""
        while batch := await self._stale(cutoff, last):
            for upload in batch:
                last = upload.id
                try:
                    dropped += await self._drop(upload, cutoff)
                except StoreUnavailable as error:
                    log.warning("lfs.abandoned.kept", upload_id=upload.id, error=error.message)
        if dropped:
            log.info("lfs.abandoned.swept", uploads=dropped)
        await self._sweep_parts()
        return dropped

    async def _sweep_parts(self) -> None:
        age = (self._age + _PARTS_GRACE).total_seconds()
        for kind in self._stores.kinds():
            try:
                swept = await self._stores[kind].sweep_parts(age)
            except StoreUnavailable as error:
                log.warning("lfs.abandoned.parts_kept", store=kind.value, error=error.message)
            else:
                if swept:
                    log.info("lfs.abandoned.parts_swept", store=kind.value, sets=swept)

    async def _stale(self, cutoff: datetime, last: str) -> list[LfsUpload]:
        query = (
            select(LfsUpload)
            .where(LfsUpload.touched_at < cutoff, LfsUpload.id > last)
            .order_by(LfsUpload.id)
            .limit(_BATCH)
        )
        async with self._database.read() as session:
            return list(await session.scalars(query))

    async def _drop(self, upload: LfsUpload, cutoff: datetime) -> bool:
        """First the mark, so that nobody completes it any more; last the row, so that a crash is mended."""
        this = (LfsUpload.id == upload.id, LfsUpload.key == upload.key)
        mark = update(LfsUpload).where(*this, LfsUpload.touched_at < cutoff).values(touched_at=GIVEN_UP)
        async with self._database.transaction() as session:
            if await session.scalar(mark.returning(LfsUpload.id)) is None:
                return False  # somebody goes on with it after all
            named = await session.scalar(select(LfsObject.oid).where(LfsObject.key == upload.key))
        failpoints.reach(AFTER_MARK)
        store = self._stores[upload.store]
        if upload.multipart_id:
            await store.abort_parts(upload.key, upload.multipart_id)
        if named is None:
            await store.delete(upload.key)
        failpoints.reach(AFTER_BYTES)
        async with self._database.transaction() as session:
            await session.execute(delete(LfsUpload).where(*this))
        return True
