"""A SQLite connection for SQLAlchemy's asyncio dialect that crosses to its thread once for each statement.

The dialect is written for aiosqlite, where a query of one row crosses eight times: for BEGIN, for the cursor,
for the statement, its rows and its end, each of them. A crossing costs a tenth of a millisecond and more, and
a request makes half a dozen queries. Here a statement and its rows are one crossing, the BEGIN of a read goes
with the first statement, and nobody waits for the end of a read.

What is public here is what the dialect calls (`sqlalchemy.dialects.sqlite.aiosqlite`).
"""

import asyncio
import contextlib
import sqlite3
import threading
from collections.abc import Callable, Sequence
from queue import SimpleQueue
from typing import Any, Self

_PRAGMAS = ("synchronous=FULL", "foreign_keys=ON")

_Call = tuple[Callable[[], None], "asyncio.Future[None] | None"]


async def connect(path: str, busy_seconds: float) -> "Connection":
    """Opens the database, in WAL mode and with foreign keys enforced.

    Raises `sqlite3.Error`: it cannot be opened.
    """
    connection = Connection()
    try:
        await connection.open(path, busy_seconds)
    except BaseException:
        connection.stop()
        raise
    return connection


class Cursor:
    """A statement and its rows, which are here as soon as it was executed."""

    def __init__(self, connection: "Connection") -> None:
        self._connection = connection
        self._rows: list[Any] = []
        self.description: Any = None
        self.rowcount = -1
        self.lastrowid: int | None = None
        self.arraysize = 1

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        """There is nothing to close."""

    async def execute(self, statement: str, parameters: Sequence[Any] = ()) -> Self:
        return await self._run(lambda cursor: cursor.execute(statement, parameters))

    async def executemany(self, statement: str, parameters: Sequence[Sequence[Any]]) -> Self:
        return await self._run(lambda cursor: cursor.executemany(statement, parameters))

    async def _run(self, statement: Callable[[sqlite3.Cursor], object]) -> Self:
        def work(raw: sqlite3.Connection) -> None:
            with contextlib.closing(raw.cursor()) as cursor:
                statement(cursor)
                self.description = cursor.description
                if cursor.description is not None:
                    self._rows = cursor.fetchall()
                self.rowcount, self.lastrowid = cursor.rowcount, cursor.lastrowid

        await self._connection.run(work)
        return self

    async def fetchone(self) -> Any:
        return self._rows.pop(0) if self._rows else None

    async def fetchmany(self, size: int | None = None) -> list[Any]:
        count = size or self.arraysize
        rows, self._rows = self._rows[:count], self._rows[count:]
        return rows

    async def fetchall(self) -> list[Any]:
        rows, self._rows = self._rows, []
        return rows

    async def close(self) -> None:
        self._rows = []


class Connection:
    """One SQLite connection and the thread that alone touches it.

    No cursor of the driver leaves that thread, neither as a result nor in the frames of an error. Whoever
    frees one, be it the garbage collector, resets its statement, for which SQLite takes the connection's
    mutex; the thread holds that while it waits for the writer. An event loop that frees one would stand still
    until `busy_seconds` had passed, and with it the writer that is waited for.
    """

    def __init__(self) -> None:
        self._raw: sqlite3.Connection | None = None
        self._calls: SimpleQueue[_Call | None] = SimpleQueue()
        self._begins = False
        self._reads = False
        self._loop = asyncio.get_running_loop()
        # A daemon: a process must be able to end while a statement waits for a lock.
        threading.Thread(target=self._work, name="sqlite", daemon=True).start()

    @property
    def _connection(self) -> sqlite3.Connection | None:
        """What the dialect asks before it rolls back."""
        return self._raw

    async def open(self, path: str, busy_seconds: float) -> None:
        """See `connect`."""

        def work() -> None:
            # Transactions are begun by statements; the driver's own late BEGIN would make snapshots a lie.
            raw = sqlite3.connect(path, timeout=busy_seconds, isolation_level=None, check_same_thread=False)
            self._raw = raw
            for pragma in _PRAGMAS:
                raw.execute(f"PRAGMA {pragma}")
            # The file remembers its mode. Changing it does not wait for locks; where it is locked, another
            # process that has just started is changing it, and this connection follows.
            with contextlib.suppress(sqlite3.OperationalError):
                raw.execute("PRAGMA journal_mode=WAL")

        await self._called(work)

    def cursor(self) -> Cursor:
        return Cursor(self)

    async def execute(self, statement: str) -> Cursor:
        return await Cursor(self).execute(statement)

    def begin_with_next(self) -> None:
        """Begins a read when the next statement runs, and none of it before."""
        self._begins = True

    async def run(self, work: Callable[[sqlite3.Connection], None]) -> None:
        """Calls `work` in the thread."""
        begins, self._begins = self._begins, False
        self._reads = self._reads or begins

        def call() -> None:
            raw = self._opened()
            if begins:
                raw.execute("BEGIN")
            work(raw)

        await self._called(call)

    async def commit(self) -> None:
        self._begins = self._reads = False
        await self._called(lambda: self._opened().commit())

    async def rollback(self) -> None:
        if self._begins:  # nothing was read
            self._begins = False
            return
        reads, self._reads = self._reads, False
        if reads:
            # What is called next comes after it, and would tell what is wrong.
            self._calls.put((lambda: self._opened().rollback(), None))
        else:
            await self._called(lambda: self._opened().rollback())

    async def create_function(
        self, name: str, arguments: int, function: Callable[..., Any], deterministic: bool = False
    ) -> None:
        await self._called(
            lambda: self._opened().create_function(name, arguments, function, deterministic=deterministic)
        )

    async def close(self) -> None:
        if self._raw is not None:
            try:
                await self._called(self._close)
            finally:
                self.stop()

    def stop(self) -> None:
        """Closes it after what runs, without waiting."""
        self._calls.put((self._close, None))
        self._calls.put(None)

    def _close(self) -> None:
        raw, self._raw = self._raw, None
        if raw is not None:
            raw.close()

    def _opened(self) -> sqlite3.Connection:
        if self._raw is None:
            raise sqlite3.OperationalError("the connection is closed")
        return self._raw

    async def _called(self, function: Callable[[], None]) -> None:
        future: asyncio.Future[None] = self._loop.create_future()
        self._calls.put((function, future))
        await future

    def _work(self) -> None:
        while (call := self._calls.get()) is not None:
            function, future = call
            error: BaseException | None = None
            try:
                function()
            except BaseException as raised:  # noqa: BLE001 - goes to whoever waits
                error = raised.with_traceback(None)
            if future is not None:
                with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
                    self._loop.call_soon_threadsafe(_settle, future, error)


def _settle(future: "asyncio.Future[None]", error: BaseException | None) -> None:
    if future.cancelled():
        return
    if error is None:
        future.set_result(None)
    else:
        future.set_exception(error)
