"""The object store in a local directory.

    <root>/data/<key>   the objects, read-only files
    <root>/tmp/         drafts; what a killed process left here is removed by `sweep_temp`

`root` must be one file system: a draft becomes an object by rename.
"""

import shutil
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import aclosing, asynccontextmanager, suppress
from itertools import islice
from pathlib import Path
from typing import TypeVar, TypeVarTuple

from storage.keys import check_key, check_prefix, check_range
from storage.local_files import Draft, Reader, describe, fetch, publish, remove, sweep, walk
from storage.probe import prove
from storage.protocol import ObjectInfo, StoreUnavailable
from storage.streams import gathered, until_empty
from storage.threads import Threads

THREADS = 16
LIST_BATCH = 500
# Below this much room `check` fails: SQLite and the git cache often share the disk.
LOW_BYTES = 128 * 1024**2

T = TypeVar("T")
Ts = TypeVarTuple("Ts")


class LocalStore:
    """An `ObjectStore` on a local disk.

    `put_file` and `get_file` are hard links where the file system allows, so they cost nothing but an
    fsync; the file and the object are then one, and both are read-only by agreement.
    """

    def __init__(self, root: Path, *, low_bytes: int = LOW_BYTES) -> None:
        self._root = root.absolute()
        self._data = self._root / "data"
        self._temp = self._root / "tmp"
        self._low_bytes = low_bytes
        self._threads = Threads("local-store", THREADS)

    def local_path(self, key: str) -> Path:
        """Where the object is, or would be; for sendfile and the like. Never write to it."""
        return self._data / check_key(key)

    async def put(self, key: str, data: AsyncIterator[bytes]) -> int:
        target = self.local_path(key)
        async with self._draft() as draft:
            await self._run(draft.create)
            async with aclosing(gathered(data)) as groups:
                async for group in groups:
                    await self._run(draft.write, group)
            await self._publish(draft, target)
        return draft.size

    async def put_file(self, key: str, path: Path) -> int:
        target = self.local_path(key)
        # Outside of `_run`: a missing source is the caller's error, not the store's.
        size = (await self._threads.run(path.stat)).st_size
        async with self._draft() as draft:
            await self._run(draft.link, path)
            await self._publish(draft, target)
        return size

    @asynccontextmanager
    async def open(
        self, key: str, *, offset: int = 0, length: int | None = None
    ) -> AsyncIterator[AsyncIterator[bytes]]:
        check_range(offset, length)
        reader = Reader(self.local_path(key), offset, length)
        try:
            await self._run(reader.open)
            async with aclosing(until_empty(lambda: self._run(reader.read))) as chunks:
                yield chunks
        finally:
            reader.close()

    async def get_file(self, key: str, path: Path) -> None:
        await self._run(fetch, self.local_path(key), path)

    async def stat(self, key: str) -> ObjectInfo:
        return await self._run(describe, self.local_path(key), key)

    async def delete(self, key: str) -> None:
        await self._run(remove, self.local_path(key), self._data)

    async def list(self, prefix: str) -> AsyncIterator[ObjectInfo]:
        objects = walk(self._data / check_prefix(prefix), prefix)
        while batch := await self._run(_take, objects):
            for item in batch:
                yield item

    async def signed_get(self, key: str, *, seconds: int) -> str | None:
        check_key(key)
        return None

    async def signed_put(self, key: str, *, seconds: int) -> str | None:
        check_key(key)
        return None

    async def check(self) -> None:
        await self._run(self._prepare)
        usage = await self._run(shutil.disk_usage, self._root)
        if usage.free < self._low_bytes:
            raise StoreUnavailable(
                f"the object store is almost full: {usage.free // 1024**2} MiB left",
                free_bytes=usage.free,
            )
        await prove(self)

    async def sweep_temp(self, older_than_seconds: float) -> int:
        return await self._run(sweep, self._temp, older_than_seconds)

    async def close(self) -> None:
        await self._threads.close()

    @asynccontextmanager
    async def _draft(self) -> AsyncIterator[Draft]:
        """A draft that is gone again when the body does not succeed."""
        await self._run(self._prepare)
        draft = Draft(self._temp)
        try:
            yield draft
        except BaseException:
            # The first error is the one to tell; a draft that cannot be removed now is swept later.
            with suppress(StoreUnavailable):
                await self._run(draft.discard)
            raise

    async def _publish(self, draft: Draft, target: Path) -> None:
        # Two calls, because the fsync is the long one and may still be cancelled in time.
        await self._run(draft.finish)
        await self._run(publish, draft.path, target, self._root)

    def _prepare(self) -> None:
        self._root.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._data.mkdir(exist_ok=True)
        self._temp.mkdir(exist_ok=True)

    async def _run(self, function: Callable[[*Ts], T], *args: *Ts) -> T:
        """Calls a function of `storage.local_files` in a thread; here its `OSError` is translated."""
        try:
            return await self._threads.run(function, *args)
        except OSError as error:
            reason = error.strerror or type(error).__name__
            raise StoreUnavailable(f"the object store cannot be used: {reason}") from error


def _take(objects: Iterator[ObjectInfo]) -> list[ObjectInfo]:
    return list(islice(objects, LIST_BATCH))
