"""The object store on MinIO or anything else that speaks S3."""

import asyncio
import io
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager, suppress
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TypeVar, TypeVarTuple

from minio.datatypes import Object

from core.settings import StorageSettings
from storage.keys import check_prefix, check_range
from storage.local_files import Draft
from storage.minio_bucket import Bucket
from storage.minio_forgeries import ForgeryProbe
from storage.minio_parts import Parts, check_id
from storage.minio_puts import Puts, stat_summed, whole_sha256
from storage.minio_signing import Signer, attachment, length
from storage.minio_transfer import Download, Upload
from storage.parts import check_number, check_selection
from storage.probe import prove
from storage.protocol import (
    CHUNK_BYTES,
    ObjectInfo,
    ObjectNotFound,
    SignatureReport,
    Signatures,
    SignedPut,
    StoredPart,
    StoreUnavailable,
)
from storage.spool import Spool
from storage.streams import gathered, until_empty

LIST_BATCH = 1000

_FETCH_BYTES = 8 * 1024**2

T = TypeVar("T")
Ts = TypeVarTuple("Ts")


class MinioStore:
    """An `ObjectStore` in a bucket, below `[storage] prefix`.

    An upload holds at most one part in memory, and a thread only while a part is being sent: slow clients
    do not use up the threads. The parts that `put` makes have `[storage] part_bytes`, and grow to 1 GiB with
    streams of more than 900 parts (`storage.minio_transfer`). Parts of an upload that a killed process or a
    lost connection left behind are invisible; MinIO drops them after a day, other servers need a lifecycle
    rule for that.
    """

    def __init__(self, settings: StorageSettings) -> None:
        self._bucket = Bucket(settings)
        self._signer = Signer(settings, self._bucket)
        self._puts = Puts(self._bucket, self._signer)
        self._part_bytes = settings.part_bytes
        self._examining = asyncio.Lock()
        self._signatures: SignatureReport | None = None

    async def put(self, key: str, data: AsyncIterator[bytes]) -> int:
        upload = Upload(self._bucket, self._bucket.object_name(key), self._part_bytes)
        size = 0
        part, room = io.BytesIO(), upload.room
        try:
            async for piece in data:
                size += len(piece)
                rest = memoryview(piece)
                while rest:
                    if not room:
                        await self._run(upload.add, part.getvalue())
                        part, room = io.BytesIO(), upload.room
                    taken = part.write(rest[:room])
                    room -= taken
                    rest = rest[taken:]
            await self._run(upload.finish, part.getvalue())
        except BaseException:
            # The first error is the one to tell; what cannot be aborted now, the server drops in time.
            with suppress(StoreUnavailable):
                await self._run(upload.abort)
            raise
        return size

    async def put_file(self, key: str, path: Path) -> int:
        self._bucket.object_name(key)
        # Not through `run`: a source that cannot be read is the caller's error, not the store's.
        file = await self._bucket.run_plainly(path.open, "rb")
        try:
            pieces = until_empty(lambda: self._bucket.run_plainly(file.read, 4 * CHUNK_BYTES))
            async with aclosing(pieces) as data:
                return await self.put(key, data)
        finally:
            file.close()

    @asynccontextmanager
    async def open(
        self, key: str, *, offset: int = 0, length: int | None = None
    ) -> AsyncIterator[AsyncIterator[bytes]]:
        check_range(offset, length)
        download = Download(self._bucket, self._bucket.object_name(key))
        try:
            await self._run(download.start, offset, length)
            async with aclosing(until_empty(lambda: self._run(download.read, CHUNK_BYTES))) as chunks:
                yield chunks
        finally:
            download.close()

    async def get_file(self, key: str, path: Path) -> None:
        download = Download(self._bucket, self._bucket.object_name(key))
        draft = Draft(path.parent)
        try:
            await self._run(download.start, 0, None)
            await self._run(draft.create)
            while await self._run(download.copy, draft, _FETCH_BYTES):
                pass
            await self._run(draft.finish)
            await self._run(draft.path.replace, path)
        except BaseException:
            with suppress(StoreUnavailable):
                await self._run(draft.discard)
            raise
        finally:
            download.close()

    async def stat(self, key: str) -> ObjectInfo:
        return self._describe(await self._run(stat_summed, self._bucket, self._bucket.object_name(key)))

    async def delete(self, key: str) -> None:
        name = self._bucket.object_name(key)
        with suppress(ObjectNotFound):  # S3 never says so, some of its imitations do
            await self._run(self._bucket.client.remove_object, self._bucket.name, name)

    async def list(self, prefix: str) -> AsyncIterator[ObjectInfo]:
        objects = self._bucket.client.list_objects(
            self._bucket.name, prefix=self._bucket.prefix + check_prefix(prefix), recursive=True
        )
        while batch := await self._run(_take, objects):
            for item in batch:
                yield self._describe(item)

    async def begin_parts(self, key: str) -> str:
        return await self._run(self._parts(key).begin)

    async def put_part(self, key: str, parts_id: str, number: int, data: AsyncIterator[bytes]) -> StoredPart:
        parts = self._parts(key)
        check_number(number)
        spool = Spool()
        try:
            async with aclosing(gathered(data)) as groups:
                async for group in groups:
                    await self._run(spool.write, group)
            return await self._run(parts.upload, parts_id, number, spool)
        finally:
            spool.close()

    async def list_parts(self, key: str, parts_id: str) -> Sequence[StoredPart]:
        return [found.part for found in await self._run(self._parts(key).list, parts_id)]

    async def complete_parts(self, key: str, parts_id: str, parts: Sequence[StoredPart]) -> int:
        stored = self._parts(key)
        check_selection(parts)
        await self._run(stored.complete, parts_id, parts)
        return (await self.stat(key)).size

    async def abort_parts(self, key: str, parts_id: str) -> None:
        await self._run(self._parts(key).abort, parts_id)

    @property
    def signs(self) -> bool:
        return True

    async def examine_signatures(self) -> SignatureReport:
        async with self._examining:
            if self._signatures is not None:
                return self._signatures
            found = await ForgeryProbe(self, self._bucket, self._signer).run()
            if found.signatures is not Signatures.UNKNOWN:
                self._signatures = found
            return found

    async def signed_get(self, key: str, *, seconds: int, filename: str | None = None) -> str | None:
        query = {} if filename is None else {"response-content-disposition": attachment(filename)}
        return await self._signed("GET", key, seconds, query)

    async def signed_part(
        self, key: str, parts_id: str, number: int, *, seconds: int, size: int
    ) -> str | None:
        query = {"partNumber": str(check_number(number)), "uploadId": check_id(parts_id)}
        return await self._signed("PUT", key, seconds, query, length(size))

    async def signed_put(
        self, key: str, *, seconds: int, sha256: str, size: int, content_type: str
    ) -> SignedPut | None:
        name = self._bucket.object_name(key)
        return await self._run(self._puts.begin, name, seconds, sha256, size, content_type)

    async def finish_put(self, key: str, *, sha256: str) -> ObjectInfo:
        found = await self._run(self._puts.finish, self._bucket.object_name(key), sha256)
        return replace(self._describe(found), sha256=sha256)

    async def sweep_temp(self, older_than_seconds: float) -> int:
        return 0  # uploads that were never completed are ended by the server's own housekeeping

    async def sweep_parts(self, older_than_seconds: float) -> int:
        return 0  # these, too

    async def check(self) -> None:
        await self._run(self._bucket.ensure)
        await prove(self)

    async def close(self) -> None:
        await self._bucket.close()

    async def _signed(
        self,
        method: str,
        key: str,
        seconds: int,
        query: Mapping[str, str],
        headers: Mapping[str, str] | None = None,
    ) -> str:
        name = self._bucket.object_name(key)
        sign = partial(self._signer.sign, method, name, seconds, query=query, headers=headers)
        return await self._run(sign)

    async def _run(self, function: Callable[[*Ts], T], *args: *Ts) -> T:
        return await self._bucket.run(function, *args)

    def _parts(self, key: str) -> Parts:
        return Parts(self._bucket, self._bucket.object_name(key))

    def _describe(self, found: Object) -> ObjectInfo:
        return ObjectInfo(
            key=(found.object_name or "").removeprefix(self._bucket.prefix),
            size=found.size or 0,
            modified=found.last_modified or datetime.fromtimestamp(0, UTC),
            sha256=whole_sha256(found),
        )


def _take(objects: Iterator[Object]) -> list[Object]:
    return list(islice(objects, LIST_BATCH))
