"""Blocking calls beside the event loop, for stores whose engine is synchronous."""

import asyncio
import contextlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar, TypeVarTuple

from storage.protocol import StoreUnavailable

T = TypeVar("T")
Ts = TypeVarTuple("Ts")


class Threads:
    """A bounded set of threads of its own, so that a slow disk or network starves nobody else."""

    def __init__(self, name: str, count: int) -> None:
        self._pool = ThreadPoolExecutor(count, thread_name_prefix=name)

    async def run(self, function: Callable[[*Ts], T], *args: *Ts) -> T:
        """Calls `function` in a thread and returns its result.

        When this returns or raises, cancellation included, the call has ended: the caller may close what
        the thread was using. A cancelled caller therefore waits for the end of one call, so calls are
        kept short: one chunk, one part, one rename.
        """
        try:
            call = asyncio.wrap_future(self._pool.submit(function, *args))
        except RuntimeError as error:
            raise StoreUnavailable("the object store is closed") from error
        try:
            return await asyncio.shield(call)
        except asyncio.CancelledError:
            while not call.done():
                # A second cancellation must not leave the thread behind either; the first is raised below.
                with contextlib.suppress(asyncio.CancelledError):
                    await asyncio.wait([call])
            raise

    async def close(self) -> None:
        """Waits for the running calls; later ones raise `StoreUnavailable`."""
        await asyncio.to_thread(self._pool.shutdown)
