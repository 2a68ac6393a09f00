"""Uploads that are under way outside of one request: rows of `LfsUpload`, and who may end them.

Two may want to: the client, who completes it, and the sweeper, who finds it abandoned. The sweeper marks the
row before it touches any bytes, and then the row is nobody else's.
"""

from datetime import UTC, datetime

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from core.models import LfsUpload, now

# No upload was touched then: the mark of the sweeper. It is old, so a sweep that died is done again.
GIVEN_UP = datetime(1970, 1, 1, tzinfo=UTC)


def is_given_up(upload: LfsUpload) -> bool:
    """Whether a sweeper deletes its bytes, or died doing so."""
    return upload.touched_at == GIVEN_UP


async def take_up(session: AsyncSession, repository_id: str, oid: str) -> LfsUpload | None:
    """The upload of this object, touched, so that it is not abandoned for the next days; None if none is.

    To be asked in a transaction of its own before anything long is done with the bytes.
    """
    query = select(LfsUpload).where(
        LfsUpload.repository_id == repository_id, LfsUpload.oid == oid, LfsUpload.touched_at > GIVEN_UP
    )
    upload: LfsUpload | None = await session.scalar(query.with_for_update())
    if upload is not None:
        upload.touched_at = now()
    return upload
