"""What Modelyard asks of an object store."""

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import Protocol

from core.errors import Conflict, NotFound, Unavailable

CHUNK_BYTES = 256 * 1024
# What S3 allows in one object, one PUT and one part; every part but the last has the minimum.
MAX_PARTS = 10_000
MAX_PUT_BYTES = 5 * 1024**3
MIN_PART_BYTES = 5 * 1024**2


class ObjectNotFound(NotFound):
    """No object has this key."""

    code = "object_not_found"


class StoreUnavailable(Unavailable):
    """The store could not be reached or refused to work; the operation may be tried again."""

    code = "store_unavailable"


class PartsNotFound(NotFound):
    """These parts were completed, aborted or swept, or never begun."""

    code = "parts_not_found"


class PartsRejected(Conflict):
    """What was to be completed is not what is stored, or the store does not take it so."""

    code = "parts_rejected"


@dataclass(frozen=True, slots=True)
class ObjectInfo:
    """One stored object. `modified` is aware UTC.

    `sha256` is lower-case hex, and only there when the store itself computed it from the whole object;
    `list` never gives it.
    """

    key: str
    size: int
    modified: datetime
    sha256: str | None = None


@dataclass(frozen=True, slots=True)
class StoredPart:
    """A part as the store has it; `etag` is without quotes, and another one for other bytes."""

    number: int
    size: int
    etag: str


@dataclass(frozen=True, slots=True)
class SignedPut:
    """Where to PUT, and the headers that the client must send exactly so."""

    url: str
    headers: Mapping[str, str]


class Signatures(StrEnum):
    """Whether a store looks at the signatures of the URLs that it has signed."""

    CHECKED = "checked"
    IGNORED = "ignored"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class SignatureReport:
    """`reason` says how that was found out, or why not, as the rest of a sentence about the store."""

    signatures: Signatures
    reason: str


