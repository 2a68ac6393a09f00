"""Contents of files, streamed."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from core.errors import RangeNotSatisfiable
from gitserver.process import GitRunner
from gitserver.queries import stream
from gitserver.snapshots import Snapshot
from gitserver.trees import Entry


@dataclass(frozen=True, slots=True)
class Blob:
    """A file, or the target of a symbolic link, whose content has not been read yet.

    Valid inside the block that returned it.
    """

    entry: Entry
    size: int
    git: GitRunner
    snapshot: Snapshot

    @property
    def oid(self) -> str:
        """The content's identity: a perfect entity tag."""
        return self.entry.oid

    @asynccontextmanager
    async def open(self, offset: int = 0, length: int | None = None) -> AsyncIterator[AsyncIterator[bytes]]:
        """The bytes from `offset`, at most `length` of them, in chunks.

        Raises:
            RangeNotSatisfiable: the offset is behind the end.
        """
        if offset < 0 or (offset and offset >= self.size):
            raise RangeNotSatisfiable("the range starts behind the end of the file", size=self.size)
        end = self.size if length is None else min(self.size, offset + length)
        async with stream(
            self.git, self.snapshot, ["cat-file", "blob", self.oid], cpu_seconds=None
        ) as output:
            yield _between(output.chunks(), offset, end)


async def _between(chunks: AsyncIterator[bytes], start: int, end: int) -> AsyncIterator[bytes]:
    position = 0
    async for chunk in chunks:
        wanted = chunk[max(start - position, 0) : max(end - position, 0)]
        position += len(chunk)
        if wanted:
            yield wanted
        if position >= end:
            return
