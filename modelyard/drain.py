"""Ending well: which requests are being answered, and how the last of them are waited for."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

from aiohttp import web

_FRESH_SECONDS = 0.25
_POLL_SECONDS = 0.05
_UNWIND_SECONDS = 5.0


class Drain:
    """Knows the requests in flight of one server.

    aiohttp's own shutdown stops reading from every connection at once, which would starve a push that is
    still being sent; so the connections are closed from here, the busy ones last.
    """

    def __init__(self) -> None:
        self.started = False
        self._busy: dict[asyncio.Task[object], object] = {}

    @property
    def in_flight(self) -> int:
        """How many requests are being answered now."""
        return len(self._busy)

    @contextmanager
    def request(self, request: web.BaseRequest) -> Iterator[None]:
        """Counts the current task as busy with this request."""
        task = asyncio.current_task()
        assert task is not None
        self._busy[task] = request.protocol
        try:
            yield
        finally:
            del self._busy[task]

    async def wait(self, server: web.Server, seconds: float, hurried: asyncio.Event) -> int:
        """Closes idle connections and waits until no request is in flight.

        After `seconds`, or as soon as `hurried` is set, what is left is cancelled; on return it has let go
        of its children. Returns how many requests were cut off.
        """
        self.started = True
        loop = asyncio.get_running_loop()
        start = loop.time()
        while not hurried.is_set() and (passed := loop.time() - start) < seconds:
            # A connection that was accepted a moment ago may have its first request on the way.
            if passed >= _FRESH_SECONDS:
                busy = set(self._busy.values())
                for connection in server.connections:
                    if connection not in busy:
                        connection.force_close()
                if not self._busy:
                    return 0
            await asyncio.sleep(_POLL_SECONDS)
        late = list(self._busy)
        for task in late:
            task.cancel()
        if late:
            await asyncio.wait(late, timeout=_UNWIND_SECONDS)
        return len(late)
