"""Large files below their faces.

`world`: records and uploads on a local store, on each database engine. `minio`: a MinIO server, one for all.
`bench`: uploads in parts on each store. `keeping`: with a Git engine beside it.
`server`: their HTTP face on each database engine; `ann`: who has a repository there.
"""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from core.database import Database
from core.settings import LfsSettings
from tests.support.lfs_http import LfsCaller, LfsServer, running_lfs
from tests.support.lfs_keeping import Keeping, open_keeping
from tests.support.lfs_world import LfsWorld, open_lfs_world
from tests.support.minio_server import MinioServer
from tests.support.part_uploads import PartUploads


@pytest.fixture(scope="session")
def minio(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MinioServer]:
    with MinioServer(tmp_path_factory.mktemp("minio")) as server:
        yield server


@pytest.fixture
async def world(database: Database, tmp_path: Path) -> AsyncIterator[LfsWorld]:
    async with open_lfs_world(database, tmp_path) as opened:
        yield opened


@pytest.fixture
async def keeping(database: Database, tmp_path: Path) -> AsyncIterator[Keeping]:
    async with open_keeping(database, tmp_path) as opened:
        yield opened


@pytest.fixture(params=["local", "minio"])
async def bench(
    request: pytest.FixtureRequest, database: Database, tmp_path: Path
) -> AsyncIterator[PartUploads]:
    storage = None
    if request.param == "minio":
        server: MinioServer = request.getfixturevalue("minio")
        storage = server.settings(bucket="parts", prefix=tmp_path.name)
    part_bytes = 5 * 1024**2 if storage else 100_000
    settings = LfsSettings(part_bytes=part_bytes)
    async with open_lfs_world(database, tmp_path, settings=settings, minio=storage) as world:
        made = PartUploads(world, part_bytes)
        try:
            yield made
        finally:
            for process in made.processes:
                await process.close()


@pytest.fixture
async def server(tmp_path: Path, database_url: str) -> AsyncIterator[LfsServer]:
    async with running_lfs(tmp_path / "data", database_url) as running:
        yield running


@pytest.fixture
async def ann(server: LfsServer) -> LfsCaller:
    return await server.at_new_repository("ann")
