"""Places for work that costs much, shared so that no client can hold them all."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from weakref import WeakValueDictionary


class Slots:
    """So many places in all, and no more than `share` of them for one client; whoever comes later waits."""

    def __init__(self, total: int, *, share: int) -> None:
        self._all = asyncio.Semaphore(total)
        self._share = max(1, share)
        self._own: WeakValueDictionary[str, asyncio.Semaphore] = WeakValueDictionary()

    @asynccontextmanager
    async def take(self, client: str) -> AsyncIterator[None]:
        """A place for the duration of the block."""
        own = self._own.setdefault(client, asyncio.Semaphore(self._share))
        async with own, self._all:
            yield
