"""The small blobs of a listing, with their contents: what pointers and configuration files are found by."""

from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from gitserver.listed_blobs import BlobPass, open_passes
from gitserver.process import GitRunner
from gitserver.quarantine import Quarantine


@dataclass(frozen=True, slots=True)
class SmallBlob:
    """A blob and its content; `path` is as in `ListedBlob`, with surrogates for what is not UTF-8."""

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
    """The same for any listing; `where` and what is raised are as in `open_passes`."""
    async with (
        open_passes(git, listing, where) as passes,
        aclosing(_small(passes, max_bytes)) as small,
    ):
        yield small


async def _small(passes: Sequence[BlobPass], max_bytes: int) -> AsyncGenerator[SmallBlob]:
    for blobs in passes:
        async with aclosing(blobs.batches()) as batches:
            async for batch in batches:
                small = [blob for blob in batch if blob.size <= max_bytes]
                async with aclosing(blobs.contents(small)) as contents:
                    async for some in contents:
                        for blob, data in some:
                            yield SmallBlob(blob.oid, blob.path.decode("utf-8", "surrogateescape"), data)
