"""A running API for each test, on each database engine or on SQLite alone."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.support.api import ApiServer, api_settings, running_api
from tests.support.database import Databases


@pytest.fixture
async def api(tmp_path: Path, databases: Databases) -> AsyncIterator[ApiServer]:
    """A running API on SQLite."""
    async with databases.fresh("sqlite") as url, running_api(api_settings(tmp_path, url)) as server:
        yield server


@pytest.fixture
async def each_api(tmp_path: Path, database_url: str) -> AsyncIterator[ApiServer]:
    """A running API, once per database engine."""
    async with running_api(api_settings(tmp_path, database_url)) as server:
        yield server
