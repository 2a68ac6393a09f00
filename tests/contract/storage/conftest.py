"""The stores that the contract is about."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from storage.protocol import ObjectStore
from tests.support.minio_server import MinioServer
from tests.support.stores import LocalWorld, MinioWorld, World


@pytest.fixture(scope="session")
def minio_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MinioServer]:
    with MinioServer(tmp_path_factory.mktemp("minio")) as server:
        yield server


@pytest.fixture
async def local(tmp_path: Path) -> AsyncIterator[LocalWorld]:
    world = LocalWorld(tmp_path / "store")
    yield world
    await world.store.close()


@pytest.fixture
async def minio(minio_server: MinioServer) -> AsyncIterator[MinioWorld]:
    world = MinioWorld(minio_server)
    await world.store.check()
    yield world
    await world.store.close()


@pytest.fixture(params=["local", "minio"])
def world(request: pytest.FixtureRequest) -> World:
    found: World = request.getfixturevalue(request.param)
    return found


@pytest.fixture
def store(world: World) -> ObjectStore:
    return world.store
