"""One server for all tests of a module that do not hurt it."""

import asyncio
from collections.abc import Iterator

import pytest

from tests.support.server import running_server
from tests.support.yard import Yard


@pytest.fixture(scope="module")
def yard(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Yard]:
    """A server on SQLite and a local directory, with the user `ann`."""
    folder = tmp_path_factory.mktemp("yard")
    with running_server(folder / "server") as server:
        yield asyncio.run(Yard.open(server, folder / "clients"))
