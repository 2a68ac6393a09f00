"""From an accepted command to the Git service: who is it now, may they, and which conversation."""

from core.access import Actor, Permission
from core.errors import InvalidCredentials
from core.models import Transport
from gitserver.protocol import ByteReader, ByteWriter, parse_protocol
from sshd.commands import Command, Service
from sshd.ports import GitService, KeyAuthenticator, RepositoryOpener


class Dispatcher:
    """Knows nothing of SSH: a fingerprint, a command and two streams come in."""

    def __init__(
        self, repositories: RepositoryOpener, credentials: KeyAuthenticator, git: GitService
    ) -> None:
        self._repositories = repositories
        self._credentials = credentials
        self._git = git

    async def recognise(self, fingerprint: str, address: str) -> Actor | None:
        """The one whom this key proves now, if anybody."""
        return await self._credentials.authenticate_key(fingerprint, address)

    async def identify(self, fingerprint: str, address: str) -> Actor:
        """The one whom this key proves now. Asked for every command: a connection may outlive a key.

        Raises:
            InvalidCredentials: the key was removed, or its user suspended, since the connection was made.
        """
        actor = await self._credentials.authenticate_key(fingerprint, address)
        if actor is None:
            raise InvalidCredentials("this SSH key is not accepted any more")
        return actor

    async def run(
        self,
        command: Command,
        actor: Actor,
        git_protocol: str | None,
        reader: ByteReader,
        writer: ByteWriter,
    ) -> None:
        """Holds the whole conversation of one command; `git_protocol` is the client's unchecked GIT_PROTOCOL.

        Raises:
            ModelyardError: refused, with what to tell the client.
            ConnectionError: the client is gone.
        """
        protocol = parse_protocol(git_protocol)
        if command.service is Service.RECEIVE_PACK:
            repository = await self._repositories.open_or_create(actor, command.address, Transport.SSH)
            await self._git.receive_pack(
                repository, actor, Transport.SSH, protocol, reader, writer, stateless=False
            )
            return
        repository = await self._repositories.open(actor, command.address, Permission.READ)
        if command.service is Service.UPLOAD_PACK:
            await self._git.upload_pack(
                repository, protocol, reader, writer, stateless=False, client=actor.client
            )
        else:
            await self._git.upload_archive(repository, reader, writer, client=actor.client)
