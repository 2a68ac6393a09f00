"""Looking into blobs while git still receives their pack."""

import asyncio
from collections.abc import Callable, Set
from concurrent.futures import Executor, Future
from dataclasses import dataclass
from typing import Self

import structlog

from core.models import ObjectFormat
from gitserver.pack_stream import PackStream

# A thread looks at so much at once while git works on the same; a push that is smaller is not worth it.
_GROUP_BYTES = 512 * 1024
# What is cleared beyond this many is looked at like the rest: about 10 MB of names.
_MOST = 100_000

log = structlog.get_logger(__name__)


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
    """Follows one pack, within a `with` block. What it could not see, or did not get to, is not cleared.

    About 5 MiB are held at most; when looking is slower than the source, the source waits.
    """

    def __init__(self, clearing: Clearing | None, object_format: ObjectFormat, threads: Executor) -> None:
        """Without `clearing` nothing is looked at."""
        self._clearing = clearing
        self._threads = threads
        self._cleared: set[bytes] = set()
        max_bytes = clearing.max_bytes if clearing else 0
        self._stream = PackStream(object_format, max_bytes=max_bytes, take=self._look)
        self._group = bytearray()
        self._running: Future[bool] | None = None
        self._goes_on = clearing is not None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._running is not None:
            # The push was given up. What a thread does now ends with its group, and the rest never begins.
            self._running.cancel()

    async def add(self, data: bytes) -> None:
        """The next bytes of the pack."""
        if not self._goes_on or len(self._cleared) >= _MOST:
            return
        self._group += data
        if len(self._group) >= _GROUP_BYTES:
            await self._wait()
            self._begin()

    async def cleared(self) -> Set[bytes]:
        """The binary names of the blobs that are cleared, once the pack was added to its end."""
        if self._running is not None:
            await self._wait()
            self._begin()
            await self._wait()
        return self._cleared

    async def _wait(self) -> None:
        if self._running is None:
            return
        try:
            # Git may be done first, and whoever feeds both is cancelled then; the group still counts.
            self._goes_on = await asyncio.shield(asyncio.wrap_future(self._running))
        except Exception:
            log.exception("push.glance_fault")  # and git is asked for all of them
            self._goes_on = False
        self._running = None

    def _begin(self) -> None:
        if self._goes_on and self._group:
            self._running = self._threads.submit(self._stream.feed, bytes(self._group))
            self._group = bytearray()

    def _look(self, oid: bytes, data: bytes) -> None:
        if self._clearing is not None and len(self._cleared) < _MOST and self._clearing.clears(data):
            self._cleared.add(oid)
