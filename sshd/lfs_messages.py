"""Requests and answers of `git-lfs-transfer`, in pkt-lines.

https://github.com/git-lfs/git-lfs/blob/main/docs/proposals/ssh_adapter.md

    request = command *(key=value) [delim *(line | data)] flush
    answer  = "status" code *(key=value) [delim *(line | data)] flush

Every text line ends in LF. A request that is well framed and says something impossible is refused with
`BadRequest`; one whose frames are wrong ends the conversation with `ProtocolError`.
"""

import sys
from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Self

from core.errors import BadRequest, PayloadTooLarge, ProtocolError
from gitserver.protocol import DELIM, FLUSH, RESPONSE_END, ByteReader, ByteWriter, PktReader, pkt_line
from sshd.texts import one_line
from storage.protocol import CHUNK_BYTES

# The longest that the proposal allows; one byte less than Git's own.
MAX_DATA = 65515
# Of everything before the delimiter. The longest argument is the path of a lock.
_MAX_HEAD_BYTES = 16 * 1024
_MAX_LINE_BYTES = 1024
_MAX_MESSAGE = 1000


@dataclass(frozen=True, slots=True)
class Request:
    """One command with its arguments; `command` is split at blanks and never empty."""

    command: tuple[str, ...]
    arguments: Mapping[str, str] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return self.command[0]

    def operand(self) -> str:
        """The one word behind the command. Raises `BadRequest` if there are none or more."""
        if len(self.command) != 2:
            raise BadRequest(f"{self.name} takes exactly one name")
        return self.command[1]

    def number(self, key: str) -> int | None:
        """An argument that is a number, if it was given. Raises `BadRequest` if it is no number."""
        text = self.arguments.get(key)
        return None if text is None else number(text, key)


@dataclass(frozen=True, slots=True)
class Answer:
    """What goes back. `lines` None leaves the delimiter out; `message` is one line of it."""

    status: int = 200
    arguments: Mapping[str, object] = field(default_factory=dict)
    lines: Iterable[str] | None = None

    @classmethod
    def refusal(cls, status: int, message: str, arguments: Mapping[str, object] | None = None) -> Self:
        return cls(status, arguments or {}, [one_line(message, _MAX_MESSAGE)])

    def encoded(self) -> bytes:
        return b"".join([*_head(self.status, self.arguments), *self._tail()])

    def _tail(self) -> Iterator[bytes]:
        if self.lines is not None:
            yield DELIM
            yield from map(_text, self.lines)
        yield FLUSH


class Incoming:
    """What the client sends, request by request. Whatever a command leaves unread, `drain` passes over."""

    def __init__(self, reader: ByteReader) -> None:
        # Each request is bounded here; the conversation has no end of its own.
        self._packets = PktReader(reader, limit=sys.maxsize)
        self._open = False

    async def request(self) -> Request | None:
        """The next request, up to its delimiter or flush; None when the client left between two.

        Raises:
            BadRequest, PayloadTooLarge: it cannot be understood, or is far too long; `drain` passes over it.
            ProtocolError: its frames are wrong.
        """
        lines: list[bytes] = []
        size = 0
        packet = await self._packets.packet()
        if packet is None:
            return None
        while packet is not FLUSH and packet is not DELIM:
            payload = _payload(packet)
            size += len(payload) + 4
            if size <= _MAX_HEAD_BYTES:
                lines.append(payload)
            packet = await self._packets.packet()
        self._open = packet is DELIM
        if size > _MAX_HEAD_BYTES:
            raise PayloadTooLarge("this command is too long")
        return _parsed(lines)

    async def lines(self, limit: int) -> list[str]:
        """The lines behind the delimiter, if there was one.

        Raises:
            PayloadTooLarge: more than `limit`, or one of them is too long.
            BadRequest: one is no text.
        """
        lines: list[str] = []
        while (payload := await self._next()) is not None:
            if len(lines) == limit:
                raise PayloadTooLarge(f"more than {limit} lines are not possible here")
            if len(payload) > _MAX_LINE_BYTES:
                raise PayloadTooLarge("this line is too long")
            lines.append(_decoded(payload))
        return lines

    async def data(self) -> AsyncGenerator[bytes, None]:
        """The bytes behind the delimiter, in pieces of about 256 KiB."""
        pieces: list[bytes] = []
        size = 0
        while (payload := await self._next()) is not None:
            pieces.append(payload)
            size += len(payload)
            if size >= CHUNK_BYTES - MAX_DATA:
                yield b"".join(pieces)
                pieces, size = [], 0
        if pieces:
            yield b"".join(pieces)

    async def drain(self) -> None:
        """Reads the rest of the request, which nobody wants. Raises `ProtocolError`."""
        while await self._next() is not None:
            pass

    async def _next(self) -> bytes | None:
        """The next packet of this request; None behind its flush, however often it is asked."""
        if not self._open:
            return None
        packet = await self._packets.packet()
        if packet is FLUSH:
            self._open = False
            return None
        return _payload(packet)


