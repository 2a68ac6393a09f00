"""Reading an object that a repository has, wherever its bytes lie."""

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

from lfs.errors import ObjectDamaged, ObjectMissing
from lfs.objects import Objects, StoredObject
from lfs.stores import Stores
from storage.local import LocalStore
from storage.protocol import ObjectNotFound, ObjectStore, StoreUnavailable

_DAMAGED = "the object was damaged in the store; whoever has it can upload it again"


class Download:
    """One object, ready to be sent.

    Attributes:
        descriptor: an open file with exactly these bytes, where the store has one; the caller neither moves
            its position nor closes it.
    """

    def __init__(self, stored: StoredObject, store: ObjectStore, descriptor: int | None) -> None:
        self.oid = stored.oid
        self.size = stored.size
        self.descriptor = descriptor
        self._key = stored.key
        self._store = store

    def open(
        self, *, offset: int = 0, length: int | None = None
    ) -> AbstractAsyncContextManager[AsyncIterator[bytes]]:
        """The bytes, as `ObjectStore.open`."""
        return self._store.open(self._key, offset=offset, length=length)


class Downloads:
    """Finds objects by repository: without a live link there is none (invariant I7)."""

    def __init__(self, objects: Objects, stores: Stores) -> None:
        self._objects = objects
        self._stores = stores

    async def find(self, repository_id: str, oid: str) -> StoredObject:
        """Where the object is, proven to be there in full length.

        Raises:
            ObjectMissing: the repository does not have it.
            ObjectDamaged: it had, but the bytes are gone or were changed.
            StoreUnavailable: the store does not answer.
        """
        stored = await self._live(repository_id, oid)
        if not await self._is_whole(stored):
            # It may have been moved to another store between the two questions.
            before, stored = stored, await self._live(repository_id, oid)
            if stored == before or not await self._is_whole(stored):
                raise ObjectDamaged(_DAMAGED, oid=oid)
        return stored

    @asynccontextmanager
    async def open(self, repository_id: str, oid: str) -> AsyncIterator[Download]:
        """The object, to be sent within the block. Raises as `find`."""
        stored = await self.find(repository_id, oid)
        store = self._stores[stored.store]
        if not isinstance(store, LocalStore):
            yield Download(stored, store, None)
            return
        descriptor = await _opened(store.local_path(stored.key))
        try:
            yield Download(stored, store, descriptor)
        finally:
            os.close(descriptor)

    async def _live(self, repository_id: str, oid: str) -> StoredObject:
        stored = (await self._objects.find(repository_id, [oid])).get(oid)
        if stored is None:
            raise ObjectMissing("the repository has no such object", oid=oid)
        if stored.damaged:
            raise ObjectDamaged(_DAMAGED, oid=oid)
        return stored

    async def _is_whole(self, stored: StoredObject) -> bool:
        try:
            info = await self._stores[stored.store].stat(stored.key)
        except ObjectNotFound:
            return False
        return info.size == stored.size


async def _opened(path: Path) -> int:
    """A descriptor for reading; not lost when the caller is cancelled meanwhile."""
    loop = asyncio.get_running_loop()
    opening = loop.run_in_executor(None, os.open, path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return await asyncio.shield(opening)
    except FileNotFoundError as error:
        raise ObjectDamaged(_DAMAGED) from error
    except OSError as error:
        raise StoreUnavailable(f"the object store cannot be used: {error.strerror}") from error
    except asyncio.CancelledError:
        opening.add_done_callback(_close)  # the thread cannot be stopped
        raise


def _close(opening: asyncio.Future[int]) -> None:
    if not opening.cancelled() and opening.exception() is None:
        os.close(opening.result())
