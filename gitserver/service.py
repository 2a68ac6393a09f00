"""The Git protocol over any pair of byte streams; HTTP and SSH are thin adapters of this."""

from typing import Literal

from core.access import Actor
from core.models import Transport
from core.repositories import RepositoryInfo
from core.settings import GitSettings
from gitserver.advertise import receive_pack_refs
from gitserver.clones import Clones
from gitserver.glance import Clearing
from gitserver.landing import Lander
from gitserver.policy import PostReceive
from gitserver.process import GitRunner
from gitserver.protocol import ByteReader, ByteWriter
from gitserver.receive import PushSource, Receiver
from gitserver.snapshots import Snapshots
from gitserver.upload import Uploader

Service = Literal["git-upload-pack", "git-receive-pack"]


class GitService:
    """Serves repositories that the caller has already authorised.

    Every method returns when the conversation is over and raises `ProtocolError` or `PayloadTooLarge` for a
    client that does not speak Git, `ConnectionError` when it left, `Unavailable` when a part is out of reach.
    When cancelled, its children are dead before the cancellation goes on.
    """

    def __init__(
        self,
        snapshots: Snapshots,
        clones: Clones,
        lander: Lander,
        git: GitRunner,
        settings: GitSettings,
        post_receive: PostReceive | None = None,
        clearing: Clearing | None = None,
    ) -> None:
        self._snapshots = snapshots
        self._uploader = Uploader(snapshots, clones, git, settings)
        self._receiver = Receiver(snapshots, lander, git, settings, post_receive, clearing)

    async def advertise(
        self,
        repository: RepositoryInfo,
        service: Service,
        protocol: int,
        writer: ByteWriter,
        *,
        client: str = "anonymous",
    ) -> None:
        """What follows the service line in the body of `GET info/refs`."""
        if service == "git-upload-pack":
            await self._uploader.advertise(repository, protocol, writer, client)
        else:
            await self._advertise_receive(repository, protocol, writer)

    async def upload_pack(
        self,
        repository: RepositoryInfo,
        protocol: int,
        reader: ByteReader,
        writer: ByteWriter,
        *,
        stateless: bool,
        client: str = "anonymous",
    ) -> None:
        """Serves one request (`stateless`), or a whole conversation with its advertisement."""
        if stateless:
            await self._uploader.serve_stateless(repository, protocol, reader, writer, client)
        else:
            await self._uploader.serve_session(repository, protocol, reader, writer, client)

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
        """Takes one push; not `stateless`, its advertisement goes first."""
        if not stateless:
            await self._advertise_receive(repository, protocol, writer)
        await self._receiver.receive(PushSource(repository, actor, transport, stateless), reader, writer)

    async def upload_archive(
        self,
        repository: RepositoryInfo,
        reader: ByteReader,
        writer: ByteWriter,
        *,
        client: str = "anonymous",
    ) -> None:
        """Serves `git archive --remote`."""
        await self._uploader.archive(repository, reader, writer, client)

    async def _advertise_receive(self, repository: RepositoryInfo, protocol: int, writer: ByteWriter) -> None:
        batch = bytearray()
        for piece in receive_pack_refs(await self._snapshots.state(repository.id), protocol):
            batch += piece
            if len(batch) > 128 * 1024:
                await writer.write(bytes(batch))
                batch.clear()
        await writer.write(bytes(batch))
