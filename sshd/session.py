"""One SSH session: exactly one command (or a greeting), its streams, its end and its exit status."""

import asyncio
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from enum import StrEnum

import asyncssh
import structlog

from core.access import Actor
from core.errors import ModelyardError, Unavailable
from core.settings import SshSettings
from sshd.commands import Command, parse_command
from sshd.dispatch import Caller, Dispatcher
from sshd.ports import Observer
from sshd.streams import ChannelReader, ChannelWriter, Pulse
from sshd.texts import one_line
from sshd.wire import Wire

log = structlog.get_logger(__name__)

# How long a client may take before it says what it wants, where it has reason to (see `Pulse.patient`). That
# it is still there is known from the keep-alives of the connection.
_PATIENCE_SECONDS = 24 * 3600
_MAX_VARIABLES = 64
_MAX_VARIABLE_BYTES = 64 * 1024


class Outcome(StrEnum):
    """How a command ended, as observers and logs name it."""

    OK = "ok"
    REFUSED = "refused"
    FAILED = "failed"
    GONE = "gone"
    IDLE = "idle"
    SHUTDOWN = "shutdown"


_LAST_WORDS = {
    Outcome.IDLE: "no data was exchanged for too long",
    Outcome.SHUTDOWN: "the server is shutting down; try again",
}


@dataclass(frozen=True)
class Face:
    """What all connections share."""

    settings: SshSettings
    dispatcher: Dispatcher
    observer: Observer
    spawn: Callable[[Coroutine[None, None, None]], asyncio.Task[None]]
    draining: asyncio.Event


@dataclass(frozen=True)
class Peer:
    """The client at the other end of one connection.

    Attributes:
        id: names the connection in log lines.
        pulse: when bytes last moved on any session.
    """

    id: str
    caller: Caller
    wire: Wire
    pulse: Pulse


