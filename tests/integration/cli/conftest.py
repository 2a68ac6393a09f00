from pathlib import Path

import pytest

from tests.support.program import Program, start_forkserver


@pytest.fixture(scope="session", autouse=True)
def forkserver() -> None:
    start_forkserver()


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Program:
    """An installation of this module's own, with the users alice and bob."""
    directory = tmp_path_factory.mktemp("installation")
    program = Program(directory / "data", directory)
    for name in ("alice", "bob"):
        program.done("user", "create", name, "--password-stdin", stdin="correct horse battery\n")
    return program


@pytest.fixture
def untouched(tmp_path: Path) -> Program:
    """A program without a data directory yet."""
    return Program(tmp_path / "data", tmp_path)
