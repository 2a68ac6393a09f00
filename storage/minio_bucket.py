"""The bucket behind the MinIO store: names, calls in threads, and what errors mean."""

import time
from collections.abc import Callable
from typing import TypeVar, TypeVarTuple
from xml.etree.ElementTree import ParseError

from minio import Minio
from minio.error import MinioException, S3Error
from urllib3.exceptions import HTTPError

from core.errors import SettingsError
from core.settings import StorageSettings
from storage.keys import check_key
from storage.minio_http import connections
from storage.minio_settings import check_settings
from storage.protocol import ObjectNotFound, StoreUnavailable
from storage.threads import Threads

THREADS = 32

_WRITE_ATTEMPTS = 6
_WRITE_PAUSE_SECONDS = 0.02

T = TypeVar("T")
Ts = TypeVarTuple("Ts")


class Bucket:
    """`[storage] bucket`, below `[storage] prefix`. `client` blocks: use it in what `run` calls."""

    def __init__(self, settings: StorageSettings) -> None:
        """Touches no network. Raises `SettingsError`."""
        check_settings(settings)
        self.name = settings.bucket
        self.prefix = settings.prefix.rstrip("/") + "/" if settings.prefix else ""
        self._connections = connections(2 * THREADS)
        try:
            self.client = Minio(
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

    def object_name(self, key: str) -> str:
        """What S3 calls it. Raises `ValueError` for what is no key."""
        return self.prefix + check_key(key)

    async def run(self, function: Callable[[*Ts], T], *args: *Ts) -> T:
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

    async def run_plainly(self, function: Callable[[*Ts], T], *args: *Ts) -> T:
        """In a thread as `run`, for what is not the store's: errors stay as they are."""
        return await self._threads.run(function, *args)

    def ensure(self) -> None:
        """Blocking: creates the bucket if it is missing."""
        if self.client.bucket_exists(self.name):
            return
        try:
            self.client.make_bucket(self.name)
        except S3Error as error:
            if error.code not in {"BucketAlreadyOwnedByYou", "BucketAlreadyExists"}:
                raise

    async def close(self) -> None:
        await self._threads.close()
        self._connections.clear()


def insist(write: Callable[[], T]) -> T:
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


def require_etag(etag: str | None) -> str:
    """S3 may say 200 and put an error into the body, and a proxy in between may say 200 to anything."""
    if not etag:
        raise StoreUnavailable("the object store did not complete the upload")
    return etag


def code_of(error: S3Error) -> str:
    """An answer to HEAD has no body: the SDK guesses "NoSuchKey", MinIO says the code in a header."""
    return error.response.headers.get("x-minio-error-code") or error.code or ""


def _translated(error: S3Error) -> Exception:
    code = code_of(error)
    if code == "NoSuchKey":
        return ObjectNotFound("there is no such object")
    if code == "XMinioParentIsObject":
        return ValueError("a key cannot be an object and a directory of others")
    return StoreUnavailable(f"the object store refused: {code}", store_code=code)
