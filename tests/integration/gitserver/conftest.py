"""Repositories and a server's Git engine, for all tests of the room.

`sample`: a packed bare repository with everything odd, in each object format (once per session).
`world`: the engine on a new SQLite database and a local store. `repository`: `sample`, published in `world`.
`loops`: makes event loops, of asyncio and of uvloop.
"""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import uvloop

from core.database import Database
from core.models import ObjectFormat
from core.repositories import RepositoryInfo
from tests.support.database import Databases
from tests.support.git_world import GitWorld, open_world
from tests.support.loops import Loops
from tests.support.sample_repositories import build_sample


@pytest.fixture(scope="session", params=list(ObjectFormat))
def sample(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_sample(tmp_path_factory.mktemp(request.param), request.param)


@pytest.fixture
async def sqlite(databases: Databases) -> AsyncIterator[Database]:
    async with databases.fresh("sqlite") as url:
        opened = Database(url)
        yield opened
        await opened.close()


@pytest.fixture
async def world(sqlite: Database, tmp_path: Path) -> AsyncIterator[GitWorld]:
    async with open_world(sqlite, tmp_path) as opened:
        yield opened
        assert opened.leftovers() == []


@pytest.fixture
async def repository(world: GitWorld, sample: Path) -> RepositoryInfo:
    return await world.adopt(sample)


@pytest.fixture(params=[asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def loops(request: pytest.FixtureRequest) -> Loops:
    found: Loops = request.param
    return found
