"""A file into a socket without a copy in this process, on any event loop.

`loop.sendfile` is missing in uvloop, so this works beside the transport: on a duplicate of its descriptor,
which an event loop may watch as it may not watch that of a transport.
"""

import asyncio
import errno
import os
import socket
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from core.errors import Unavailable
from storage.protocol import StoreUnavailable
from storage.threads import Threads

# One call in a thread; a fast network is then worth the hop, and a cancelled sender waits for little.
PIECE_BYTES = 4 * 1024**2

_THREADS = 16
# How often a sender that waits asks whether the transport was closed, which closes no duplicate.
_LOOK_SECONDS = 1.0
_FLUSH_SECONDS = 0.01

_IMPOSSIBLE = {errno.EINVAL, errno.ENOSYS, errno.ENOTSOCK, errno.EOPNOTSUPP, errno.ESPIPE}

# For the whole process: it has no state, and its threads wait for disks only, never for clients.
_threads = Threads("sendfile", _THREADS)


class CannotSendFile(Unavailable):
    """Nothing was sent, and the bytes have to go through the transport."""

    code = "cannot_send_file"


async def send_file(
    transport: asyncio.Transport, descriptor: int, offset: int, count: int, *, stall_seconds: float
) -> None:
    """Sends `count` bytes of a file, from `offset`, after what was written to the transport before.

    Nobody may write to the transport meanwhile, and `descriptor` must stay open. When this raises, anything
    but `CannotSendFile`, the client has got an unknown part of the bytes: close the connection.

    Raises:
        CannotSendFile: before the first byte: TLS, no socket, or a file that the kernel cannot send so.
        ConnectionError: the peer is gone, or took nothing for `stall_seconds`.
        StoreUnavailable: the file is shorter, or cannot be read.
    """
    async with _duplicate(transport) as duplicate:
        await _flushed(transport, stall_seconds)
        sent = 0
        while sent < count:
            _require_open(transport)
            try:
                amount = await _threads.run(_send, duplicate, descriptor, offset + sent, count - sent)
            except ConnectionError:
                raise
            except OSError as error:
                if not sent and error.errno in _IMPOSSIBLE:
                    raise CannotSendFile("the file cannot be sent so") from error
                raise StoreUnavailable(f"an object cannot be read: {error.strerror}") from error
            sent += amount
            if not amount:
                await _writable(transport, duplicate, stall_seconds)


def _send(target: int, source: int, offset: int, count: int) -> int:
    """Blocking, but not on the client: at most a piece; 0 when the socket takes nothing now."""
    end = offset + min(count, PIECE_BYTES)
    position = offset
    try:
        while position < end:
            amount = os.sendfile(target, source, position, end - position)
            if not amount:
                break
            position += amount
    except BlockingIOError:
        return position - offset
    except OSError:
        # After some bytes the next call tells, so that they are counted.
        if position == offset:
            raise
    if position == offset:
        raise OSError(errno.EIO, "it ended too early")
    return position - offset


@asynccontextmanager
async def _duplicate(transport: asyncio.Transport) -> AsyncIterator[int]:
    """A descriptor of the transport's socket that stays valid when the transport closes its own."""
    found: socket.socket | None = transport.get_extra_info("socket")
    if found is None or transport.get_extra_info("sslcontext") is not None:
        raise CannotSendFile("the connection is encrypted, or no socket")
    _require_open(transport)
    try:
        duplicate = os.dup(found.fileno())
    except OSError as error:
        raise ConnectionResetError("the client is gone") from error
    try:
        yield duplicate
    finally:
        os.close(duplicate)


async def _flushed(transport: asyncio.Transport, stall_seconds: float) -> None:
    """Waits until all that was written to the transport is on its way."""
    left, since = transport.get_write_buffer_size(), time.monotonic()
    pause = 0.0  # uvloop writes at the end of the current turn
    while left:
        await asyncio.sleep(pause)
        pause = _FLUSH_SECONDS
        _require_open(transport)
        if (now_left := transport.get_write_buffer_size()) < left:
            left, since = now_left, time.monotonic()
        elif time.monotonic() - since > stall_seconds:
            raise _stalled()


async def _writable(transport: asyncio.Transport, duplicate: int, stall_seconds: float) -> None:
    loop = asyncio.get_running_loop()
    ready = asyncio.Event()
    loop.add_writer(duplicate, ready.set)
    deadline = time.monotonic() + stall_seconds
    try:
        while (left := deadline - time.monotonic()) > 0:
            try:
                async with asyncio.timeout(min(left, _LOOK_SECONDS)):
                    await ready.wait()
                    return
            except TimeoutError:
                _require_open(transport)
    finally:
        loop.remove_writer(duplicate)
    raise _stalled()


def _require_open(transport: asyncio.Transport) -> None:
    if transport.is_closing():
        raise ConnectionResetError("the client is gone")


def _stalled() -> ConnectionAbortedError:
    return ConnectionAbortedError("the client stopped reading")
