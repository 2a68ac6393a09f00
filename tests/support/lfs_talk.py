"""A raw client of `git-lfs-transfer`, for what the real one cannot be made to say.

async with talk(connection, "ann/demo", "upload") as client:
    assert (await client.put(data)).status == 200
"""

import hashlib
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

import asyncssh

from gitserver.protocol import DELIM, FLUSH, PktReader, pkt_line

# What git-lfs sends at once.
_PIECE = 32768


@dataclass(frozen=True)
class Told:
    """An answer: `arguments` stand before the delimiter, `packets` behind it; None if there was none."""

    status: int
    arguments: Mapping[str, str]
    packets: Sequence[bytes] | None

    @property
    def data(self) -> bytes:
        return b"".join(self.packets or [])

    @property
    def lines(self) -> list[str]:
        return [packet.decode().removesuffix("\n") for packet in self.packets or []]

    @property
    def message(self) -> str:
        """What a refusal says."""
        assert self.status >= 400, self
        (line,) = self.lines
        return line


@dataclass
class Talk:
    """One conversation, behind the capabilities."""

    process: "asyncssh.SSHClientProcess[bytes]"
    packets: PktReader

    async def told(self) -> Told:
        """The next answer."""
        head: list[bytes] = []
        while (packet := await self._packet()) is not FLUSH and packet is not DELIM:
            head.append(packet)
        behind: list[bytes] | None = None
        if packet is DELIM:
            behind = []
            while (packet := await self._packet()) is not FLUSH:
                assert packet is not DELIM
                behind.append(packet)
        first, *rest = [line.decode().removesuffix("\n") for line in head]
        assert first.startswith("status "), head
        pairs = [line.partition("=")[::2] for line in rest]
        assert len(dict(pairs)) == len(pairs), rest
        return Told(int(first.removeprefix("status ")), dict(pairs), behind)

    async def _packet(self) -> bytes:
        packet = await self.packets.packet()
        assert packet is not None, "the server hung up"
        return packet

    def send(self, raw: bytes) -> None:
        self.process.stdin.write(raw)

    async def ask(self, command: str, *arguments: str, lines: Sequence[str] | None = None) -> Told:
        """One request without data, and its answer."""
        self.send(request(command, *arguments, lines=lines))
        return await self.told()

    async def put(
        self, data: bytes, *, oid: str | None = None, size: int | None = None, arguments: Sequence[str] = ()
    ) -> Told:
        """Uploads, under the true oid and size unless others are given."""
        size = len(data) if size is None else size
        self.send(head(f"put-object {oid or hashlib.sha256(data).hexdigest()}", f"size={size}", *arguments))
        self.send(DELIM)
        for start in range(0, len(data), _PIECE):
            self.send(pkt_line(data[start : start + _PIECE]))
            await self.process.stdin.drain()
        self.send(FLUSH)
        return await self.told()

    async def ended(self) -> tuple[int | None, bytes, str]:
        """How the server ended the conversation: exit status, output not read yet, standard error."""
        done = await self.process.wait(timeout=60)
        assert isinstance(done.stdout, bytes)
        assert isinstance(done.stderr, bytes)
        return done.exit_status, done.stdout, done.stderr.decode()


def head(command: str, *arguments: str) -> bytes:
    """The lines of a request before its delimiter or flush."""
    return b"".join(pkt_line(f"{line}\n".encode()) for line in (command, *arguments))


def request(command: str, *arguments: str, lines: Sequence[str] | None = None) -> bytes:
    """A request without data."""
    behind = b"" if lines is None else DELIM + b"".join(pkt_line(f"{line}\n".encode()) for line in lines)
    return head(command, *arguments) + behind + FLUSH


@asynccontextmanager
async def talk(
    connection: asyncssh.SSHClientConnection, path: str, operation: str, *, agree: bool = True
) -> AsyncIterator[Talk]:
    """Begins a conversation, and the version with `agree`; the channel is closed behind the block."""
    process = await connection.create_process(f"git-lfs-transfer '{path}.git' {operation}", encoding=None)
    async with process:
        client = Talk(process, PktReader(process.stdout, limit=2**62))
        assert [line async for line in client.packets.lines()] == [b"version=1", b"locking"]
        if agree:
            assert await client.ask("version 1") == Told(200, {}, None)
        yield client
