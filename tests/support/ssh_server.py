"""The SSH face over scripted parts: keys are a dictionary, and what Git does is the repository's name."""

import asyncio
import hashlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import asyncssh
import msgspec

from core.access import Actor, ActorKind, Permission
from core.errors import PermissionDenied, RepositoryNotFound
from core.models import ObjectFormat, Transport, Visibility
from core.names import Address
from core.repositories import RepositoryInfo
from core.settings import SshSettings
from gitserver.protocol import ByteReader, ByteWriter
from lfs.batch import Operation
from sshd.server import SshServer
from sshd.streams import Pulse
from tests.support.ssh import ClientKey, ssh_command

MEBIBYTE = 1024 * 1024


class ScriptedKeys:
    """Knows keys by a dictionary that tests may change while the server runs."""

    def __init__(self, people: Mapping[str, str]) -> None:
        self.people = dict(people)
        self.asked: list[str] = []
        self.failure: Exception | None = None

    async def authenticate_key(self, fingerprint: str, address: str) -> Actor | None:
        self.asked.append(fingerprint)
        if self.failure is not None:
            raise self.failure
        name = self.people.get(fingerprint)
        if name is None:
            return None
        return Actor(ActorKind.USER, name, user_id=1, credential="key:1", address=address)


class ScriptedRepositories:
    """Has every repository except `missing`; nobody may write to `readonly`."""

    async def open(self, actor: Actor, address: Address, permission: Permission) -> RepositoryInfo:
        if address.name == "missing":
            raise RepositoryNotFound("no such repository")
        now = datetime.now(UTC)
        return RepositoryInfo(
            id="0" * 32,
            type=address.type,
            owner=address.owner,
            name=address.name,
            visibility=Visibility.PRIVATE,
            description="",
            default_branch="main",
            object_format=ObjectFormat.SHA1,
            refs_version=1,
            state="s",
            created_at=now,
            updated_at=now,
        )

    async def open_or_create(self, actor: Actor, address: Address, transport: Transport) -> RepositoryInfo:
        if address.name == "readonly":
            raise PermissionDenied("you may read this repository, not write to it")
        return await self.open(actor, address, Permission.WRITE)


@dataclass(frozen=True)
class Call:
    """One conversation as the Git service saw it."""

    service: str
    path: str
    protocol: int | None = None
    actor: str | None = None


@dataclass
class ScriptedGit:
    """Does what the repository's name says.

    `echo` sends back what it gets, `big` sends 100 MiB, `sink` answers with the SHA-256 of what it gets,
    `sip` reads slowly and counts, `stall` reads nothing, writes nothing and never ends, `crash` fails,
    `refuse` refuses after some output, `endless` sends until it is stopped, everything else says `hello`.
    """

    calls: list[Call] = field(default_factory=list)
    started: asyncio.Event = field(default_factory=asyncio.Event)
    cancelled: int = 0
    sent: int = 0
    sipped: int = 0

    async def upload_pack(
        self,
        repository: RepositoryInfo,
        protocol: int,
        reader: ByteReader,
        writer: ByteWriter,
        *,
        stateless: bool,
        client: str,
    ) -> None:
        assert not stateless
        self.calls.append(Call("upload", repository.path, protocol))
        await self._play(repository.name, reader, writer)

    async def receive_pack(
        self,
        repository: RepositoryInfo,
        actor: Actor,
        transport: Transport,
        protocol: int,
        reader: ByteReader,
        writer: ByteWriter,
        *,
        stateless: bool,
    ) -> None:
        assert not stateless
        assert transport is Transport.SSH
        self.calls.append(Call("receive", repository.path, protocol, actor.name))
        await self._play(repository.name, reader, writer)

    async def upload_archive(
        self, repository: RepositoryInfo, reader: ByteReader, writer: ByteWriter, *, client: str
    ) -> None:
        self.calls.append(Call("archive", repository.path))
        await self._play(repository.name, reader, writer)

    async def _play(self, name: str, reader: ByteReader, writer: ByteWriter) -> None:
        self.started.set()
        try:
            match name:
                case "echo":
                    while data := await reader.read(65536):
                        await writer.write(data)
                case "big":
                    for number in range(100):
                        await writer.write(mebibyte(number))
                case "sink":
                    digest = hashlib.sha256()
                    while data := await reader.read(65536):
                        digest.update(data)
                    await writer.write(digest.hexdigest().encode())
                case "sip":
                    while data := await reader.read(65536):
                        self.sipped += len(data)
                        await asyncio.sleep(0.002)
                case "stall":
                    await asyncio.Event().wait()
                case "endless":
                    while True:
                        await writer.write(bytes(MEBIBYTE))
                        self.sent += MEBIBYTE
                case "crash":
                    raise RuntimeError("secret detail")
                case "refuse":
                    await writer.write(b"some output")
                    raise PermissionDenied("not\nlike \x1b[31mthis")
                case _:
                    await writer.write(b"hello")
        except asyncio.CancelledError:
            self.cancelled += 1
            raise


