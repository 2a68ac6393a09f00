"""Pushes through gates. `gated`: on SQLite; `gated_everywhere`: on each database engine."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from core.database import Database
from tests.support.database import Databases
from tests.support.gates import Gated
from tests.support.hooks_world import HooksWorld, open_hooks_world


@pytest.fixture
async def gated(databases: Databases, tmp_path: Path) -> AsyncIterator[Gated]:
    async with databases.fresh("sqlite") as url:
        database = Database(url)
        try:
            async with open_hooks_world(database, tmp_path) as world:
                yield Gated(world, tmp_path / "work")
                assert world.git.leftovers() == []
        finally:
            await database.close()


@pytest.fixture
def gated_everywhere(world: HooksWorld, tmp_path: Path) -> Gated:
    return Gated(world, tmp_path / "work")
