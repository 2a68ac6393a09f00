"""An SSH channel as a pair of byte streams with backpressure in both directions.

Bytes are pumped by hand: asyncssh's `process.redirect` followed by an exit cuts off what is still queued.
"""

import asyncio
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

import asyncssh

from gitserver.protocol import ByteReader
from sshd.wire import Wire

# One slice of output is handed to the channel at a time, so this bounds what a slow client can pile up. It
# holds a chunk of an object store in the frames that it travels in.
SLICE_BYTES = 260 * 1024
# Input that was not read yet; above it the channel stops granting window, which is two MiB at a time.
INPUT_BYTES = 1024 * 1024


class Pulse:
    """When bytes last moved. Touching it touches its parent.

    Attributes:
        patient: nothing is under way, and the client has good reasons to be silent for hours: git holds a
            push open while git-lfs uploads, and git-lfs holds several conversations of which one works.
    """

    def __init__(self, parent: "Pulse | None" = None) -> None:
        self._parent = parent
        self.last = time.monotonic()
        self.patient = False

    def touch(self) -> None:
        """Bytes moved now."""
        self.last = time.monotonic()
        if self._parent is not None:
            self._parent.touch()

    def quiet_for(self) -> float:
        """Seconds since bytes last moved."""
        return time.monotonic() - self.last


class FirstWord:
    """A `ByteReader` that makes its pulse patient while it waits for the first bytes of something."""

    def __init__(self, reader: ByteReader, pulse: Pulse) -> None:
        """The very first bytes are waited for patiently."""
        self._reader = reader
        self._pulse = pulse
        self._expected = True

    @contextmanager
    def expected(self) -> Iterator[None]:
        """So are the first bytes that are read within the block."""
        self._expected = True
        try:
            yield
        finally:
            self._expected = False

    async def read(self, n: int) -> bytes:
        """As the reader."""
        self._pulse.patient, self._expected = self._expected, False
        try:
            return await self._reader.read(n)
        finally:
            self._pulse.patient = False


class Valve(Protocol):
    """The receiving side of a channel."""

    def pause_reading(self) -> None: ...

    def resume_reading(self) -> None: ...


class ChannelReader:
    """What the client sends; a `gitserver.protocol.ByteReader`."""

    def __init__(self, valve: Valve, pulse: Pulse) -> None:
        self._valve = valve
        self._pulse = pulse
        self._buffer = bytearray()
        self._news = asyncio.Event()
        self._paused = False
        self._opening = False
        self._ended = False
        self._lost = False

    def feed(self, data: bytes) -> None:
        """Takes what arrived, and closes the valve when too much waits."""
        self._pulse.touch()
        self._buffer += data
        self._news.set()
        if not self._opening:
            self._close_valve_when_full()

    def _close_valve_when_full(self) -> None:
        if len(self._buffer) >= INPUT_BYTES and not self._paused:
            self._paused = True
            self._valve.pause_reading()

    def _open_valve(self) -> None:
        """Takes all that piled up behind the valve.

        asyncssh grants the client a whole new window with the first piece that it hands over, whatever it
        still holds back. Closing the valve in the middle would let a fast client pile up without limit; so
        there is one window in here at most, and one behind the valve.
        """
        self._paused, self._opening = False, True
        try:
            self._valve.resume_reading()
        finally:
            self._opening = False
        self._close_valve_when_full()

    def feed_eof(self) -> None:
        """The client has no more to say, and still listens."""
        self._pulse.touch()
        self._ended = True
        self._news.set()

    def feed_loss(self) -> None:
        """The channel is gone; this must not look like a regular end."""
        self._lost = True
        self._news.set()

    async def read(self, n: int) -> bytes:
        """Between 1 and `n` bytes as they come; `b""` at the end of the stream.

        Raises:
            ConnectionResetError: the client is gone.
        """
        while not self._buffer:
            if self._lost:
                raise ConnectionResetError("the SSH channel is closed")
            if self._ended:
                return b""
            self._news.clear()
            await self._news.wait()
        data = bytes(self._buffer[:n])
        del self._buffer[:n]
        if self._paused and len(self._buffer) < INPUT_BYTES // 2:
            self._open_valve()
        return data


class ChannelWriter:
    """What the client receives on standard output; a `gitserver.protocol.ByteWriter`.

    The channel must have been given write buffer limits of zero, so that `resume` means "all is sent".
    """

    def __init__(self, channel: asyncssh.SSHServerChannel[bytes], wire: Wire, pulse: Pulse) -> None:
        self._channel = channel
        self._wire = wire
        self._pulse = pulse
        self._room = asyncio.Event()
        self._room.set()

    def pause(self) -> None:
        """The client's window is used up."""
        self._room.clear()

    def resume(self) -> None:
        """The channel has handed everything to the connection."""
        self._room.set()

    async def write(self, data: bytes) -> None:
        """Returns when the connection has taken all of it and has room for more.

        Raises:
            ConnectionError: the client is gone.
        """
        for start in range(0, len(data), SLICE_BYTES):
            self._channel.write(data if len(data) <= SLICE_BYTES else data[start : start + SLICE_BYTES])
            await self._drained()

    async def write_error(self, line: str) -> None:
        """Sends one line on standard error, like `write`."""
        self._channel.write_stderr(f"{line}\n".encode())
        await self._drained()

    async def _drained(self) -> None:
        self._pulse.touch()
        # Without a stall there is no suspension, and a fast client would keep the loop for itself.
        await asyncio.sleep(0)
        while not (self._room.is_set() and self._wire.has_room):
            await self._room.wait()
            await self._wire.wait_for_room()
        self._pulse.touch()
