"""The schema: whether a database is at the revision that this program needs, and bringing it there.

Alembic is needed only where something is to be done, and is loaded only then: it costs 8 MB and a tenth of a
second, which every start would pay.
"""

import re
from pathlib import Path

from sqlalchemy import column, inspect, select, table
from sqlalchemy.engine import Connection

from core.database import Database
from core.errors import ModelyardError

MIGRATIONS = Path(__file__).parent.parent / "migrations"

_VERSION = table("alembic_version", column("version_num"))
_REVISION = re.compile(r'^(revision|down_revision) = "([^"]+)"$', re.MULTILINE)


class UnknownRevision(ModelyardError):
    """The database was written by a newer version of the program; use that one."""

    code = "unknown_revision"


def head_revision() -> str:
    """The revision that this program needs: the one that no other builds on."""
    texts = [path.read_text(encoding="utf-8") for path in (MIGRATIONS / "versions").glob("*.py")]
    found = [_REVISION.findall(text) for text in texts]
    named: dict[str, set[str]] = {"revision": set(), "down_revision": set()}
    for kind, name in (pair for pairs in found for pair in pairs):
        named[kind].add(name)
    (head,) = named["revision"] - named["down_revision"]
    return head


async def current_revision(database: Database) -> str | None:
    """The revision of the database; None if it is empty.

    Raises:
        DatabaseUnavailable: it cannot be asked.
    """
    async with database.read() as session:
        return await (await session.connection()).run_sync(read_revision)


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
    from core import migrate  # noqa: PLC0415 - see above

    await migrate.run(database, revision)


def read_revision(connection: Connection) -> str | None:
    """As `current_revision`, on a connection."""
    if not inspect(connection).has_table("alembic_version"):
        return None
    found: str | None = connection.scalar(select(_VERSION.c.version_num))
    return found
