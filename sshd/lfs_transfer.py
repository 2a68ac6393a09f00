"""`git-lfs-transfer`: the pure SSH protocol of git-lfs, for hosts that offer nothing but SSH.

https://github.com/git-lfs/git-lfs/blob/main/docs/proposals/ssh_adapter.md

One conversation serves one repository and one operation, for as long as the client likes. Each command is a
request of its own: who the client is and what they may is asked again, so that nothing outlives a key.
"""

from collections.abc import Awaitable, Callable
from contextlib import aclosing

from core.access import Actor, ActorKind, Permission
from core.errors import BadRequest, ModelyardError, PermissionDenied, ProtocolError
from core.names import Address
from core.opening import RepositoryInfo
from gitserver.protocol import ByteReader, ByteWriter
from lfs.batch import HASH, BatchRequest, Decision, Expected, Offered, Operation, Present, Refused, Wanted
from lfs.errors import InvalidBatch, InvalidOid, LockExists
from lfs.locks import DEFAULT_LIMIT, Lock
from lfs.pointer import is_oid
from lfs.service import LfsService
from sshd.lfs_messages import Answer, Incoming, Outgoing, Request, number
from sshd.streams import FirstWord, Pulse

_CAPABILITIES = ("version=1", "locking")
_VERSION = "1"
# Of a batch for downloads: what concerns one object is told by offering nothing, the rest concerns all.
_CONFLICT = 409

PERMISSIONS = {Operation.DOWNLOAD: Permission.READ, Operation.UPLOAD: Permission.WRITE}

Identify = Callable[[], Awaitable[Actor]]


class Conversation:
    """One client, from the capabilities to `quit`."""

    def __init__(
        self,
        service: LfsService,
        identify: Identify,
        address: Address,
        operation: Operation,
        reader: ByteReader,
        writer: ByteWriter,
        pulse: Pulse,
        *,
        max_batch_objects: int,
    ) -> None:
        """`identify` says who the client is now; `pulse` is patient while the client has asked nothing."""
        self._service = service
        self._identify = identify
        self._address = address
        self._operation = operation
        self._word = FirstWord(reader, pulse)
        self._incoming = Incoming(self._word)
        self._outgoing = Outgoing(writer)
        self._max_batch_objects = max_batch_objects
        self._commands = {
            "batch": self._batch,
            "get-object": self._get_object,
            "put-object": self._put_object,
            "verify-object": self._verify_object,
            "lock": self._lock,
            "list-lock": self._list_lock,
            "list-locks": self._list_lock,  # git-lfs before 3.4 verifies locks under this name
            "unlock": self._unlock,
        }

    async def hold(self) -> None:
        """Answers until the client takes leave or hangs up between two commands.

        Refusals of commands are answers, and the conversation goes on.

        Raises:
            ModelyardError: nothing was said, because the client may not; or what it sent is no request.
            ConnectionError: the client is gone.
        """
        await self._open()
        await self._outgoing.capabilities(*_CAPABILITIES)
        agreed = False
        while True:
            try:
                with self._word.expected():
                    request = await self._incoming.request()
                if request is None:
                    return
                if request.name == "quit":
                    await self._outgoing.send(Answer())
                    return
                if request.name == "version":
                    answer: Answer | None = _agree(request)
                    agreed = True
                elif not agreed:
                    raise BadRequest("the version must be agreed on first")
                else:
                    answer = await self._obey(request)
                await self._incoming.drain()
            except ProtocolError:
                raise
            except ModelyardError as error:
                await self._incoming.drain()
                answer = _refusal(error)
            if answer is not None:
                await self._outgoing.send(answer)

    async def _obey(self, request: Request) -> Answer | None:
        command = self._commands.get(request.name)
        if command is None:
            raise BadRequest("this command is unknown")
        actor, repository = await self._open()
        return await command(request, actor, repository)

    async def _open(self) -> tuple[Actor, RepositoryInfo]:
        actor = await self._identify()
        return actor, await self._service.open(actor, self._address, PERMISSIONS[self._operation])

    def _require(self, operation: Operation) -> None:
        if self._operation is not operation:
            raise PermissionDenied(f"this conversation is for {self._operation}s only")

    # -- objects -------------------------------------------------------------------------------------

    async def _batch(self, request: Request, actor: Actor, repository: RepositoryInfo) -> Answer:
        lines = await self._incoming.lines(self._max_batch_objects)
        asked = BatchRequest(
            operation=self._operation,
            objects=tuple(map(_wanted, lines)),
            hash_algo=request.arguments.get("hash-algo", HASH),
            ref=request.arguments.get("refname"),
        )
        decisions = await self._service.decide(repository.id, asked)
        for decision in decisions:
            # The answer has no place for what is wrong with one object. Uploads are useless without it, so
            # all of them learn of it; of downloads the client knows that what has no action is not there.
            if isinstance(decision, Refused) and (
                self._operation is Operation.UPLOAD or decision.code == _CONFLICT
            ):
                return Answer.refusal(decision.code, f"{decision.oid}: {decision.message}")
        return Answer(arguments={"hash-algo": HASH}, lines=[_action(decision) for decision in decisions])

    async def _get_object(self, request: Request, actor: Actor, repository: RepositoryInfo) -> None:
        self._require(Operation.DOWNLOAD)
        oid = _oid(request.operand())
        async with (
            self._service.open_download(repository.id, actor, oid) as download,
            download.open() as data,
        ):
            try:
                await self._outgoing.send_data(download.size, data)
            except ModelyardError as error:
                # The size was promised, so there is no other way to say it than to break off.
                raise ProtocolError(f"{oid} could not be sent: {error.message}") from error

    async def _put_object(self, request: Request, actor: Actor, repository: RepositoryInfo) -> Answer:
        self._require(Operation.UPLOAD)
        oid, size = _oid(request.operand()), request.number("size")
        if size is None:
            raise BadRequest("put-object needs a size")
        async with aclosing(self._incoming.data()) as data:
            await self._service.receive(repository.id, actor, oid, size, data)
        return Answer()

    async def _verify_object(self, request: Request, actor: Actor, repository: RepositoryInfo) -> Answer:
        self._require(Operation.UPLOAD)
        _, oid, *rest = request.command if len(request.command) in {2, 3} else ("", "")
        # The proposal writes the size behind the oid, and git-lfs sends it as an argument.
        size = number(rest[0], "size") if rest else request.number("size")
        if size is None:
            raise BadRequest("verify-object needs an oid and a size")
        await self._service.verify(repository.id, actor, _oid(oid), size)
        return Answer()

    # -- locks ---------------------------------------------------------------------------------------

    async def _lock(self, request: Request, actor: Actor, repository: RepositoryInfo) -> Answer:
        self._require(Operation.UPLOAD)
        path, ref = request.arguments.get("path"), request.arguments.get("refname")
        if path is None:
            raise InvalidBatch("lock needs a path")
        lock = await self._service.locks.create(repository.id, actor, path, ref or None)
        return Answer(201, _lock_arguments(lock))

    async def _list_lock(self, request: Request, actor: Actor, repository: RepositoryInfo) -> Answer:
        """Lists and verifies: `refspec` chooses, and `refname`, which clients verify with, does not."""
        asked = request.arguments
        limit = request.number("limit")
        locks, cursor = await self._service.locks.list(
            repository.id,
            path=asked.get("path"),
            id=asked.get("id"),
            ref=asked.get("refspec") or None,
            limit=DEFAULT_LIMIT if limit is None else limit,
            cursor=asked.get("cursor") or None,
        )
        lines = [line for lock in locks for line in _lock_lines(lock, _is_owner(actor, lock))]
        return Answer(arguments={"next-cursor": cursor} if cursor else {}, lines=lines)

    async def _unlock(self, request: Request, actor: Actor, repository: RepositoryInfo) -> Answer:
        self._require(Operation.UPLOAD)
        force = request.arguments.get("force") == "true"
        may_force = force and await self._service.administers(actor, repository)
        lock = await self._service.locks.unlock(
            repository.id, actor, request.operand(), force=force, may_force=may_force
        )
        return Answer(arguments=_lock_arguments(lock))


