"""Uploads in parts: each part survives alone, so that an upload that broke off resumes where it was.

The parts wait in the store under a key of their own, which `LfsUpload` remembers. To complete is to assemble
them, to read the whole through sha256 (`Uploads.adopt`), and only then to make the object visible. Whatever
breaks off in between is picked up by asking for the completion again.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from functools import partial

import structlog

from core.access import Actor
from core.database import Database
from core.errors import Conflict, Unavailable
from core.models import LfsUpload
from core.settings import LfsSettings
from core.slots import Slots
from lfs.assembly import Assembler
from lfs.errors import UploadNotFound, WrongBytes, WrongParts
from lfs.objects import Objects, new_key
from lfs.part_plan import PartPlan, choose_part_bytes
from lfs.part_rows import PartRows, gone
from lfs.pending import is_given_up
from lfs.stores import Stores
from lfs.uploads import Uploads
from storage.protocol import PartsNotFound, StoredPart

log = structlog.get_logger(__name__)

# Other processes may begin the same upload meanwhile; each time one of them gets on.
_TRIES = 5

# So many are completed at once, and of one client's.
_AT_ONCE = 8
_SHARE = 4


class MultipartUploads:
    """What goes on in parts, in this process. Close it when done."""

    def __init__(
        self,
        database: Database,
        stores: Stores,
        objects: Objects,
        uploads: Uploads,
        settings: LfsSettings,
        *,
        direct: Callable[[], bool],
    ) -> None:
        """`direct`: whether parts may go past this server now, as `TransferMode.redirects`."""
        self._rows = PartRows(database, uploads.quotas)
        self._stores = stores
        self._assembler = Assembler(self._rows, stores, objects, uploads)
        self._part_bytes = settings.part_bytes
        self._direct = direct
        self._running: dict[str, asyncio.Task[None]] = {}
        # The client's place for transfers ends with its connection, and the work here does not.
        self._places = Slots(_AT_ONCE, share=_SHARE)

    async def begin(self, repository_id: str, oid: str, size: int) -> PartPlan:
        """What is left to do to upload this object: of a new upload everything, else the missing parts.

        An upload whose parts the store has dropped, or that was about another size, is begun anew.

        Raises:
            RepositoryNotFound: it was deleted meanwhile.
            QuotaExceeded: the owner has too much under way.
            StoreUnavailable, DatabaseUnavailable: nothing was changed.
        """
        for _ in range(_TRIES):
            row = await self._rows.of_object(repository_id, oid)
            plan = await self._resume(row, size) if row else None
            plan = plan or await self._start(repository_id, oid, size, row)
            if plan is not None:
                return plan
        raise Conflict("too many clients begin to upload this object; try again")

    async def signed_parts(self, plan: PartPlan, seconds: int) -> dict[int, str]:
        """Presigned URLs of the parts that are missing; empty when parts go through this server.

        A part that is stored is never signed, so that its URL cannot be used to put something else there.
        """
        store = self._stores[plan.store]
        if not self._direct() or not store.signs:
            return {}
        signed: dict[int, str] = {}
        for number in plan.missing:
            url = await store.signed_part(
                plan.key, plan.multipart_id, number, seconds=seconds, size=plan.size_of(number)
            )
            if url is not None:
                signed[number] = url
        return signed

    async def stored_part(self, repository_id: str, upload_id: str, number: int) -> StoredPart | None:
        """The part if the store has it whole. Raises `UploadNotFound`."""
        plan = PartPlan.of(await self._rows.get(repository_id, upload_id))
        try:
            return (await self._assembler.stored(plan)).done.get(number)
        except PartsNotFound as error:
            raise gone() from error

    async def put_part(
        self,
        repository_id: str,
        upload_id: str,
        number: int,
        data: AsyncIterator[bytes],
        *,
        length: int | None = None,
    ) -> StoredPart:
        """Stores one part durably, in place of what was there. `length` is what the client announced, if so.

        Raises:
            UploadNotFound: it was completed or dropped; a new batch tells how to go on.
            WrongParts: the upload has no part of this number.
            WrongBytes: more or fewer bytes than the part has; nothing was stored.
        """
        plan = PartPlan.of(await self._rows.get(repository_id, upload_id))
        if not 1 <= number <= plan.count:
            raise WrongParts(f"this upload has the parts 1 to {plan.count}, and no part {number}")
        size = plan.size_of(number)
        if length is not None and length != size:
            raise WrongBytes(f"part {number} has {size} bytes, not {length}")
        exact = _exactly(data, size, number)
        try:
            part = await self._stores[plan.store].put_part(plan.key, plan.multipart_id, number, exact)
        except PartsNotFound as error:
            raise gone() from error
        if not await self._rows.touch(upload_id):
            raise gone()
        return part

    async def complete(
        self,
        repository_id: str,
        actor: Actor,
        oid: str,
        upload_id: str,
        claimed: Sequence[tuple[int, str]] | None,
    ) -> None:
        """Makes the object of all parts visible; returns at once if the repository has it already.

        Goes on when the caller is cancelled: whoever asks again waits for the same result. `claimed` are the
        numbers and ETags that the client got for its parts, if it says so.

        Raises:
            UploadNotFound: no such upload, and no such object; a new batch tells how to go on.
            WrongParts: parts are missing or others than claimed; the upload goes on.
            WrongBytes: the whole is not the object; it was dropped.
            QuotaExceeded, InvalidCredentials, PermissionDenied, RepositoryNotFound: as `Uploads.adopt`.
        """
        task = self._running.get(upload_id)
        if task is None:
            work = self._complete(repository_id, actor, oid, upload_id, claimed)
            task = self._running[upload_id] = asyncio.create_task(work)
            task.add_done_callback(partial(self._ended, upload_id))
        try:
            await asyncio.shield(task)
        except asyncio.CancelledError:
            if task.cancelled():  # by `close`
                raise Unavailable("the server is stopping; ask again for the completion") from None
            raise

    async def abort(self, repository_id: str, upload_id: str) -> None:
        """Drops an upload and its parts; one that is gone already is no error.

        Raises:
            Conflict: it is being completed.
        """
        if upload_id in self._running:
            raise Conflict("this upload is being completed")
        try:
            row = await self._rows.get(repository_id, upload_id)
        except UploadNotFound:
            return
        await self._assembler.drop(PartPlan.of(row))

    async def close(self) -> None:
        """Stops completions that are under way; they can be asked for again."""
        running = list(self._running.values())
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)

    async def _complete(
        self,
        repository_id: str,
        actor: Actor,
        oid: str,
        upload_id: str,
        claimed: Sequence[tuple[int, str]] | None,
    ) -> None:
        async with self._places.take(actor.client):
            await self._assembler.complete(repository_id, actor, oid, upload_id, claimed)

    async def _resume(self, row: LfsUpload, size: int) -> PartPlan | None:
        """None: there is nothing that could go on."""
        if row.size != size or not row.multipart_id or is_given_up(row):
            return None
        if row.store not in self._stores.kinds():
            return None
        try:
            plan = await self._assembler.stored(PartPlan.of(row))
        except PartsNotFound:
            return None
        return plan if await self._rows.touch(row.id) else None

    async def _start(
        self, repository_id: str, oid: str, size: int, former: LfsUpload | None
    ) -> PartPlan | None:
        """A new upload in place of `former`; None when somebody else was faster."""
        kind = self._stores.current_kind
        row = LfsUpload(
            repository_id=repository_id,
            oid=oid,
            size=size,
            store=kind,
            key=new_key(oid),
            part_bytes=choose_part_bytes(size, self._part_bytes, kind, direct=self._direct()),
        )
        row.multipart_id = await self._stores.current.begin_parts(row.key)
        is_in = False
        try:
            is_in = await self._rows.insert(row, instead_of=former)
        finally:
            if not is_in:
                await self._stores.current.abort_parts(row.key, row.multipart_id)
        if not is_in:
            return None
        if former is not None and former.multipart_id and former.store in self._stores.kinds():
            await self._assembler.drop_parts(PartPlan.of(former))
        return PartPlan.of(row)

    def _ended(self, upload_id: str, task: asyncio.Task[None]) -> None:
        del self._running[upload_id]
        # Those who waited were told. If nobody did any more, the next one to ask finds out again.
        if not task.cancelled() and (error := task.exception()) is not None:
            log.info("lfs.parts.refused", upload=upload_id, kind=type(error).__name__, error=str(error))


async def _exactly(data: AsyncIterator[bytes], size: int, number: int) -> AsyncIterator[bytes]:
    """Passes the bytes on. Raises `WrongBytes` at the first excess, or at the end when some lack."""
    seen = 0
    async for chunk in data:
        seen += len(chunk)
        if seen > size:
            raise WrongBytes(f"part {number} has {size} bytes, and more were sent")
        yield chunk
    if seen < size:
        raise WrongBytes(f"part {number} has {size} bytes, and only {seen} were sent")
