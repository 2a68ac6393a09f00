"""Sources for parsers' threads: objects in the object store by ranges, and blobs of Git."""

import asyncio
import tempfile
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Coroutine
from concurrent.futures import CancelledError, Future
from contextlib import asynccontextmanager
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self, TypeVar

from core.errors import ModelyardError
from hooks.errors import ContentMissing
from hooks.formats.source import SourceUnreadable, TooMuchRead
from storage.protocol import ObjectStore

T = TypeVar("T")

# Reads are widened to whole blocks, of which the last ones are kept: headers are read in small steps.
BLOCK_BYTES = 64 * 1024
_BLOCKS_KEPT = 64
# Longer reads gain nothing from blocks.
_LONG_READ = 1024**2
# What widening may cost over what was asked for: a thousand places that have nothing to do with each other,
# as the tensors in an ONNX file, between which are their weights.
_WIDENED = 1024 * BLOCK_BYTES

# A blob has no random access: to reach so far into one, all before it is inflated into a temporary file.
REACH_BYTES = 256 * 1024**2


class Bridge:
    """Lets a thread wait for coroutines of the event loop, as long as the block runs."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._tasks: set[asyncio.Task[Any]] = set()
        self._closed = False

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._closed = True
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def call(self, start: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """What the coroutine returns or raises. Never call it in the event loop.

        Raises:
            SourceUnreadable: the block has ended.
        """
        if self._closed:
            raise SourceUnreadable("nobody waits for this any more")
        answer: Future[T] = Future()
        self._loop.call_soon_threadsafe(self._start, start, answer)
        try:
            return answer.result()
        except CancelledError as error:
            raise SourceUnreadable("nobody waits for this any more") from error

    def _start(self, start: Callable[[], Coroutine[Any, Any, T]], answer: Future[T]) -> None:
        if self._closed:
            answer.cancel()
            return

        def finish(task: asyncio.Task[T]) -> None:
            self._tasks.discard(task)
            if task.cancelled():
                answer.cancel()
            elif (error := task.exception()) is not None:
                answer.set_exception(error)
            else:
                answer.set_result(task.result())

        task = self._loop.create_task(start())
        self._tasks.add(task)
        task.add_done_callback(finish)


class _Counted:
    """A file of known size, of which only so much may be read."""

    def __init__(self, size: int, allowance: int) -> None:
        self._size = size
        self._allowance = allowance
        self._asked = 0

    @property
    def size(self) -> int:
        return self._size

    def _count(self, offset: int, length: int) -> int:
        """How much of this there is; it counts. Raises `TooMuchRead`."""
        length = max(0, min(length, self._size - offset))
        self._asked += length
        if offset < 0 or self._asked > self._allowance:
            raise TooMuchRead
        return length


class MemorySource(_Counted):
    """Bytes in memory."""

    def __init__(self, data: bytes, allowance: int) -> None:
        super().__init__(len(data), allowance)
        self._data = data

    def read(self, offset: int, length: int) -> bytes:
        length = self._count(offset, length)
        return self._data[offset : offset + length]


class StoreSource(_Counted):
    """An object in a store, read by ranges.

    Attributes:
        fetched: how many bytes were asked of the store.
    """

    def __init__(self, bridge: Bridge, store: ObjectStore, key: str, size: int, allowance: int) -> None:
        super().__init__(size, allowance)
        self._bridge = bridge
        self._store = store
        self._key = key
        self._blocks: OrderedDict[int, bytes] = OrderedDict()
        self.fetched = 0

    def read(self, offset: int, length: int) -> bytes:
        length = self._count(offset, length)
        if length >= _LONG_READ:
            return self._fetch(offset, length)
        if not length:
            return b""
        numbers = range(offset // BLOCK_BYTES, (offset + length - 1) // BLOCK_BYTES + 1)
        missing = [number for number in numbers if number not in self._blocks]
        if missing:
            self._bring(missing[0], missing[-1])
        for number in numbers:
            self._blocks.move_to_end(number)
        data = b"".join(map(self._blocks.__getitem__, numbers))
        while len(self._blocks) > _BLOCKS_KEPT:
            self._blocks.popitem(last=False)
        start = offset - numbers.start * BLOCK_BYTES
        return data[start : start + length]

    def _bring(self, first: int, last: int) -> None:
        start = first * BLOCK_BYTES
        data = self._fetch(start, min((last + 1) * BLOCK_BYTES, self._size) - start)
        for number in range(first, last + 1):
            at = number * BLOCK_BYTES - start
            self._blocks[number] = data[at : at + BLOCK_BYTES]

    def _fetch(self, offset: int, length: int) -> bytes:
        self.fetched += length
        if self.fetched > self._allowance + _WIDENED:
            raise TooMuchRead
        return self._bridge.call(lambda: self._load(offset, length))

    async def _load(self, offset: int, length: int) -> bytes:
        try:
            async with self._store.open(self._key, offset=offset, length=length) as chunks:
                data = b"".join([chunk async for chunk in chunks])
        except ModelyardError as error:
            raise SourceUnreadable(error.message) from error
        if len(data) != length:
            raise SourceUnreadable("the object store has less of it than it should")
        return data


class StreamSource(_Counted):
    """A file that can only be read from its start to its end; what has come is kept in a temporary file."""

    def __init__(
        self,
        bridge: Bridge,
        next_chunk: Callable[[], Coroutine[Any, Any, bytes]],
        size: int,
        allowance: int,
        spool: IO[bytes],
    ) -> None:
        super().__init__(size, allowance)
        self._bridge = bridge
        self._next_chunk = next_chunk
        self._spool = spool
        self._spooled = 0

    def read(self, offset: int, length: int) -> bytes:
        length = self._count(offset, length)
        if not length:
            # Behind the end, however far: a length in a file that is no pickle points anywhere.
            return b""
        if offset + length > REACH_BYTES:
            raise ContentMissing("this file is too large to be read from Git; put it into LFS")
        try:
            while self._spooled < offset + length:
                self._spool.seek(self._spooled)
                self._spooled += self._spool.write(self._next())
            self._spool.seek(offset)
            return self._spool.read(length)
        except OSError as error:
            raise SourceUnreadable(f"there is no room for it: {error.strerror}") from error
        except ValueError as error:  # the file is closed
            raise SourceUnreadable("nobody waits for this any more") from error

    def _next(self) -> bytes:
        data = self._bridge.call(self._next_chunk)
        if not data:
            raise SourceUnreadable("git has less of it than it should")
        return data


@asynccontextmanager
async def spool(folder: Path) -> AsyncIterator[IO[bytes]]:
    """A temporary file without a name, for `StreamSource`.

    Raises:
        SourceUnreadable: it cannot be made.
    """
    try:
        file: IO[bytes] = await asyncio.to_thread(_nameless, folder)
    except OSError as error:
        raise SourceUnreadable(f"there is no room for it: {error.strerror}") from error
    try:
        yield file
    finally:
        file.close()


def _nameless(folder: Path) -> IO[bytes]:
    return tempfile.TemporaryFile(dir=folder)
