"""A pass over the blobs of a listing, by children of git: names and sizes of all, contents of some."""

import asyncio
import os
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import BinaryIO

from gitserver.children import Child
from gitserver.listings import Lines, ObjectsUnreadable, watched
from gitserver.process import GitRunner, feed

# A small blob may be a delta on anything. Git makes none on a base 32 times as large; what needs more than
# this is no honest client's, and a base that fits is unpacked once for all that follow.
_CONFIG = {"core.bigFileThreshold": "8m", "core.deltaBaseCacheLimit": "48m"}
_ALLOCATION_BYTES = 48 * 1024**2
_CPU_SECONDS = 120

_COMMANDS = ["cat-file", "--batch-command=%(objectname) %(objecttype) %(objectsize)", "--buffer"]
# So many commands fit into a pipe: neither side ever waits for the other to read.
_AT_ONCE = 500
_AT_ONCE_BYTES = 4 * 1024**2
_CHUNK_BYTES = 64 * 1024
# Of a listing: a child more is worth its start from about two thousand lines.
_BYTES_EACH = 128 * 1024


@dataclass(frozen=True, slots=True)
class ListedBlob:
    """A blob of a listing.

    `path` is one of its paths. It is empty for a blob that a tag names itself, and it ends where the real one
    has a line feed.
    """

    oid: str
    path: bytes
    size: int


class _Listing:
    """The lines of a listing that may be blobs, some hundred at a time, for any number of readers."""

    def __init__(self, some: AsyncIterator[list[tuple[str, bytes]]]) -> None:
        self._some = some
        self._lock = asyncio.Lock()

    async def next(self) -> list[tuple[str, bytes]]:
        """Names and paths; nothing once all were given to somebody."""
        async with self._lock:
            return await anext(self._some, [])


class BlobPass:
    """A pass that goes on; see `open_passes`. What reads raises `ObjectsUnreadable`."""

    def __init__(self, listing: _Listing, child: Child) -> None:
        self._listing = listing
        self._child = child
        self._lines = Lines(child)

    async def batches(self) -> AsyncGenerator[list[ListedBlob]]:
        """Blobs, some hundred at a time."""
        while listed := await self._listing.next():
            await _ask(self._child, "info", [oid for oid, _ in listed])
            blobs = []
            for (oid, path), answer in zip(listed, await self._lines.exactly(len(listed)), strict=True):
                name, _, rest = answer.decode().partition(" ")
                kind, _, size = rest.partition(" ")
                if name != oid or not size.isdigit():
                    raise ObjectsUnreadable("an object that was listed is missing")
                if kind == "blob":
                    blobs.append(ListedBlob(oid, path, int(size)))
            yield blobs

    async def contents(self, blobs: Sequence[ListedBlob]) -> AsyncGenerator["Contents"]:
        """What is in these blobs of the batch that was read last, a few megabytes at a time.

        Read to its end before the pass goes on.
        """
        groups = _in_groups(blobs)
        if not groups:
            return
        assert self._child.stdout is not None
        # All at once, so that git reads on while somebody looks at what it has read.
        await _ask(self._child, "contents", [blob.oid for blob in blobs])
        for some in groups:
            yield Contents(some, await _read(self._child.stdout, some))


class Contents:
    """Blobs with what is in them, still in one piece, in the order that was asked for."""

    def __init__(self, blobs: Sequence[ListedBlob], data: bytes) -> None:
        self._blobs = blobs
        self._data = data

    def __iter__(self) -> Iterator[tuple[ListedBlob, bytes]]:
        end = 0
        for blob in self._blobs:
            start = end + len(_header(blob))
            end = start + blob.size + 1
            yield blob, self._data[start : end - 1]


@asynccontextmanager
async def open_passes(
    git: GitRunner,
    listing: Path,
    where: Mapping[str, str],
    *,
    commit: Callable[[str], None] | None = None,
    most: int = 1,
) -> AsyncIterator[Sequence[BlobPass]]:
    """Begins a pass; `where` is the environment that makes git find the objects.

    There are up to `most` passes with a child each, to be read at the same time: each blob comes in one of
    them. A short listing gets one, and none where it is empty. `commit` is told of every commit on the way.
    Memory is that of a few megabytes for each.

    Raises:
        ObjectsUnreadable: also while reading on: something listed is not there, or cannot be read.
    """
    environment = git.environment(_CONFIG, {**where, "GIT_ALLOC_LIMIT": str(_ALLOCATION_BYTES)})
    try:
        file = await asyncio.to_thread(listing.open, "rb")
    except OSError as error:
        raise ObjectsUnreadable(f"the list of objects is gone: {error.strerror}") from error
    async with AsyncExitStack() as stack:
        stack.enter_context(file)
        lines = _Listing(await stack.enter_async_context(aclosing(_listed(file, commit))))
        passes: list[BlobPass] = []
        for _ in range(min(most, -(-os.fstat(file.fileno()).st_size // _BYTES_EACH))):
            child = watched(git, _COMMANDS, environment, cpu_seconds=_CPU_SECONDS)
            passes.append(BlobPass(lines, await stack.enter_async_context(child)))
        yield passes


async def _listed(
    listing: BinaryIO, commit: Callable[[str], None] | None
) -> AsyncGenerator[list[tuple[str, bytes]]]:
    """Names and paths of what may be a blob, as many as can be asked for at once."""
    found: list[tuple[str, bytes]] = []
    while lines := await asyncio.to_thread(listing.readlines, _CHUNK_BYTES):
        for line in lines:
            oid, blank, path = line.removesuffix(b"\n").partition(b" ")
            if blank:
                found.append((oid.decode(), path))
            elif commit is not None:
                commit(oid.decode())
        while len(found) >= _AT_ONCE:
            yield found[:_AT_ONCE]
            found = found[_AT_ONCE:]
    if found:
        yield found


def _in_groups(blobs: Sequence[ListedBlob]) -> list[list[ListedBlob]]:
    groups: list[list[ListedBlob]] = []
    room = 0
    for blob in blobs:
        if not groups or blob.size > room:
            groups.append([])
            room = _AT_ONCE_BYTES
        groups[-1].append(blob)
        room -= blob.size
    return groups


async def _ask(child: Child, command: str, oids: Sequence[str]) -> None:
    assert child.stdin is not None
    await feed(child.stdin, "".join([*(f"{command} {oid}\n" for oid in oids), "flush\n"]).encode())


async def _read(stdout: asyncio.StreamReader, blobs: Sequence[ListedBlob]) -> bytes:
    """All answers in one piece: a read for each would cost more than git does."""
    headers = [_header(blob) for blob in blobs]
    ends = list(accumulate(len(header) + blob.size + 1 for header, blob in zip(headers, blobs, strict=True)))
    data = bytearray()
    start = number = 0
    while number < len(blobs):
        chunk = await stdout.read(ends[-1] - len(data))
        data += chunk
        while number < len(blobs):
            # Compared as it comes: after `missing` git waits for the next command, and so would we.
            header = data[start : start + len(headers[number])]
            if not chunk or not headers[number].startswith(header):
                raise ObjectsUnreadable(f"object {blobs[number].oid} cannot be read")
            if len(data) < ends[number]:
                break
            start, number = ends[number], number + 1
    return bytes(data)


def _header(blob: ListedBlob) -> bytes:
    return f"{blob.oid} blob {blob.size}\n".encode()
