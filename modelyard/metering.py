"""Counts the bytes of Git and git-lfs over SSH; over HTTP the routes count them themselves."""

from collections.abc import Awaitable, Callable

from core.access import Actor
from core.models import Transport
from core.names import Address
from core.repositories import RepositoryInfo
from gitserver.protocol import ByteReader, ByteWriter
from gitserver.service import GitService
from lfs.batch import Operation
from modelyard.metrics import Metrics
from sshd.ports import LargeFiles
from sshd.streams import Pulse


class MeteredReader:
    """Passes a stream on and counts it."""

    def __init__(self, reader: ByteReader) -> None:
        self._reader = reader
        self.bytes = 0

    async def read(self, n: int) -> bytes:
        data = await self._reader.read(n)
        self.bytes += len(data)
        return data


class MeteredWriter:
    """Passes a stream on and counts it."""

    def __init__(self, writer: ByteWriter) -> None:
        self._writer = writer
        self.bytes = 0

    async def write(self, data: bytes) -> None:
        await self._writer.write(data)
        self.bytes += len(data)


class MeteredGit:
    """A `GitService` for the SSH face; its bytes are counted also when a conversation breaks off."""

    def __init__(self, git: GitService, metrics: Metrics) -> None:
        self._git = git
        self._metrics = metrics

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
        """As `GitService.upload_pack`."""
        source, sink = MeteredReader(reader), MeteredWriter(writer)
        try:
            await self._git.upload_pack(
                repository, protocol, source, sink, stateless=stateless, client=client
            )
        finally:
            self._count("git-upload-pack", source, sink)

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
        """As `GitService.receive_pack`."""
        source, sink = MeteredReader(reader), MeteredWriter(writer)
        try:
            await self._git.receive_pack(
                repository, actor, transport, protocol, source, sink, stateless=stateless
            )
        finally:
            self._count("git-receive-pack", source, sink)

    async def upload_archive(
        self, repository: RepositoryInfo, reader: ByteReader, writer: ByteWriter, *, client: str
    ) -> None:
        """As `GitService.upload_archive`."""
        source, sink = MeteredReader(reader), MeteredWriter(writer)
        try:
            await self._git.upload_archive(repository, source, sink, client=client)
        finally:
            self._count("git-upload-archive", source, sink)

    def _count(self, service: str, source: MeteredReader, sink: MeteredWriter) -> None:
        self._metrics.transferred("ssh", service, received=source.bytes, sent=sink.bytes)


class MeteredLargeFiles:
    """A `sshd.ports.LargeFiles` whose bytes are counted, also when a conversation breaks off."""

    def __init__(self, large_files: LargeFiles, metrics: Metrics) -> None:
        self._large_files = large_files
        self._metrics = metrics

    async def authenticate(
        self, actor: Actor, address: Address, operation: Operation, local_address: str
    ) -> bytes:
        """As `LargeFiles.authenticate`."""
        return await self._large_files.authenticate(actor, address, operation, local_address)

    async def transfer(
        self,
        identify: Callable[[], Awaitable[Actor]],
        address: Address,
        operation: Operation,
        reader: ByteReader,
        writer: ByteWriter,
        pulse: Pulse,
    ) -> None:
        """As `LargeFiles.transfer`."""
        source, sink = MeteredReader(reader), MeteredWriter(writer)
        try:
            await self._large_files.transfer(identify, address, operation, source, sink, pulse)
        finally:
            self._metrics.transferred("ssh", "git-lfs-transfer", received=source.bytes, sent=sink.bytes)
