"""How a process is told to end: politely, then less so."""

import asyncio
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager


class Stop:
    """The wish to end. The first request starts a drain, the next one cuts it short."""

    def __init__(self) -> None:
        self.requested = asyncio.Event()
        self.hurried = asyncio.Event()

    def request(self) -> None:
        """Asks once more."""
        if self.requested.is_set():
            self.hurried.set()
        self.requested.set()


@contextmanager
def signals(stop: Stop, reload: Callable[[], None]) -> Iterator[None]:
    """Inside the block SIGTERM and SIGINT ask to stop, and SIGHUP calls `reload`."""
    loop = asyncio.get_running_loop()
    handlers = {signal.SIGTERM: stop.request, signal.SIGINT: stop.request, signal.SIGHUP: reload}
    for number, handler in handlers.items():
        loop.add_signal_handler(number, handler)
    try:
        yield
    finally:
        for number in handlers:
            loop.remove_signal_handler(number)
