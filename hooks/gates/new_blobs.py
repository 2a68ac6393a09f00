"""One pass over the blobs that a push adds, for all gates: names and sizes of all, contents of some."""

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from gitserver.children import Child
from gitserver.listings import Lines, ObjectsUnreadable, watched
from gitserver.process import GitRunner, feed
from gitserver.quarantine import Quarantine

# No content larger than this is read.
MAX_READ_BYTES = 1024**2

# As in `gitserver.small_blobs`: what needs more memory than this is no honest client's delta.
_CONFIG = {"core.bigFileThreshold": "8m", "core.deltaBaseCacheLimit": "48m"}
_ALLOCATION_BYTES = 48 * 1024**2
_CPU_SECONDS = 120

_COMMANDS = ["cat-file", "--batch-command=%(objectname) %(objecttype) %(objectsize)", "--buffer"]
# So many commands fit into a pipe: neither side ever waits for the other to read.
_AT_ONCE = 500
_AT_ONCE_BYTES = 4 * 1024**2
_CHUNK_BYTES = 64 * 1024


@dataclass(frozen=True, slots=True)
class NewBlob:
    """A blob that refs did not reach.

    `path` is one of its paths, written as in `hooks.trees`; empty for a blob that a tag names.
    """

    oid: str
    path: str
    size: int


async def visit_new_blobs(
    git: GitRunner,
    quarantine: Quarantine,
    *,
    tips: Collection[str],
    wants: Callable[[NewBlob], bool],
    take: Callable[[NewBlob, bytes], None],
) -> set[str]:
    """Shows every blob that a push adds to `wants`, once, and gives those that it wants to `take`.

    `take` is called in a thread and may compute; what is wanted has `MAX_READ_BYTES` at most. Memory is that
    of a few megabytes, and the only child of git is not even started for a push that adds nothing.

    Returns which of `tips` are commits that the push adds.

    Raises:
        ObjectsUnreadable: something listed cannot be read, or not within git's limits.
    """
    environment = git.environment(
        _CONFIG, {**quarantine.environment(), "GIT_ALLOC_LIMIT": str(_ALLOCATION_BYTES)}
    )
    fresh: set[str] = set()
    try:
        file = await asyncio.to_thread(Path.open, quarantine.listing, "rb")
    except OSError as error:
        raise ObjectsUnreadable(f"the list of objects is gone: {error.strerror}") from error
    with file:
        if not os.fstat(file.fileno()).st_size:
            return fresh
        async with watched(git, _COMMANDS, environment, cpu_seconds=_CPU_SECONDS) as child:
            lines = Lines(child)
            async for listed in _listed(file, frozenset(tips), fresh):
                blobs = await _sizes(child, lines, listed)
                for some in _batches([blob for blob in blobs if wants(blob)]):
                    data = await _contents(child, some)
                    await asyncio.to_thread(_hand_over, data, some, take)
    return fresh


async def _listed(
    listing: BinaryIO, tips: frozenset[str], fresh: set[str]
) -> AsyncIterator[list[tuple[str, str]]]:
    """Names and paths of what may be a blob, in batches; notes the tips among the commits."""
    found: list[tuple[str, str]] = []
    while lines := await asyncio.to_thread(listing.readlines, _CHUNK_BYTES):
        for line in lines:
            oid, blank, path = line.removesuffix(b"\n").partition(b" ")
            if blank:
                found.append((oid.decode(), path.decode("utf-8", "backslashreplace")))
            elif (commit := oid.decode()) in tips:
                fresh.add(commit)
        while len(found) >= _AT_ONCE:
            yield found[:_AT_ONCE]
            found = found[_AT_ONCE:]
    if found:
        yield found


async def _sizes(child: Child, lines: Lines, listed: Sequence[tuple[str, str]]) -> list[NewBlob]:
    await _ask(child, "info", [oid for oid, _ in listed])
    blobs = []
    for (oid, path), answer in zip(listed, await lines.exactly(len(listed)), strict=True):
        name, _, rest = answer.decode().partition(" ")
        kind, _, size = rest.partition(" ")
        if name != oid or not size.isdigit():
            raise ObjectsUnreadable("an object that was listed is missing")
        if kind == "blob":
            blobs.append(NewBlob(oid, path, int(size)))
    return blobs


def _batches(blobs: Sequence[NewBlob]) -> list[list[NewBlob]]:
    batches: list[list[NewBlob]] = []
    room = 0
    for blob in blobs:
        if not batches or blob.size > room:
            batches.append([])
            room = _AT_ONCE_BYTES
        batches[-1].append(blob)
        room -= blob.size
    return batches


async def _contents(child: Child, blobs: Sequence[NewBlob]) -> bytes:
    """All of it in one piece, because its length is known; a read for each would cost more than git does."""
    await _ask(child, "contents", [blob.oid for blob in blobs])
    assert child.stdout is not None
    try:
        return await child.stdout.readexactly(sum(len(_header(blob)) + blob.size + 1 for blob in blobs))
    except asyncio.IncompleteReadError as error:
        raise ObjectsUnreadable("git could not read all objects") from error


def _hand_over(data: bytes, blobs: Sequence[NewBlob], take: Callable[[NewBlob, bytes], None]) -> None:
    start = 0
    for blob in blobs:
        header = _header(blob)
        if not data.startswith(header, start):
            raise ObjectsUnreadable(f"object {blob.oid} cannot be read")
        start += len(header)
        take(blob, data[start : start + blob.size])
        start += blob.size + 1


async def _ask(child: Child, command: str, oids: Sequence[str]) -> None:
    assert child.stdin is not None
    await feed(child.stdin, "".join([*(f"{command} {oid}\n" for oid in oids), "flush\n"]).encode())


def _header(blob: NewBlob) -> bytes:
    return f"{blob.oid} blob {blob.size}\n".encode()
