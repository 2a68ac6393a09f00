"""How much of the database a piece of work takes: in statements, which do not depend on the machine."""

from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import event

from core.database import Database


@contextmanager
def counted(database: Database) -> Iterator[list[str]]:
    """The statements that read or write rows, while the block runs."""
    seen: list[str] = []

    def note(_connection: object, _cursor: object, statement: str, *_: object) -> None:
        if statement.split(None, 1)[0] in {"SELECT", "INSERT", "UPDATE", "DELETE"}:
            seen.append(statement)

    engine = database.engine.sync_engine
    event.listen(engine, "before_cursor_execute", note)
    try:
        yield seen
    finally:
        event.remove(engine, "before_cursor_execute", note)
