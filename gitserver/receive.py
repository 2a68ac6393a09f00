"""The push: from the client's commands to the report (design section 4, steps 3 to 9)."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence, Set
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import structlog

from core import failpoints
from core.access import Actor
from core.errors import ModelyardError, PayloadTooLarge
from core.models import Transport
from core.repositories import RepositoryInfo
from core.settings import GitSettings
from core.slots import Slots
from core.together import together
from gitserver.children import Child
from gitserver.commands import PushRequest, read_push_request
from gitserver.glance import Clearing, Glance
from gitserver.landing import Lander, Landing
from gitserver.paced_pipe import PacedPipe
from gitserver.policy import PostReceive, ProposedPush
from gitserver.process import PIPE_BYTES, STRICT, GitFailed, GitRunner
from gitserver.protocol import FLUSH, ByteReader, ByteWriter, PktReader, Sideband, pkt_line
from gitserver.publish import StaleConnectivity
from gitserver.quarantine import Quarantine, open_quarantine
from gitserver.snapshots import Snapshots
from gitserver.updates import RefUpdate, Verdict

log = structlog.get_logger(__name__)

BEFORE_PACK = failpoints.declare("push.before-pack", "the commands are read, the pack is not")
AFTER_PACK = failpoints.declare("push.after-pack", "the pack lies in quarantine, unchecked")
BEFORE_REPORT = failpoints.declare("push.before-report", "the push is committed, the client does not know")

# Above what stock git deltifies (512 MiB) with room for what comes beside it.
_MAX_ALLOCATION = 768 * 1024**2
_RETRIES_AFTER_PRUNE = 3
_LINGER_SECONDS = 30
# So many packs are looked into at once: threads of their own, lest pushes take those of everybody else.
_GLANCES = 4


@dataclass(frozen=True, slots=True)
class PushSource:
    """Where a push comes from. `stateless`: nothing may be answered before the request was read (HTTP)."""

    repository: RepositoryInfo
    actor: Actor
    transport: Transport
    stateless: bool


@dataclass(frozen=True, slots=True)
class _Outcome:
    """What the client is told: about the pack, about each ref, lines beside, and the report on a push."""

    unpack: str
    verdicts: Sequence[Verdict]
    messages: Sequence[str] = ()
    report_of: int | None = None


class PackRefused(Exception):
    """The pack cannot be taken; the message goes to the client behind `unpack`."""


class Receiver:
    """Takes pushes."""

    def __init__(
        self,
        snapshots: Snapshots,
        lander: Lander,
        git: GitRunner,
        settings: GitSettings,
        post_receive: PostReceive | None = None,
        clearing: Clearing | None = None,
    ) -> None:
        """What `clearing` clears while a pack comes in, policies find in `ProposedPush.cleared`."""
        self._post_receive = post_receive
        self._clearing = clearing
        self._snapshots = snapshots
        self._lander = lander
        self._git = git
        self._settings = settings
        self._threads = ThreadPoolExecutor(_GLANCES, "glance")
        self._slots = Slots(settings.concurrent_receives, share=settings.concurrent_receives // 4)

    async def receive(self, source: PushSource, reader: ByteReader, writer: ByteWriter) -> None:
        """Serves one push, from the first command to the end of the report.

        Refusals of refs and packs are told in the report. Raises what must end the conversation:
        `ProtocolError`, `PayloadTooLarge` (nothing was answered yet), `ConnectionError` (the client left).
        """
        packets = PktReader(reader, limit=self._settings.max_request_bytes)
        request = await read_push_request(
            packets, source.repository.object_format, max_commands=self._settings.max_commands
        )
        if request is None:
            return
        band = Sideband(writer, enabled=request.has("side-band-64k"))
        try:
            async with (
                asyncio.timeout(self._settings.receive_seconds) as limit,
                self._slots.take(source.actor.client),
            ):
                outcome = await self._decide(source, request, packets, band, limit)
        except TimeoutError:
            outcome = _Outcome("the push took too long", _all(request, "timeout"))
        except ModelyardError as error:
            outcome = _Outcome("ok", _all(request, error.message))
            log.warning(
                "push.failed", repository=source.repository.path, code=error.code, error=error.message
            )
        failpoints.reach(BEFORE_REPORT)
        if source.stateless:
            # Clients read no answer before they have sent everything.
            await _drain(packets, self._settings.max_pack_bytes)
        messages = list(outcome.messages)
        if outcome.report_of is not None and self._post_receive is not None:
            messages += await self._post_receive.received(outcome.report_of)
        if messages:
            await band.progress("".join(f"{line}\n" for line in messages).encode())
        if request.has("report-status") or request.has("report-status-v2"):
            await band.data(_report(outcome))
        await band.end()
        if not source.stateless:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_LINGER_SECONDS):
                    await _drain(packets, self._settings.max_pack_bytes)

    async def _decide(
        self,
        source: PushSource,
        request: PushRequest,
        packets: PktReader,
        band: Sideband,
        limit: asyncio.Timeout,
    ) -> _Outcome:
        refused = dict(request.refused)
        refused |= await self._lander.refusals(source.repository, source.actor, _left(request, refused))
        if _hopeless(request, refused):
            return _Outcome("ok", _merge(request, refused, Landing({}, ())))
        failpoints.reach(BEFORE_PACK)
        async with (
            self._snapshots.open(source.repository.id) as snapshot,
            open_quarantine(self._snapshots.root, snapshot) as quarantine,
        ):
            with Glance(self._clearing, source.repository.object_format, self._threads) as glance:
                if request.sends_pack:
                    try:
                        await self._index(quarantine, packets, band, request, glance)
                    except PackRefused as error:
                        log.info("push.unpack_refused", repository=source.repository.path, reason=str(error))
                        return _Outcome(str(error), _all(request, "unpacker error"))
                failpoints.reach(AFTER_PACK)
                limit.reschedule(None)  # it is for slow clients; a commit must never be reported as too late
                async with _keep_alive(band, self._settings.keepalive_seconds):
                    cleared = await glance.cleared()
                    return await self._judge(source, request, refused, quarantine, cleared)

    async def _judge(
        self,
        source: PushSource,
        request: PushRequest,
        refused: dict[str, str],
        quarantine: Quarantine,
        cleared: Set[bytes],
    ) -> _Outcome:
        """Checks and publishes; once more when a prune came between the check and the commit."""
        for _ in range(_RETRIES_AFTER_PRUNE):
            async with self._snapshots.open(source.repository.id) as snapshot:
                push = ProposedPush(
                    source.repository,
                    source.actor,
                    _left(request, refused),
                    request.options,
                    Quarantine(quarantine.path, snapshot),
                    cleared=cleared,
                )
                with contextlib.suppress(StaleConnectivity):
                    landing, reports = await together(
                        self._lander.land(push, transport=source.transport, atomic=request.has("atomic")),
                        self._reports(push),
                    )
                    return _Outcome(
                        "ok",
                        _merge(request, refused, landing),
                        landing.messages,
                        landing.push_id if reports else None,
                    )
        return _Outcome("ok", _all(request, "the repository is being cleaned; push again"))

    async def _reports(self, push: ProposedPush) -> bool:
        if self._post_receive is None:
            return False
        try:
            return await self._post_receive.reports(push)
        except Exception:
            # A fault here would be told as one of the push, which lands beside.
            log.exception("push.reports_fault", repository=push.repository.path)
            return True

    async def _index(
        self,
        quarantine: Quarantine,
        packets: PktReader,
        band: Sideband,
        request: PushRequest,
        glance: Glance,
    ) -> None:
        """Streams the pack through `git index-pack` into the quarantine.

        Raises:
            PackRefused: git does not take it; nothing of it counts.
        """
        arguments = [
            "index-pack",
            "--stdin",
            "--fix-thin",
            "--report-end-of-input",
            f"--max-input-size={self._settings.max_pack_bytes}",
        ]
        if self._settings.strict:
            arguments.append(STRICT)
        if not request.has("quiet"):
            arguments.append("--show-resolving-progress")
        environment = self._git.environment(
            {
                # Big blobs are hashed as a stream, and mapped windows stay small: memory stays flat.
                "core.bigFileThreshold": "16m",
                "core.deltaBaseCacheLimit": "32m",
                "core.packedGitWindowSize": "16m",
                "core.packedGitLimit": "64m",
                "pack.threads": "1",
                "pack.writeReverseIndex": "true",
            },
            {
                # A delta of a few bytes may make an object that git builds in memory; whole ones stream.
                "GIT_ALLOC_LIMIT": str(min(self._settings.max_object_bytes, _MAX_ALLOCATION)),
                **quarantine.environment(),
            },
        )
        async with (
            PacedPipe() as pipe,
            self._git.start(arguments, environment=environment, stdin=pipe.reader) as process,
        ):
            pipe.close_reader()
            pump = asyncio.ensure_future(_pump(packets, pipe, glance))
            received = asyncio.Event()
            stderr = asyncio.ensure_future(_relay(process, band, received))
            waiting = asyncio.ensure_future(process.wait())
            try:
                async with _keep_alive(band, self._settings.keepalive_seconds, after=received):
                    await asyncio.wait({pump, waiting}, return_when=asyncio.FIRST_COMPLETED)
                    if pump.done():
                        pump.result()  # the client's own failure ends the push
                    await waiting
                    said = await stderr
            finally:
                tasks = (pump, stderr, waiting)
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)
        if process.returncode != 0:
            raise PackRefused(_reason(GitFailed(arguments, process.returncode or 0, said)))


async def _pump(packets: PktReader, pipe: PacedPipe, glance: Glance) -> None:
    """Feeds a child; it may well end before the client's stream does."""
    while chunk := await packets.read(PIPE_BYTES):
        if not await pipe.write(chunk):
            return
        await glance.add(chunk)
    pipe.close_writer()