class CommandSession(asyncssh.SSHServerSession[bytes]):
    """What asyncssh calls back for one session channel. Pty and subsystem requests are refused by default."""

    _channel: asyncssh.SSHServerChannel[bytes]
    _reader: ChannelReader
    _writer: ChannelWriter

    def __init__(
        self, face: Face, peer: Peer, number: int, on_lost: Callable[["CommandSession"], None]
    ) -> None:
        """`number` counts the sessions of the connection; `on_lost` is told when the channel is gone."""
        self._face = face
        self._peer = peer
        self._id = f"{peer.id}-{number}"
        self._on_lost = on_lost
        self._pulse = Pulse(peer.pulse)
        self._opened = time.monotonic()
        self._connected = False
        self._line: str | None = None
        self._actor: Actor | None = None
        self._task: asyncio.Task[None] | None = None
        self._ending: Outcome | None = None

    @property
    def running(self) -> bool:
        """Whether a command is at work."""
        return self._task is not None and not self._task.done()

    def end(self, outcome: Outcome) -> None:
        """Stops the command, if it runs; the client is told why, unless it is gone."""
        if self._task is not None and self._ending is None:
            self._ending = outcome
            self._task.cancel()

    def check(self) -> None:
        """Looks for what no callback reports. Called about once a second."""
        if not self._connected:
            return
        if self._floods():
            log.warning("ssh client floods variables", ssh_session=self._id)
            self._peer.wire.abort()
        elif self.running:
            # asyncssh keeps the close of a channel to itself while input waits that nobody reads.
            if self._channel.is_closing():
                self.end(Outcome.GONE)
            elif self._pulse.quiet_for() > self._silence_allowed():
                self.end(Outcome.IDLE)
        elif self._task is None and time.monotonic() - self._opened > self._face.settings.login_seconds:
            self._channel.close()

    def _silence_allowed(self) -> float:
        return _PATIENCE_SECONDS if self._pulse.patient else self._face.settings.idle_seconds

    def _floods(self) -> bool:
        """Whether the client sets variables without end, which asyncssh stores without limit."""
        variables = self._channel.get_environment_bytes()
        size = sum(len(name) + len(value) for name, value in variables.items())
        return len(variables) > _MAX_VARIABLES or size > _MAX_VARIABLE_BYTES

    # Callbacks of asyncssh, in the order of a session's life.

    def connection_made(self, chan: asyncssh.SSHServerChannel[bytes]) -> None:
        chan.set_write_buffer_limits(0, 0)
        self._channel = chan
        self._reader = ChannelReader(chan, self._pulse)
        self._writer = ChannelWriter(chan, self._peer.wire, self._pulse)
        self._connected = True
        self._pulse.touch()

    def shell_requested(self) -> bool:
        return True

    def exec_requested(self, command: str) -> bool:
        self._line = command
        return True

    def session_started(self) -> None:
        self._task = self._face.spawn(self._serve())

    def data_received(self, data: bytes, datatype: int | None) -> None:
        self._reader.feed(data)

    def eof_received(self) -> bool:
        self._reader.feed_eof()
        return True  # the answer may still be on its way: only our side stays open

    def pause_writing(self) -> None:
        self._writer.pause()

    def resume_writing(self) -> None:
        self._writer.resume()

    def connection_lost(self, exc: Exception | None) -> None:
        self._reader.feed_loss()
        self.end(Outcome.GONE)
        self._on_lost(self)

    # The command.

    async def _serve(self) -> None:
        structlog.contextvars.bind_contextvars(ssh_session=self._id)
        started = time.monotonic()
        command, refusal = self._understand()
        service = command.service.value if command else "refused" if refusal else "greeting"
        self._face.observer.command_started(service)
        outcome, message = await self._attempt(command, refusal)
        seconds = time.monotonic() - started
        self._face.observer.command_finished(service, outcome, seconds)
        log.info(
            "ssh command finished",
            service=service,
            repository=command.address.path if command else None,
            actor=self._actor.name if self._actor else None,
            credential=self._actor.credential if self._actor else None,
            outcome=outcome.value,
            reason=one_line(message) if message else None,
            seconds=round(seconds, 3),
        )
        await self._finish(outcome, message)

    def _understand(self) -> tuple[Command | None, ModelyardError | None]:
        if self._line is None:
            return None, None
        try:
            return parse_command(self._line), None
        except ModelyardError as error:
            log.info("ssh command refused", line=one_line(self._line), reason=error.message)
            return None, error

    async def _attempt(
        self, command: Command | None, refusal: ModelyardError | None
    ) -> tuple[Outcome, str | None]:
        """Runs the command to its end, whichever that is."""
        try:
            return await self._converse(command, refusal)
        except ModelyardError as error:
            return Outcome.REFUSED, f"modelyard: {error.message}"
        except asyncio.CancelledError:
            if self._ending is None:
                raise
            words = _LAST_WORDS.get(self._ending)
            return self._ending, f"modelyard: {words}" if words else None
        except Exception as error:  # whatever escapes is a bug, and must end this command only
            # A broken pipe to a child is a ConnectionError as well; only the channel knows who is gone.
            if isinstance(error, ConnectionError) and self._channel.is_closing():
                return Outcome.GONE, None
            log.exception("ssh command failed")
            return Outcome.FAILED, f"modelyard: internal error (id {self._id})"

    async def _converse(
        self, command: Command | None, refusal: ModelyardError | None
    ) -> tuple[Outcome, str | None]:
        if self._face.draining.is_set():
            raise Unavailable(_LAST_WORDS[Outcome.SHUTDOWN])
        if refusal is not None:
            raise refusal
        actor = self._actor = await self._face.dispatcher.identify(self._peer.caller)
        if command is None:
            return Outcome.REFUSED, (
                f"Hi {actor.name}! You have authenticated, but Modelyard does not offer a shell."
            )
        variable = self._channel.get_environment_bytes().get(b"GIT_PROTOCOL")
        git_protocol = variable.decode("ascii", "replace") if variable is not None else None
        await self._face.dispatcher.run(
            command, actor, self._peer.caller, git_protocol, self._reader, self._writer, self._pulse
        )
        return Outcome.OK, None

    async def _finish(self, outcome: Outcome, message: str | None) -> None:
        """Says the last words, and sends the status only when everything before it is on its way."""
        if outcome is Outcome.GONE:
            self._channel.abort()
            return
        try:
            if message is not None:
                # A client that stalled or is being sent away is not waited for again.
                async with asyncio.timeout(1 if self._ending else self._face.settings.idle_seconds):
                    await self._writer.write_error(one_line(message, 1000))
            self._channel.write_eof()
        except (ConnectionError, TimeoutError):
            log.debug("ssh client did not take the last words")
        finally:
            self._channel.exit(0 if outcome is Outcome.OK else 1)
