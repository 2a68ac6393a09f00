"""The SSH listener: Git and git-lfs over SSH for one user name, `git`, by key only, and nothing else."""

import asyncio
import logging
import socket
from collections.abc import Coroutine, Sequence
from pathlib import Path

import asyncssh
import structlog

from core.errors import SettingsError
from core.settings import SshSettings
from sshd.client import Client
from sshd.dispatch import Dispatcher
from sshd.host_key import load_or_create
from sshd.limits import ConnectionLimits
from sshd.ports import (
    GitService,
    KeyAuthenticator,
    LargeFiles,
    NullObserver,
    Observer,
    RepositoryOpener,
)
from sshd.session import Face
from sshd.wire import Wire

log = structlog.get_logger(__name__)

# The client's order decides, so what must not be chosen is not offered: chacha20 costs 60 % more processor
# time than AES-GCM, packs are compressed already, and the longest Diffie-Hellman groups are a burden that
# anybody could put on the event loop. AES-CTR is for clients without AES-GCM (see `sshd.wire`).
_ALGORITHMS = {
    "kex_algs": [
        "mlkem768x25519-sha256",
        "curve25519-sha256",
        "curve25519-sha256@libssh.org",
        "ecdh-sha2-nistp256",
        "ecdh-sha2-nistp384",
        "ecdh-sha2-nistp521",
        "diffie-hellman-group14-sha256",
        "diffie-hellman-group16-sha512",
    ],
    "encryption_algs": ["aes128-gcm@openssh.com", "aes256-gcm@openssh.com", "aes128-ctr", "aes256-ctr"],
    "mac_algs": [
        "hmac-sha2-256-etm@openssh.com",
        "hmac-sha2-512-etm@openssh.com",
        "hmac-sha2-256",
        "hmac-sha2-512",
    ],
    "compression_algs": ["none"],
    "signature_algs": [
        "ssh-ed25519",
        "sk-ssh-ed25519@openssh.com",
        "ecdsa-sha2-nistp256",
        "ecdsa-sha2-nistp384",
        "ecdsa-sha2-nistp521",
        "sk-ecdsa-sha2-nistp256@openssh.com",
        "rsa-sha2-512",
        "rsa-sha2-256",
    ],
}
_KEEPALIVE_SECONDS = 30
_KEEPALIVES_MISSED = 3
_BACKLOG = 256
_FAREWELL_SECONDS = 2