class Outgoing:
    """What the client receives."""

    def __init__(self, writer: ByteWriter) -> None:
        self._writer = writer

    async def capabilities(self, *names: str) -> None:
        """Speaks first."""
        await self._writer.write(b"".join([*map(_text, names), FLUSH]))

    async def send(self, answer: Answer) -> None:
        await self._writer.write(answer.encoded())

    async def send_data(self, size: int, chunks: AsyncIterator[bytes]) -> None:
        """Answers with the bytes of an object. Whatever `chunks` raises leaves the answer without an end."""
        head = b"".join([*_head(200, {"size": size}), DELIM])
        async for chunk in chunks:
            await self._writer.write(b"".join([head, *_framed(chunk)]))
            head = b""
        await self._writer.write(head + FLUSH)


def number(text: str, what: str) -> int:
    """A number of at most 19 digits. Raises `BadRequest`."""
    if not text.isascii() or not text.isdigit() or len(text) > 19:
        raise BadRequest(f"the {what} must be a number")
    return int(text)


def _framed(chunk: bytes) -> Iterator[bytes | memoryview]:
    view = memoryview(chunk)
    for start in range(0, len(view), MAX_DATA):
        piece = view[start : start + MAX_DATA]
        yield b"%04x" % (len(piece) + 4)
        yield piece


def _head(status: int, arguments: Mapping[str, object]) -> Iterator[bytes]:
    yield _text(f"status {status}")
    for key, value in arguments.items():
        yield _text(f"{key}={value}")


def _text(line: str) -> bytes:
    return pkt_line(f"{line}\n".encode())


def _payload(packet: bytes | None) -> bytes:
    """What a packet says where one is expected that says something."""
    if packet is None:
        raise ProtocolError("the stream ended in the middle of a request")
    if packet is DELIM or packet is RESPONSE_END:
        raise ProtocolError("a delimiter stands where it cannot")
    return packet


def _decoded(payload: bytes) -> str:
    try:
        text = payload.removesuffix(b"\n").decode()
    except UnicodeDecodeError:
        raise BadRequest("a line is not UTF-8") from None
    if not text or any(character < " " or character == "\x7f" for character in text):
        raise BadRequest("a line is empty or holds control characters")
    return text


def _parsed(lines: list[bytes]) -> Request:
    if not lines:
        raise BadRequest("there is no command")
    command, *rest = map(_decoded, lines)
    arguments: dict[str, str] = {}
    for line in rest:
        key, separator, value = line.partition("=")
        if not separator or key in arguments:
            raise BadRequest("an argument must be KEY=VALUE, and each key stands once")
        arguments[key] = value
    words = tuple(command.split(" "))
    if not all(words):
        raise BadRequest("a command and its operands are separated by single blanks")
    return Request(words, arguments)
