"""Collecting large files that nothing refers to: first into the trash, and out of it only weeks later.

Whatever cannot be read is kept: a repository that cannot be judged is left exactly as it is, and said so.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import timedelta

import structlog
from sqlalchemy import bindparam, delete, func, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from core import failpoints
from core.access import SYSTEM, Actor
from core.audit import Action, record
from core.database import Database
from core.errors import Conflict, ModelyardError
from core.models import Account, AuditEntry, LfsLink, LfsObject, Repository, now
from core.opening import RepositoryInfo
from lfs.judging import Judge, Judgement, Standing
from lfs.reclaim import LINKED, Purged, Reclaimer

log = structlog.get_logger(__name__)

BEFORE_TRASH = failpoints.declare(
    "lfs.gc.before-trash", "a repository is judged, nothing of it is in the trash yet"
)
AFTER_TRASH = failpoints.declare("lfs.gc.after-trash", "what a repository does not use is in the trash")

_BATCH = 500
# Any constant that nobody else locks.
_ADVISORY_LOCK = 0x6C66735F6763


@dataclass(frozen=True, slots=True)
class RepositoryCollected:
    """What became of one repository's links; `error` is why nothing did."""

    path: str
    trashed: int = 0
    trashed_bytes: int = 0
    restored: int = 0
    purged: int = 0
    error: str = ""


@dataclass(frozen=True, slots=True)
class Collected:
    """What one collection did. `repositories` are those where something changed or failed."""

    repositories: list[RepositoryCollected] = field(default_factory=list)
    unlinked: int = 0
    purged: Purged = field(default_factory=Purged)


class RefsMoved(Conflict):
    """The repository changed while it was being judged; the next collection judges it again."""

    code = "lfs_refs_moved"


class Collector:
    """Collects. Any number may run at once, beside pushes, uploads and downloads."""

    def __init__(self, database: Database, judge: Judge, reclaimer: Reclaimer) -> None:
        self._database = database
        self._judge = judge
        self._reclaimer = reclaimer

    async def due(self, hours: float) -> bool:
        """Claims the collection of these hours for the caller; False if somebody had it already."""
        async with self._database.transaction() as session:
            if self._database.dialect == "postgresql":  # SQLite has one writer at a time anyway
                await session.execute(select(func.pg_advisory_xact_lock(_ADVISORY_LOCK)))
            last = await session.scalar(
                select(func.max(AuditEntry.at)).where(AuditEntry.action == Action.LFS_GC)
            )
            if last is not None and last > now() - timedelta(hours=hours):
                return False
            record(session, SYSTEM, Action.LFS_GC, "large files", every_hours=hours)
            return True

    async def begin(self, actor: Actor) -> None:
        """Notes a collection that somebody asked for; the next automatic one counts from here."""
        async with self._database.transaction() as session:
            record(session, actor, Action.LFS_GC, "large files")

    async def collect(self, repository_ids: Sequence[str] | None = None) -> Collected:
        """Trashes, restores and purges, in these repositories or in all and then among objects of nobody.

        A repository that cannot be judged is reported and left alone.

        Raises:
            DatabaseUnavailable: the rest is left to the next collection.
        """
        done = []
        for repository in await self.repositories(repository_ids):
            try:
                one = await self._collect(repository)
            except ModelyardError as error:
                log.warning("lfs.gc.repository_failed", repository_id=repository.id, error=error.message)
                one = RepositoryCollected(repository.path, error=error.message)
            if one != RepositoryCollected(repository.path):
                done.append(one)
        if repository_ids is not None:
            return Collected(done)
        unlinked = await self._reclaimer.note()
        purged = await self._reclaimer.purge(self._judge.trash_time)
        log.info(
            "lfs.gc.done",
            trashed=sum(one.trashed for one in done),
            restored=sum(one.restored for one in done),
            failed=sum(bool(one.error) for one in done),
            purged=purged.objects,
            purged_bytes=purged.bytes,
        )
        return Collected(done, unlinked, purged)

    async def repositories(self, ids: Sequence[str] | None) -> list[RepositoryInfo]:
        """Those of `ids`, or all, that have any link at all, by path."""
        query = (
            select(Repository, Account.name)
            .join(Account, Account.id == Repository.owner_id)
            .where(Repository.id.in_(select(LfsLink.repository_id)))
            .order_by(Account.name, Repository.type, Repository.name)
        )
        if ids is not None:
            query = query.where(Repository.id.in_(ids))
        async with self._database.read() as session:
            return [RepositoryInfo.of(row, owner) for row, owner in await session.execute(query)]

    async def _collect(self, repository: RepositoryInfo) -> RepositoryCollected:
        if not await self._judge.pending(repository.id):
            return RepositoryCollected(repository.path)
        judgement = await self._judge.judge(repository.id)
        chosen: dict[Standing, dict[str, int]] = {}
        async for link in self._judge.links(repository.id):
            chosen.setdefault(judgement.of(link), {})[link.oid] = link.size
        trash = chosen.get(Standing.UNREFERENCED, {})
        restore = chosen.get(Standing.RESTORABLE, {})
        purge = chosen.get(Standing.EXPIRED, {})
        if not trash and not restore and not purge:
            return RepositoryCollected(repository.path)
        failpoints.reach(BEFORE_TRASH)
        async with self._database.transaction() as session:
            await _require_unmoved(session, judgement)
            trashed = await _trash(session, judgement, [*trash])
            restored = await _restore(session, judgement, [*restore])
            purged = await _purge(session, judgement, [*purge])
            done = RepositoryCollected(
                repository.path, len(trashed), sum(trash[oid] for oid in trashed), restored, purged
            )
            details = {"objects": len(trashed), "bytes": done.trashed_bytes}
            record(
                session,
                SYSTEM,
                Action.LFS_TRASH,
                repository.path,
                **details,
                restored=restored,
                purged=purged,
            )
        failpoints.reach(AFTER_TRASH)
        log.info("lfs.gc.repository", repository_id=repository.id, **details, purged=purged)
        return done