class ObjectStore(Protocol):
    """A flat map from key to immutable bytes.

    Keys are relative POSIX paths of `[A-Za-z0-9._-]` segments (`storage.keys` has the limits); any other
    key raises `ValueError` before the store is touched. A key must not be a directory of another one
    (`a` and `a/b`): a store may refuse the second with `ValueError`.

    A `put` that returned is durable. One that raised, was cancelled or was killed leaves nothing that a
    reader can see, or, when that came after the last byte was stored, the whole object; never a part.
    Putting a key again replaces it at once.

    Every method may raise `StoreUnavailable`.
    """

    async def put(self, key: str, data: AsyncIterator[bytes]) -> int:
        """Stores the stream durably and returns its size in bytes.

        An exception from `data` passes through and nothing is stored.
        """
        ...

    async def put_file(self, key: str, path: Path) -> int:
        """Stores a finished file durably. The caller promises never to change its bytes again."""
        ...

    def open(
        self, key: str, *, offset: int = 0, length: int | None = None
    ) -> AbstractAsyncContextManager[AsyncIterator[bytes]]:
        """Streams `length` bytes from `offset` (to the end when None), in chunks of at most `CHUNK_BYTES`.

        Raises `ObjectNotFound` on entry. An offset past the end yields nothing.
        """
        ...

    async def get_file(self, key: str, path: Path) -> None:
        """Makes `path`, which must not exist, hold the object; the caller must not write to it.

        It appears by rename or link: complete or not at all. Raises `ObjectNotFound`.
        """
        ...

    async def stat(self, key: str) -> ObjectInfo:
        """Raises `ObjectNotFound`."""
        ...

    async def delete(self, key: str) -> None:
        """Deletes the object; a missing one is not an error."""
        ...

    def list(self, prefix: str) -> AsyncIterator[ObjectInfo]:
        """Lists the objects whose key starts with `prefix` (`""` or ending in `/`), in key order.

        Streams; may miss or include objects written or deleted meanwhile.
        """
        ...

    async def begin_parts(self, key: str) -> str:
        """Begins an object that arrives in parts, in any order and in parallel; returns what names them.

        Nothing is visible under `key` before `complete_parts`. The name is good for this key only. Parts live
        until they are completed, aborted or swept: a local directory by `sweep_parts`, MinIO by itself one
        day after the beginning (its `stale_uploads_expiry`), other S3 servers by a lifecycle rule.
        """
        ...

    async def put_part(self, key: str, parts_id: str, number: int, data: AsyncIterator[bytes]) -> StoredPart:
        """Stores part `number` (1 to `MAX_PARTS`) durably, in place of an earlier one of that number.

        An exception from `data` passes through and changes nothing. S3 wants every part but the last to be
        `MIN_PART_BYTES` or more, and says so only at completion; behind this server a part is held in memory
        there while it travels.

        Raises:
            PartsNotFound: also when they were completed while the part was on its way; it changed nothing.
            ValueError: no part can have this number.
        """
        ...

    async def list_parts(self, key: str, parts_id: str) -> Sequence[StoredPart]:
        """The stored parts by number. Raises `PartsNotFound`."""
        ...

    async def complete_parts(self, key: str, parts_id: str, parts: Sequence[StoredPart]) -> int:
        """Makes `key` the concatenation of these parts, drops all parts, and returns the size in bytes.

        Killed or cancelled, it leaves nothing under `key` or the whole object; in the latter case asking
        again makes the same object or raises `PartsNotFound`, so then ask `stat`. Nobody looked at the bytes.

        Raises:
            PartsNotFound: there are none of this name.
            PartsRejected: another etag than is stored, a part that is not, numbers that do not ascend, no
                part at all, or parts too small for the store. The parts stay as they are.
        """
        ...

    async def abort_parts(self, key: str, parts_id: str) -> None:
        """Drops the parts; missing ones are not an error."""
        ...

    @property
    def signs(self) -> bool:
        """Whether it has URLs that skip this server; else everything called `signed_` returns None."""
        ...

    async def examine_signatures(self) -> SignatureReport:
        """Whether clients can be let at this store: by writing to it, as they could, what nobody signed.

        Asks the public endpoint, and leaves nothing there. What was found out holds for the life of the store
        object; while it is unknown, as when the endpoint is out of reach from here, each call tries again.
        Raises nothing, and takes a minute at most where it usually takes milliseconds.
        """
        ...

    async def signed_get(self, key: str, *, seconds: int, filename: str | None = None) -> str | None:
        """An absolute URL that serves this object to anyone for `seconds` (a week at most).

        With `filename` browsers save it under that name. None when the store has no such URLs.
        """
        ...

    async def signed_part(
        self, key: str, parts_id: str, number: int, *, seconds: int, size: int
    ) -> str | None:
        """An absolute URL that accepts a PUT of one part for `seconds`, and answers with its ETag.

        Good until the parts are completed or aborted, and for any `size` bytes: the store refuses another
        `Content-Length`. None when the store has none.
        """
        ...

    async def signed_put(
        self, key: str, *, seconds: int, sha256: str, size: int, content_type: str
    ) -> SignedPut | None:
        """A PUT of `size` bytes that the store itself refuses unless they have this sha256.

        `size` is `MAX_PUT_BYTES` at most, and the `Content-Length` that the store insists on.

        It makes nothing visible: `finish_put` does, and from then on the URL is dead, so that nobody who has
        it can touch the object again. Any number of URLs may be out for one key, not to be mixed with other
        ways to write it. Good for `seconds`, and for a day on MinIO, as parts are. None when the store has no
        such URLs.
        """
        ...

    async def finish_put(self, key: str, *, sha256: str) -> ObjectInfo:
        """Makes visible what came by `signed_put`, with `ObjectInfo.sha256`; again when it is already.

        Raises `ObjectNotFound` while no bytes of this sha256 have come: the URLs then go on to work.
        """
        ...

    async def sweep_temp(self, older_than_seconds: float) -> int:
        """Removes what killed writers left behind, untouched for so long; returns how many.

        Longer than any upload may pause. 0 where the store does that by itself. Parts are left alone.
        """
        ...

    async def sweep_parts(self, older_than_seconds: float) -> int:
        """Drops the sets of parts that got no new part for so long; returns how many.

        Longer than anybody may want to go on with one. 0 where the store does that by itself.
        """
        ...

    async def check(self) -> None:
        """Proves that the store can be written, read and deleted from now. Raises `StoreUnavailable`."""
        ...

    async def close(self) -> None:
        """Lets go of connections and threads; open streams end with an error."""
        ...
