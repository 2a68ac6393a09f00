"""Alembic's entry: upgrades on the connection that `core.migrate` gives, or works alone for developers.

Alone it uses the database that the settings name, which must be upgraded first:
`modelyard migrate && alembic revision --autogenerate -m "what it does"`. There is no offline mode.
"""

import asyncio
import os
from pathlib import Path
from typing import Any, Literal

from alembic import context
from alembic.autogenerate.api import AutogenContext
from sqlalchemy import Enum
from sqlalchemy.engine import Connection

from core.database import Database
from core.models import Base
from core.models.base import Timestamp
from core.settings import load_settings


def render_item(kind: str, item: Any, _context: AutogenContext) -> str | Literal[False]:
    """A revision outlives the models, so it names plain SQLAlchemy types only."""
    if kind == "type" and isinstance(item, Timestamp):
        return "sa.DateTime(timezone=True)"
    if kind == "type" and isinstance(item, Enum):
        return f"sa.String(length={item.length})"
    return False


def run(connection: Connection) -> None:
    """Runs what Alembic was asked for, in the transaction that is open."""
    context.configure(
        connection=connection,
        target_metadata=Base.metadata,
        render_as_batch=True,
        render_item=render_item,
        compare_server_default=True,
    )
    with context.begin_transaction():
        context.run_migrations()


async def run_alone() -> None:
    """As `run`, on the database of the settings."""
    file = os.environ.get("MODELYARD_CONFIG")
    settings = load_settings(Path(file) if file else None)
    database = Database(settings.database_url, settings.database)
    try:
        async with database.schema_change() as connection:
            await connection.run_sync(run)
    finally:
        await database.close()


given: Connection | None = context.config.attributes.get("connection")
if given is not None:
    run(given)
else:
    asyncio.run(run_alone())