async def _require_unmoved(session: AsyncSession, judgement: Judgement) -> None:
    """Locks the repository: until the transaction ends, no push lands.

    The new prune epoch makes every push that was judged before be judged again, and find what is trashed.
    """
    repository = await session.get(
        Repository, judgement.repository_id, with_for_update=True, populate_existing=True
    )
    if repository is None or (repository.refs_version, repository.state) != (
        judgement.version,
        judgement.state,
    ):
        raise RefsMoved("the repository changed while it was being judged; left for the next collection")
    repository.prune_epoch += 1


async def _trash(session: AsyncSession, judgement: Judgement, oids: Sequence[str]) -> list[str]:
    """Only what is still untouched: a client may have relied on a link while it was being judged."""
    moment = now()
    trashed: list[str] = []
    for start in range(0, len(oids), _BATCH):
        # Locked in the order in which clients touch them, so that neither waits for the other.
        locked = await session.scalars(
            select(LfsLink.oid)
            .where(
                LfsLink.repository_id == judgement.repository_id,
                LfsLink.oid.in_(oids[start : start + _BATCH]),
                LfsLink.trashed_at.is_(None),
                LfsLink.touched_at < judgement.untouched_since,
            )
            .order_by(LfsLink.oid)
            .with_for_update()
        )
        some = locked.all()
        await session.execute(
            update(LfsLink)
            .where(LfsLink.repository_id == judgement.repository_id, LfsLink.oid.in_(some))
            .values(trashed_at=moment)
            .execution_options(synchronize_session=False)
        )
        trashed += some
    return trashed


async def _restore(session: AsyncSession, judgement: Judgement, oids: Sequence[str]) -> int:
    restored = 0
    for start in range(0, len(oids), _BATCH):
        found = await session.scalars(
            update(LfsLink)
            .where(
                LfsLink.repository_id == judgement.repository_id,
                LfsLink.oid.in_(oids[start : start + _BATCH]),
                LfsLink.trashed_at.is_not(None),
            )
            .values(trashed_at=None)
            .returning(LfsLink.oid)
            .execution_options(synchronize_session=False)
        )
        restored += len(found.all())
    return restored


async def _purge(session: AsyncSession, judgement: Judgement, oids: Sequence[str]) -> int:
    """Ends links that were in the trash for long enough.

    An object that loses its last link here has had its time: it counts as unlinked since it was trashed.
    """
    connection, purged = await session.connection(), 0
    for start in range(0, len(oids), _BATCH):
        rows = await connection.execute(
            delete(LfsLink)
            .where(
                LfsLink.repository_id == judgement.repository_id,
                LfsLink.oid.in_(oids[start : start + _BATCH]),
                LfsLink.trashed_at < judgement.trashed_since,
            )
            .returning(LfsLink.oid, LfsLink.trashed_at)
        )
        gone = [{"gone": oid, "since": since} for oid, since in rows]
        purged += len(gone)
        if gone:
            await connection.execute(
                update(LfsObject)
                .where(LfsObject.oid == bindparam("gone"), ~LINKED)
                .values(unlinked_at=bindparam("since")),
                gone,
            )
    return purged
