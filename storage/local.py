"""The object store in a local directory.

    <root>/data/<key>   the objects, read-only files
    <root>/parts/       objects that arrive in parts, see `storage.local_parts`
    <root>/tmp/         drafts; what a killed process left here is removed by `sweep_temp`

`root` must be one file system: a draft becomes an object by rename.
"""

import shutil
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import aclosing, asynccontextmanager, suppress
from itertools import islice
from pathlib import Path
from typing import TypeVar, TypeVarTuple

from core import failpoints
from storage.keys import check_key, check_prefix, check_range
from storage.local_files import Draft, Reader, describe, fetch, publish, remove, sweep, walk
from storage.local_parts import PartDraft, PartsDirectory, new_parts_id
from storage.parts import check_number, check_selection
from storage.probe import prove
from storage.protocol import (
    ObjectInfo,
    ObjectNotFound,
    PartsNotFound,
    SignatureReport,
    Signatures,
    SignedPut,
    StoredPart,
    StoreUnavailable,
)
from storage.streams import gathered, until_empty
from storage.threads import Threads

THREADS = 16
LIST_BATCH = 500
# Below this much room `check` fails: SQLite and the git cache often share the disk.
LOW_BYTES = 128 * 1024**2

# How much of a part one thread hop copies.
_COPY_BYTES = 64 * 1024**2

BEFORE_PUBLISH = failpoints.declare(
    "storage.parts.before-publish", "the parts lie together in a draft, their key does not exist"
)
AFTER_PUBLISH = failpoints.declare(
    "storage.parts.after-publish", "the key holds the whole, and its parts are still there"
)

T = TypeVar("T")
D = TypeVar("D", bound=Draft)
Ts = TypeVarTuple("Ts")


class LocalStore:
    """An `ObjectStore` on a local disk.

    `put_file` and `get_file` are hard links where the file system allows, so they cost nothing but an
    fsync; the file and the object are then one, and both are read-only by agreement.
    """

    def __init__(self, root: Path, *, low_bytes: int = LOW_BYTES) -> None:
        self._root = root.absolute()
        self._data = self._root / "data"
        self._parts = self._root / "parts"
        self._temp = self._root / "tmp"
        self._low_bytes = low_bytes
        self._threads = Threads("local-store", THREADS)

    def local_path(self, key: str) -> Path:
        """Where the object is, or would be; for sendfile and the like. Never write to it."""
        return self._data / check_key(key)

    async def put(self, key: str, data: AsyncIterator[bytes]) -> int:
        target = self.local_path(key)
        async with self._draft(Draft) as draft:
            await self._fill(draft, data)
            await self._publish(draft, target)
        return draft.size

    async def put_file(self, key: str, path: Path) -> int:
        target = self.local_path(key)
        # Outside of `_run`: a missing source is the caller's error, not the store's.
        size = (await self._threads.run(path.stat)).st_size
        async with self._draft(Draft) as draft:
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

    async def begin_parts(self, key: str) -> str:
        parts_id = new_parts_id()
        directory = self._directory(key, parts_id)
        await self._run(self._prepare)
        await self._run(directory.begin)
        return parts_id

    async def put_part(self, key: str, parts_id: str, number: int, data: AsyncIterator[bytes]) -> StoredPart:
        directory = self._directory(key, parts_id)
        check_number(number)
        async with self._draft(PartDraft) as draft:
            await self._fill(draft, data)
            await self._run(draft.seal)
            return await self._run(directory.publish, draft, number)

    async def list_parts(self, key: str, parts_id: str) -> Sequence[StoredPart]:
        return await self._run(self._directory(key, parts_id).list)

    async def complete_parts(self, key: str, parts_id: str, parts: Sequence[StoredPart]) -> int:
        """Where the file system cannot share blocks, this needs room for the object once more."""
        directory = self._directory(key, parts_id)
        check_selection(parts)
        async with self._draft(Draft) as draft:
            await self._run(draft.create)
            for part in parts:
                await self._append(draft, directory, part)
            failpoints.reach(BEFORE_PUBLISH)
            await self._run(draft.finish)
            await self._run(self._end_parts, directory, draft, self.local_path(key))
        return draft.size

    async def abort_parts(self, key: str, parts_id: str) -> None:
        try:
            directory = self._directory(key, parts_id)
        except PartsNotFound:
            return
        await self._run(self._prepare)
        await self._run(directory.drop)

    @property
    def signs(self) -> bool:
        return False

    async def examine_signatures(self) -> SignatureReport:
        return SignatureReport(Signatures.CHECKED, "it is out of reach of clients")

    async def signed_get(self, key: str, *, seconds: int, filename: str | None = None) -> str | None:
        check_key(key)
        return None

    async def signed_part(
        self, key: str, parts_id: str, number: int, *, seconds: int, size: int
    ) -> str | None:
        check_key(key)
        return None

    async def signed_put(
        self, key: str, *, seconds: int, sha256: str, size: int, content_type: str
    ) -> SignedPut | None:
        check_key(key)
        return None

    async def finish_put(self, key: str, *, sha256: str) -> ObjectInfo:
        check_key(key)
        raise ObjectNotFound("nothing can be put past this server")

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

    async def sweep_parts(self, older_than_seconds: float) -> int:
        return await self._run(sweep, self._parts, older_than_seconds)

    async def close(self) -> None:
        await self._threads.close()

    @asynccontextmanager
    async def _draft(self, kind: type[D]) -> AsyncIterator[D]:
        """A draft that is gone again when the body does not succeed."""
        await self._run(self._prepare)
        draft = kind(self._temp)
        try:
            yield draft
        except BaseException:
            # The first error is the one to tell; a draft that cannot be removed now is swept later.
            with suppress(StoreUnavailable):
                await self._run(draft.discard)
            raise

    async def _fill(self, draft: Draft, data: AsyncIterator[bytes]) -> None:
        await self._run(draft.create)
        async with aclosing(gathered(data)) as groups:
            async for group in groups:
                await self._run(draft.write, group)

    async def _append(self, draft: Draft, directory: PartsDirectory, part: StoredPart) -> None:
        reader = directory.reader(part)
        try:
            await self._run(reader.open)
            for offset in range(0, reader.size, _COPY_BYTES):
                await self._run(reader.copy, draft, offset, _COPY_BYTES)
        finally:
            reader.close()

    def _directory(self, key: str, parts_id: str) -> PartsDirectory:
        return PartsDirectory(self._parts, self._temp, check_key(key), parts_id)

    async def _publish(self, draft: Draft, target: Path) -> None:
        # Two calls, because the fsync is the long one and may still be cancelled in time.
        await self._run(draft.finish)
        await self._run(publish, draft.path, target, self._root)

    def _end_parts(self, directory: PartsDirectory, draft: Draft, target: Path) -> None:
        with directory.held():
            publish(draft.path, target, self._root)
            failpoints.reach(AFTER_PUBLISH)
            directory.drop()

    def _prepare(self) -> None:
        self._root.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._data.mkdir(exist_ok=True)
        self._parts.mkdir(exist_ok=True)
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