def _agree(request: Request) -> Answer:
    if request.operand() != _VERSION:
        raise BadRequest(f"only version {_VERSION} is spoken here")
    return Answer()


def _refusal(error: ModelyardError) -> Answer:
    arguments = _lock_arguments(error.lock) if isinstance(error, LockExists) else {}
    return Answer.refusal(error.status, error.message, arguments)


def _wanted(line: str) -> Wanted:
    oid, _, rest = line.partition(" ")
    size, _, _ = rest.partition(" ")
    return Wanted(oid, number(size, "size of an object"))


def _oid(text: str) -> str:
    if not is_oid(text):
        raise InvalidOid("an oid is 64 lower-case hexadecimal digits")
    return text


def _action(decision: Decision) -> str:
    match decision:
        case Expected(oid, size):
            return f"{oid} {size} upload"
        case Offered(oid, size):
            return f"{oid} {size} download"
        case Present(oid, size) | Refused(oid, size):
            return f"{oid} {size} noop"


def _is_owner(actor: Actor, lock: Lock) -> bool:
    return actor.kind is ActorKind.USER and actor.name == lock.owner


def _lock_arguments(lock: Lock) -> dict[str, object]:
    return {"id": lock.id, "path": lock.path, "locked-at": _time(lock), "ownername": lock.owner}


def _lock_lines(lock: Lock, ours: bool) -> list[str]:
    return [
        f"lock {lock.id}",
        f"path {lock.id} {lock.path}",
        f"locked-at {lock.id} {_time(lock)}",
        f"ownername {lock.id} {lock.owner}",
        f"owner {lock.id} {'ours' if ours else 'theirs'}",
    ]


def _time(lock: Lock) -> str:
    """RFC 3339, to the second, as git-lfs writes times."""
    return lock.locked_at.strftime("%Y-%m-%dT%H:%M:%SZ")
