"""From stored parts to a verified object. Every step finds what a former try, here or elsewhere, has done."""

from collections.abc import AsyncIterator, Sequence

import structlog

from core import failpoints
from core.access import Actor
from lfs.errors import ObjectMissing, UploadNotFound, WrongBytes, WrongParts
from lfs.objects import Objects
from lfs.part_plan import PartPlan, compare
from lfs.part_rows import PartRows, gone
from lfs.stores import Stores
from lfs.uploads import Uploads
from storage.protocol import ObjectNotFound, PartsNotFound, PartsRejected, StoredPart, StoreUnavailable

log = structlog.get_logger(__name__)

BEFORE_COMPLETE = failpoints.declare("lfs.parts.before-complete", "all parts are stored, none is assembled")
AFTER_COMPLETE = failpoints.declare("lfs.parts.after-complete", "the parts are assembled and not verified")
AFTER_VERIFY = failpoints.declare(
    "lfs.parts.after-verify", "the object of the parts is visible, the client does not know it"
)

# Of a part that is in the whole already: the store has forgotten the part's own.
_ASSEMBLED = "assembled"


class Assembler:
    """Completes one upload per call; `MultipartUploads` sees to it that one call at a time does."""

    def __init__(self, rows: PartRows, stores: Stores, objects: Objects, uploads: Uploads) -> None:
        self._rows = rows
        self._stores = stores
        self._objects = objects
        self._uploads = uploads

    async def complete(
        self,
        repository_id: str,
        actor: Actor,
        oid: str,
        upload_id: str,
        claimed: Sequence[tuple[int, str]] | None,
    ) -> None:
        """As `MultipartUploads.complete`, which documents it."""
        try:
            row = await self._rows.take_up(repository_id, oid, upload_id)
        except UploadNotFound:
            if await self._is_there(repository_id, oid):
                return  # this upload made it, and its client did not hear of it
            raise
        plan = PartPlan.of(row)
        if await self._is_there(repository_id, oid):
            # Another upload of the same object was faster.
            await self.drop(plan)
            return
        await self._assemble(plan, claimed)
        failpoints.reach(AFTER_COMPLETE)
        try:
            await self._uploads.adopt(
                repository_id, actor, oid, plan.size, plan.store, plan.key, attested=False
            )
        except WrongBytes:
            await self._rows.forget(upload_id)
            raise
        except ObjectMissing:
            if not await self._is_there(repository_id, oid):  # another process has completed it meanwhile
                raise
        failpoints.reach(AFTER_VERIFY)

    async def stored(self, plan: PartPlan) -> PartPlan:
        """The plan with the parts that the store has. Raises `PartsNotFound`: it has nothing of it."""
        store = self._stores[plan.store]
        try:
            return plan.holding(await store.list_parts(plan.key, plan.multipart_id))
        except PartsNotFound:
            if not await self._is_assembled(plan):
                raise
        return plan.holding(
            [StoredPart(number, plan.size_of(number), _ASSEMBLED) for number in range(1, plan.count + 1)]
        )

    async def drop(self, plan: PartPlan) -> None:
        """Forgets an upload with its parts.

        What is under its key stays: it may be the object's own by now, and if not, it is swept as an orphan.
        """
        await self._rows.forget(plan.upload_id)
        await self.drop_parts(plan)

    async def drop_parts(self, plan: PartPlan) -> None:
        """Deletes the parts. Those that cannot be deleted now are nobody's; the store sweeps them."""
        try:
            await self._stores[plan.store].abort_parts(plan.key, plan.multipart_id)
        except StoreUnavailable as error:
            log.warning("lfs.parts.left", key=plan.key, error=error.message)

    async def _assemble(self, plan: PartPlan, claimed: Sequence[tuple[int, str]] | None) -> None:
        """Afterwards the key holds the whole, unverified."""
        store = self._stores[plan.store]
        if not plan.count:
            await store.put(plan.key, _nothing())
            await self.drop_parts(plan)
            return
        try:
            parts = compare(plan.holding(await store.list_parts(plan.key, plan.multipart_id)), claimed)
            failpoints.reach(BEFORE_COMPLETE)
            await store.complete_parts(plan.key, plan.multipart_id, parts)
        except PartsRejected as error:  # the client has sent one of them again meanwhile
            raise WrongParts(error.message) from error
        except PartsNotFound as error:
            # Somebody assembled them before, and died or is about to verify them, too; or the store has
            # dropped them, as MinIO does after a day.
            if not await self._is_assembled(plan):
                await self._rows.forget(plan.upload_id)
                raise gone() from error

    async def _is_assembled(self, plan: PartPlan) -> bool:
        try:
            await self._stores[plan.store].stat(plan.key)
        except ObjectNotFound:
            return False
        return True

    async def _is_there(self, repository_id: str, oid: str) -> bool:
        return not await self._objects.missing(repository_id, [oid])


async def _nothing() -> AsyncIterator[bytes]:
    yield b""
