"""The schema: bringing a database to the revision that this program was written for.

Upgrading is one transaction, and only one process does it at a time, so any number of workers may start at
once. There are no downgrades: the way back is the backup that was taken before.
"""

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from alembic.util import CommandError
from sqlalchemy import text
from sqlalchemy.engine import Connection

from core.database import Database
from core.errors import ModelyardError

_LOCK = 0x6D6F64656C796172  # "modelyar": any number, as long as it is always the same


class UnknownRevision(ModelyardError):
    """The database was written by a newer version of the program; use that one."""

    code = "unknown_revision"


def migrations_config() -> Config:
    """Alembic's configuration, for the scripts that were installed beside this package."""
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent.parent / "migrations"))
    return config


def head_revision() -> str:
    """The revision that this program needs."""
    head = ScriptDirectory.from_config(migrations_config()).get_current_head()
    assert head is not None, "there is at least one migration"
    return head


async def current_revision(database: Database) -> str | None:
    """The revision of the database; None if it is empty.

    Raises:
        DatabaseUnavailable: it cannot be asked.
    """
    async with database.read() as session:
        return await (await session.connection()).run_sync(_current)


async def is_current(database: Database) -> bool:
    """Whether the database is at the revision that this program needs."""
    return await current_revision(database) == head_revision()


async def upgrade(database: Database, revision: str = "head") -> None:
    """Brings the database to `revision`; does nothing if it is there.

    Raises:
        DatabaseUnavailable: it cannot be reached.
        UnknownRevision: it was written by a newer version of the program.
    """
    if revision == "head" and await is_current(database):
        return
    async with database.schema_change() as connection:
        if database.dialect == "postgresql":
            await connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _LOCK})
        await connection.run_sync(_upgrade, revision)


def _current(connection: Connection) -> str | None:
    return MigrationContext.configure(connection).get_current_revision()


def _upgrade(connection: Connection, revision: str) -> None:
    config = migrations_config()
    config.attributes["connection"] = connection
    try:
        command.upgrade(config, revision)
    except CommandError as error:
        raise UnknownRevision(
            f"the database is at revision {_current(connection)}, which this version does not know"
        ) from error
