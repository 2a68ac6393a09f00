"""Proving that bytes are the object they are said to be (invariant I5), while they pass by."""

import asyncio
import hashlib
from collections.abc import AsyncGenerator, AsyncIterator

from lfs.errors import WrongBytes

# A thread hashes so much at once while the next bytes arrive: large enough to make the hop between threads
# cheap, small enough that many transfers together need little memory.
_GROUP_BYTES = 512 * 1024
# Less is hashed faster than a thread is found.
_INLINE_BYTES = 64 * 1024


async def checked(data: AsyncIterator[bytes], oid: str, size: int) -> AsyncGenerator[bytes, None]:
    """The same bytes, and at the end, or at the first byte too many, `WrongBytes` unless they are `oid`.

    Whoever stores what this yields must forget it when this raises. At most two groups of half a MiB are
    held; when hashing is slower than the source, the source waits.
    """
    digest = _Digest()
    received = 0
    async for piece in data:
        received += len(piece)
        if received > size:
            raise WrongBytes(f"more than the {size} bytes that were announced", oid=oid)
        await digest.add(piece)
        yield piece
    if received != size:
        raise WrongBytes(f"{received} bytes came, {size} were announced", oid=oid)
    if (found := await digest.finish()) != oid:
        raise WrongBytes(f"the sha256 of these bytes is {found}, not what was announced", oid=oid)


class _Digest:
    """sha256 beside the event loop."""

    def __init__(self) -> None:
        self._hash = hashlib.sha256()
        self._group: list[bytes] = []
        self._bytes = 0
        self._running: asyncio.Future[None] | None = None

    async def add(self, piece: bytes) -> None:
        self._group.append(piece)
        self._bytes += len(piece)
        if self._bytes >= _GROUP_BYTES:
            await self._wait()
            # Should the caller give up, the thread ends with this group and nobody asks for the result.
            loop = asyncio.get_running_loop()
            self._running = loop.run_in_executor(None, self._update, self._group)
            self._group, self._bytes = [], 0

    async def finish(self) -> str:
        await self._wait()
        if self._bytes > _INLINE_BYTES:
            await asyncio.to_thread(self._update, self._group)
        else:
            self._update(self._group)
        return self._hash.hexdigest()

    async def _wait(self) -> None:
        if self._running is not None:
            await self._running
            self._running = None

    def _update(self, group: list[bytes]) -> None:
        for piece in group:
            self._hash.update(piece)
