"""The SQLite connection below SQLAlchemy's dialect."""

import contextlib
import gc
import sqlite3
from pathlib import Path

import pytest

from core import sqlite


def driver_cursors() -> int:
    return sum(isinstance(one, sqlite3.Cursor) for one in gc.get_objects())


@pytest.mark.parametrize(
    "statement",
    ["SELECT 1", "INSERT INTO t VALUES (1)", "INSERT INTO t VALUES (2), (2)", "SELECT nothing"],
)
async def test_no_cursor_of_the_driver_leaves_its_thread(tmp_path: Path, statement: str) -> None:
    """Whoever collects one waits for the connection's mutex: an event loop that did stood still."""
    before = driver_cursors()
    gc.disable()  # nothing hides in a cycle that some thread happens to collect
    try:
        connection = await sqlite.connect(str(tmp_path / "x.db"), busy_seconds=5)
        await connection.execute("CREATE TABLE t (a UNIQUE)")
        with contextlib.suppress(sqlite3.Error):
            await connection.execute(statement)
        assert driver_cursors() == before
        await connection.close()
    finally:
        gc.enable()
