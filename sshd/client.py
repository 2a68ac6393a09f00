"""One connection: limits, login by key, and the sessions on it."""

import asyncio
import secrets
import time
from collections.abc import Callable

import asyncssh
import structlog

from core.errors import ModelyardError
from sshd.dispatch import Caller
from sshd.limits import ConnectionLimits, normal_address
from sshd.session import CommandSession, Face, Outcome, Peer
from sshd.streams import Pulse
from sshd.texts import one_line
from sshd.wire import Wire

log = structlog.get_logger(__name__)

USER = "git"
# Each offered key costs a query. An agent with more keys than this has to be told which one to use.
MAX_OFFERED_KEYS = 20
# After its last command a client takes what is on its way and hangs up by itself; this long it may.
_FAREWELL_SECONDS = 1


class Client(asyncssh.SSHServer):
    """What asyncssh calls back for one connection. Everything that is not a session is refused by default."""

    _wire: Wire

    def __init__(self, face: Face, limits: ConnectionLimits, on_lost: Callable[["Client"], None]) -> None:
        """`on_lost` is told when the connection is gone."""
        self._face = face
        self._limits = limits
        self._on_lost = on_lost
        self._id = secrets.token_hex(4)
        self._log = log.bind(connection=self._id)
        self._address = ""
        self._admitted = False
        self._opened = time.monotonic()
        self._offered = 0
        self._valid_fingerprint: str | None = None
        self._peer: Peer | None = None
        self._sessions: set[CommandSession] = set()
        self._session_count = 0

    @property
    def busy(self) -> bool:
        """Whether a command is at work, or its last bytes are on their way."""
        return any(session.running for session in self._sessions) or self._wire.unsent > 0

    def check(self) -> None:
        """Ends what is idle or floods. Called about once a second."""
        for session in list(self._sessions):
            session.check()
        if self._peer is None or any(session.running for session in self._sessions):
            return
        quiet = self._peer.pulse.quiet_for()
        if quiet > self._face.settings.idle_seconds:
            self.disconnect("idle for too long")
        elif self._face.draining.is_set() and quiet > _FAREWELL_SECONDS and not self.busy:
            self.disconnect("the server is shutting down")

    def end_commands(self) -> None:
        """Stops every command and tells its client that the server is shutting down."""
        for session in list(self._sessions):
            session.end(Outcome.SHUTDOWN)

    def disconnect(self, reason: str) -> None:
        """Closes the connection, saying why."""
        self._wire.disconnect(asyncssh.DISC_BY_APPLICATION, reason)

    async def wait_closed(self) -> None:
        """Returns when the connection is gone."""
        await self._wire.wait_closed()

    # Callbacks of asyncssh, in the order of a connection's life.

    def connection_made(self, conn: asyncssh.SSHServerConnection) -> None:
        assert isinstance(conn, Wire)
        self._wire = conn
        peername = conn.get_extra_info("peername")
        self._address = normal_address(str(peername[0])) if peername else ""
        self._admitted = self._limits.admit(self._address)
        if not self._admitted:
            self._log.warning("ssh connection refused", address=self._address, reason="too many connections")
            # Only after the version line, which follows this callback, can a client understand the reason.
            asyncio.get_running_loop().call_soon(
                conn.disconnect, asyncssh.DISC_TOO_MANY_CONNECTIONS, "too many connections; try again later"
            )
            return
        self._face.observer.connection_opened()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._admitted:
            self._limits.release(self._address)
            self._face.observer.connection_closed()
            self._log.info(
                "ssh connection closed",
                address=self._address,
                authenticated=self._peer is not None,
                reason=one_line(str(exc)) if exc else None,
                seconds=round(time.monotonic() - self._opened, 3),
            )
        self._on_lost(self)

    def begin_auth(self, username: str) -> bool:
        if username != USER:
            self._log.info("ssh login refused", address=self._address, user=one_line(username, 64))
            self._wire.send_auth_banner(f"modelyard: log in as {USER}, as in {USER}@host\n")
        return True

    def public_key_auth_supported(self) -> bool:
        return True

    async def validate_public_key(self, username: str, key: asyncssh.SSHKey) -> bool:
        """Whether a signature of this key would be enough. Asked for mere offers as well as for signatures.

        So the answer proves nothing yet. When asyncssh has verified a signature it calls `auth_completed`
        without suspending in between: the key of the last answer is the key that signed.
        """
        self._valid_fingerprint = None
        self._offered += 1
        if self._offered > MAX_OFFERED_KEYS:
            raise asyncssh.PermissionDenied(
                "too many keys were offered; name one with ssh -i FILE -o IdentitiesOnly=yes"
            )
        if username != USER or not self._admitted:
            return False
        fingerprint = key.get_fingerprint()
        try:
            actor = await self._face.dispatcher.recognise(fingerprint, self._address)
        except ModelyardError as error:
            self._log.warning("ssh login failed", address=self._address, code=error.code)
            raise asyncssh.ServiceNotAvailable(error.message) from error
        if actor is None:
            self._log.info("ssh key unknown", address=self._address, key=fingerprint)
            return False
        self._valid_fingerprint = fingerprint
        return True

    def auth_completed(self) -> None:
        if self._valid_fingerprint is None:
            raise asyncssh.PermissionDenied("no key has signed")
        sockname = self._wire.get_extra_info("sockname")
        local_address = normal_address(str(sockname[0])) if sockname else ""
        caller = Caller(self._valid_fingerprint, self._address, local_address)
        self._peer = Peer(self._id, caller, self._wire, Pulse())
        self._log.info("ssh login", address=self._address, key=self._valid_fingerprint)

    def session_requested(self) -> asyncssh.SSHServerSession[bytes]:
        peer = self._peer
        if peer is None or len(self._sessions) >= self._face.settings.max_sessions_per_connection:
            raise asyncssh.ChannelOpenError(
                asyncssh.OPEN_RESOURCE_SHORTAGE, "too many sessions on this connection"
            )
        self._session_count += 1
        session = CommandSession(self._face, peer, self._session_count, self._sessions.discard)
        self._sessions.add(session)
        return session
