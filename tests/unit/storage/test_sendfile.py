"""Files into sockets, on both event loops, with readers of every kind."""

import asyncio
import hashlib
import os
import socket
import ssl
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import pytest
import uvloop

from storage.protocol import StoreUnavailable
from storage.sendfile import CannotSendFile, send_file
from tests.support.stores import names
from tests.support.streams import noise

MEBIBYTE = 1024**2
SIZE = 200 * MEBIBYTE
HEAD = b"head " * 20_000

Loop = Callable[[Coroutine[Any, Any, None]], None]


@pytest.fixture(params=["asyncio", "uvloop"])
def run(request: pytest.FixtureRequest) -> Loop:
    """Runs a coroutine on a loop of its own kind."""
    factory = asyncio.new_event_loop if request.param == "asyncio" else uvloop.new_event_loop

    def run(work: Coroutine[Any, Any, None]) -> None:
        with asyncio.Runner(loop_factory=factory) as runner:
            runner.run(work)

    return run


@pytest.fixture(scope="module")
def big(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("sendfile") / "big"
    piece = noise(MEBIBYTE)
    with path.open("wb") as file:
        for number in range(SIZE // MEBIBYTE):
            file.write(number.to_bytes(4, "big") + piece[4:])
    return path


@pytest.fixture
def descriptor(big: Path) -> Iterator[int]:
    opened = os.open(big, os.O_RDONLY)
    yield opened
    os.close(opened)


async def serve(
    send: Callable[[asyncio.Transport], Coroutine[Any, Any, None]],
    read: Callable[[socket.socket], object],
) -> BaseException | None:
    """One connection, read by a thread of its own; returns what `send` raised."""
    outcome: asyncio.Future[BaseException | None] = asyncio.get_running_loop().create_future()

    async def connected(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await send(writer.transport)  # type: ignore[arg-type]
        except (OSError, StoreUnavailable, CannotSendFile) as error:
            outcome.set_result(error)
        else:
            outcome.set_result(None)
        finally:
            writer.close()

    def client(port: int) -> None:
        with socket.create_connection(("127.0.0.1", port), timeout=300) as link:
            read(link)

    async with await asyncio.start_server(connected, "127.0.0.1", 0) as server:
        thread = threading.Thread(target=client, args=(server.sockets[0].getsockname()[1],))
        thread.start()
        try:
            async with asyncio.timeout(60):
                return await outcome
        finally:
            await asyncio.to_thread(thread.join)


class Reader:
    """Hashes what comes, in reads of `size` with a pause after each."""

    def __init__(self, *, size: int = MEBIBYTE, pause: float = 0, at_most: int | None = None) -> None:
        self._size = size
        self._pause = pause
        self._at_most = at_most
        self.received = 0
        self.digest = hashlib.sha256()

    def __call__(self, link: socket.socket) -> None:
        while (self._at_most is None or self.received < self._at_most) and (chunk := link.recv(self._size)):
            self.received += len(chunk)
            self.digest.update(chunk)
            time.sleep(self._pause)


def test_sends_a_big_file_after_what_was_written_before(run: Loop, big: Path, descriptor: int) -> None:
    reader = Reader()

    async def send(transport: asyncio.Transport) -> None:
        transport.write(HEAD)
        await send_file(transport, descriptor, 0, SIZE, stall_seconds=60)
        transport.write(b"tail")

    async def main() -> None:
        before = _resident_bytes()
        assert await serve(send, reader) is None
        assert _resident_bytes() - before < 20 * MEBIBYTE

    run(main())
    expected = hashlib.sha256(HEAD)
    with big.open("rb") as file:
        while chunk := file.read(MEBIBYTE):
            expected.update(chunk)
    expected.update(b"tail")
    assert reader.received == len(HEAD) + SIZE + 4
    assert reader.digest.digest() == expected.digest()


@pytest.mark.parametrize(
    ("offset", "count"),
    [(0, 0), (0, 1), (5, 10), (MEBIBYTE - 1, 2), (3_333_333, 9 * MEBIBYTE), (200 * MEBIBYTE - 7, 7)],
)
def test_sends_ranges(run: Loop, big: Path, descriptor: int, offset: int, count: int) -> None:
    reader = Reader()

    async def send(transport: asyncio.Transport) -> None:
        await send_file(transport, descriptor, offset, count, stall_seconds=60)

    async def main() -> None:
        assert await serve(send, reader) is None

    run(main())
    with big.open("rb") as file:
        file.seek(offset)
        assert reader.digest.digest() == hashlib.sha256(file.read(count)).digest()
    assert reader.received == count


def test_waits_for_a_slow_reader_and_keeps_the_loop_free(run: Loop, descriptor: int) -> None:
    reader = Reader(size=200_000, pause=0.03)
    count = 24 * MEBIBYTE
    turns = 0

    async def send(transport: asyncio.Transport) -> None:
        transport.write(HEAD)
        # Shorter than the whole takes, longer than one pause.
        await send_file(transport, descriptor, 0, count, stall_seconds=4)

    async def main() -> None:
        nonlocal turns

        async def count_turns() -> None:
            nonlocal turns
            while True:
                await asyncio.sleep(0.01)
                turns += 1

        counter = asyncio.ensure_future(count_turns())
        assert await serve(send, reader) is None
        counter.cancel()

    run(main())
    assert reader.received == count + len(HEAD)
    assert turns > 20


def test_tells_when_the_reader_goes_away(run: Loop, descriptor: int) -> None:
    async def send(transport: asyncio.Transport) -> None:
        await send_file(transport, descriptor, 0, SIZE, stall_seconds=300)

    async def main() -> None:
        assert isinstance(await serve(send, Reader(at_most=3 * MEBIBYTE)), ConnectionError)

    run(main())


def test_gives_up_a_reader_that_stops_reading(run: Loop, descriptor: int) -> None:
    done = threading.Event()

    def read(link: socket.socket) -> None:
        link.recv(1000)
        done.wait(300)

    async def send(transport: asyncio.Transport) -> None:
        try:
            await send_file(transport, descriptor, 0, SIZE, stall_seconds=0.3)
        finally:
            done.set()

    async def main() -> None:
        assert isinstance(await serve(send, read), ConnectionAbortedError)

    run(main())


def test_gives_up_when_what_was_written_before_does_not_leave(run: Loop, descriptor: int) -> None:
    done = threading.Event()

    async def send(transport: asyncio.Transport) -> None:
        transport.write(b"x" * 30 * MEBIBYTE)
        try:
            await send_file(transport, descriptor, 0, 10, stall_seconds=0.3)
        finally:
            done.set()

    async def main() -> None:
        assert isinstance(await serve(send, lambda _: done.wait(300)), ConnectionAbortedError)

    run(main())


@pytest.mark.parametrize("how", ["cancel", "close"])
def test_stops_soon_when_cancelled_or_closed_and_holds_nothing(run: Loop, descriptor: int, how: str) -> None:
    done = threading.Event()
    held: list[int] = []

    async def send(transport: asyncio.Transport) -> None:
        before = _open_files()
        work = asyncio.ensure_future(send_file(transport, descriptor, 0, SIZE, stall_seconds=300))
        await asyncio.sleep(0.2)
        if how == "cancel":
            work.cancel()
        else:
            transport.abort()
        result = (await asyncio.gather(work, return_exceptions=True))[0]
        held.append(_open_files() - before)
        done.set()
        assert isinstance(result, asyncio.CancelledError if how == "cancel" else ConnectionResetError)

    async def main() -> None:
        assert await serve(send, lambda _: done.wait(300)) is None

    run(main())
    assert held[0] <= 0


def test_a_file_that_is_too_short_is_an_error(run: Loop, descriptor: int) -> None:
    async def send(transport: asyncio.Transport) -> None:
        await send_file(transport, descriptor, SIZE - 10, 11, stall_seconds=5)

    async def main() -> None:
        assert isinstance(await serve(send, Reader()), StoreUnavailable)

    run(main())


def test_what_has_no_plain_socket_is_refused_before_the_first_byte(run: Loop, descriptor: int) -> None:
    class Encrypted(asyncio.Transport):
        def __init__(self, transport: asyncio.Transport) -> None:
            super().__init__()
            self._transport = transport

        def get_extra_info(self, name: str, default: object = None) -> object:
            if name == "sslcontext":
                return ssl.create_default_context()
            return self._transport.get_extra_info(name, default)

    reader = Reader()

    async def send(transport: asyncio.Transport) -> None:
        with pytest.raises(CannotSendFile):
            await send_file(asyncio.Transport(), descriptor, 0, 1, stall_seconds=5)
        with pytest.raises(CannotSendFile):
            await send_file(Encrypted(transport), descriptor, 0, 1, stall_seconds=5)
        not_a_file, other = os.pipe()
        try:
            with pytest.raises(CannotSendFile):
                await send_file(transport, not_a_file, 0, 1, stall_seconds=5)
        finally:
            os.close(not_a_file)
            os.close(other)

    async def main() -> None:
        assert await serve(send, reader) is None

    run(main())
    assert reader.received == 0


def _open_files() -> int:
    return len(names(Path("/proc/self/fd")))


def _resident_bytes() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")
