"""pkt-lines, sidebands and what decides the protocol version."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.errors import PayloadTooLarge, ProtocolError
from core.models import ObjectFormat
from gitserver.commands import read_push_request
from gitserver.protocol import DELIM, FLUSH, PktReader, Sideband, parse_protocol, pkt_line


class Bytes:
    """A `ByteReader` that hands out a few bytes at a time, as networks do."""

    def __init__(self, data: bytes, *, step: int = 7) -> None:
        self._data = data
        self._step = step

    async def read(self, n: int) -> bytes:
        chunk, self._data = self._data[: min(n, self._step)], self._data[min(n, self._step) :]
        return chunk


class Collector:
    def __init__(self) -> None:
        self.data = b""

    async def write(self, data: bytes) -> None:
        self.data += data


@pytest.mark.parametrize(
    ("text", "version"),
    [
        (None, 0), ("", 0), ("version=2", 2), ("version=1", 1), ("version=0", 0), ("version=2:version=1", 2),
        ("version=2:evil", 2), ("evil:version=1", 1), ("version=3", 0), ("version=22", 0), ("Version=2", 0),
        ("version=2\n", 0), (" version=2", 0), ("version=2;rm", 0), ("version=\u0662", 0),
        ("version=2:" * 40, 0),
    ],
)  # fmt: skip
def test_protocol_version(text: str | None, version: int) -> None:
    assert parse_protocol(text) == version


@given(st.lists(st.binary(max_size=300)), st.binary(max_size=100), st.integers(1, 50))
async def test_packets_come_back_as_they_were_written(lines: list[bytes], rest: bytes, step: int) -> None:
    data = b"".join(pkt_line(line) for line in lines) + FLUSH + DELIM + rest
    reader = PktReader(Bytes(data, step=step), limit=1 << 20)
    for line in lines:
        assert await reader.packet() == line
    assert await reader.packet() is FLUSH
    assert await reader.packet() is DELIM
    raw = b""
    while chunk := await reader.read(10):
        raw += chunk
    assert raw == rest


async def test_a_payload_that_looks_like_a_marker_is_a_payload() -> None:
    reader = PktReader(Bytes(pkt_line(b"0000")), limit=100)
    packet = await reader.packet()
    assert packet == FLUSH
    assert packet is not FLUSH


@given(st.binary(max_size=64))
async def test_any_bytes_are_packets_or_a_clean_error(data: bytes) -> None:
    reader = PktReader(Bytes(data), limit=1 << 16)
    try:
        while await reader.packet() is not None:
            pass
    except ProtocolError:
        pass


async def test_the_limit_holds() -> None:
    reader = PktReader(Bytes(pkt_line(b"x" * 100) * 3, step=1000), limit=250)
    await reader.packet()
    await reader.packet()
    with pytest.raises(PayloadTooLarge):
        await reader.packet()


@pytest.mark.parametrize("data", [b"0003", b"xyz!", b"00", b"0009ab", b"fff5", b"+123", b" 123", b"12_4"])
async def test_lies_about_lengths(data: bytes) -> None:
    with pytest.raises(ProtocolError):
        await PktReader(Bytes(data), limit=1 << 20).packet()


@given(st.binary(max_size=200_000))
async def test_sideband_splits_and_keeps_order(payload: bytes) -> None:
    out = Collector()
    await Sideband(out, enabled=True).data(payload)
    reader = PktReader(Bytes(out.data, step=1 << 17), limit=1 << 20)
    joined = b""
    while (packet := await reader.packet()) is not None:
        assert packet[:1] == b"\1"
        joined += packet[1:]
    assert joined == payload


async def test_without_sideband_only_the_report_is_sent() -> None:
    out = Collector()
    band = Sideband(out, enabled=False)
    await band.progress(b"hello")
    await band.keep_alive()
    await band.data(b"report")
    await band.end()
    assert out.data == b"report"


@given(st.lists(st.binary(min_size=1, max_size=120), min_size=1, max_size=6))
async def test_any_commands_are_read_or_refused(lines: list[bytes]) -> None:
    data = b"".join(pkt_line(line) for line in lines) + FLUSH
    packets = PktReader(Bytes(data, step=50), limit=1 << 20)
    try:
        request = await read_push_request(packets, ObjectFormat.SHA1, max_commands=10)
    except ProtocolError:
        return
    assert request is not None


async def test_look_only_clients_and_probes_send_nothing() -> None:
    for data in (b"", FLUSH):
        packets = PktReader(Bytes(data), limit=100)
        assert await read_push_request(packets, ObjectFormat.SHA1, max_commands=10) is None


async def test_options_and_shallow_lines() -> None:
    zero, one = "0" * 40, "1" * 40
    data = (
        pkt_line(f"shallow {one}".encode())
        + pkt_line(f"{zero} {one} refs/heads/a\0report-status push-options agent=x".encode())
        + pkt_line(f"{one} {zero} refs/heads/b\n".encode())
        + FLUSH
        + pkt_line(b"run=train")
        + pkt_line(b"skip")
        + FLUSH
        + b"PACK"
    )
    packets = PktReader(Bytes(data, step=1000), limit=1000)
    request = await read_push_request(packets, ObjectFormat.SHA1, max_commands=10)
    assert request is not None
    assert [(u.name, u.creates, u.deletes) for u in request.updates] == [
        ("refs/heads/a", True, False),
        ("refs/heads/b", False, True),
    ]
    assert request.options == ("run=train", "skip")
    assert request.sends_pack
    assert await packets.read(10) == b"PACK"
