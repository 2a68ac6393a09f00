"""The small blobs of a listing, with their contents: what pointers and configuration files are found by."""

import asyncio
import os
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from gitserver.children import Child
from gitserver.listings import Lines, ObjectsUnreadable, watched
from gitserver.process import GitRunner, feed
from gitserver.quarantine import Quarantine

# A small blob may be a delta on anything. Git makes none on a base 32 times as large; what needs more than
# this is no honest client's, and a base that fits is unpacked once for all that follow.
_CONFIG = {"core.bigFileThreshold": "8m", "core.deltaBaseCacheLimit": "48m"}
_ALLOCATION_BYTES = 48 * 1024**2
_CPU_SECONDS = 120

# The first word of a line is an object's name only where the rest of the line is asked for, too.
_SIZES = ["cat-file", "--batch-check=%(objecttype) %(objectsize) %(rest)", "--buffer"]
_CONTENTS = ["cat-file", "--batch=%(objectname) %(objectsize)"]

# So many names fit into a pipe: neither side ever waits for the other to read.
_AT_ONCE = 500
_CHUNK_BYTES = 64 * 1024


@dataclass(frozen=True, slots=True)
class SmallBlob:
    """A blob and its content.

    `path` is one of its paths, with surrogates for what is not UTF-8. It is empty for a blob that a tag names
    itself, and it ends where the real one has a line feed.
    """

    oid: str
    path: str
    data: bytes


@asynccontextmanager
async def new_blobs(
    git: GitRunner, quarantine: Quarantine, *, max_bytes: int
) -> AsyncIterator[AsyncIterator[SmallBlob]]:
    """The blobs of at most `max_bytes` bytes that a push adds to what refs reach, each once.

    For policies: the connectivity check has listed what the push adds. Memory is that of a few blobs. Reading
    on raises `ObjectsUnreadable`.
    """
    async with small_blobs(git, quarantine.listing, quarantine.environment(), max_bytes) as blobs:
        yield blobs


@asynccontextmanager
async def small_blobs(
    git: GitRunner, listing: Path, where: Mapping[str, str], max_bytes: int
) -> AsyncIterator[AsyncIterator[SmallBlob]]:
    """The same for any listing; `where` is the environment that makes git find the objects.

    Raises:
        ObjectsUnreadable: also while reading on: something listed is not there, or cannot be read.
    """
    environment = git.environment(_CONFIG, {**where, "GIT_ALLOC_LIMIT": str(_ALLOCATION_BYTES)})
    try:
        file = await asyncio.to_thread(listing.open, "rb")
    except OSError as error:
        raise ObjectsUnreadable(f"the list of objects is gone: {error.strerror}") from error
    with file, listing.open("rb") as asked:
        if not os.fstat(file.fileno()).st_size:
            yield _nothing()
            return
        async with (
            watched(git, _SIZES, environment, stdin=asked.fileno(), cpu_seconds=_CPU_SECONDS) as sizes,
            watched(git, _CONTENTS, environment, cpu_seconds=_CPU_SECONDS) as contents,
            aclosing(_small(file, Lines(sizes), max_bytes)) as small,
            aclosing(_read(contents, small)) as blobs,
        ):
            yield blobs


async def _nothing() -> AsyncGenerator[SmallBlob, None]:
    for blob in list[SmallBlob]():
        yield blob


async def _small(
    listing: BinaryIO, answers: Lines, max_bytes: int
) -> AsyncGenerator[list[tuple[bytes, bytes]], None]:
    """Names and paths of the small blobs, in batches."""
    # Paths come from the listing itself, because git drops the blanks in front of what it repeats.
    while lines := await asyncio.to_thread(listing.readlines, _CHUNK_BYTES):
        found = []
        for line, answer in zip(lines, await answers.exactly(len(lines)), strict=True):
            kind, _, rest = answer.partition(b" ")
            size = rest.partition(b" ")[0]
            if not size.isdigit():
                raise ObjectsUnreadable("an object that was listed is missing")
            if kind == b"blob" and int(size) <= max_bytes:
                oid, _, path = line.removesuffix(b"\n").partition(b" ")
                found.append((oid, path))
        for start in range(0, len(found), _AT_ONCE):
            yield found[start : start + _AT_ONCE]


async def _read(
    process: Child, batches: AsyncIterator[list[tuple[bytes, bytes]]]
) -> AsyncGenerator[SmallBlob, None]:
    assert process.stdin is not None
    assert process.stdout is not None
    async for batch in batches:
        await feed(process.stdin, b"".join(oid + b"\n" for oid, _ in batch))
        for oid, path in batch:
            try:
                name, _, size = (await process.stdout.readuntil()).partition(b" ")
                if name != oid:
                    raise ObjectsUnreadable(f"object {oid.decode()} cannot be read")
                data = (await process.stdout.readexactly(int(size) + 1))[:-1]
            except (asyncio.IncompleteReadError, ValueError) as error:
                raise ObjectsUnreadable(f"object {oid.decode()} cannot be read") from error
            yield SmallBlob(oid.decode(), path.decode("utf-8", "surrogateescape"), data)
