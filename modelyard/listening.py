"""Where the server listens."""

import errno
import socket
from dataclasses import dataclass
from typing import Self

import msgspec

from core.errors import SettingsError
from core.settings import Settings

_WILDCARDS = frozenset({"", "0.0.0.0", "::"})  # noqa: S104 - to recognise them, not to listen there


class AddressInUse(SettingsError):
    """Somebody else listens at the wanted address."""

    code = "address_in_use"


@dataclass(frozen=True, slots=True)
class Listen:
    """A host and a port to listen at; port 0 lets the system choose."""

    host: str
    port: int

    @classmethod
    def parse(cls, setting: str, text: str) -> "Listen":
        """Reads `HOST:PORT`, `[IPv6]:PORT` or `:PORT`. Raises `SettingsError` that names `setting`."""
        host, separator, port = text.rpartition(":")
        host = host.removeprefix("[").removesuffix("]")
        if not separator or not port.isdecimal() or int(port) > 65535:
            raise SettingsError(f"{setting}: {text!r} is not HOST:PORT")
        return cls(host, int(port))

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def reachable(self) -> str:
        """Host and port for a client on this machine."""
        host = self.host if self.host not in _WILDCARDS else ("::1" if self.host == "::" else "127.0.0.1")
        return str(Listen(host, self.port))

    def bind(self, *, share: bool) -> socket.socket:
        """A bound socket that does not listen yet; with `share`, other processes may bind the same port.

        A name with several addresses gets the first of them.

        Raises:
            AddressInUse: somebody else listens there.
            SettingsError: the host is unknown, or not one of this machine, or the port needs a privilege.
        """
        try:
            infos = socket.getaddrinfo(
                self.host or None, self.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
            )
            family, kind, protocol, _, address = infos[0]
            sock = socket.socket(family, kind, protocol)
            try:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                if share:
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
                sock.bind(address)
            except OSError:
                sock.close()
                raise
        except OSError as error:
            refusal = AddressInUse if error.errno == errno.EADDRINUSE else SettingsError
            raise refusal(f"cannot listen at {self}: {error.strerror or error}") from error
        return sock

    def at(self, sock: socket.socket) -> "Listen":
        """The same host with the port that the socket got."""
        return Listen(self.host, sock.getsockname()[1])


@dataclass(frozen=True, slots=True)
class Endpoints:
    """Where clients on this machine reach the server; `ssh` is empty when that face is off."""

    http: str
    ssh: str


class Listeners:
    """The bound sockets of both faces. Closes what nobody took over when the block ends."""

    def __init__(self, settings: Settings, *, share: bool) -> None:
        """Binds what the settings say. Raises `SettingsError`."""
        http = Listen.parse("[http] listen", settings.http.listen)
        ssh = Listen.parse("[ssh] listen", settings.ssh.listen) if settings.ssh.enabled else None
        self.http = http.bind(share=share)
        try:
            self.ssh = ssh.bind(share=share) if ssh else None
        except SettingsError:
            self.http.close()
            raise
        self._http_at = http.at(self.http)
        self._ssh_at = ssh.at(self.ssh) if ssh and self.ssh else None
        self._scheme = "https" if settings.http.cert else "http"

    @classmethod
    def require_free(cls, settings: Settings) -> None:
        """Raises `AddressInUse` if somebody listens there; sharing a port would hide that."""
        with cls(settings, share=False):
            pass

    @property
    def endpoints(self) -> Endpoints:
        """The addresses with the ports that they got."""
        ssh = f"ssh://git@{self._ssh_at.reachable}" if self._ssh_at else ""
        return Endpoints(f"{self._scheme}://{self._http_at.reachable}", ssh)

    def pinned(self, settings: Settings) -> Settings:
        """The settings with these very ports, for processes that bind them too."""
        http = msgspec.structs.replace(settings.http, listen=str(self._http_at))
        ssh = settings.ssh
        if self._ssh_at:
            ssh = msgspec.structs.replace(ssh, listen=str(self._ssh_at))
        return msgspec.structs.replace(settings, http=http, ssh=ssh)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for sock in (self.http, self.ssh):
            if sock is not None:
                sock.close()
