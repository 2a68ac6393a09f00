"""The first start: somebody must be able to log in."""

from secrets import choice
from string import ascii_letters, digits

from sqlalchemy import exists, select

from core.access import SYSTEM
from core.errors import AlreadyExists
from core.models import Account
from modelyard.services import Services

ADMINISTRATOR = "admin"
_PASSWORD_LENGTH = 24


async def ensure_administrator(services: Services) -> str | None:
    """Creates the administrator if there is no account at all; returns the password, which nothing keeps."""
    async with services.database.read() as session:
        if await session.scalar(select(exists().select_from(Account))):
            return None
    password = "".join(choice(ascii_letters + digits) for _ in range(_PASSWORD_LENGTH))
    try:
        await services.accounts.create_user(SYSTEM, ADMINISTRATOR, password=password, is_admin=True)
    except AlreadyExists:
        return None  # another process started at the same moment, and printed its password
    return password
