"""Whether an S3 service checks the signatures of writes that come from outside, found out by forging some.

The last MinIO does not look at the signature in the query of a PUT whose headers announce a body with
unsigned trailers. A presigned URL tells an access key, a bucket and a key, so whoever has seen one can
overwrite any key that he knows. Nothing but the attack itself shows whether that works: a proxy in front may
refuse the header, and another version or service may check.
"""

import asyncio
import base64
import hashlib
import secrets
import ssl
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from uuid import uuid4

from urllib3 import PoolManager, Timeout
from urllib3.exceptions import HTTPError

from storage.minio_bucket import Bucket
from storage.minio_signing import Signer
from storage.probe import PROBE_PREFIX
from storage.protocol import ObjectNotFound, ObjectStore, SignatureReport, Signatures, StoreUnavailable

CONNECT_SECONDS = 3.0
ANSWER_SECONDS = 5.0
# For everything; requests that are under way then still end by themselves.
EXAMINE_SECONDS = 30.0

_BODY = b"probe"
_SUM = base64.b64encode(hashlib.sha256(_BODY).digest())
# With a status of another kind nobody has said no: a proxy that is restarting must not pass for a safe one.
_NO = frozenset({400, 401, 403, 405})
_SIGNED_SECONDS = 60

_TRAILER_HEADERS = {
    "content-encoding": "aws-chunked",
    "x-amz-content-sha256": "STREAMING-UNSIGNED-PAYLOAD-TRAILER",
    "x-amz-decoded-content-length": str(len(_BODY)),
    "x-amz-trailer": "x-amz-checksum-sha256",
}
_TRAILER_BODY = b"%x\r\n%b\r\n0\r\nx-amz-checksum-sha256:%b\r\n\r\n" % (len(_BODY), _BODY, _SUM)


@dataclass(frozen=True, slots=True)
class _Write:
    """A way to write `_BODY`, and what is wrong with a service that takes it."""

    forge: Callable[[str], str]  # from a signed URL
    fault: str
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = _BODY


def _badly_signed(url: str) -> str:
    return f"{url.rpartition('=')[0]}={secrets.token_hex(32)}"


_FORGED = (
    _Write(_badly_signed, "it takes unsigned trailers for a signature", _TRAILER_HEADERS, _TRAILER_BODY),
    _Write(_badly_signed, "it does not check signatures"),
    _Write(lambda url: url.partition("?")[0], "its bucket takes writes from anybody"),
)
_SIGNED = _Write(lambda url: url, "")


class ForgeryProbe:
    """Writes to random keys through the public endpoint, and looks for them with `store`."""

    def __init__(self, store: ObjectStore, bucket: Bucket, signer: Signer) -> None:
        self._store = store
        self._bucket = bucket
        self._signer = signer

    async def run(self) -> SignatureReport:
        """Raises nothing: what keeps it from finding out is the reason of `UNKNOWN`."""
        try:
            async with asyncio.timeout(EXAMINE_SECONDS):
                return await self._examine()
        except TimeoutError:
            return SignatureReport(Signatures.UNKNOWN, f"it is busy for {EXAMINE_SECONDS:.0f} seconds")
        except StoreUnavailable as error:
            return SignatureReport(Signatures.UNKNOWN, error.message)

    async def _examine(self) -> SignatureReport:
        for write in _FORGED:
            outcome, arrived = await self._try(write)
            if arrived:
                return SignatureReport(Signatures.IGNORED, write.fault)
            if outcome not in _NO:
                return SignatureReport(Signatures.UNKNOWN, f"to a forged write {_said(outcome)}")
        # Only now it means something that they did not arrive: by the same way, a signed one does.
        outcome, arrived = await self._try(_SIGNED)
        if not arrived:
            return SignatureReport(Signatures.UNKNOWN, f"to a signed write {_said(outcome)}")
        return SignatureReport(Signatures.CHECKED, "it refuses forged writes")

    async def _try(self, write: _Write) -> tuple[int | str, bool]:
        """The status, or what went wrong before there was one; and whether the object is there now."""
        key = PROBE_PREFIX + uuid4().hex
        name = self._bucket.object_name(key)
        url = await self._bucket.run(partial(self._signer.sign, "PUT", name, _SIGNED_SECONDS))
        try:
            outcome = await self._bucket.run_plainly(_put, write.forge(url), write)
            return outcome, await self._is_there(key)
        finally:
            with suppress(StoreUnavailable):  # it would hide that we are cancelled
                await self._store.delete(key)

    async def _is_there(self, key: str) -> bool:
        try:
            await self._store.stat(key)
        except ObjectNotFound:
            return False
        return True


def _put(url: str, write: _Write) -> int | str:
    """Blocking. As a client that has never been here: with no connection, credentials or second try."""
    with PoolManager(ssl_context=ssl.create_default_context()) as pool:
        try:
            answer = pool.request(
                "PUT",
                url,
                body=write.body,
                headers=write.headers,
                timeout=Timeout(connect=CONNECT_SECONDS, read=ANSWER_SECONDS),
                retries=False,
                preload_content=False,
            )
        except (HTTPError, OSError) as error:
            return type(error).__name__
        answer.close()
        return answer.status


def _said(outcome: int | str) -> str:
    return f"it answers {outcome}" if isinstance(outcome, int) else f"it gives no answer ({outcome})"
