"""`modelyard migrate`."""

import typer

from core import schema
from core.database import Database
from modelyard.cli.administration import quieten
from modelyard.cli.framework import Verb
from modelyard.cli.output import Answer, done
from modelyard.cli.settings import settings_of
from modelyard.secret_files import ensure_private_directory


async def migrate(context: typer.Context) -> Answer:
    """Bring the database to the version of this program.

    The server does the same when it starts, unless [database] migrate is off.
    """
    settings = settings_of(context)
    quieten(context, settings)
    ensure_private_directory(settings.data_dir)
    database = Database(settings.database_url, settings.database)
    try:
        before = await schema.current_revision(database)
        await schema.upgrade(database)
        after = await schema.current_revision(database)
    finally:
        await database.close()
    sentence = f"the database is at revision {after}"
    return done(
        sentence if before == after else f"{sentence}, it was at {before or 'none'}",
        before=before,
        after=after,
    )


command = Verb(migrate)
