"""Going through all objects, some at a time."""

from collections.abc import Awaitable, Callable, Iterator, Sequence

from sqlalchemy import ColumnElement, select

from core.database import Database
from core.models import LfsObject
from core.together import together

_BATCH = 200


async def each_object(
    database: Database,
    conditions: Sequence[ColumnElement[bool]],
    work: Callable[[LfsObject], Awaitable[None]],
    *,
    at_once: int,
) -> None:
    """Calls `work` once for every object for which the conditions hold when it is its turn, by oid.

    The first error ends the walk, and is raised once the calls beside it have ended.
    """
    after = ""
    while batch := await _batch(database, conditions, after):
        rows = iter(batch)
        await together(*(_drain(rows, work) for _ in range(at_once)))
        after = batch[-1].oid


async def _batch(
    database: Database, conditions: Sequence[ColumnElement[bool]], after: str
) -> list[LfsObject]:
    query = select(LfsObject).where(*conditions, LfsObject.oid > after).order_by(LfsObject.oid).limit(_BATCH)
    async with database.read() as session:
        return list(await session.scalars(query))


async def _drain(rows: Iterator[LfsObject], work: Callable[[LfsObject], Awaitable[None]]) -> None:
    for row in rows:
        await work(row)
