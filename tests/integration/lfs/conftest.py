"""Large files below their faces.

`world`: records and uploads on a local store, on each database engine. `minio`: a MinIO server, one for all.
`keeping`: with a Git engine beside it.
"""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from core.database import Database
from tests.support.lfs_keeping import Keeping, open_keeping
from tests.support.lfs_world import LfsWorld, open_lfs_world
from tests.support.minio_server import MinioServer


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
