"""The rows of uploads in parts. One that a sweeper has given up is not there any more."""

from sqlalchemy import ColumnElement, delete, select, update

from core.database import Database
from core.errors import AlreadyExists
from core.models import LfsUpload, now
from lfs.errors import UploadNotFound
from lfs.pending import GIVEN_UP, take_up
from lfs.quotas import Quotas
from lfs.records import hold_repository


class PartRows:
    """Each method is one transaction."""

    def __init__(self, database: Database, quotas: Quotas) -> None:
        self._database = database
        self._quotas = quotas

    async def of_object(self, repository_id: str, oid: str) -> LfsUpload | None:
        """The upload of an object, in parts or not, given up or not."""
        return await self._find(LfsUpload.repository_id == repository_id, LfsUpload.oid == oid)

    async def get(self, repository_id: str, upload_id: str) -> LfsUpload:
        """Raises `UploadNotFound`."""
        row = await self._find(
            LfsUpload.repository_id == repository_id,
            LfsUpload.id == upload_id,
            LfsUpload.multipart_id != "",
            LfsUpload.touched_at > GIVEN_UP,
        )
        if row is None:
            raise gone()
        return row

    async def take_up(self, repository_id: str, oid: str, upload_id: str) -> LfsUpload:
        """As `get`, and no sweeper gives it up for the next days."""
        async with self._database.transaction() as session:
            row = await take_up(session, repository_id, oid)
        # What a sweeper gave up may go on past this server, in the same row.
        if row is None or row.id != upload_id or not row.multipart_id:
            raise gone()
        return row

    async def insert(self, row: LfsUpload, *, instead_of: LfsUpload | None) -> bool:
        """Whether it is in; if not, somebody else was faster.

        Raises:
            RepositoryNotFound, QuotaExceeded: it must not be.
        """
        try:
            async with self._database.transaction() as session:
                repository = await hold_repository(session, row.repository_id)
                await self._quotas.reserve_waiting(
                    session, repository.owner_id, repository.id, {row.oid: row.size}
                )
                if instead_of is not None:
                    former = delete(LfsUpload).where(LfsUpload.id == instead_of.id)
                    if await session.scalar(former.returning(LfsUpload.id)) is None:
                        return False
                session.add(row)
        except AlreadyExists:
            return False
        return True

    async def touch(self, upload_id: str) -> bool:
        """Notes that somebody works on it; whether it is there."""
        change = update(LfsUpload).where(LfsUpload.id == upload_id, LfsUpload.touched_at > GIVEN_UP)
        async with self._database.transaction() as session:
            row = await session.scalar(change.values(touched_at=now()).returning(LfsUpload.id))
        return row is not None

    async def forget(self, upload_id: str) -> None:
        async with self._database.transaction() as session:
            await session.execute(delete(LfsUpload).where(LfsUpload.id == upload_id))

    async def _find(self, *conditions: ColumnElement[bool]) -> LfsUpload | None:
        async with self._database.read() as session:
            row: LfsUpload | None = await session.scalar(select(LfsUpload).where(*conditions))
        return row


def gone() -> UploadNotFound:
    """In the same words whatever became of it."""
    return UploadNotFound("this upload was completed or dropped; ask for a new batch")
