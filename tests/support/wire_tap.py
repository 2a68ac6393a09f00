"""A tap on the wire: forwards TCP connections, remembers the HTTP messages on them, and cuts them on demand.

    async with WireTap("127.0.0.1", port) as tap:
        tap.cut(Cut("GET", response_bytes=1_000_000))     # once: the connection dies behind so many bytes
        ...                                               # clients use 127.0.0.1:{tap.port}
        ranges = [seen.request["range"] for seen in tap.seen if seen.method == "GET"]

Bodies pass through and are counted, not kept. What is not HTTP passes, too, and is not understood.
"""

import asyncio
import contextlib
import socket
import struct
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

_CHUNK = 64 * 1024
_MAX_HEAD = 64 * 1024


@dataclass
class Exchange:
    """A request and what was answered. Names of fields are in lower case; counts are of body bytes."""

    method: str
    target: str
    request: dict[str, str]
    request_bytes: int = 0
    status: int = 0
    response: dict[str, str] = field(default_factory=dict)
    response_bytes: int = 0
    was_cut: bool = False

    @property
    def path(self) -> str:
        """The target without its query."""
        return self.target.partition("?")[0]


@dataclass
class Cut:
    """Closes a connection behind so many body bytes of a matching request or response; `times` times."""

    method: str
    path: str = ""
    request_bytes: int | None = None
    response_bytes: int | None = None
    times: int = 1

    def _wants(self, exchange: Exchange) -> bool:
        return self.times > 0 and exchange.method == self.method and self.path in exchange.target


class WireTap:
    """Listens on a port of its own in front of one server.

    Attributes:
        seen: every exchange whose request was read, in order.
        bytes_per_second: how fast bytes pass, per connection and direction; 0 is no limit.
    """

    def __init__(self, host: str, port: int, *, listen: int = 0) -> None:
        """`listen`: the port of the tap itself; 0 is any."""
        self.seen: list[Exchange] = []
        self.bytes_per_second = 0
        self.port = listen
        self._target = (host, port)
        self._cuts: list[Cut] = []
        self._server: asyncio.Server | None = None
        self._connections: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._connected, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._server is not None:
            self._server.close()
        for task in self._connections:
            task.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)

    @property
    def netloc(self) -> str:
        """What clients put in place of the server's host and port."""
        return f"127.0.0.1:{self.port}"

    def cut(self, *cuts: Cut) -> None:
        """Adds cuts. A matching message meets the first that is not used up."""
        self._cuts += cuts

    def mend(self) -> None:
        """Takes back all cuts that are left."""
        self._cuts.clear()

    def named(self, method: str, path: str = "") -> list[Exchange]:
        """The exchanges with this method whose target contains `path`."""
        return [one for one in self.seen if one.method == method and path in one.target]

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        try:
            await self._forward(reader, writer)
        except (OSError, asyncio.CancelledError):
            # The server does not listen, or `__aexit__` ends this task: asyncio of Python 3.11 reports a
            # connection's task that was cancelled as an error.
            _reset(writer)
        finally:
            self._connections.discard(task)

    async def _forward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        to_server = await asyncio.open_connection(*self._target)
        conversation = _Conversation(self.seen, self._cuts)
        try:
            async with asyncio.TaskGroup() as both:
                both.create_task(self._pump(reader, to_server[1], conversation.requested))
                both.create_task(self._pump(to_server[0], writer, conversation.answered))
        except* _Severed:
            pass
        except* OSError:
            _reset(to_server[1])
            _reset(writer)
        finally:
            for end in (to_server[1], writer):
                end.close()
                with contextlib.suppress(OSError):
                    await end.wait_closed()

    async def _pump(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, look: Callable[[bytes], int]
    ) -> None:
        while data := await reader.read(_CHUNK):
            passed = look(data)
            writer.write(data[:passed])
            await writer.drain()
            if passed < len(data):
                raise _Severed
            if self.bytes_per_second:
                await asyncio.sleep(len(data) / self.bytes_per_second)
        with contextlib.suppress(OSError):
            writer.write_eof()


class _Severed(EOFError):
    """A cut was due."""


