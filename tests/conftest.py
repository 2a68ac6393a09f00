"""Fixtures that every level of the tests may use."""

from collections.abc import AsyncIterator, Iterator

import pytest

from core.database import Database
from tests.support import children
from tests.support.database import ENGINES, Databases, Engine


@pytest.fixture(autouse=True)
def no_child_left_behind() -> Iterator[None]:
    """Fails a test after which child processes still run, and kills them.

    It surrounds the test's own fixtures. What a wider fixture keeps running, it names to `children.keep`.
    """
    before = children.running()
    yield
    left = children.left_behind(before)
    assert not left, f"child processes were left running: {left}"


@pytest.fixture(scope="session")
def databases(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Databases]:
    """Maker of databases: `async with databases.fresh("postgresql", migrated=False) as url`."""
    made = Databases(tmp_path_factory.mktemp("databases"))
    yield made
    made.close()


@pytest.fixture(params=ENGINES)
def database_engine(request: pytest.FixtureRequest) -> Engine:
    """Runs the test once per supported database engine."""
    engine: Engine = request.param
    return engine


@pytest.fixture
async def database_url(databases: Databases, database_engine: Engine) -> AsyncIterator[str]:
    """The URL of a new, migrated database, on each engine."""
    async with databases.fresh(database_engine) as url:
        yield url


@pytest.fixture
async def empty_database_url(databases: Databases, database_engine: Engine) -> AsyncIterator[str]:
    """The URL of a new database without tables, on each engine."""
    async with databases.fresh(database_engine, migrated=False) as url:
        yield url


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    """An open, migrated database, on each engine."""
    opened = Database(database_url)
    yield opened
    await opened.close()
