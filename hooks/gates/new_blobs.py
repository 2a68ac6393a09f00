"""One pass over the blobs that a push adds, for all gates."""

import asyncio
from collections.abc import Callable, Collection
from contextlib import aclosing
from dataclasses import dataclass

from core.together import together
from gitserver.listed_blobs import BlobPass, Contents, ListedBlob, open_passes
from gitserver.process import GitRunner
from gitserver.quarantine import Quarantine

# No content larger than this is read.
MAX_READ_BYTES = 1024**2
# Unpacking is most of the work, and whoever pushes much text waits half as long for two that do it.
_AT_ONCE = 2


@dataclass(frozen=True, slots=True)
class NewBlob:
    """A blob that refs did not reach.

    `path` is one of its paths, written as in `hooks.trees`; empty for a blob that a tag names.
    """

    oid: str
    path: str
    size: int

    @classmethod
    def of(cls, blob: ListedBlob) -> "NewBlob":
        return cls(blob.oid, blob.path.decode("utf-8", "backslashreplace"), blob.size)


async def visit_new_blobs(
    git: GitRunner,
    quarantine: Quarantine,
    *,
    tips: Collection[str],
    wants: Callable[[NewBlob], bool],
    take: Callable[[NewBlob, bytes], None],
) -> set[str]:
    """Shows every blob that a push adds to `wants`, once, and gives those that it wants to `take`.

    `take` is called in threads, two at a time, and may compute; what is wanted has `MAX_READ_BYTES` at most.
    Large pushes have no order.

    Returns which of `tips` are commits that the push adds.

    Raises:
        ObjectsUnreadable: something listed cannot be read, or not within git's limits.
    """
    fresh: set[str] = set()

    def commit(oid: str) -> None:
        if oid in tips:
            fresh.add(oid)

    def hand_over(contents: Contents) -> None:
        for blob, data in contents:
            take(NewBlob.of(blob), data)

    async def visit(blobs: BlobPass) -> None:
        async with aclosing(blobs.batches()) as batches:
            async for batch in batches:
                wanted = [blob for blob in batch if wants(NewBlob.of(blob))]
                async with aclosing(blobs.contents(wanted)) as contents:
                    async for some in contents:
                        await asyncio.to_thread(hand_over, some)

    listing, where = quarantine.listing, quarantine.environment()
    async with open_passes(git, listing, where, commit=commit, most=_AT_ONCE) as passes:
        await together(*map(visit, passes))
    return fresh
