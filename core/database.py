"""The database: one engine, read snapshots and units of work.

SQLite runs in WAL mode; a unit of work there starts with `BEGIN IMMEDIATE`, so that two writers queue at the
start instead of failing in the middle. PostgreSQL runs units of work at READ COMMITTED with explicit row
locks, and reads at REPEATABLE READ, so that a read sees one snapshot on both.
"""

import json
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from typing import Any, TypeVarTuple

import msgspec
import structlog
from sqlalchemy import Row, Select, event, text
from sqlalchemy.engine import Connection, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, IntegrityError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, AsyncSession, create_async_engine

from core import sqlite
from core.errors import AlreadyExists, Conflict, SettingsError, Unavailable
from core.settings import DatabaseSettings

_log = structlog.get_logger()

Columns = TypeVarTuple("Columns")

_WRITES = "modelyard_writes"
# In `info` of a session: its transaction writes events to the outbox.
EMITS = "modelyard_emits"


class DatabaseUnavailable(Unavailable):
    """The database could not be reached or stayed locked; nothing was changed."""

    code = "database_unavailable"


class Database:
    """Owns the engine. Close it when done."""

    def __init__(self, url: str, settings: DatabaseSettings | None = None) -> None:
        """Prepares the engine; nothing is opened before the first use.

        Raises:
            SettingsError: the URL cannot be read, or names a database that is not supported.
        """
        settings = settings or DatabaseSettings()
        try:
            self.url = make_url(url)
        except ArgumentError as error:
            raise SettingsError("[database] url: this is no database URL") from error
        self.dialect = self.url.get_backend_name()
        # Called after events were committed through this object; a hint for workers, never relied on.
        self.event_listeners: list[Callable[[], None]] = []
        arguments: dict[str, Any] = {"pool_pre_ping": self.dialect == "postgresql"}
        if self.dialect == "sqlite":
            path = self.url.database or ""
            arguments["async_creator"] = lambda: sqlite.connect(path, settings.busy_seconds)
        elif self.dialect != "postgresql":
            raise SettingsError(f"[database] url: {self.dialect} is not supported")
        self.engine: AsyncEngine = create_async_engine(
            self.url,
            pool_size=settings.pool_size,
            max_overflow=settings.pool_size,
            pool_timeout=settings.busy_seconds,
            json_serializer=_json,
            **arguments,
        )
        self._snapshots = self.engine
        if self.dialect == "postgresql":
            self._snapshots = self.engine.execution_options(isolation_level="REPEATABLE READ")
        if self.dialect == "sqlite":
            event.listen(self.engine.sync_engine, "begin", _begin_sqlite)

    @asynccontextmanager
    async def read(self) -> AsyncIterator[AsyncSession]:
        """A session that sees one snapshot and is rolled back at the end.

        Raises:
            DatabaseUnavailable: instead of the driver's connection and lock errors.
        """
        with _translated():
            async with AsyncSession(self._snapshots, expire_on_commit=False) as session:
                yield session

    async def rows(
        self, statement: Select[*Columns], parameters: Mapping[str, Any]
    ) -> Sequence[Row[*Columns]]:
        """What one statement finds, in a snapshot of its own; it selects columns, not entities.

        Without a session, which costs more than the answer: for what nearly every request asks.

        Raises:
            DatabaseUnavailable: instead of the driver's connection and lock errors.
        """
        with _translated():
            async with self._snapshots.connect() as connection:
                return (await connection.execute(statement, parameters)).all()

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[AsyncSession]:
        """A unit of work: commits when the block ends, rolls back when it raises.

        Raises:
            AlreadyExists: a unique constraint refused what was written.
            DatabaseUnavailable: instead of the driver's connection and lock errors.
        """
        with _translated():
            async with AsyncSession(self.engine, expire_on_commit=False) as session:
                # Begins here and not with the first statement: writers queue before they read.
                _ = await session.connection(execution_options={_WRITES: True})
                yield session
                await session.commit()
                if session.info.get(EMITS):
                    for listener in self.event_listeners:
                        listener()

    @asynccontextmanager
    async def schema_change(self) -> AsyncIterator[AsyncConnection]:
        """One transaction in which tables may be rebuilt; for `core.migrate` only.

        SQLite rebuilds a table by dropping it, which would cascade to the rows that refer to it. So foreign
        keys are not enforced inside, and checked once before the commit.

        Raises:
            DatabaseUnavailable: instead of the driver's connection and lock errors.
        """
        with _translated():
            async with self.engine.connect() as connection:
                if self.dialect != "sqlite":
                    async with connection.begin():
                        yield connection
                    return
                raw = await connection.get_raw_connection()
                driver: Any = raw.driver_connection
                await driver.execute("PRAGMA foreign_keys=OFF")  # a no-op inside a transaction
                try:
                    _ = await connection.execution_options(**{_WRITES: True})
                    async with connection.begin():
                        yield connection
                        if (await connection.exec_driver_sql("PRAGMA foreign_key_check")).first():
                            raise RuntimeError("the schema change would leave dangling foreign keys")
                finally:
                    await connection.invalidate()  # whoever connects next enforces foreign keys again

    async def check(self) -> None:
        """Proves that a query can be answered now. Raises `DatabaseUnavailable`."""
        async with self.read() as session:
            await session.execute(text("SELECT 1"))

    async def close(self) -> None:
        """Closes every connection."""
        await self.engine.dispose()


def _json(value: Any) -> str:
    """What goes into a JSON column: a `msgspec.Raw` as it is, because it is JSON already."""
    return bytes(value).decode() if isinstance(value, msgspec.Raw) else json.dumps(value)


@contextmanager
def _translated() -> Iterator[None]:
    """Driver errors become ours."""
    try:
        yield
    except IntegrityError as error:
        if is_duplicate(error):
            raise AlreadyExists("something with the same unique name exists already") from error
        raise Conflict("something that this refers to was deleted meanwhile") from error
    except (OperationalError, PoolTimeout) as error:
        _log.warning("database.unavailable", cause=str(getattr(error, "orig", None) or error))
        raise DatabaseUnavailable("the database is not available; try again") from error
    except DBAPIError as error:
        if error.connection_invalidated:
            raise DatabaseUnavailable("the database is not available; try again") from error
        if "file is not a database" in str(error.orig):
            raise DatabaseUnavailable("the database file is damaged, or no SQLite database") from error
        raise


def _begin_sqlite(connection: Connection) -> None:
    if connection.get_execution_options().get(_WRITES, False):
        connection.exec_driver_sql("BEGIN IMMEDIATE")
        return
    # Past SQLAlchemy, to which this would be a statement like any other, and half as dear as what follows.
    driver = connection.connection.driver_connection
    assert isinstance(driver, sqlite.Connection)
    driver.begin_with_next()


def is_duplicate(error: IntegrityError) -> bool:
    """Whether a unique constraint refused; otherwise it was a foreign key."""
    # 23505 is unique_violation in appendix A of PostgreSQL's manual; SQLite has the name in its text.
    return getattr(error.orig, "sqlstate", None) == "23505" or "UNIQUE constraint" in str(error.orig)
