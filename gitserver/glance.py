"""Looking into blobs while git still receives their pack."""

import asyncio
from collections.abc import Callable, Collection
from dataclasses import dataclass

from core.models import ObjectFormat
from gitserver.pack_stream import PackStream

# A thread looks at so much at once while git works on the same; a push that is smaller is not worth it.
_GROUP_BYTES = 512 * 1024
# What is cleared beyond this many is looked at like the rest: about 10 MB of names.
_MOST = 100_000


@dataclass(frozen=True, slots=True)
class Clearing:
    """What can be told of a blob by its content alone.

    Attributes:
        max_bytes: larger blobs are passed over.
        clears: whether nobody need look at this content; called in threads, for each blob.
    """

    max_bytes: int
    clears: Callable[[bytes], bool]


class Glance:
    """Follows one pack. What it could not see, or did not get to, is simply not cleared.

    At most two groups of half a MiB are held; when looking is slower than the source, the source waits.
    """

    def __init__(self, clearing: Clearing, object_format: ObjectFormat) -> None:
        self._clears = clearing.clears
        self._cleared: set[bytes] = set()
        self._stream = PackStream(object_format, max_bytes=clearing.max_bytes, take=self._look)
        self._group: list[bytes] = []
        self._bytes = 0
        self._running: asyncio.Future[bool] | None = None
        self._goes_on = True

    async def add(self, data: bytes) -> None:
        """The next bytes of the pack."""
        if not self._goes_on:
            return
        self._group.append(data)
        self._bytes += len(data)
        if self._bytes >= _GROUP_BYTES:
            await self._wait()
            self._begin()

    async def cleared(self) -> Collection[bytes]:
        """The binary names of the blobs that are cleared, once the pack was added to its end."""
        if self._running is not None:
            await self._wait()
            self._begin()
            await self._wait()
        return self._cleared

    async def _wait(self) -> None:
        if self._running is not None:
            # Git may be done first, and whoever feeds both is cancelled then; the group still counts.
            self._goes_on = await asyncio.shield(self._running)
            self._running = None

    def _begin(self) -> None:
        # Should the push be given up, the thread ends with this group and nobody asks for the result.
        loop = asyncio.get_running_loop()
        self._running = loop.run_in_executor(None, self._stream.feed, b"".join(self._group))
        self._group, self._bytes = [], 0

    def _look(self, oid: bytes, data: bytes) -> None:
        if len(self._cleared) < _MOST and self._clears(data):
            self._cleared.add(oid)
