"""HTTP by hand: request targets, heads and bodies go out exactly as a test writes them."""

import asyncio
import base64
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from urllib.parse import urlsplit

from multidict import CIMultiDict

_SECONDS = 60


@dataclass(frozen=True)
class Reply:
    """One answer, with its body undone from chunks."""

    status: int
    headers: CIMultiDict[str]
    body: bytes

    @property
    def text(self) -> str:
        return self.body.decode()


def basic(user: str, secret: str) -> dict[str, str]:
    """The header that logs in."""
    return {"Authorization": f"Basic {base64.b64encode(f'{user}:{secret}'.encode()).decode()}"}


def chunked(*pieces: bytes) -> bytes:
    """A body in chunked framing."""
    return b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in (*pieces, b""))


class RawConnection:
    """One connection to the server, kept for as many requests as wanted."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, host: str) -> None:
        self._reader = reader
        self._writer = writer
        self._host = host

    async def send(self, data: bytes) -> None:
        """Sends bytes; a server that hung up already is no error, because its answer is what counts."""
        with suppress(ConnectionResetError, BrokenPipeError):
            self._writer.write(data)
            await self._writer.drain()

    async def head(self, method: str, target: str | bytes, headers: Mapping[str, str] | None = None) -> None:
        """Sends a request line and headers; nothing in them is checked, encoded or added but `Host`."""
        raw = target if isinstance(target, bytes) else target.encode("latin-1")
        lines = [
            f"{name}: {value}".encode() for name, value in {"Host": self._host, **(headers or {})}.items()
        ]
        await self.send(b"\r\n".join([method.encode() + b" " + raw + b" HTTP/1.1", *lines, b"", b""]))

    async def request(
        self,
        method: str,
        target: str | bytes,
        headers: Mapping[str, str] | None = None,
        body: bytes = b"",
    ) -> Reply:
        """Sends a request and reads the answer; Content-Length is added unless the body goes in chunks."""
        headers = dict(headers or {})
        if body and "Transfer-Encoding" not in headers:
            headers.setdefault("Content-Length", str(len(body)))
        await self.head(method, target, headers)
        await self.send(body)
        return await self.reply(empty=method == "HEAD")

    async def reply(self, *, empty: bool = False) -> Reply:
        """Reads one answer; an interim one (`100 Continue`) counts as one. `empty`: whatever its head says.

        Raises:
            asyncio.IncompleteReadError: the server hung up before the end.
        """
        async with asyncio.timeout(_SECONDS):
            head = (await self._reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
            status = int(head[0].split(" ")[1])
            headers = CIMultiDict(
                (name, value.strip()) for name, _, value in (line.partition(":") for line in head[1:] if line)
            )
            if empty or status < 200 or status in (204, 304):
                return Reply(status, headers, b"")
            if headers.get("Transfer-Encoding") == "chunked":
                return Reply(status, headers, await self._chunks())
            if "Content-Length" in headers:
                return Reply(status, headers, await self._reader.readexactly(int(headers["Content-Length"])))
            return Reply(status, headers, await self._reader.read(-1))

    async def _chunks(self) -> bytes:
        body = b""
        while size := int(await self._reader.readline(), 16):
            body += await self._reader.readexactly(size)
            await self._reader.readexactly(2)
        await self._reader.readexactly(2)
        return body

    async def closed(self) -> bool:
        """Sends no more, and says whether the server hangs up within half a minute, without another byte."""
        try:
            self._writer.write_eof()
            async with asyncio.timeout(30):
                return await self._reader.read(1) == b""
        except TimeoutError:
            return False
        except OSError:  # it has hung up already
            return True

    async def close(self) -> None:
        self._writer.close()
        with suppress(ConnectionResetError, BrokenPipeError):
            await self._writer.wait_closed()


@asynccontextmanager
async def connected(base: str, *, source: str = "") -> AsyncIterator[RawConnection]:
    """A connection to the server at `base`; from the loopback address `source`, if given."""
    parts = urlsplit(base)
    reader, writer = await asyncio.open_connection(
        parts.hostname, parts.port, local_addr=(source, 0) if source else None
    )
    connection = RawConnection(reader, writer, parts.netloc)
    try:
        yield connection
    finally:
        await connection.close()


async def request(
    base: str,
    method: str,
    target: str | bytes,
    headers: Mapping[str, str] | None = None,
    body: bytes = b"",
    *,
    source: str = "",
) -> Reply:
    """One request on a connection of its own."""
    async with connected(base, source=source) as connection:
        return await connection.request(method, target, headers, body)
