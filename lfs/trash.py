"""The trash: large files that clients no longer see, and that can still come back whole."""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import select, update
from sqlalchemy.ext.asyncio import AsyncSession

from core.access import Actor, require_site_admin
from core.audit import Action, record
from core.database import Database
from core.errors import RepositoryNotFound
from core.models import LfsLink, LfsObject, Repository, now
from core.settings import LfsSettings
from lfs.errors import ObjectMissing

_BATCH = 500


@dataclass(frozen=True, slots=True)
class TrashedObject:
    """An object in the trash since `since`. A collection after `until` ends it for good."""

    oid: str
    size: int
    since: datetime
    until: datetime


class Trash:
    """Of one repository, and of objects that no repository has a link to."""

    def __init__(self, database: Database, settings: LfsSettings) -> None:
        self._database = database
        self._time = timedelta(days=settings.trash_days)

    async def of_repository(self, repository_id: str, *, limit: int, after: str = "") -> list[TrashedObject]:
        """What is in the trash of a repository, by oid."""
        query = (
            select(LfsObject.oid, LfsObject.size, LfsLink.trashed_at)
            .join(LfsLink, LfsLink.oid == LfsObject.oid)
            .where(
                LfsLink.repository_id == repository_id,
                LfsLink.trashed_at.is_not(None),
                LfsLink.oid > after,
            )
            .order_by(LfsLink.oid)
            .limit(limit)
        )
        async with self._database.read() as session:
            return [self._trashed(oid, size, since) for oid, size, since in await session.execute(query)]

    async def unlinked(self, *, limit: int, after: str = "") -> list[TrashedObject]:
        """Objects that lost their last link: to a deleted repository, or to one whose trash was emptied."""
        query = (
            select(LfsObject.oid, LfsObject.size, LfsObject.unlinked_at)
            .where(LfsObject.unlinked_at.is_not(None), LfsObject.oid > after)
            .order_by(LfsObject.oid)
            .limit(limit)
        )
        async with self._database.read() as session:
            return [self._trashed(oid, size, since) for oid, size, since in await session.execute(query)]

    def _trashed(self, oid: str, size: int, since: datetime | None) -> TrashedObject:
        assert since is not None, "the queries ask for those that have a time"
        return TrashedObject(oid, size, since, since + self._time)

    async def restore(
        self, actor: Actor, repository_id: str, oids: Collection[str] | None, *, unlinked: bool = False
    ) -> int:
        """Brings objects back, all that are named or none; without `oids` the whole trash of the repository.

        With `unlinked`, objects that no repository has a link to any more are given to this one. Returns how
        many came back; an object that the repository has anyway is not counted. For site administrators.

        Raises:
            RepositoryNotFound: it was deleted meanwhile.
            ObjectMissing: with the `oids` that are not in this trash; nothing was changed.
        """
        require_site_admin(actor)
        async with self._database.transaction() as session:
            repository = await session.get(Repository, repository_id, with_for_update=True)
            if repository is None:
                raise RepositoryNotFound("no such repository")
            restored = 0
            if oids is None:
                restored += await _restore(session, repository_id, None)
            wanted = sorted(set(oids or ()))
            for start in range(0, len(wanted), _BATCH):
                some = wanted[start : start + _BATCH]
                restored += await _restore(session, repository_id, some)
                missing = set(some) - await _linked(session, repository_id, some)
                if unlinked:
                    adopted = await _adopt(session, repository_id, missing)
                    restored, missing = restored + len(adopted), missing - adopted
                if missing:
                    raise ObjectMissing(
                        f"not in this trash: {', '.join(sorted(missing)[:10])}", oids=sorted(missing)
                    )
            if restored:
                target = f"repository {repository_id}"
                record(session, actor, Action.LFS_RESTORE, target, objects=restored, oids=wanted[:_BATCH])
            return restored


async def _restore(session: AsyncSession, repository_id: str, oids: list[str] | None) -> int:
    statement = (
        update(LfsLink)
        .where(LfsLink.repository_id == repository_id, LfsLink.trashed_at.is_not(None))
        # Touched, so that the next collection does not take it away at once.
        .values(trashed_at=None, touched_at=now())
        .returning(LfsLink.oid)
        .execution_options(synchronize_session=False)
    )
    if oids is not None:
        statement = statement.where(LfsLink.oid.in_(oids))
    return len((await session.scalars(statement)).all())


async def _linked(session: AsyncSession, repository_id: str, oids: list[str]) -> set[str]:
    query = select(LfsLink.oid).where(LfsLink.repository_id == repository_id, LfsLink.oid.in_(oids))
    return set(await session.scalars(query))


async def _adopt(session: AsyncSession, repository_id: str, oids: Collection[str]) -> set[str]:
    """Links objects that nobody has a link to; what another repository has is none of this one's business."""
    rows = await session.scalars(
        select(LfsObject).where(LfsObject.oid.in_(oids)).order_by(LfsObject.oid).with_for_update()
    )
    objects = {row.oid: row for row in rows}
    for oid in set(await session.scalars(select(LfsLink.oid).where(LfsLink.oid.in_(objects)).distinct())):
        del objects[oid]
    for row in objects.values():
        row.unlinked_at = None
        session.add(LfsLink(repository_id=repository_id, oid=row.oid))
    return set(objects)
