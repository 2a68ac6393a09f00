"""The object store on MinIO or anything else that speaks S3."""

import io
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import aclosing, asynccontextmanager, suppress
from datetime import UTC, datetime, timedelta
from itertools import islice
from pathlib import Path
from typing import TypeVar, TypeVarTuple
from xml.etree.ElementTree import ParseError

from minio import Minio
from minio.datatypes import Object, Part
from minio.error import MinioException, S3Error
from urllib3.exceptions import HTTPError
from urllib3.response import BaseHTTPResponse

from core.errors import SettingsError
from core.settings import StorageSettings
from storage.keys import check_key, check_prefix, check_range
from storage.local_files import Draft
from storage.minio_http import connections
from storage.minio_settings import MIN_PART_BYTES, check_settings
from storage.probe import prove
from storage.protocol import CHUNK_BYTES, ObjectInfo, ObjectNotFound, StoreUnavailable
from storage.streams import until_empty
from storage.threads import Threads

THREADS = 32
LIST_BATCH = 1000
MAX_SIGNED_SECONDS = 7 * 24 * 3600  # what S3 allows

_WRITE_ATTEMPTS = 6
_WRITE_PAUSE_SECONDS = 0.02
_FETCH_BYTES = 8 * 1024**2

T = TypeVar("T")
Ts = TypeVarTuple("Ts")


class MinioStore:
    """An `ObjectStore` in a bucket, below `[storage] prefix`.

    An upload holds at most one part in memory, and a thread only while a part is being sent: slow clients
    do not use up the threads. Parts of an upload that a killed process or a lost connection left behind
    are invisible; MinIO drops them after a day, other servers need a lifecycle rule for that.
    """

    def __init__(self, settings: StorageSettings) -> None:
        check_settings(settings)
        self._bucket = settings.bucket
        self._prefix = settings.prefix.rstrip("/") + "/" if settings.prefix else ""
        self._part_bytes = settings.part_bytes
        self._connections = connections(2 * THREADS)
        try:
            self._client = Minio(
                settings.endpoint,
                access_key=settings.access_key,
                secret_key=settings.secret_key,
                secure=settings.secure,
                region=settings.region or None,
                http_client=self._connections,
            )
        except ValueError as error:
            raise SettingsError(f"[storage] endpoint or region: {error}") from error
        self._threads = Threads("minio-store", THREADS)

    async def put(self, key: str, data: AsyncIterator[bytes]) -> int:
        upload = _Upload(self._client, self._bucket, self._name(key))
        size = 0
        part = io.BytesIO()
        try:
            async for piece in data:
                size += len(piece)
                rest = memoryview(piece)
                while rest:
                    if part.tell() == self._part_bytes:
                        await self._run(upload.add, part.getvalue())
                        part = io.BytesIO()
                    room = self._part_bytes - part.tell()
                    part.write(rest[:room])
                    rest = rest[room:]
            await self._run(upload.finish, part.getvalue())
        except BaseException:
            # The first error is the one to tell; what cannot be aborted now, the server drops in time.
            with suppress(StoreUnavailable):
                await self._run(upload.abort)
            raise
        return size

    async def put_file(self, key: str, path: Path) -> int:
        self._name(key)
        # Not through `_run`: a source that cannot be read is the caller's error, not the store's.
        file = await self._threads.run(path.open, "rb")
        try:
            async with aclosing(until_empty(lambda: self._threads.run(file.read, 4 * CHUNK_BYTES))) as data:
                return await self.put(key, data)
        finally:
            file.close()

    @asynccontextmanager
    async def open(
        self, key: str, *, offset: int = 0, length: int | None = None
    ) -> AsyncIterator[AsyncIterator[bytes]]:
        check_range(offset, length)
        download = _Download(self._client, self._bucket, self._name(key))
        try:
            await self._run(download.start, offset, length)
            async with aclosing(until_empty(lambda: self._run(download.read, CHUNK_BYTES))) as chunks:
                yield chunks
        finally:
            download.close()

    async def get_file(self, key: str, path: Path) -> None:
        download = _Download(self._client, self._bucket, self._name(key))
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
        found = await self._run(self._client.stat_object, self._bucket, self._name(key))
        return self._describe(found)

    async def delete(self, key: str) -> None:
        with suppress(ObjectNotFound):  # S3 never says so, some of its imitations do
            await self._run(self._client.remove_object, self._bucket, self._name(key))

    async def list(self, prefix: str) -> AsyncIterator[ObjectInfo]:
        objects = self._client.list_objects(
            self._bucket, prefix=self._prefix + check_prefix(prefix), recursive=True
        )
        while batch := await self._run(_take, objects):
            for item in batch:
                yield self._describe(item)

    async def signed_get(self, key: str, *, seconds: int) -> str | None:
        return await self._signed("GET", key, seconds)

    async def signed_put(self, key: str, *, seconds: int) -> str | None:
        return await self._signed("PUT", key, seconds)

    async def sweep_temp(self, older_than_seconds: float) -> int:
        return 0  # multipart uploads that were never completed are ended by the server's own housekeeping

    async def check(self) -> None:
        await self._run(self._ensure_bucket)
        await prove(self)

    async def close(self) -> None:
        await self._threads.close()
        self._connections.clear()

    async def _signed(self, method: str, key: str, seconds: int) -> str:
        lifetime = timedelta(seconds=min(seconds, MAX_SIGNED_SECONDS))
        return await self._run(
            self._client.get_presigned_url, method, self._bucket, self._name(key), lifetime
        )

    def _ensure_bucket(self) -> None:
        if self._client.bucket_exists(self._bucket):
            return
        try:
            self._client.make_bucket(self._bucket)
        except S3Error as error:
            if error.code not in {"BucketAlreadyOwnedByYou", "BucketAlreadyExists"}:
                raise

    def _name(self, key: str) -> str:
        return self._prefix + check_key(key)

    def _describe(self, found: Object) -> ObjectInfo:
        return ObjectInfo(
            key=(found.object_name or "").removeprefix(self._prefix),
            size=found.size or 0,
            modified=found.last_modified or datetime.fromtimestamp(0, UTC),
        )

    async def _run(self, function: Callable[[*Ts], T], *args: *Ts) -> T:
        """Calls the SDK in a thread; here its errors are translated."""
        try:
            return await self._threads.run(function, *args)
        except S3Error as error:
            raise _translated(error) from error
        except (MinioException, HTTPError, ParseError, UnicodeDecodeError) as error:
            raise StoreUnavailable("the object store cannot be reached") from error
        except OSError as error:
            # Of a socket, or of the local file that `get_file` writes.
            reason = error.strerror or type(error).__name__
            raise StoreUnavailable(f"the object store cannot be used: {reason}") from error