class _Conversation:
    """Both directions of one connection."""

    def __init__(self, seen: list[Exchange], cuts: list[Cut]) -> None:
        self._seen = seen
        self._cuts = cuts
        self._current: Exchange | None = None  # whose body the client sends
        self._unanswered: list[Exchange] = []
        self._requests = _Messages()
        self._responses = _Messages()

    def requested(self, data: bytes) -> int:
        """Takes what the client sent; returns how much of it may pass, all of it unless a cut is due."""
        for event in self._requests.feed(data):
            if isinstance(event, _Head):
                method, target, _ = (event.first + "  ").split(" ", 2)
                exchange = Exchange(method, target, event.fields)
                self._seen.append(exchange)
                self._unanswered.append(exchange)
                self._current = exchange
                self._requests.expect(_length(event.fields))
            elif self._current is not None:
                self._current.request_bytes += event.body
                passed = self._due(self._current, event, answer=False)
                if passed is not None:
                    return passed
        return len(data)

    def answered(self, data: bytes) -> int:
        """The same for what the server sent."""
        for event in self._responses.feed(data):
            if isinstance(event, _Head):
                status = int(event.first.split(" ")[1])
                if status < 200:
                    self._responses.expect(0)
                    continue
                if self._unanswered and self._unanswered[0].status:
                    self._unanswered.pop(0)
                if not self._unanswered:
                    return len(data)  # the server gives up on a silent client
                exchange = self._unanswered[0]
                exchange.status, exchange.response = status, event.fields
                bodiless = exchange.method == "HEAD" or status in (204, 304)
                self._responses.expect(0 if bodiless else _length(event.fields, until_close=True))
            else:
                self._unanswered[0].response_bytes += event.body
                passed = self._due(self._unanswered[0], event, answer=True)
                if passed is not None:
                    return passed
        return len(data)

    def _due(self, exchange: Exchange, body: "_Body", *, answer: bool) -> int | None:
        so_far = exchange.response_bytes if answer else exchange.request_bytes
        for cut in self._cuts:
            limit = cut.response_bytes if answer else cut.request_bytes
            if limit is None or not cut._wants(exchange):
                continue
            if so_far < limit:
                return None
            cut.times -= 1
            exchange.was_cut = True
            if answer:
                exchange.response_bytes = limit
            else:
                exchange.request_bytes = limit
            return body.end - (so_far - limit)
        return None


@dataclass
class _Head:
    first: str
    fields: dict[str, str]


@dataclass
class _Body:
    """So many bytes of a body, which end at this place of the data that was fed."""

    body: int
    end: int


class _Messages:
    """Splits one direction into heads and bodies (RFC 9112, as far as well-behaved programs use it)."""

    def __init__(self) -> None:
        self._head = bytearray()
        self._left: int | None = 0  # of the body; None is chunked, below zero until the end
        self._chunk = bytearray()
        self._chunk_left = 0
        self._trailer = False
        self.complete = True

    def expect(self, length: int | None) -> None:
        """Says how long the body behind the last head is."""
        self._left = length
        self._chunk_left, self._trailer = 0, False
        self.complete = length == 0

    def feed(self, data: bytes) -> Iterator["_Head | _Body"]:
        """Reads lazily, because what a head says decides how the rest is read."""
        at = 0
        while at < len(data):
            at, event = self._step(data, at)
            if event is not None:
                yield event

    def _step(self, data: bytes, at: int) -> tuple[int, "_Head | _Body | None"]:
        """Reads one thing from `at`; returns where it ended and what it was."""
        if self.complete:
            return self._step_head(data, at)
        if self._left is None:
            return self._step_chunk(data, at)
        taken = len(data) - at if self._left < 0 else min(self._left, len(data) - at)
        if self._left > 0:
            self._left -= taken
            self.complete = self._left == 0
        return at + taken, _Body(taken, at + taken)

    def _step_head(self, data: bytes, at: int) -> tuple[int, "_Head | None"]:
        before = len(self._head)
        self._head += data[at:]
        end = self._head.find(b"\r\n\r\n")
        if end < 0:
            if len(self._head) > _MAX_HEAD:
                raise _Severed("not HTTP")
            return len(data), None
        first, *lines = self._head[:end].decode("latin-1").split("\r\n")
        self._head.clear()
        pairs = (line.partition(":") for line in lines)
        return at + end + 4 - before, _Head(first, {name.lower(): value.strip() for name, _, value in pairs})

    def _step_chunk(self, data: bytes, at: int) -> tuple[int, "_Body | None"]:
        if self._chunk_left > 0:
            taken = min(self._chunk_left, len(data) - at)
            self._chunk_left -= taken
            return at + taken, _Body(taken, at + taken)
        end = data.find(b"\n", at)
        self._chunk += data[at:] if end < 0 else data[at : end + 1]
        if end < 0:
            return len(data), None
        line = bytes(self._chunk).strip()
        self._chunk.clear()
        if self._trailer:
            self.complete = not line
        elif line:
            self._chunk_left = int(line.partition(b";")[0], 16)
            self._trailer = self._chunk_left == 0
        return end + 1, None


def _length(fields: Mapping[str, str], *, until_close: bool = False) -> int | None:
    if "chunked" in fields.get("transfer-encoding", "").lower():
        return None
    if "content-length" in fields:
        return int(fields["content-length"])
    return -1 if until_close else 0


def _reset(writer: asyncio.StreamWriter) -> None:
    connection: socket.socket | None = writer.get_extra_info("socket")
    if connection is not None and connection.fileno() >= 0:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()
