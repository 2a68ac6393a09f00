"""The one way in for large files, whatever way the bytes came.

Bytes are in a store, durable and proved to be what they are called, before one transaction makes the object
and the link that lets the repository reach it (invariants I5, I7). Keys are random and never used twice, so
before that transaction nothing can be mistaken for an object, and what a crash leaves behind is an orphan
that a sweeper removes.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing

import structlog
from sqlalchemy import select

from core import failpoints
from core.access import Actor, Permission, authorize_again
from core.database import Database
from core.errors import ModelyardError, RepositoryNotFound, Unavailable
from core.models import LfsObject, StoreKind
from core.settings import LfsSettings
from lfs.checking import checked
from lfs.errors import InvalidOid, ObjectMissing, ObjectTooLarge, UploadNotFound, WrongBytes
from lfs.objects import Objects, new_key
from lfs.pointer import is_oid
from lfs.quotas import Quotas
from lfs.records import Place, end_upload, hold_repository, is_linked, record_link, record_object
from lfs.stores import Stores
from storage.protocol import ObjectNotFound, StoreUnavailable

log = structlog.get_logger(__name__)

BEFORE_BYTES = failpoints.declare("lfs.upload.before-bytes", "nothing of the object is in the object store")
AFTER_BYTES = failpoints.declare(
    "lfs.upload.after-bytes", "the object is in the object store and verified, no row names it"
)
AFTER_COMMIT = failpoints.declare(
    "lfs.upload.after-commit", "object and link are committed, the client does not know it"
)


class Uploads:
    """Takes objects in. Close it when done."""

    def __init__(self, database: Database, stores: Stores, quotas: Quotas, settings: LfsSettings) -> None:
        self.quotas = quotas
        self._database = database
        self._stores = stores
        self._objects = Objects(database)
        self._max_bytes = settings.max_object_bytes
        self._dropping: set[asyncio.Task[None]] = set()

    async def receive(
        self, repository_id: str, actor: Actor, oid: str, size: int, data: AsyncIterator[bytes]
    ) -> None:
        """Stores what `data` yields as an object of the repository; any number at once, and again.

        The bytes are always read, checked and stored, so that the time it takes does not tell whether
        another repository has them.

        Raises:
            InvalidOid, ObjectTooLarge: before the first byte is read.
            QuotaExceeded: before the first byte, or at the end, when other uploads took the room.
            WrongBytes: another size or sha256; raised at the first byte too many.
            RepositoryNotFound, PermissionDenied, InvalidCredentials: as of the end of the upload.
            StoreUnavailable, DatabaseUnavailable: try again.
        """
        await self.require_acceptable(repository_id, oid, size)
        place = Place(self._stores.current_kind, new_key(oid))
        failpoints.reach(BEFORE_BYTES)
        async with aclosing(checked(data, oid, size)) as verified:
            await self._stores.current.put(place.key, verified)
        try:
            await self._make_visible(repository_id, actor, oid, size, place, adopted=False)
        except ModelyardError as error:
            # Out of reach may mean that only the answer to the commit was lost, and a row names the bytes.
            if not isinstance(error, Unavailable):
                self._drop_later(place)
            raise

    async def adopt(
        self,
        repository_id: str,
        actor: Actor,
        oid: str,
        size: int,
        store: StoreKind,
        key: str,
        *,
        attested: bool,
    ) -> None:
        """Makes the bytes of an `LfsUpload`, which lie under `key`, an object of the repository, and ends it.

        `attested`: the store itself says that their size and sha256 are these, and nobody can change them
        any more; otherwise they are read. When the object exists already, the bytes are dropped. Returns
        also when another completion was faster. A refusal leaves upload and bytes as they are, unless the
        bytes are wrong or their repository is gone.

        Raises:
            ObjectTooLarge, QuotaExceeded, PermissionDenied, InvalidCredentials: ask again when that changed.
            WrongBytes, RepositoryNotFound: the bytes are dropped.
            ObjectMissing: there is nothing under `key`.
            UploadNotFound: it was dropped or replaced meanwhile; start again.
            StoreUnavailable, DatabaseUnavailable: try again.
        """
        await self.require_acceptable(repository_id, oid, size)
        place = Place(store, key)
        try:
            if not attested:
                await self._verify(oid, size, place)
            await self._make_visible(repository_id, actor, oid, size, place, adopted=True)
        except (WrongBytes, RepositoryNotFound):
            # Never what a row names: the same upload may have been completed twice at once, and then deleted.
            if not await self._is_named(place):
                await self.discard(place)
            raise

    async def require_acceptable(self, repository_id: str, oid: str, size: int) -> None:
        """What can be known of an upload before its bytes.

        Raises:
            InvalidOid, ObjectTooLarge, QuotaExceeded, RepositoryNotFound: it cannot be.
        """
        if not is_oid(oid):
            raise InvalidOid("an oid is the sha256 in 64 lower-case hexadecimal digits")
        if not 0 <= size <= self._max_bytes:
            raise ObjectTooLarge(f"an object may have {self._max_bytes} bytes at most", oid=oid)
        linked = await self._objects.find(repository_id, [oid])
        await self.quotas.require_room(repository_id, 0 if linked else size)

    async def discard(self, place: Place) -> None:
        """Deletes bytes that no row names; what cannot be deleted now is swept as an orphan."""
        try:
            await self._stores[place.store].delete(place.key)
        except StoreUnavailable:
            log.warning("lfs.drop-failed", store=place.store.value, key=place.key)

    async def settle(self) -> None:
        """Waits until what was dropped so far is deleted, as far as it can be."""
        while self._dropping:
            await asyncio.wait(self._dropping)

    async def close(self) -> None:
        """Stops deleting what was dropped; the rest is swept as orphans."""
        for task in self._dropping:
            task.cancel()
        await self.settle()

    async def _verify(self, oid: str, size: int, place: Place) -> None:
        try:
            async with (
                self._stores[place.store].open(place.key) as chunks,
                aclosing(checked(chunks, oid, size)) as verified,
            ):
                async for _ in verified:
                    pass
        except ObjectNotFound as error:
            raise ObjectMissing("nothing was uploaded; upload it again", oid=oid) from error

    async def _make_visible(
        self, repository_id: str, actor: Actor, oid: str, size: int, place: Place, *, adopted: bool
    ) -> None:
        failpoints.reach(AFTER_BYTES)
        doubted = await self._doubted(oid, size, place)
        # A client that leaves now changes nothing: once asked to, the commit is awaited to its end.
        work = asyncio.ensure_future(self._commit(repository_id, actor, oid, size, place, doubted, adopted))
        try:
            left = await asyncio.shield(work)
        except asyncio.CancelledError:
            await asyncio.wait([work])
            raise
        failpoints.reach(AFTER_COMMIT)
        if left is not None:
            self._drop_later(left)

    async def _commit(
        self,
        repository_id: str,
        actor: Actor,
        oid: str,
        size: int,
        place: Place,
        doubted: Place | None,
        adopted: bool,
    ) -> Place | None:
        """Returns the place whose bytes may go."""
        async with self._database.transaction() as session:
            repository = await hold_repository(session, repository_id)
            # An upload may take hours; whoever lost the right meanwhile does not finish it.
            await authorize_again(session, actor, repository, Permission.WRITE)
            await self.quotas.reserve(session, repository.owner_id, repository_id, oid, size)
            if adopted and not await end_upload(session, repository_id, oid, place.key):
                if await is_linked(session, repository_id, oid):
                    return None
                raise UploadNotFound("this upload was dropped or replaced meanwhile; start again", oid=oid)
            left = await record_object(session, oid, size, place, doubted=doubted)
            await record_link(session, repository_id, oid)
        log.info("lfs.stored", repository_id=repository_id, oid=oid, bytes=size, actor=actor.name)
        return left

    async def _doubted(self, oid: str, size: int, place: Place) -> Place | None:
        """Where the object that exists already should lie, unless the store confirms that it does.

        Always asks a store about one key, about our own where there is no such object, so that the time it
        takes does not tell.
        """
        async with self._database.read() as session:
            row = await session.get(LfsObject, oid)
        former = Place(row.store, row.key) if row is not None else place
        try:
            if (await self._stores[former.store].stat(former.key)).size == size:
                return None
        except (ObjectNotFound, StoreUnavailable):
            pass
        return former

    async def _is_named(self, place: Place) -> bool:
        async with self._database.read() as session:
            return await session.scalar(select(LfsObject.oid).where(LfsObject.key == place.key)) is not None

    def _drop_later(self, place: Place) -> None:
        """Deletes bytes without a row, beside the answer: how long that takes would tell that they were."""
        task = asyncio.get_running_loop().create_task(self.discard(place))
        self._dropping.add(task)
        task.add_done_callback(self._dropping.discard)
