"""What the LFS faces share: one object behind HTTP, `git-lfs-authenticate` and `git-lfs-transfer`."""

import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace

from core.access import Actor, ActorKind, Permission, authorize_again
from core.database import Database
from core.errors import AuthenticationRequired, InvalidCredentials, NotFound, PermissionDenied
from core.lookup import find_repository
from core.models import Repository
from core.names import Address
from core.opening import RepositoryInfo
from core.repositories import Repositories
from core.settings import LfsSettings
from core.slots import Slots
from lfs.actions import Actions, Json
from lfs.batch import BatchRequest, Decision, Expected, Operation, Present, decide
from lfs.direct import DirectUploads
from lfs.downloads import Download, Downloads
from lfs.errors import LinkRefused, ObjectMissing, WrongBytes
from lfs.links import REFUSED, Link, Links, Session, Use
from lfs.locks import Locks
from lfs.objects import Objects, StoredObject
from lfs.quotas import Quotas
from lfs.uploads import Uploads

# No client holds more than this part of the places for transfers.
_SHARE = 4


class LfsService:
    """Batches, bytes, and leave to move them.

    Methods that take a `repository_id` or a `RepositoryInfo` ask for no rights, except where they say so: it
    was opened with `open` (READ to download, WRITE for the rest), or comes from a link that `admit` checked.
    """

    def __init__(
        self,
        database: Database,
        repositories: Repositories,
        objects: Objects,
        downloads: Downloads,
        quotas: Quotas,
        uploads: Uploads,
        direct: DirectUploads,
        actions: Actions,
        links: Links,
        locks: Locks,
        settings: LfsSettings,
        *,
        anonymous_read: bool,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """`clock` is Unix time; `anonymous_read` the setting of `[auth]`."""
        self.locks = locks
        self._database = database
        self._repositories = repositories
        self._objects = objects
        self._downloads = downloads
        self._quotas = quotas
        self._uploads = uploads
        self._direct = direct
        self._actions = actions
        self._links = links
        self._settings = settings
        self._anonymous_read = anonymous_read
        self._clock = clock
        places = settings.concurrent_transfers
        self._slots = Slots(places, share=places // _SHARE)
        # Addresses cost nothing, and slow downloads last: all of nobody together leave places for users.
        self._guests = Slots(max(1, places // 2), share=places // _SHARE)

    # -- rights --------------------------------------------------------------------------------------

    async def open(self, actor: Actor, address: Address, permission: Permission) -> RepositoryInfo:
        """As `Repositories.open`."""
        return await self._repositories.open(actor, address, permission)

    async def administers(self, actor: Actor, repository: RepositoryInfo) -> bool:
        """Whether the actor may take other people's locks."""
        try:
            await self._repositories.open(actor, repository.address, Permission.ADMIN)
        except (AuthenticationRequired, NotFound, PermissionDenied):
            return False
        return True

    async def admit(
        self,
        text: str,
        address: Address,
        use: Use,
        *,
        oid: str | None = None,
        upload_id: str = "",
        part: int = 0,
    ) -> Link:
        """The link, if it is good for exactly this, and its actor still may.

        `oid` None is for requests that name no object in their address: the caller compares.

        Raises:
            LinkRefused: in the same words whatever is wrong.
        """
        link = self._links.verify(text, now=self._clock())
        asked = (use, link.oid if oid is None else oid, upload_id, part)
        if asked != (link.use, link.oid, link.upload_id, link.part):
            raise LinkRefused(REFUSED)
        permission = Permission.WRITE if use.writes else Permission.READ
        try:
            async with self._database.read() as session:
                # By address, because that is what the client asked for; it may have moved since.
                found = await find_repository(session, address)
                if found is None or found[0].id != link.repository_id:
                    raise LinkRefused(REFUSED)
                await authorize_again(
                    session, link.actor, found[0], permission, anonymous_read=self._anonymous_read
                )
        except (AuthenticationRequired, NotFound, PermissionDenied) as error:
            raise LinkRefused(REFUSED) from error
        return link

    def start_session(self, repository: RepositoryInfo, actor: Actor, *, writes: bool) -> tuple[str, int]:
        """A bearer token for the HTTP face of this repository, and for how many seconds it is good.

        It is worth what the actor may at the time of use, and no more than reading unless it `writes`.
        """
        seconds = self._settings.link_seconds
        expires = int(self._clock()) + seconds
        return self._links.sign_session(Session(repository.id, writes, actor, expires)), seconds

    async def resume_session(self, token: str) -> Actor:
        """The actor behind a token of `start_session`, limited to its repository and operation.

        Raises:
            InvalidCredentials: forged or expired, or the credential that it came from was revoked.
        """
        session = self._links.verify_session(token, now=self._clock())
        actor = replace(
            session.actor,
            repository_id=session.repository_id,
            read_only=session.actor.read_only or not session.writes,
        )
        async with self._database.read() as reading:
            repository = await reading.get(Repository, session.repository_id)
            if repository is None:
                raise InvalidCredentials("the repository of this session was deleted")
            try:
                await authorize_again(
                    reading, actor, repository, Permission.READ, anonymous_read=self._anonymous_read
                )
            except (NotFound, PermissionDenied) as error:
                raise InvalidCredentials("this session is not valid any more") from error
        return actor

    # -- batches -------------------------------------------------------------------------------------

    async def decide(self, repository_id: str, request: BatchRequest) -> list[Decision]:
        """What becomes of each object, in the order of the request.

        Raises:
            QuotaExceeded: the owner has no room for what is to come.
        """
        known = await self._objects.find(repository_id, request.oids())
        decisions = decide(request, known, max_object_bytes=self._settings.max_object_bytes)
        if request.operation is Operation.UPLOAD:
            # The client relies on these from now on, so they must outlive its push.
            await self._objects.touch(
                repository_id, [one.oid for one in decisions if isinstance(one, Present)]
            )
            new = {one.oid: one.size for one in decisions if isinstance(one, Expected)}
            more = sum(size for oid, size in new.items() if oid not in known)
            if more:
                await self._quotas.require_room(repository_id, more)
        return decisions

    async def batch(
        self, repository: RepositoryInfo, actor: Actor, request: BatchRequest, base_url: str
    ) -> Json:
        """The answer of the batch API, with links below `base_url`. Raises as `decide`."""
        decisions = await self.decide(repository.id, request)
        return await self._actions.answer(repository, actor, request, decisions, base_url)

    # -- bytes ---------------------------------------------------------------------------------------

    async def find(self, repository_id: str, oid: str) -> StoredObject:
        """As `Downloads.find`."""
        return await self._downloads.find(repository_id, oid)

    @asynccontextmanager
    async def open_download(self, repository_id: str, actor: Actor, oid: str) -> AsyncIterator[Download]:
        """The object, to be sent within the block; waits for a place. Raises as `Downloads.find`."""
        async with (
            self.place(actor),
            self._downloads.open(repository_id, oid) as download,
        ):
            yield download

    async def receive(
        self, repository_id: str, actor: Actor, oid: str, size: int, data: AsyncIterator[bytes]
    ) -> None:
        """Takes an upload; waits for a place, then returns once it is durable and the repository has it.

        Asks again, at the end, whether the actor may write. Raises as `Uploads.receive`.
        """
        async with self.place(actor):
            await self._uploads.receive(repository_id, actor, oid, size, data)

    @asynccontextmanager
    async def place(self, actor: Actor) -> AsyncIterator[None]:
        """A place for moving bytes in some other way; waits for one."""
        async with AsyncExitStack() as stack:
            if actor.kind is ActorKind.ANONYMOUS:
                await stack.enter_async_context(self._guests.take(actor.client))
            await stack.enter_async_context(self._slots.take(actor.client))
            yield

    async def verify(self, repository_id: str, actor: Actor, oid: str, size: int) -> None:
        """Returns once the repository has the object, whichever way its bytes came.

        Raises:
            ObjectMissing: nothing was uploaded.
            WrongBytes: the object has another size, or what was uploaded is something else.
        """
        stored = (await self._objects.find(repository_id, [oid])).get(oid)
        if stored is not None and not stored.damaged:
            if stored.size != size:
                raise WrongBytes(f"this object has {stored.size} bytes, not {size}", oid=oid)
            await self._objects.touch(repository_id, [oid])
        elif not await self._direct.finish(repository_id, actor, oid, size):
            raise ObjectMissing("the repository has no such object", oid=oid)
