"""From an accepted command to the service: who is it now, may they, and which conversation."""

from dataclasses import dataclass

from core.access import Actor, Permission
from core.errors import InvalidCredentials
from core.models import Transport
from gitserver.protocol import ByteReader, ByteWriter, parse_protocol
from sshd.commands import Command, Service
from sshd.ports import GitService, KeyAuthenticator, LargeFiles, RepositoryOpener
from sshd.streams import FirstWord, Pulse


@dataclass(frozen=True, slots=True)
class Caller:
    """Where a command came from: the key that signed, the client's IP address, and ours as it sees it."""

    fingerprint: str
    address: str
    local_address: str


class Dispatcher:
    """Knows nothing of SSH: a caller, a command and two streams come in."""

    def __init__(
        self,
        repositories: RepositoryOpener,
        credentials: KeyAuthenticator,
        git: GitService,
        large_files: LargeFiles,
    ) -> None:
        self._repositories = repositories
        self._credentials = credentials
        self._git = git
        self._large_files = large_files

    async def recognise(self, fingerprint: str, address: str) -> Actor | None:
        """The one whom this key proves now, if anybody."""
        return await self._credentials.authenticate_key(fingerprint, address)

    async def identify(self, caller: Caller) -> Actor:
        """The one whom this key proves now. Asked for every command: a connection may outlive a key.

        Raises:
            InvalidCredentials: the key was removed, or its user suspended, since the connection was made.
        """
        actor = await self._credentials.authenticate_key(caller.fingerprint, caller.address)
        if actor is None:
            raise InvalidCredentials("this SSH key is not accepted any more")
        return actor

    async def run(
        self,
        command: Command,
        actor: Actor,
        caller: Caller,
        git_protocol: str | None,
        reader: ByteReader,
        writer: ByteWriter,
        pulse: Pulse,
    ) -> None:
        """Holds the whole conversation of one command; `git_protocol` is the client's unchecked GIT_PROTOCOL.

        Raises:
            ModelyardError: refused, with what to tell the client.
            ConnectionError: the client is gone.
        """
        if command.operation is not None:
            await self._run_lfs(command, actor, caller, reader, writer, pulse)
            return
        protocol = parse_protocol(git_protocol)
        if command.service is Service.RECEIVE_PACK:
            repository = await self._repositories.open_or_create(actor, command.address, Transport.SSH)
            await self._git.receive_pack(
                repository,
                actor,
                Transport.SSH,
                protocol,
                FirstWord(reader, pulse),
                writer,
                stateless=False,
            )
            return
        repository = await self._repositories.open(actor, command.address, Permission.READ)
        if command.service is Service.UPLOAD_PACK:
            await self._git.upload_pack(
                repository, protocol, reader, writer, stateless=False, client=actor.client
            )
        else:
            await self._git.upload_archive(repository, reader, writer, client=actor.client)

    async def _run_lfs(
        self,
        command: Command,
        actor: Actor,
        caller: Caller,
        reader: ByteReader,
        writer: ByteWriter,
        pulse: Pulse,
    ) -> None:
        assert command.operation is not None, "a command for large files names its operation"
        if command.service is Service.LFS_AUTHENTICATE:
            answer = await self._large_files.authenticate(
                actor, command.address, command.operation, caller.local_address
            )
            await writer.write(answer)
            return
        await self._large_files.transfer(
            lambda: self.identify(caller), command.address, command.operation, reader, writer, pulse
        )
