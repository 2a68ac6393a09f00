"""What the SSH face needs from the rest of the program, and nothing more."""

from collections.abc import Awaitable, Callable
from typing import Protocol

from core.access import Actor, Permission
from core.models import Transport
from core.names import Address
from core.repositories import RepositoryInfo
from gitserver.protocol import ByteReader, ByteWriter
from lfs.batch import Operation
from sshd.streams import Pulse


class KeyAuthenticator(Protocol):
    """Knows whose key a fingerprint is."""

    async def authenticate_key(self, fingerprint: str, address: str) -> Actor | None:
        """The one whom the key `SHA256:…` proves, as of now; None when it proves nobody (any more)."""
        ...


class RepositoryOpener(Protocol):
    """Resolves an address and decides whether the actor may."""

    async def open(self, actor: Actor, address: Address, permission: Permission) -> RepositoryInfo: ...

    async def open_or_create(
        self, actor: Actor, address: Address, transport: Transport
    ) -> RepositoryInfo: ...


class GitService(Protocol):
    """Speaks Git over a pair of streams, from the advertisement to the last byte.

    Each method returns when the conversation is over. It may raise a `ModelyardError`, which the client is
    shown, and `ConnectionError` when the client is gone. Cancellation must end its child processes.
    """

    async def upload_pack(
        self,
        repository: RepositoryInfo,
        protocol: int,
        reader: ByteReader,
        writer: ByteWriter,
        *,
        stateless: bool,
        client: str,
    ) -> None: ...

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
    ) -> None: ...

    async def upload_archive(
        self, repository: RepositoryInfo, reader: ByteReader, writer: ByteWriter, *, client: str
    ) -> None: ...


class LargeFiles(Protocol):
    """Serves git-lfs. Refuses with a `ModelyardError`, which the client is shown, before anything is said."""

    async def authenticate(
        self, actor: Actor, address: Address, operation: Operation, local_address: str
    ) -> bytes:
        """The answer of `git-lfs-authenticate`; `local_address` is where the client reached this server."""
        ...

    async def transfer(
        self,
        identify: Callable[[], Awaitable[Actor]],
        address: Address,
        operation: Operation,
        reader: ByteReader,
        writer: ByteWriter,
        pulse: Pulse,
    ) -> None:
        """Holds the conversation of `git-lfs-transfer`; `pulse` is patient between its commands.

        `identify` says who the client is now, or raises `InvalidCredentials`.
        """
        ...


class Observer(Protocol):
    """Counts. Must neither block nor raise."""

    def connection_opened(self) -> None: ...

    def connection_closed(self) -> None: ...

    def command_started(self, service: str) -> None:
        """`service` is a `sshd.commands.Service`, `greeting`, or `refused` for what is no command."""
        ...

    def command_finished(self, service: str, outcome: str, seconds: float) -> None:
        """`outcome` is one of `sshd.session.Outcome`."""
        ...


class NullObserver:
    """Nobody counts."""

    def connection_opened(self) -> None:
        """Nothing to do."""

    def connection_closed(self) -> None:
        """Nothing to do."""

    def command_started(self, service: str) -> None:
        """Nothing to do."""

    def command_finished(self, service: str, outcome: str, seconds: float) -> None:
        """Nothing to do."""
