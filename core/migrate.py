"""Running migrations, for `core.schema`.

Upgrading is one transaction, and only one process does it at a time, so any number of workers may start at
once. There are no downgrades: the way back is the backup that was taken before.
"""

from alembic import command
from alembic.config import Config
from alembic.util import CommandError
from sqlalchemy import text
from sqlalchemy.engine import Connection

from core.database import Database
from core.schema import MIGRATIONS, UnknownRevision, read_revision

_LOCK = 0x6D6F64656C796172  # "modelyar": any number, as long as it is always the same


def migrations_config() -> Config:
    """Alembic's configuration, for the scripts that were installed beside this package."""
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    return config


async def run(database: Database, revision: str) -> None:
    """As `core.schema.upgrade`, without looking first."""
    async with database.schema_change() as connection:
        if database.dialect == "postgresql":
            await connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _LOCK})
        await connection.run_sync(_upgrade, revision)


def _upgrade(connection: Connection, revision: str) -> None:
    config = migrations_config()
    config.attributes["connection"] = connection
    try:
        command.upgrade(config, revision)
    except CommandError as error:
        raise UnknownRevision(
            f"the database is at revision {read_revision(connection)}, which this version does not know"
        ) from error