async def _relay(process: Child, band: Sideband, received: asyncio.Event) -> str:
    """Passes progress on once git says, by a NUL, that it has the whole pack: HTTP allows no word before."""
    assert process.stderr is not None
    said = b""
    while chunk := await process.stderr.read(4096):
        if b"\0" in chunk:
            chunk = chunk.replace(b"\0", b"")
            received.set()
        said = (said + chunk)[-PIPE_BYTES:]
        if chunk and received.is_set() and not any(word in chunk for word in (b"fatal:", b"error:")):
            await band.progress(chunk)
    return said.decode(errors="replace")


def _reason(error: GitFailed) -> str:
    if error.status < 0:
        return "the pack could not be processed within its limits"
    return error.reason


async def _drain(packets: PktReader, limit: int) -> None:
    """Reads and forgets what the client still sends, up to the end of its stream.

    Over HTTP that is the end of the body; over SSH the client closes once it has read the report.
    """
    seen = 0
    with contextlib.suppress(ConnectionError):
        while chunk := await packets.read(PIPE_BYTES):
            seen += len(chunk)
            if seen > limit:
                raise PayloadTooLarge(f"a push may weigh {limit} bytes at most")


@contextlib.asynccontextmanager
async def _keep_alive(
    band: Sideband, seconds: float, *, after: asyncio.Event | None = None
) -> AsyncIterator[None]:
    """Sends empty progress while the block works, so that no proxy takes silence for death."""

    async def beat() -> None:
        if after is not None:
            await after.wait()
        while True:
            await asyncio.sleep(seconds)
            await band.keep_alive()

    task = asyncio.ensure_future(beat())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def _left(request: PushRequest, refused: dict[str, str]) -> tuple[RefUpdate, ...]:
    return tuple(one for one in request.updates if one.name not in refused)


def _hopeless(request: PushRequest, refused: dict[str, str]) -> bool:
    """Whether nothing can land any more."""
    return not _left(request, refused) or bool(refused and request.has("atomic"))


def _all(request: PushRequest, reason: str) -> list[Verdict]:
    return [Verdict(one.name, reason) for one in request.updates]


def _merge(request: PushRequest, refused: dict[str, str], landing: Landing) -> list[Verdict]:
    """A verdict for each command in the client's order."""
    return [
        Verdict(one.name, refused[one.name] if one.name in refused else landing.error_of(one.name))
        for one in request.updates
    ]


def _report(outcome: _Outcome) -> bytes:
    lines = [f"unpack {outcome.unpack}\n".encode()]
    for one in outcome.verdicts:
        name = one.name.encode("utf-8", "surrogateescape")
        if one.error is None:
            lines.append(b"ok " + name + b"\n")
        else:
            lines.append(b"ng " + name + b" " + one.error.replace("\n", " ").encode() + b"\n")
    return b"".join(pkt_line(line) for line in lines) + FLUSH
