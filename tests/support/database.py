"""New databases for tests, one per test, on every engine that Modelyard supports."""

import asyncio
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Literal
from uuid import uuid4

from core.database import Database
from core.schema import upgrade
from tests.support.postgres import PostgresServer

Engine = Literal["sqlite", "postgresql"]
ENGINES: tuple[Engine, ...] = ("sqlite", "postgresql")


def prepare(url: str) -> None:
    """Brings an empty database to the present schema."""

    async def migrate() -> None:
        database = Database(url)
        try:
            await upgrade(database)
        finally:
            await database.close()

    asyncio.run(migrate())


class Databases:
    """Makes databases fast: each is a copy of one that was migrated once."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._postgres: PostgresServer | None = None

    @property
    def postgres(self) -> PostgresServer:
        """The running PostgreSQL server, started at first use; skips the test where there is none."""
        if self._postgres is None:
            server = PostgresServer(prepare)
            server.start()
            self._postgres = server
        return self._postgres

    def close(self) -> None:
        """Stops what was started."""
        if self._postgres is not None:
            self._postgres.remove()

    @asynccontextmanager
    async def fresh(self, engine: Engine, *, migrated: bool = True) -> AsyncIterator[str]:
        """The URL of a database that is gone after the block."""
        if engine == "sqlite":
            yield await asyncio.to_thread(self._sqlite, migrated)
            return
        url = await self.postgres.create_database(migrated=migrated)
        try:
            yield url
        finally:
            await self.postgres.drop_database(url)

    def _sqlite(self, migrated: bool) -> str:
        folder = self._directory / uuid4().hex
        folder.mkdir(mode=0o700)
        if migrated:
            template = self._directory / "migrated.db"
            if not template.exists():
                prepare(f"sqlite+aiosqlite:///{template}")
            shutil.copyfile(template, folder / "modelyard.db")
        return f"sqlite+aiosqlite:///{folder / 'modelyard.db'}"
