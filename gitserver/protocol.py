"""Git's wire format: pkt-lines, sidebands and the streams they travel on.

Formats: gitprotocol-common(5), gitprotocol-pack(5), gitprotocol-v2(5).
"""

import asyncio
import re
from collections.abc import AsyncIterator
from typing import Protocol

from core.errors import PayloadTooLarge, ProtocolError

FLUSH = b"0000"
DELIM = b"0001"
RESPONSE_END = b"0002"
MAX_PAYLOAD = 65516
_MAX_SIDEBAND = 65515

BAND_DATA = b"\x01"
BAND_PROGRESS = b"\x02"


class ByteReader(Protocol):
    """The client's bytes."""

    async def read(self, n: int) -> bytes:
        """Between 1 and `n` bytes as they come; `b""` at the end of the stream."""
        ...


class ByteWriter(Protocol):
    """The way back to the client."""

    async def write(self, data: bytes) -> None:
        """Returns when there is room for more. Raises `ConnectionError` when the client is gone."""
        ...


def parse_protocol(text: str | None) -> int:
    """The protocol version (0, 1 or 2) that a `Git-Protocol` header or GIT_PROTOCOL variable asks for.

    The highest version named wins, as in git's determine_protocol_version_server; whatever is not exactly
    `version=N` is ignored, so nothing of the client's text ever reaches a child's environment.
    """
    if text is None or len(text) > 256:
        return 0
    versions = [
        int(found[1]) for token in text.split(":") if (found := re.fullmatch(r"version=([012])", token))
    ]
    return max(versions, default=0)


def pkt_line(data: bytes) -> bytes:
    """One pkt-line. `data` is at most `MAX_PAYLOAD` bytes."""
    if len(data) > MAX_PAYLOAD:
        raise ValueError("a pkt-line cannot hold that much")
    return b"%04x%s" % (len(data) + 4, data)


class PktReader:
    """Reads pkt-lines, then hands over the raw rest; `limit` bounds all that is read as pkt-lines."""

    def __init__(self, reader: ByteReader, *, limit: int) -> None:
        self._reader = reader
        self._left = limit
        self._buffer = bytearray()

    async def packet(self) -> bytes | None:
        """The next packet: its payload, or `FLUSH`/`DELIM`/`RESPONSE_END`; None at a clean end.

        A payload can never equal those markers by accident, because `special` tells them apart: they are
        returned as the very module constants.

        Raises:
            ProtocolError: a length that is no hexadecimal number, lies, or an end in the middle of a packet.
            PayloadTooLarge: more than `limit` bytes of pkt-lines.
        """
        head = await self._exactly(4, at_boundary=True)
        if head is None:
            return None
        if not re.fullmatch(rb"[0-9a-fA-F]{4}", head):
            raise ProtocolError("bad pkt-line length")
        length = int(head, 16)
        if length == 0:
            return FLUSH
        if length == 1:
            return DELIM
        if length == 2:
            return RESPONSE_END
        if length == 3 or length > MAX_PAYLOAD + 4:
            raise ProtocolError("bad pkt-line length")
        payload = await self._exactly(length - 4)
        assert payload is not None
        return payload

    async def lines(self) -> AsyncIterator[bytes]:
        """Packets up to the next flush, without their final LF.

        Raises:
            ProtocolError: the stream ends before the flush, or holds another marker.
        """
        while True:
            packet = await self.packet()
            if packet is FLUSH:
                return
            if packet is None or packet is DELIM or packet is RESPONSE_END:
                raise ProtocolError("the list of pkt-lines was cut off")
            yield packet.removesuffix(b"\n")

    async def read(self, n: int) -> bytes:
        """Raw bytes behind the pkt-lines; makes this a `ByteReader`."""
        if self._buffer:
            chunk = bytes(self._buffer[:n])
            del self._buffer[:n]
            return chunk
        return await self._reader.read(n)

    async def _exactly(self, size: int, *, at_boundary: bool = False) -> bytes | None:
        self._left -= size
        if self._left < 0:
            raise PayloadTooLarge("the request is too large")
        while len(self._buffer) < size:
            chunk = await self._reader.read(65536)
            if not chunk:
                if at_boundary and not self._buffer:
                    return None
                raise ProtocolError("the stream ended in the middle of a pkt-line")
            self._buffer += chunk
            # A reader that has bytes at hand never suspends, and thousands of packets fit into a chunk.
            await asyncio.sleep(0)
        data = bytes(self._buffer[:size])
        del self._buffer[:size]
        return data


class Sideband:
    """Multiplexes report and progress on one stream (side-band-64k), or passes the report bare.

    Writes are serialised, so that keep-alives can be sent from another task.
    """

    def __init__(self, writer: ByteWriter, *, enabled: bool) -> None:
        self._writer = writer
        self._enabled = enabled
        self._lock = asyncio.Lock()

    async def data(self, payload: bytes) -> None:
        """Sends the answer itself."""
        if not self._enabled:
            await self._writer.write(payload)
        else:
            await self._send(BAND_DATA, payload)

    async def progress(self, text: bytes) -> None:
        """Sends text that the client shows behind `remote: `; dropped when there is no sideband."""
        if self._enabled:
            await self._send(BAND_PROGRESS, text)

    async def keep_alive(self) -> None:
        """Sends an empty progress packet, which clients ignore."""
        if self._enabled:
            async with self._lock:
                await self._writer.write(pkt_line(BAND_PROGRESS))

    async def end(self) -> None:
        """Closes the multiplexed stream."""
        if self._enabled:
            await self._writer.write(FLUSH)

    async def _send(self, band: bytes, payload: bytes) -> None:
        async with self._lock:
            for start in range(0, len(payload), _MAX_SIDEBAND):
                await self._writer.write(pkt_line(band + payload[start : start + _MAX_SIDEBAND]))
