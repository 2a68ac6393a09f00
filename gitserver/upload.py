"""The fetch: refs from the database, packs from `git upload-pack` on a snapshot (design section 5)."""

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import structlog

from core.errors import PayloadTooLarge, ProtocolError
from core.models import ObjectFormat
from core.repositories import RepositoryInfo
from core.settings import GitSettings
from core.slots import Slots
from gitserver.advertise import LsRefs, RefAnswers, capabilities_v2, encode_request
from gitserver.children import PIPE, Child
from gitserver.clones import CloneKey, Clones, digest_of, is_clone, wanted
from gitserver.process import PIPE_BYTES, GitFailed, GitRunner, collect_stderr, feed
from gitserver.protocol import DELIM, FLUSH, ByteReader, ByteWriter, PktReader
from gitserver.snapshots import Snapshot, Snapshots
from gitserver.wanted_refs import copy_with_section, resolve_wanted_refs

log = structlog.get_logger(__name__)

_MAX_CAPABILITIES = 64
# Of some 50 bytes each: many more than any honest fetch has.
_MAX_ARGUMENTS = 400_000

# One repository, one object directory (invariant I7): everything stored in it may be asked for.
_UPLOAD_CONFIG = {
    "uploadpack.allowFilter": "true",
    "uploadpack.allowAnySHA1InWant": "true",
    "transfer.advertiseObjectInfo": "true",
    "uploadpack.keepAlive": "5",
    # Mapped parts of packs count as resident in every child; small windows cost next to no time.
    "core.packedGitWindowSize": "256k",
    "core.packedGitLimit": "8m",
    "core.deltaBaseCacheLimit": "32m",
    "core.bigFileThreshold": "16m",
    "pack.windowMemory": "64m",
    "pack.threads": "1",
}


@dataclass(frozen=True, slots=True)
class Request:
    """One version 2 command with its capabilities; the arguments are still unread when `delimited`."""

    command: str
    capabilities: tuple[bytes, ...]
    delimited: bool


