"""Checking large files: every byte is read and hashed again."""

from collections.abc import Callable, Collection
from contextlib import aclosing
from dataclasses import dataclass, field
from enum import StrEnum

import structlog
from sqlalchemy import ColumnElement, select, update

from core.database import Database
from core.models import LfsLink, LfsObject, StoreKind, now
from lfs.checking import checked
from lfs.errors import WrongBytes
from lfs.orphans import PREFIX
from lfs.stores import Stores
from lfs.walking import each_object
from storage.protocol import ObjectNotFound, StoreUnavailable

log = structlog.get_logger(__name__)

_AT_ONCE = 4
# An object may move while it is looked at, but hardly twice.
_TRIES = 3


class Problem(StrEnum):
    """What can be wrong. `UNREACHABLE`: the store does not answer, so nothing is known of the object."""

    MISSING = "missing"
    WRONG_BYTES = "wrong_bytes"
    UNREACHABLE = "unreachable"
    NO_OBJECT = "link_without_object"


@dataclass(frozen=True, slots=True)
class Finding:
    """One object that is not as it should be."""

    oid: str
    problem: Problem
    detail: str
    store: str = ""
    key: str = ""


@dataclass(slots=True)
class FsckReport:
    """What was looked at, and what is wrong; `healed` were taken for damaged and are whole."""

    objects: int = 0
    bytes: int = 0
    healed: int = 0
    findings: list[Finding] = field(default_factory=list)


Progress = Callable[[FsckReport], None]


class LfsFsck:
    """Reads objects, some at a time, and notes in their rows which are damaged: the next upload mends those.

    A store that does not answer, or that holds nothing at all, damages nothing: it is away, or not mounted.
    """

    def __init__(self, database: Database, stores: Stores) -> None:
        self._database = database
        self._stores = stores

    async def check(
        self,
        *,
        repository_id: str | None = None,
        oids: Collection[str] = (),
        progress: Progress | None = None,
    ) -> FsckReport:
        """Checks everything, or what one repository has with its trash, and of that only `oids` if given.

        Safe beside uploads, collections and moves: an object that changes its place meanwhile is looked at
        again. `progress` is called after each object.

        Raises:
            DatabaseUnavailable: the rest was not checked.
        """
        run = _Run(self._database, self._stores, progress)
        conditions: list[ColumnElement[bool]] = []
        if oids:
            conditions.append(LfsObject.oid.in_(oids))
        if repository_id is not None:
            linked = select(LfsLink.oid).where(LfsLink.repository_id == repository_id)
            conditions.append(LfsObject.oid.in_(linked))
        await run.links(repository_id)
        await each_object(self._database, conditions, run.check, at_once=_AT_ONCE)
        run.report.findings.sort(key=lambda finding: finding.oid)
        return run.report


class _Run:
    """One check."""

    def __init__(self, database: Database, stores: Stores, progress: Progress | None) -> None:
        self.report = FsckReport()
        self._database = database
        self._stores = stores
        self._progress = progress
        self._alive: set[StoreKind] = set()

    async def links(self, repository_id: str | None) -> None:
        """Looks for links without an object: somebody restored the database by half."""
        query = (
            select(LfsLink.oid)
            .outerjoin(LfsObject, LfsObject.oid == LfsLink.oid)
            .where(LfsObject.oid.is_(None))
            .distinct()
        )
        if repository_id is not None:
            query = query.where(LfsLink.repository_id == repository_id)
        async with self._database.read() as session:
            for oid in await session.scalars(query):
                self.report.findings.append(Finding(oid, Problem.NO_OBJECT, "the database has lost its row"))

    async def check(self, row: LfsObject) -> None:
        """Checks one object and reports it."""
        await self._settle(row)
        self.report.objects += 1
        self.report.bytes += row.size
        if self._progress is not None:
            self._progress(self.report)

    async def _settle(self, row: LfsObject) -> None:
        """Checks one object where it is now; one that was deleted meanwhile is none."""
        current: LfsObject | None = row
        for _ in range(_TRIES):
            if current is None:
                return
            finding = await self._examine(current)
            if finding is not None and finding.problem is Problem.UNREACHABLE:
                self.report.findings.append(finding)
                return
            if await self._note(current, damaged=finding is not None):
                if finding is not None:
                    self.report.findings.append(finding)
                    log.warning("lfs.fsck.damaged", oid=row.oid, problem=finding.problem, key=finding.key)
                elif current.damaged_at is not None:
                    self.report.healed += 1
                return
            async with self._database.read() as session:
                current = await session.get(LfsObject, row.oid)

    async def _examine(self, row: LfsObject) -> Finding | None:
        kind = StoreKind(row.store)
        try:
            store = self._stores[kind]
            try:
                async with (
                    store.open(row.key) as chunks,
                    aclosing(checked(chunks, row.oid, row.size)) as whole,
                ):
                    async for _ in whole:
                        pass
            except ObjectNotFound:
                await self._require_alive(kind)
                return Finding(row.oid, Problem.MISSING, "the store has no such object", kind, row.key)
            self._alive.add(kind)
        except WrongBytes as error:
            return Finding(row.oid, Problem.WRONG_BYTES, error.message, kind, row.key)
        except StoreUnavailable as error:
            return Finding(row.oid, Problem.UNREACHABLE, error.message, kind, row.key)
        return None

    async def _require_alive(self, kind: StoreKind) -> None:
        """Raises `StoreUnavailable` unless the store holds anything at all."""
        if kind in self._alive:
            return
        for prefix in (PREFIX, ""):
            async for _ in self._stores[kind].list(prefix):
                self._alive.add(kind)
                return
        raise StoreUnavailable(f"the {kind} store is empty: is it mounted, and is it the right one?")

    async def _note(self, row: LfsObject, *, damaged: bool) -> bool:
        """Writes down what was found; False if the object is not in that place any more."""
        place = (LfsObject.oid == row.oid, LfsObject.store == row.store, LfsObject.key == row.key)
        if damaged == (row.damaged_at is not None):
            async with self._database.read() as session:
                return await session.scalar(select(LfsObject.oid).where(*place)) is not None
        async with self._database.transaction() as session:
            noted = await session.scalars(
                update(LfsObject)
                .where(*place)
                .values(damaged_at=now() if damaged else None)
                .returning(LfsObject.oid)
                .execution_options(synchronize_session=False)
            )
            return noted.one_or_none() is not None
