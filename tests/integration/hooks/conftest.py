"""What pushes mean, below the faces.

`world`: on each database engine, with a local store. `stored`: on each store, with SQLite.
"""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from core.database import Database
from tests.support.database import Databases
from tests.support.hooks_world import HooksWorld, open_hooks_world
from tests.support.minio_server import MinioServer


@pytest.fixture(scope="session")
def minio(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MinioServer]:
    with MinioServer(tmp_path_factory.mktemp("minio")) as server:
        yield server


@pytest.fixture
async def world(database: Database, tmp_path: Path) -> AsyncIterator[HooksWorld]:
    async with open_hooks_world(database, tmp_path) as opened:
        yield opened


@pytest.fixture(params=["local", "minio"])
async def stored(
    request: pytest.FixtureRequest, databases: Databases, tmp_path: Path
) -> AsyncIterator[HooksWorld]:
    storage = None
    if request.param == "minio":
        server: MinioServer = request.getfixturevalue("minio")
        storage = server.settings(bucket="hooks", prefix=tmp_path.name)
    async with databases.fresh("sqlite") as url:
        database = Database(url)
        try:
            async with open_hooks_world(database, tmp_path, minio=storage) as opened:
                yield opened
        finally:
            await database.close()
