"""Uploads past this server: the client puts the bytes into the store itself, and says when they are there.

The URL is signed together with the object's size and sha256, so that the store refuses other bytes, and it is
dead from the moment in which `finish` has asked the store what it got. Only then the object becomes visible.
"""

import asyncio
from collections.abc import Iterable, Mapping

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from core.access import Actor
from core.database import Database
from core.models import LfsUpload, now
from lfs.errors import ObjectMissing, WrongBytes
from lfs.objects import new_key
from lfs.pending import is_given_up, take_up
from lfs.records import Place, hold_repository, insert_missing
from lfs.stores import Stores
from lfs.uploads import Uploads
from storage.protocol import MAX_PUT_BYTES, ObjectNotFound, SignedPut

# S3 signs it, and clients would otherwise send what they guess from the first bytes.
_CONTENT_TYPE = "application/octet-stream"


# To sign may take the store a round trip, and a batch has a thousand objects.
_SIGNED_AT_ONCE = 16


class DirectUploads:
    """One PUT for each object."""

    def __init__(self, database: Database, stores: Stores, uploads: Uploads) -> None:
        self._database = database
        self._stores = stores
        self._uploads = uploads

    async def begin_many(
        self, repository_id: str, objects: Iterable[tuple[str, int]], seconds: int
    ) -> dict[str, SignedPut]:
        """How to put each `(oid, size)` into the current store; the URLs are good for so many seconds.

        Asking again goes on with the same upload. Left out is what has to come through this server: larger
        than `MAX_PUT_BYTES`, on its way in parts already, or the store signs nothing. Room for
        what is to stay is the caller's to ask about.

        Raises:
            RepositoryNotFound: it was deleted meanwhile.
            QuotaExceeded: the owner has too much under way.
            StoreUnavailable, DatabaseUnavailable: try again.
        """
        sizes = {oid: size for oid, size in objects if size <= MAX_PUT_BYTES}
        if not sizes or not self._stores.current.signs:
            return {}
        places = list((await self._begin(repository_id, sizes)).items())
        signed: dict[str, SignedPut] = {}
        for start in range(0, len(places), _SIGNED_AT_ONCE):
            some = places[start : start + _SIGNED_AT_ONCE]
            found = await asyncio.gather(
                *(self._signed(key, oid, sizes[oid], seconds) for oid, key in some), return_exceptions=True
            )
            for (oid, _), put in zip(some, found, strict=True):
                if isinstance(put, BaseException):
                    raise put
                if put is not None:
                    signed[oid] = put
        return signed

    async def finish(self, repository_id: str, actor: Actor, oid: str, size: int) -> bool:
        """Makes the object visible if the store has its bytes; False: no such upload is under way.

        Raises:
            ObjectMissing: the store has not got these bytes; the same URL still takes them.
            WrongBytes: they are of another size than was announced, and dropped.
            Others as `Uploads.adopt`.
        """
        async with self._database.transaction() as session:
            upload = await take_up(session, repository_id, oid)
        if upload is None or upload.multipart_id:
            return False
        if upload.size != size:
            raise WrongBytes(f"{upload.size} bytes were announced, not {size}", oid=oid)
        try:
            found = await self._stores[upload.store].finish_put(upload.key, sha256=oid)
        except ObjectNotFound as error:
            raise ObjectMissing("the object store did not get it; upload it again", oid=oid) from error
        await self._uploads.adopt(
            repository_id,
            actor,
            oid,
            size,
            upload.store,
            upload.key,
            attested=(found.size, found.sha256) == (size, oid),
        )
        return True

    async def _signed(self, key: str, oid: str, size: int, seconds: int) -> SignedPut | None:
        return await self._stores.current.signed_put(
            key, seconds=seconds, sha256=oid, size=size, content_type=_CONTENT_TYPE
        )

    async def _begin(self, repository_id: str, sizes: Mapping[str, int]) -> dict[str, str]:
        """The key of each upload, of those that can be."""
        async with self._database.transaction() as session:
            repository = await hold_repository(session, repository_id)
            await self._uploads.quotas.reserve_waiting(session, repository.owner_id, repository_id, sizes)
            rows, replaced = await self._rows(session, repository_id, sizes)
        for place in replaced:
            await self._uploads.discard(place)
        return {row.oid: row.key for row in rows}

    async def _rows(
        self, session: AsyncSession, repository_id: str, sizes: Mapping[str, int]
    ) -> tuple[list[LfsUpload], list[Place]]:
        """Uploads to go on with, and the places of those that they replace."""
        kind = self._stores.current_kind
        fresh = [
            {
                "repository_id": repository_id,
                "oid": oid,
                "size": sizes[oid],
                "store": kind,
                "key": new_key(oid),
            }
            # In one order everywhere, so that two batches cannot wait for each other.
            for oid in sorted(sizes)
        ]
        await insert_missing(session, LfsUpload, fresh)
        query = (
            select(LfsUpload)
            .where(LfsUpload.repository_id == repository_id, LfsUpload.oid.in_(sizes))
            .order_by(LfsUpload.oid)
            .with_for_update()
        )
        rows: list[LfsUpload] = []
        replaced: list[Place] = []
        for row in await session.scalars(query):
            given_up = is_given_up(row)
            if row.multipart_id and not given_up:
                continue
            if given_up or row.size != sizes[row.oid] or row.store is not kind:
                if not given_up:  # else the sweeper has its bytes
                    replaced.append(Place(row.store, row.key))
                row.size, row.store, row.key = sizes[row.oid], kind, new_key(row.oid)
                row.multipart_id, row.part_bytes = "", 0
            row.touched_at = now()
            rows.append(row)
        return rows, replaced
