"""Feeding a child much, without being woken for each little that it takes.

`git index-pack` reads 4 KiB at a time. An event loop that waits for room in its pipe is woken after every
read, by a child that waits for nothing but the processor: measured at 12,000 wakings and a tenth of a second
of processor time for a push of 48 MB, on the cores that work for the push as well. A large pipe that is
filled every few milliseconds keeps the child as busy.
"""

import asyncio
import contextlib
import fcntl
import os
from types import TracebackType
from typing import Self

from core.errors import Unavailable

# One user has 64 MiB in all pipes, unless privileged (pipe-user-pages-soft of Linux, see pipe(7)): as much
# as 128 of these.
_PIPE_BYTES = 512 * 1024
# A full pipe is looked at again when it would be empty at this rate, which is more than git was seen to take
# (200 MB/s, of what cannot be compressed).
_BYTES_PER_SECOND = 256 * 1024**2
# A child that takes nothing is looked at after twice the time, and so on, up to 64 ms.
_DOUBLINGS = 5


class PacedPipe:
    """A pipe into a child, in an `async with` block that outlives the child.

    Start the child with `reader` as its standard input, then `close_reader`; `close_writer` when all is
    written. What is still open is closed at the end of the block.
    """

    def __init__(self) -> None:
        """Raises `Unavailable` when there are no descriptors left."""
        try:
            reader, writer = os.pipe()
        except OSError as error:
            raise Unavailable(f"no pipe can be made: {error.strerror}") from error
        self._reader: int | None = reader
        self._writer: int | None = writer
        os.set_blocking(writer, False)
        with contextlib.suppress(OSError):  # who has used up his share gets small ones
            fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
        size = fcntl.fcntl(writer, fcntl.F_GETPIPE_SZ)
        # A small one would be empty long before an event loop keeps time, which it does in milliseconds.
        self._pause = size / _BYTES_PER_SECOND if size >= _PIPE_BYTES else None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close_reader()
        self.close_writer()

    @property
    def reader(self) -> int:
        """The descriptor for the child. Raises `ValueError` once it is closed."""
        return _open(self._reader)

    def close_reader(self) -> None:
        """For when the child has its own: then a write fails once the child is gone."""
        descriptor, self._reader = self._reader, None
        if descriptor is not None:
            os.close(descriptor)

    def close_writer(self) -> None:
        """The child reads what there is, and then the end."""
        descriptor, self._writer = self._writer, None
        if descriptor is not None:
            os.close(descriptor)

    async def write(self, data: bytes) -> bool:
        """Returns when the pipe has taken everything; False once the child reads no more.

        The exit status of the child has the reason then.
        """
        rest, misses = memoryview(data), 0
        while rest:
            try:
                taken = os.write(_open(self._writer), rest)
            except BlockingIOError:
                taken = 0
            except BrokenPipeError:
                return False
            rest = rest[taken:]
            misses = 0 if taken else min(misses + 1, _DOUBLINGS)
            if rest:
                await self._room(misses)
        return True

    async def _room(self, misses: int) -> None:
        if self._pause is not None:
            await asyncio.sleep(self._pause * (1 << misses))
            return
        loop, ready, writer = asyncio.get_running_loop(), asyncio.Event(), _open(self._writer)
        loop.add_writer(writer, ready.set)
        try:
            await ready.wait()
        finally:
            loop.remove_writer(writer)


def _open(descriptor: int | None) -> int:
    if descriptor is None:
        raise ValueError("this end of the pipe is closed")
    return descriptor
