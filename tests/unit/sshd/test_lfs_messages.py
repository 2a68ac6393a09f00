import asyncio
from collections.abc import AsyncIterator, Coroutine
from typing import TypeVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.errors import BadRequest, ModelyardError, PayloadTooLarge, ProtocolError
from gitserver.protocol import DELIM, FLUSH, RESPONSE_END, pkt_line
from sshd.lfs_messages import MAX_DATA, Answer, Incoming, Outgoing, Request
from storage.protocol import CHUNK_BYTES

T = TypeVar("T")


class Source:
    """A stream in pieces of `step` bytes."""

    def __init__(self, data: bytes, step: int = 7) -> None:
        self._data = data
        self._step = step

    async def read(self, n: int) -> bytes:
        size = min(n, self._step)
        piece, self._data = self._data[:size], self._data[size:]
        return piece


class Sink:
    def __init__(self) -> None:
        self.writes: list[bytes] = []

    async def write(self, data: bytes) -> None:
        self.writes.append(data)


def text(*lines: str) -> bytes:
    return b"".join(pkt_line(f"{line}\n".encode()) for line in lines)


def now(work: Coroutine[object, object, T]) -> T:
    return asyncio.run(work)


async def all_data(incoming: Incoming) -> bytes:
    return b"".join([piece async for piece in incoming.data()])


def test_requests_follow_each_other() -> None:
    stream = (
        text("version 1")
        + FLUSH
        + text("batch", "transfer=ssh", "refname=")
        + DELIM
        + text("aa 1", "bb 2")
        + FLUSH
        + text("put-object aa", "size=5")
        + DELIM
        + pkt_line(b"he\n")
        + pkt_line(b"")
        + pkt_line(b"\0\n")
        + FLUSH
        + text("quit")
        + FLUSH
    )

    async def read() -> None:
        incoming = Incoming(Source(stream))
        assert await incoming.request() == Request(("version", "1"))
        assert await incoming.lines(10) == []
        assert await incoming.request() == Request(("batch",), {"transfer": "ssh", "refname": ""})
        assert await incoming.lines(2) == ["aa 1", "bb 2"]
        assert await incoming.request() == Request(("put-object", "aa"), {"size": "5"})
        assert await all_data(incoming) == b"he\n\0\n"
        assert await all_data(incoming) == b""
        assert await incoming.request() == Request(("quit",))
        assert await incoming.request() is None

    now(read())


@pytest.mark.parametrize(
    "request_",
    [
        FLUSH,
        DELIM + FLUSH,
        DELIM + text("data") + FLUSH,
        text("batch", "no equals sign") + FLUSH,
        text("batch", "a=1", "a=2") + FLUSH,
        text("lock", "path=a\nb") + FLUSH,
        text("lock", "path=\x1b[2J") + FLUSH,
        text("put-object  aa") + DELIM + pkt_line(b"data") + FLUSH,
        text("") + FLUSH,
        pkt_line(b"\xff") + FLUSH,
        pkt_line(b"") + FLUSH,
    ],
)
def test_what_cannot_be_understood_is_passed_over(request_: bytes) -> None:
    async def read() -> None:
        incoming = Incoming(Source(request_ + text("quit") + FLUSH))
        with pytest.raises(BadRequest) as caught:
            await incoming.request()
        assert not isinstance(caught.value, ProtocolError)
        assert caught.value.message.isprintable()
        await incoming.drain()
        assert await incoming.request() == Request(("quit",))

    now(read())


@pytest.mark.parametrize(
    "stream",
    [
        b"hello",
        b"0003",
        b"000",
        b"fff5" + bytes(70000),
        text("batch"),
        text("batch") + b"0009ab",
        text("batch") + RESPONSE_END,
        RESPONSE_END,
        text("batch") + DELIM + text("a 1"),
        text("batch") + DELIM + text("a 1") + DELIM + FLUSH,
        text("batch") + DELIM + RESPONSE_END,
        text("put-object a") + DELIM + pkt_line(b"ab") + b"0100abc",
    ],
)
def test_wrong_frames_end_the_conversation(stream: bytes) -> None:
    async def read() -> None:
        incoming = Incoming(Source(stream))
        await incoming.request()
        await incoming.drain()

    with pytest.raises(ProtocolError):
        now(read())