class _Upload:
    """Blocking: one object, in one request or in parts."""

    def __init__(self, client: Minio, bucket: str, name: str) -> None:
        self._client = client
        self._bucket = bucket
        self._name = name
        self._id: str | None = None
        self._parts: list[Part] = []

    def add(self, body: bytes) -> None:
        # The SDK's public upload pulls from a file object and so would hold a thread for as long as the
        # sender takes; hence its four multipart calls, which the contract suite exercises.
        if self._id is None:
            self._id = _insist(lambda: self._client._create_multipart_upload(self._bucket, self._name, {}))
        number = len(self._parts) + 1
        etag = self._client._upload_part(self._bucket, self._name, body, None, self._id, number)
        self._parts.append(Part(number, etag))

    def finish(self, body: bytes) -> None:
        """Sends the last bytes; the object is visible from now."""
        if self._id is None:
            _require_etag(_insist(lambda: self._put_whole(body)))
            return
        self.add(body)
        arguments = (self._bucket, self._name, self._id, self._parts)
        _require_etag(_insist(lambda: self._client._complete_multipart_upload(*arguments)).etag)
        self._id = None

    def abort(self) -> None:
        if self._id is not None:
            self._client._abort_multipart_upload(self._bucket, self._name, self._id)

    def _put_whole(self, body: bytes) -> str | None:
        part_size = max(len(body), MIN_PART_BYTES)
        stored = self._client.put_object(
            self._bucket, self._name, io.BytesIO(body), len(body), part_size=part_size
        )
        return stored.etag


class _Download:
    """Blocking: the body of one object; empty until it is started."""

    def __init__(self, client: Minio, bucket: str, name: str) -> None:
        self._client = client
        self._bucket = bucket
        self._name = name
        self._response: BaseHTTPResponse | None = None

    def start(self, offset: int, length: int | None) -> None:
        if length == 0:  # to the SDK a length of 0 means the rest of the object
            self._client.stat_object(self._bucket, self._name)
            return
        try:
            self._response = self._client.get_object(self._bucket, self._name, offset, length or 0)
        except S3Error as error:
            if error.code != "InvalidRange":  # an offset past the end yields nothing
                raise

    def read(self, amount: int) -> bytes:
        return self._response.read(amount) if self._response is not None else b""

    def copy(self, draft: Draft, amount: int) -> bool:
        """Copies about `amount` bytes; False at the end."""
        for _ in range(0, amount, CHUNK_BYTES):
            chunk = self.read(CHUNK_BYTES)
            if not chunk:
                return False
            draft.write([chunk])
        return True

    def close(self) -> None:
        """Drops the connection when bytes are still to come; a finished one is in the pool already."""
        if self._response is not None:
            self._response.close()
            self._response.release_conn()


def _insist(write: Callable[[], T]) -> T:
    """Repeats a write that MinIO denies for a moment.

    MinIO keeps keys as directories and removes those that a delete empties; a write that is about to use
    one is then answered "AccessDenied", as if it were a matter of rights.
    """
    for _ in range(_WRITE_ATTEMPTS - 1):
        try:
            return write()
        except S3Error as error:
            if error.code != "AccessDenied":
                raise
            time.sleep(_WRITE_PAUSE_SECONDS)
    return write()


def _require_etag(etag: str | None) -> None:
    # S3 may say 200 and put an error into the body, and a proxy in between may say 200 to anything.
    if not etag:
        raise StoreUnavailable("the object store did not complete the upload")


def _take(objects: Iterator[Object]) -> list[Object]:
    return list(islice(objects, LIST_BATCH))


def _translated(error: S3Error) -> Exception:
    # An answer to HEAD has no body: the SDK guesses "NoSuchKey", MinIO says the code in a header.
    code = error.response.headers.get("x-minio-error-code") or error.code
    if code == "NoSuchKey":
        return ObjectNotFound("there is no such object")
    if code == "XMinioParentIsObject":
        return ValueError("a key cannot be an object and a directory of others")
    return StoreUnavailable(f"the object store refused: {code}", store_code=code)
