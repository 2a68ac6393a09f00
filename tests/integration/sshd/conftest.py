"""A server on a free port with a scripted Git service; the client is the real `ssh`.

Fixtures: `ada` and `eve` are keys on disk, only ada's is known; `server` runs on loopback. `lfs_world` has
the real services for large files instead, on each database engine.
"""

from asyncio import AbstractEventLoop
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
import uvloop

from tests.support.lfs_ssh_world import PEOPLE, LfsSshWorld, open_world
from tests.support.ssh import ClientKey, make_key
from tests.support.ssh_server import Running, serving


@pytest.fixture(scope="session")
def keys(tmp_path_factory: pytest.TempPathFactory) -> dict[str, ClientKey]:
    directory = tmp_path_factory.mktemp("keys")
    return {name: make_key(directory, name) for name in ("ada", "eve")}


@pytest.fixture
def ada(keys: dict[str, ClientKey]) -> ClientKey:
    return keys["ada"]


@pytest.fixture
def eve(keys: dict[str, ClientKey]) -> ClientKey:
    return keys["eve"]


@pytest.fixture
async def server(tmp_path: Path, ada: ClientKey) -> AsyncIterator[Running]:
    async with serving(tmp_path, {ada.fingerprint: "ada"}) as running:
        yield running


@pytest.fixture(scope="session")
def people(tmp_path_factory: pytest.TempPathFactory) -> dict[str, ClientKey]:
    directory = tmp_path_factory.mktemp("people")
    return {name: make_key(directory, name) for name in PEOPLE}


@pytest.fixture
async def lfs_world(
    database_url: str, people: dict[str, ClientKey], tmp_path: Path
) -> AsyncIterator[LfsSshWorld]:
    async with open_world(database_url, people, tmp_path) as opened:
        yield opened


def pytest_asyncio_loop_factories() -> dict[str, Callable[[], AbstractEventLoop]]:
    """The server's own event loop: its flow control differs from asyncio's."""
    return {"uvloop": uvloop.new_event_loop}
