"""git-lfs over SSH: both of its commands, over one service."""

from collections.abc import Awaitable, Callable

from core.access import Actor
from core.names import Address
from gitserver.protocol import ByteReader, ByteWriter
from lfs.batch import Operation
from lfs.service import LfsService
from sshd.lfs_authenticate import HttpFace, authentication
from sshd.lfs_transfer import Conversation
from sshd.streams import Pulse


class LfsCommands:
    """A `sshd.ports.LargeFiles`."""

    def __init__(self, service: LfsService, http: HttpFace, *, max_batch_objects: int) -> None:
        self._service = service
        self._http = http
        self._max_batch_objects = max_batch_objects

    async def authenticate(
        self, actor: Actor, address: Address, operation: Operation, local_address: str
    ) -> bytes:
        """As `sshd.lfs_authenticate`."""
        return await authentication(self._service, self._http, actor, address, operation, local_address)

    async def transfer(
        self,
        identify: Callable[[], Awaitable[Actor]],
        address: Address,
        operation: Operation,
        reader: ByteReader,
        writer: ByteWriter,
        pulse: Pulse,
    ) -> None:
        """As `sshd.lfs_transfer.Conversation.hold`."""
        conversation = Conversation(
            self._service,
            identify,
            address,
            operation,
            reader,
            writer,
            pulse,
            max_batch_objects=self._max_batch_objects,
        )
        await conversation.hold()