class SshServer:
    """Serves Git and git-lfs over SSH in the running event loop, from `start` to `close`.

    The connection limits of the settings count per process.
    """

    def __init__(
        self,
        settings: SshSettings,
        repositories: RepositoryOpener,
        credentials: KeyAuthenticator,
        git: GitService,
        large_files: LargeFiles,
        host_key: Path,
        *,
        observer: Observer | None = None,
    ) -> None:
        """Prepares the server; `host_key` is made by `start` if it does not exist."""
        self._settings = settings
        self._host_key = host_key
        self._limits = ConnectionLimits(settings.max_connections, settings.max_connections_per_address)
        self._tasks: set[asyncio.Task[None]] = set()
        self._clients: set[Client] = set()
        self._servers: list[asyncio.Server] = []
        self._watch: asyncio.Task[None] | None = None
        self._draining = asyncio.Event()
        self._face = Face(
            settings,
            Dispatcher(repositories, credentials, git, large_files),
            observer or NullObserver(),
            self._spawn,
            self._draining,
        )

    @property
    def port(self) -> int:
        """The first port that is listened on."""
        return self.ports[0]

    @property
    def ports(self) -> list[int]:
        """Every port that is listened on; one, unless a host name has several addresses and the port is 0."""
        found: list[int] = []
        for server in self._servers:
            found.extend(int(listening.getsockname()[1]) for listening in server.sockets)
        return list(dict.fromkeys(found))

    async def start(self, *, sockets: Sequence[socket.socket] = ()) -> list[int]:
        """Listens on `[ssh] listen`, or on `sockets` that were bound before. Returns the ports.

        Raises:
            SettingsError: the address or the host key cannot be used.
        """
        # What asyncssh says at lower levels holds text of clients, unescaped.
        logging.getLogger("asyncssh").setLevel(logging.ERROR)
        loop = asyncio.get_running_loop()
        options = await self._options()

        def accept() -> Wire:
            return Wire(loop, options)

        if sockets:
            for bound in sockets:
                self._servers.append(await loop.create_server(accept, sock=bound, backlog=_BACKLOG))
        else:
            host, port = _parse_listen(self._settings.listen)
            try:
                server = await loop.create_server(accept, host, port, backlog=_BACKLOG)
            except OSError as error:
                raise SettingsError(
                    f"[ssh] listen: cannot listen on {self._settings.listen}: {error.strerror or error}"
                ) from error
            self._servers.append(server)
        self._watch = loop.create_task(self._watch_clients())
        log.info("ssh listening", ports=self.ports)
        return self.ports

    async def close(self, drain_seconds: float = 0) -> None:
        """Stops listening, lets running commands finish for `drain_seconds`, then ends all that is left."""
        self._draining.set()
        for server in self._servers:
            server.close()
        for client in list(self._clients):
            if not client.busy:
                client.disconnect("the server is shutting down")
        if self._tasks and drain_seconds > 0:
            await asyncio.wait(self._tasks, timeout=drain_seconds)
        for client in list(self._clients):
            client.end_commands()
        if self._tasks:
            await asyncio.wait(self._tasks)
        await self._disconnect_all()
        if self._watch is not None:
            self._watch.cancel()
            await asyncio.gather(self._watch, return_exceptions=True)
        for server in self._servers:
            await server.wait_closed()

    async def _disconnect_all(self) -> None:
        """Gives clients a moment to take the last bytes and to hang up first, as they do after an exit."""
        try:
            async with asyncio.timeout(_FAREWELL_SECONDS):
                await asyncio.gather(*(client.wait_closed() for client in self._clients))
        except TimeoutError:
            left = list(self._clients)
            log.info("ssh clients did not hang up", clients=len(left))
            for client in left:
                client.disconnect("the server is shutting down")
            await asyncio.gather(*(client.wait_closed() for client in left))
        if self._tasks:
            await asyncio.wait(self._tasks)

    async def _options(self) -> asyncssh.SSHServerConnectionOptions:
        key = await asyncio.to_thread(load_or_create, self._host_key)
        options: asyncssh.SSHServerConnectionOptions = await asyncssh.SSHServerConnectionOptions.construct(
            server_factory=self._new_client,
            server_host_keys=[key],
            server_version="Modelyard",
            config=None,
            login_timeout=self._settings.login_seconds,
            keepalive_interval=_KEEPALIVE_SECONDS,
            keepalive_count_max=_KEEPALIVES_MISSED,
            authorized_client_keys=None,
            public_key_auth=True,
            password_auth=False,
            kbdint_auth=False,
            host_based_auth=False,
            gss_host=None,
            gss_kex=False,
            gss_auth=False,
            x509_trusted_certs=None,
            allow_pty=False,
            line_editor=False,
            x11_forwarding=False,
            agent_forwarding=False,
            sftp_factory=None,
            allow_scp=False,
            rdns_lookup=False,
            encoding=None,
            **_ALGORITHMS,
        )
        return options

    def _new_client(self) -> Client:
        client = Client(self._face, self._limits, self._clients.discard)
        self._clients.add(client)
        return client

    def _spawn(self, command: Coroutine[None, None, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(command)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _watch_clients(self) -> None:
        # Idle times are whole seconds, so looking once in half a second is exact enough.
        while True:
            await asyncio.sleep(0.5)
            for client in list(self._clients):
                try:
                    client.check()
                except Exception:  # one odd client must not leave all others unwatched
                    log.exception("ssh watch failed")


def _parse_listen(listen: str) -> tuple[str | None, int]:
    host, separator, port = listen.rpartition(":")
    if not separator or not port.isascii() or not port.isdigit() or int(port) > 65535:
        raise SettingsError(f"[ssh] listen: {listen} is not HOST:PORT")
    return host.removeprefix("[").removesuffix("]") or None, int(port)
