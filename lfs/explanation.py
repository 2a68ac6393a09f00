"""`gc --dry-run`: why every byte of large files is still there, and until when."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import date, timedelta
from itertools import chain

from sqlalchemy import func, select

from core.database import Database
from core.errors import ModelyardError
from core.models import LfsLink, LfsObject, LfsUpload, StoreKind, now
from core.opening import RepositoryInfo
from lfs.collector import Collector
from lfs.judging import Judge, Judgement, LinkInfo, Standing
from lfs.orphans import Claim, Orphans, batches
from lfs.stores import Stores
from storage.protocol import ObjectInfo, PartsNotFound

# What can be said of bytes, beside the standing of a link and the claims that are not an object's.
UNLINKED = "unlinked"
UNLINKED_EXPIRED = "unlinked_to_purge"
_ORDER = [*Standing]


@dataclass(slots=True)
class Tally:
    """So many objects with so many bytes."""

    objects: int = 0
    bytes: int = 0

    def add(self, size: int) -> None:
        self.objects += 1
        self.bytes += size


Tallies = dict[str, Tally]


@dataclass(frozen=True, slots=True)
class RepositoryExplained:
    """The links of one repository by standing; of those in the trash also by the day on which they may go.

    An object that several repositories have counts in each.
    """

    path: str
    links: Tallies
    trash_until: dict[date, Tally]
    error: str = ""


@dataclass(frozen=True, slots=True)
class StoreExplained:
    """What one store holds, by reason: an object counts once, for the weightiest of its links.

    Attributes:
        held: all keys below `lfs/`; always the sum of `reasons`.
        parts: of uploads that are not assembled yet; no store lists them.
        missing: objects that should be here and are not; `modelyard lfs fsck` names them.
    """

    store: StoreKind
    held: Tally
    reasons: Tallies
    parts: Tally
    missing: int


@dataclass(frozen=True, slots=True)
class Explained:
    """Everything, by repository and by store."""

    repositories: list[RepositoryExplained] = field(default_factory=list)
    stores: list[StoreExplained] = field(default_factory=list)


class Explainer:
    """Accounts for every byte, and changes nothing."""

    def __init__(
        self, database: Database, stores: Stores, collector: Collector, judge: Judge, orphans: Orphans
    ) -> None:
        self._database = database
        self._stores = stores
        self._collector = collector
        self._judge = judge
        self._orphans = orphans

    async def explain(self, repository_ids: Sequence[str] | None = None) -> Explained:
        """What a collection now would find; with `repository_ids`, in those only and not by store.

        Memory grows with the links that nothing refers to, not with those in use.

        Raises:
            StoreUnavailable, DatabaseUnavailable: not everything could be read.
        """
        # By repository, what is not simply in use; None where nothing could be told.
        exceptions: dict[str, dict[str, Standing] | None] = {}
        repositories = []
        for repository in await self._collector.repositories(repository_ids):
            explained, found = await self._repository(repository)
            repositories.append(explained)
            exceptions[repository.id] = found
        if repository_ids is not None:
            return Explained(repositories)
        stores = [await self._store(kind, exceptions) for kind in self._stores.kinds()]
        return Explained(repositories, stores)

    async def _repository(
        self, repository: RepositoryInfo
    ) -> tuple[RepositoryExplained, dict[str, Standing] | None]:
        judgement: Judgement | None = None
        error = ""
        try:
            judgement = await self._judge.judge(repository.id)
        except ModelyardError as caught:
            error = caught.message
        links: defaultdict[str, Tally] = defaultdict(Tally)
        until: defaultdict[date, Tally] = defaultdict(Tally)
        exceptions: dict[str, Standing] = {}
        async for link in self._judge.links(repository.id):
            standing = judgement.of(link) if judgement else Standing.UNJUDGED
            links[standing].add(link.size)
            if standing is not Standing.REFERENCED:
                exceptions[link.oid] = standing
            if standing is Standing.TRASHED:
                until[_day(link, self._judge.trash_time)].add(link.size)
        explained = RepositoryExplained(repository.path, _ordered(links), dict(sorted(until.items())), error)
        return explained, exceptions if judgement else None

    async def _store(
        self, kind: StoreKind, exceptions: Mapping[str, Mapping[str, Standing] | None]
    ) -> StoreExplained:
        store = self._stores[kind]
        reasons: defaultdict[str, Tally] = defaultdict(Tally)
        held = Tally()
        present = 0
        async for batch in batches(store):
            claims = await self._orphans.claims(kind, batch)
            objects = {info.key: info for info in batch if claims[info.key] is Claim.OBJECT}
            present += len(objects)
            standings = await self._objects(objects, exceptions)
            for info in batch:
                held.add(info.size)
                reasons[standings.get(info.key) or claims[info.key].value].add(info.size)
        async with self._database.read() as session:
            rows = await session.scalar(select(func.count()).where(LfsObject.store == kind)) or 0
        return StoreExplained(kind, held, _ordered(reasons), await self._parts(kind), max(rows - present, 0))

    async def _objects(
        self, objects: Mapping[str, ObjectInfo], exceptions: Mapping[str, Mapping[str, Standing] | None]
    ) -> dict[str, str]:
        """Why each of these keys, which objects name, is there."""
        async with self._database.read() as session:
            rows = (
                await session.execute(
                    select(LfsObject.oid, LfsObject.key, LfsObject.unlinked_at).where(
                        LfsObject.key.in_(objects)
                    )
                )
            ).all()
            links = await session.execute(
                select(LfsLink.oid, LfsLink.repository_id).where(LfsLink.oid.in_([row[0] for row in rows]))
            )
            owners: defaultdict[str, list[str]] = defaultdict(list)
            for oid, repository_id in links:
                owners[oid].append(repository_id)
        found = {}
        expired = now() - self._judge.trash_time
        for oid, key, unlinked_at in rows:
            standings = [_standing(exceptions, one, oid) for one in owners[oid]]
            if standings:
                found[key] = min(standings, key=_ORDER.index).value
            else:
                gone = unlinked_at is not None and unlinked_at < expired
                found[key] = UNLINKED_EXPIRED if gone else UNLINKED
        return found

    async def _parts(self, kind: StoreKind) -> Tally:
        parts = Tally()
        async with self._database.read() as session:
            uploads = list(
                await session.scalars(
                    select(LfsUpload).where(LfsUpload.store == kind, LfsUpload.multipart_id != "")
                )
            )
        for upload in uploads:
            with suppress(PartsNotFound):  # completed, or dropped by the store
                for part in await self._stores[kind].list_parts(upload.key, upload.multipart_id):
                    parts.add(part.size)
        return parts


def _standing(
    exceptions: Mapping[str, Mapping[str, Standing] | None], repository_id: str, oid: str
) -> Standing:
    # A repository that was made while this went on has only young links.
    known = exceptions.get(repository_id, {})
    return Standing.UNJUDGED if known is None else known.get(oid, Standing.REFERENCED)


def _day(link: LinkInfo, time: timedelta) -> date:
    assert link.trashed_at is not None
    return (link.trashed_at + time).date()


def _ordered(tallies: Mapping[str, Tally]) -> Tallies:
    order = chain(map(str, Standing), (UNLINKED, UNLINKED_EXPIRED), map(str, Claim))
    return {reason: tallies[reason] for reason in order if reason in tallies}