class Uploader:
    """Serves fetches and archives."""

    def __init__(self, snapshots: Snapshots, clones: Clones, git: GitRunner, settings: GitSettings) -> None:
        self._snapshots = snapshots
        self._clones = clones
        self._answers = RefAnswers()
        self._git = git
        self._settings = settings
        self._slots = Slots(settings.concurrent_uploads, share=settings.concurrent_uploads // 4)
        # To make a clone takes a processor, to send it takes none: so who copies many repositories makes one
        # for each processor at a time, whatever he may receive, and others find one soon.
        processors = max(2, os.cpu_count() or 1)
        self._makers = Slots(4 * processors, share=processors)

    async def advertise(
        self, repository: RepositoryInfo, protocol: int, writer: ByteWriter, client: str
    ) -> None:
        """The body of `GET info/refs?service=git-upload-pack`, behind the service line."""
        if protocol == 2:
            await writer.write(capabilities_v2(repository.object_format))
            return
        async with self._child(
            repository, ["upload-pack", "--stateless-rpc", "--advertise-refs"], protocol, client
        ) as process:
            await _copy_out(process, writer)

    async def serve_stateless(
        self, repository: RepositoryInfo, protocol: int, reader: ByteReader, writer: ByteWriter, client: str
    ) -> None:
        """The body of one `POST git-upload-pack`.

        Raises:
            ProtocolError: what comes is no request; nothing was answered.
            PayloadTooLarge: the request exceeds `[git] max_request_bytes`; nothing was answered.
        """
        if protocol == 2:
            packets = PktReader(reader, limit=self._settings.max_request_bytes)
            await self._serve_one(repository, packets, writer, client)
            return
        # Read as a whole first: a client that dawdles must not hold one of the few slots.
        whole = await _read_all(reader, self._settings.max_request_bytes)
        await self._pipe(repository, ["upload-pack", "--stateless-rpc"], protocol, whole, writer, client)

    async def serve_session(
        self, repository: RepositoryInfo, protocol: int, reader: ByteReader, writer: ByteWriter, client: str
    ) -> None:
        """A whole conversation over one stream, as SSH carries it. Raises as `serve_stateless`."""
        if protocol != 2:
            await self._pipe(repository, ["upload-pack"], protocol, reader, writer, client)
            return
        await writer.write(capabilities_v2(repository.object_format))
        more = True
        while more:
            packets = PktReader(reader, limit=self._settings.max_request_bytes)
            more = await self._serve_one(repository, packets, writer, client)

    async def archive(
        self, repository: RepositoryInfo, reader: ByteReader, writer: ByteWriter, client: str
    ) -> None:
        """`git archive --remote`, as SSH carries it."""
        async with self._leased(repository, client) as snapshot:
            arguments = ["upload-archive", str(snapshot.path)]
            async with self._start(arguments, 0, snapshot.path) as process:
                await self._exchange(process, reader, writer)

    async def _serve_one(
        self, repository: RepositoryInfo, packets: PktReader, writer: ByteWriter, client: str
    ) -> bool:
        """Serves one version 2 request; False when the client said goodbye."""
        request = await _read_request(packets, repository.object_format)
        if request is None:
            return False
        if request.command == "ls-refs":
            wanted = await LsRefs.read(packets) if request.delimited else LsRefs()
            for piece in self._answers.answer(wanted, await self._snapshots.state(repository.id)):
                await writer.write(piece)
        elif request.command in ("fetch", "object-info"):
            arguments = await _read_arguments(packets) if request.delimited else []
            if request.command == "fetch" and self._clones.enabled and is_clone(arguments):
                await self._clone(repository, request, arguments, writer, client)
            else:
                await self._run_command(repository, request, arguments, writer, client)
        else:
            raise ProtocolError("unknown command")
        return True

    async def _clone(
        self,
        repository: RepositoryInfo,
        request: Request,
        arguments: Sequence[bytes],
        writer: ByteWriter,
        client: str,
    ) -> None:
        digest = digest_of(request.capabilities, arguments)
        state = await self._snapshots.state(repository.id)
        key = CloneKey(repository.id, state.name, digest)
        if await self._clones.replay(key, writer):
            return
        tips = {oid for value in state.refs.values() for oid in (value.oid, value.peeled)}
        # Lazy fetches of single blobs look like clones too, and nobody asks for the same again.
        size = sum(pack.bytes for pack in state.packs)
        if not wanted(arguments) <= tips or not await self._clones.takes(size):
            await self._run_command(repository, request, arguments, writer, client)
            return

        async def make(descriptor: int) -> bool:
            async with self._makers.take(client), self._leased(repository, client) as snapshot:
                data = encode_request(request.command, request.capabilities, arguments)
                command = ["upload-pack", "--stateless-rpc", str(snapshot.path)]
                async with self._start(command, 2, snapshot.path, descriptor) as process:
                    _, said = await asyncio.gather(_feed_whole(process, data), collect_stderr(process))
                    status = await process.wait()
                # What was made of a later state is a right answer, but not one to find under this name.
                current = snapshot.state.name == key.state
            if status == 0:
                return current
            failure = GitFailed(command, status, said)
            log.info("upload.failed", status=status, reason=failure.reason)
            if os.fstat(descriptor).st_size == 0:
                raise ProtocolError(failure.reason)
            return False

        await self._clones.make(key, make, writer)

    async def _run_command(
        self,
        repository: RepositoryInfo,
        request: Request,
        arguments: Sequence[bytes],
        writer: ByteWriter,
        client: str,
    ) -> None:
        async with self._leased(repository, client) as snapshot:
            arguments, section = resolve_wanted_refs(arguments, snapshot.refs, snapshot.default_branch)
            data = encode_request(request.command, request.capabilities, arguments)
            command = ["upload-pack", "--stateless-rpc", str(snapshot.path)]
            async with self._start(command, 2, snapshot.path) as process:
                feeding = asyncio.ensure_future(_feed_whole(process, data))
                try:
                    await _copy_out(process, writer, section)
                finally:
                    feeding.cancel()
                    await asyncio.gather(feeding, return_exceptions=True)

    async def _pipe(
        self,
        repository: RepositoryInfo,
        arguments: Sequence[str],
        protocol: int,
        reader: ByteReader,
        writer: ByteWriter,
        client: str,
    ) -> None:
        async with self._child(repository, arguments, protocol, client) as process:
            await self._exchange(process, reader, writer)

    @contextlib.asynccontextmanager
    async def _child(
        self, repository: RepositoryInfo, arguments: Sequence[str], protocol: int, client: str
    ) -> AsyncIterator[Child]:
        async with (
            self._leased(repository, client) as snapshot,
            self._start([*arguments, str(snapshot.path)], protocol, snapshot.path) as process,
        ):
            yield process

    @contextlib.asynccontextmanager
    async def _leased(self, repository: RepositoryInfo, client: str) -> AsyncIterator[Snapshot]:
        """A snapshot and the right to run a child on it, for as long as `[git] upload_seconds` allows.

        Raises:
            ConnectionAbortedError: the time is over.
        """
        try:
            async with (
                asyncio.timeout(self._settings.upload_seconds),
                self._slots.take(client),
                self._snapshots.open(repository.id) as snapshot,
            ):
                yield snapshot
        except TimeoutError as error:
            raise ConnectionAbortedError("the transfer took too long") from error

    def _start(
        self,
        arguments: Sequence[str],
        protocol: int,
        path: Path,
        stdout: int = PIPE,
    ) -> contextlib.AbstractAsyncContextManager[Child]:
        extra: Mapping[str, str] = {"GIT_PROTOCOL": f"version={protocol}"} if protocol else {}
        environment = self._git.environment(_UPLOAD_CONFIG, extra)
        return self._git.start(arguments, cwd=path, environment=environment, stdout=stdout)

    async def _exchange(self, process: Child, reader: ByteReader, writer: ByteWriter) -> None:
        assert process.stdin is not None
        pump = asyncio.ensure_future(_pump(reader, process.stdin, self._settings.max_request_bytes))
        copy = asyncio.ensure_future(_copy_out(process, writer))
        try:
            await asyncio.wait({pump, copy}, return_when=asyncio.FIRST_COMPLETED)
            if pump.done():
                pump.result()
            await copy
        finally:
            for task in (pump, copy):
                task.cancel()
            await asyncio.gather(pump, copy, return_exceptions=True)


async def _read_request(packets: PktReader, object_format: ObjectFormat) -> Request | None:
    """Reads the command and its capabilities; None at a flush or the end: the client is done."""
    first = await packets.packet()
    if first is None or first is FLUSH:
        return None
    lines = [first.removesuffix(b"\n")]
    while True:
        packet = await packets.packet()
        if packet is FLUSH or packet is DELIM:
            break
        if packet is None or len(lines) > _MAX_CAPABILITIES:
            raise ProtocolError("the request was cut off")
        lines.append(packet.removesuffix(b"\n"))
    commands = [line for line in lines if line.startswith(b"command=")]
    if len(commands) != 1:
        raise ProtocolError("expected one command")
    capabilities = tuple(line for line in lines if line is not commands[0])
    formats = [line for line in capabilities if line.startswith(b"object-format=")] or [b"object-format=sha1"]
    if formats != [f"object-format={object_format.value}".encode()]:
        raise ProtocolError(f"this repository uses {object_format.value}")
    command = commands[0].removeprefix(b"command=").decode("ascii", "replace")
    return Request(command, capabilities, packet is DELIM)


class _Whole:
    """A request that has been read already."""

    def __init__(self, data: bytes) -> None:
        self._data = memoryview(data)

    async def read(self, n: int) -> bytes:
        chunk, self._data = bytes(self._data[:n]), self._data[n:]
        return chunk


async def _read_all(reader: ByteReader, limit: int) -> ByteReader:
    data = bytearray()
    while chunk := await reader.read(PIPE_BYTES):
        data += chunk
        if len(data) > limit:
            raise PayloadTooLarge("the request is too large")
    return _Whole(bytes(data))


async def _read_arguments(packets: PktReader) -> list[bytes]:
    lines: list[bytes] = []
    async for line in packets.lines():
        if len(lines) >= _MAX_ARGUMENTS:
            raise PayloadTooLarge("the request is too large")
        lines.append(line)
    return lines


async def _feed_whole(process: Child, data: bytes) -> None:
    assert process.stdin is not None
    await feed(process.stdin, data)
    process.stdin.close()


async def _pump(reader: ByteReader, stdin: asyncio.StreamWriter, limit: int) -> None:
    """Feeds a child with what the client sends; it may end before the client's stream does."""
    seen = 0
    while chunk := await reader.read(PIPE_BYTES):
        seen += len(chunk)
        if seen > limit:
            raise ProtocolError("the request is too large")
        if not await feed(stdin, chunk):
            return
    stdin.close()


async def _copy_out(process: Child, writer: ByteWriter, wanted_refs: Sequence[bytes] = ()) -> None:
    """Copies a child's output to the client until it ends, with a `wanted-refs` section put in.

    Raises:
        ProtocolError: the child failed without a word to the client. Otherwise its own `ERR` line, or the
            missing end of what it sent, tells the client.
    """
    assert process.stdout is not None
    stderr = asyncio.ensure_future(collect_stderr(process))
    silent = True
    try:
        if wanted_refs:
            await copy_with_section(process.stdout, writer, wanted_refs)
            silent = False
        while chunk := await process.stdout.read(PIPE_BYTES):
            silent = False
            await writer.write(chunk)
        status = await process.wait()
        said = await stderr
    finally:
        stderr.cancel()
        await asyncio.gather(stderr, return_exceptions=True)
    if status != 0:
        failure = GitFailed(["upload-pack"], status, said)
        log.info("upload.failed", status=status, reason=failure.reason)
        if silent:
            raise ProtocolError(failure.reason)