@dataclass
class ScriptedLargeFiles:
    """Tells what it was asked; a transfer is patient until the first bytes, and then sends them back."""

    calls: list[tuple[str, str, str]] = field(default_factory=list)

    async def authenticate(
        self, actor: Actor, address: Address, operation: Operation, local_address: str
    ) -> bytes:
        self.calls.append(("authenticate", address.path, operation))
        return f"{actor.name} at {local_address}".encode()

    async def transfer(
        self,
        identify: Callable[[], Awaitable[Actor]],
        address: Address,
        operation: Operation,
        reader: ByteReader,
        writer: ByteWriter,
        pulse: Pulse,
    ) -> None:
        self.calls.append(("transfer", address.path, operation))
        pulse.patient = True
        await writer.write(await reader.read(65536))
        pulse.patient = False
        while data := await reader.read(65536):
            await writer.write((await identify()).name.encode() + data)


def mebibyte(number: int) -> bytes:
    """A recognisable block of a long stream."""
    return number.to_bytes(4, "big") * (MEBIBYTE // 4)


def big_digest() -> str:
    """The SHA-256 of what `big` sends."""
    digest = hashlib.sha256()
    for number in range(100):
        digest.update(mebibyte(number))
    return digest.hexdigest()


@dataclass
class CountingObserver:
    """Remembers what it was told."""

    connections: int = 0
    opened: int = 0
    running: int = 0
    finished: list[tuple[str, str]] = field(default_factory=list)

    def connection_opened(self) -> None:
        self.connections += 1
        self.opened += 1

    def connection_closed(self) -> None:
        self.connections -= 1

    def command_started(self, service: str) -> None:
        self.running += 1

    def command_finished(self, service: str, outcome: str, seconds: float) -> None:
        self.running -= 1
        self.finished.append((service, outcome))


@dataclass
class Running:
    """A server that accepts."""

    server: SshServer
    keys: ScriptedKeys
    git: ScriptedGit
    large_files: ScriptedLargeFiles
    observer: CountingObserver

    def ssh(self, *keys: ClientKey | Path, options: tuple[str, ...] = (), user: str = "git") -> list[str]:
        return ssh_command(self.server.port, *keys, options=options, user=user)


@asynccontextmanager
async def serving(directory: Path, people: Mapping[str, str], **settings: Any) -> AsyncIterator[Running]:
    """A server on a free loopback port; `settings` are those of `[ssh]`."""
    keys, git, observer = ScriptedKeys(people), ScriptedGit(), CountingObserver()
    large_files = ScriptedLargeFiles()
    server = SshServer(
        msgspec.convert({"listen": "127.0.0.1:0", **settings}, SshSettings),
        ScriptedRepositories(),
        keys,
        git,
        large_files,
        directory / "host_key",
        observer=observer,
    )
    await server.start()
    try:
        yield Running(server, keys, git, large_files, observer)
    finally:
        await server.close()
    assert observer.connections == 0
    assert observer.running == 0


def connect(
    server: Running, key: ClientKey, **options: Any
) -> "asyncssh.misc._ACMWrapper[asyncssh.SSHClientConnection]":
    """A connection of asyncssh's client, for what OpenSSH's cannot be made to do."""
    return asyncssh.connect(
        "127.0.0.1",
        server.server.port,
        username="git",
        client_keys=[str(key.file)],
        agent_path=None,
        known_hosts=None,
        config=None,
        **options,
    )


async def eventually(condition: Callable[[], object], seconds: float = 30) -> None:
    """Waits until `condition()` holds."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        await asyncio.sleep(0.02)