def test_what_is_too_long_is_passed_over() -> None:
    long_head = text(*(f"a{number}={'x' * 1000}" for number in range(20)))
    stream = long_head + DELIM + text("a 1") + FLUSH
    stream += text("batch") + DELIM + text(*["a 1"] * 4) + FLUSH
    stream += text("batch") + DELIM + text("a" * 1025) + FLUSH
    stream += text("quit") + FLUSH

    async def read() -> None:
        incoming = Incoming(Source(stream, 4096))
        with pytest.raises(PayloadTooLarge):
            await incoming.request()
        await incoming.drain()
        for _ in range(2):
            assert await incoming.request() == Request(("batch",))
            with pytest.raises(PayloadTooLarge):
                await incoming.lines(3)
            await incoming.drain()
        assert await incoming.request() == Request(("quit",))

    now(read())


@given(st.lists(st.binary(max_size=40), max_size=8), st.integers(1, 50))
def test_data_is_the_packets_joined(payloads: list[bytes], step: int) -> None:
    stream = text("put-object a") + DELIM + b"".join(map(pkt_line, payloads)) + FLUSH

    async def read() -> bytes:
        incoming = Incoming(Source(stream, step))
        await incoming.request()
        data = await all_data(incoming)
        assert await incoming.request() is None
        return data

    assert now(read()) == b"".join(payloads)


def test_data_comes_in_pieces_that_are_worth_a_write() -> None:
    packets = pkt_line(bytes(32768)) * 64
    stream = text("put-object a") + DELIM + packets + FLUSH

    async def read() -> list[int]:
        incoming = Incoming(Source(stream, 65536))
        await incoming.request()
        return [len(piece) async for piece in incoming.data()]

    sizes = now(read())
    assert sum(sizes) == 64 * 32768
    assert all(CHUNK_BYTES // 2 < size <= CHUNK_BYTES for size in sizes[:-1])


@given(st.binary(max_size=300))
def test_any_bytes_are_requests_or_a_refusal(stream: bytes) -> None:
    async def read() -> None:
        incoming = Incoming(Source(stream))
        while (request := await incoming.request()) is not None:
            assert all(request.command)
            await incoming.drain()

    try:
        now(read())
    except ModelyardError as error:
        assert error.message.isprintable()  # noqa: PT017 - that it was raised is not what is tested


def test_answers() -> None:
    assert Answer().encoded() == text("status 200") + FLUSH
    assert Answer(201, {"id": "x", "path": "a b"}).encoded() == text("status 201", "id=x", "path=a b") + FLUSH
    assert Answer(lines=[]).encoded() == text("status 200") + DELIM + FLUSH
    refusal = Answer.refusal(409, "no\nflush\x1b", {"id": "x"})
    assert refusal.encoded() == text("status 409", "id=x") + DELIM + text("no?flush?") + FLUSH
    assert len(Answer.refusal(400, "x" * 10**6).encoded()) < 2000


@pytest.mark.parametrize("sizes", [[], [0], [1], [CHUNK_BYTES], [CHUNK_BYTES, CHUNK_BYTES, 17], [MAX_DATA]])
def test_an_object_goes_out_in_few_writes(sizes: list[int]) -> None:
    chunks = [bytes([number % 256]) * size for number, size in enumerate(sizes)]

    async def send() -> Sink:
        async def stream() -> AsyncIterator[bytes]:
            for chunk in chunks:
                yield chunk

        sink = Sink()
        await Outgoing(sink).send_data(sum(sizes), stream())
        return sink

    sink = now(send())
    assert len(sink.writes) == len(sizes) + 1

    async def read_back() -> bytes:
        incoming = Incoming(Source(b"".join(sink.writes), 65536))
        assert await incoming.request() == Request(("status", "200"), {"size": str(sum(sizes))})
        return await all_data(incoming)

    assert now(read_back()) == b"".join(chunks)
