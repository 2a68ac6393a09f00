"""Races on unique names: one wins, the others are told what is taken."""

from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession

from core.database import is_duplicate
from core.errors import AlreadyExists


async def flush_or_exists(session: AsyncSession, message: str, **fields: object) -> None:
    """Writes what is pending; a refused unique constraint becomes `AlreadyExists(message, **fields)`.

    The transaction is lost then, so let the error end its block.
    """
    try:
        await session.flush()
    except IntegrityError as error:
        if not is_duplicate(error):
            raise
        raise AlreadyExists(message, **fields) from error
