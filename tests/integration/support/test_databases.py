"""The databases that other tests are given."""

import pytest
from sqlalchemy import inspect, text
from sqlalchemy.engine import Connection

from core.database import Database, DatabaseUnavailable
from core.models import Base
from tests.support.database import Databases, Engine


def _tables(connection: Connection) -> set[str]:
    return set(inspect(connection).get_table_names())


async def test_each_test_gets_a_migrated_database_of_its_own(
    databases: Databases, database_engine: Engine
) -> None:
    async with databases.fresh(database_engine) as one, databases.fresh(database_engine) as other:
        assert one != other
        database = Database(one)
        async with database.engine.connect() as connection:
            assert _tables_of_models() <= await connection.run_sync(_tables)
        async with database.transaction() as session:
            await session.execute(text("CREATE TABLE only_here (id INTEGER)"))
        await database.close()
        second = Database(other)
        async with second.engine.connect() as connection:
            assert "only_here" not in await connection.run_sync(_tables)
        await second.close()


async def test_an_empty_database_has_no_tables(empty_database_url: str) -> None:
    database = Database(empty_database_url)
    async with database.engine.connect() as connection:
        assert await connection.run_sync(_tables) == set()
    await database.close()


def _tables_of_models() -> set[str]:
    return set(Base.metadata.tables)


async def test_a_database_is_gone_after_its_block(databases: Databases) -> None:
    async with databases.fresh("postgresql") as url:
        database = Database(url)
        await database.check()
    with pytest.raises(DatabaseUnavailable):
        await database.check()
    await database.close()
