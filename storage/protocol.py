"""What Modelyard asks of an object store."""

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Protocol

from core.errors import NotFound, Unavailable

CHUNK_BYTES = 256 * 1024


class ObjectNotFound(NotFound):
    """No object has this key."""

    code = "object_not_found"


class StoreUnavailable(Unavailable):
    """The store could not be reached or refused to work; the operation may be tried again."""

    code = "store_unavailable"


@dataclass(frozen=True, slots=True)
class ObjectInfo:
    """One stored object. `modified` is aware UTC."""

    key: str
    size: int
    modified: datetime


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

    async def signed_get(self, key: str, *, seconds: int) -> str | None:
        """An absolute URL that serves this object to anyone for `seconds`; None when the store has none."""
        ...

    async def signed_put(self, key: str, *, seconds: int) -> str | None:
        """An absolute URL that accepts a PUT of this object, also a second one, for `seconds`.

        The store checks nothing about the bytes. None when the store has no such URLs.
        """
        ...

    async def sweep_temp(self, older_than_seconds: float) -> int:
        """Removes what killed writers left behind, untouched for so long; returns how many.

        Longer than any upload may pause. 0 where the store does that by itself.
        """
        ...

    async def check(self) -> None:
        """Proves that the store can be written, read and deleted from now. Raises `StoreUnavailable`."""
        ...

    async def close(self) -> None:
        """Lets go of connections and threads; open streams end with an error."""
        ...
