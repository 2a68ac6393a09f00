"""Deletes what nothing refers to: superseded packs, orphans of crashes, deleted repositories, old cache.

Fails closed: what cannot be read is kept.
"""

import asyncio
import contextlib
import shutil
import time
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import structlog
from sqlalchemy import delete, select

from core.database import Database
from core.models import DeletedRepository, Pack, Repository, now
from core.settings import MaintenanceSettings
from gitserver.clones import sweep_clones
from gitserver.leases import entries
from gitserver.quarantine import sweep_quarantines
from gitserver.snapshots import CacheUnavailable, Snapshots, pack_key, sweep_snapshots
from storage.protocol import ObjectStore

log = structlog.get_logger(__name__)

# No transfer pauses for so long and lives.
_DRAFT_SECONDS = 24 * 3600


@dataclass(frozen=True, slots=True)
class SweepReport:
    """How much went; `objects` and `bytes` are of the object store, `cached` are snapshots and packs."""

    objects: int = 0
    bytes: int = 0
    packs: int = 0
    repositories: int = 0
    cached: int = 0
    quarantines: int = 0


class Sweeper:
    """Sweeps the object store and this node's cache. Any number may run at once."""

    def __init__(
        self, database: Database, store: ObjectStore, snapshots: Snapshots, settings: MaintenanceSettings
    ) -> None:
        self._database = database
        self._store = store
        self._snapshots = snapshots
        self._settings = settings

    async def sweep(
        self, *, grace_seconds: int | None = None, orphan_seconds: int | None = None
    ) -> SweepReport:
        """One pass over everything; the settings say how old things must be, unless given here.

        `orphan_seconds` must exceed the longest push: a pack is stored before its row is committed.

        Raises:
            CacheUnavailable, StoreUnavailable, DatabaseUnavailable: the rest is left to the next pass.
        """
        grace = timedelta(seconds=self._settings.grace_seconds if grace_seconds is None else grace_seconds)
        orphan = timedelta(
            seconds=self._settings.orphan_seconds if orphan_seconds is None else orphan_seconds
        )
        try:
            # What needs neither database nor store comes first: they may be away for long.
            quarantines = await asyncio.to_thread(sweep_quarantines, self._snapshots.root)
            packs = await self._superseded(grace)
            objects, size = await self._orphans(orphan)
            repositories = await self._deleted(grace)
            cached = await self._cache()
        except OSError as error:
            raise CacheUnavailable(f"the cache cannot be swept: {error.strerror}") from error
        await self._store.sweep_temp(_DRAFT_SECONDS)
        report = SweepReport(objects, size, packs, repositories, cached, quarantines)
        if report != SweepReport():
            log.info("sweep.done", objects=objects, bytes=size, packs=packs, cached=cached)
        return report

    async def _superseded(self, grace: timedelta) -> int:
        async with self._database.read() as session:
            packs = list(await session.scalars(select(Pack).where(Pack.superseded_at < now() - grace)))
        for pack in packs:
            for suffix in pack.suffixes:
                await self._store.delete(pack_key(pack.repository_id, pack.key, f"{pack.name}.{suffix}"))
            # The row goes last: a crash before this line only repeats the deletion.
            async with self._database.transaction() as session:
                await session.execute(delete(Pack).where(Pack.id == pack.id))
        return len(packs)

    async def _orphans(self, age: timedelta) -> tuple[int, int]:
        """Objects under `git/` without a row: of pushes that died between storing and committing.

        Keys are random and never used twice, so no push can bring back what is judged here.
        """
        objects = size = 0
        repository_id, keys = "", set[str]()
        cutoff = now() - age
        async for info in self._store.list("git/"):
            parts = info.key.split("/")
            if len(parts) != 4 or info.modified > cutoff:
                continue
            if parts[1] != repository_id:
                repository_id = parts[1]
                keys = await self._keys(repository_id)
            if parts[2] not in keys:
                await self._store.delete(info.key)
                objects, size = objects + 1, size + info.size
        return objects, size

    async def _keys(self, repository_id: str) -> set[str]:
        async with self._database.read() as session:
            return set(await session.scalars(select(Pack.key).where(Pack.repository_id == repository_id)))

    async def _deleted(self, grace: timedelta) -> int:
        async with self._database.read() as session:
            gone = list(
                await session.scalars(
                    select(DeletedRepository.repository_id).where(
                        DeletedRepository.deleted_at < now() - grace
                    )
                )
            )
        for repository_id in gone:
            async for info in self._store.list(f"git/{repository_id}/"):
                await self._store.delete(info.key)
            async with self._database.transaction() as session:
                await session.execute(
                    delete(DeletedRepository).where(DeletedRepository.repository_id == repository_id)
                )
        return len(gone)

    async def _cache(self) -> int:
        gone = 0
        for kind in ("snapshots", "packs", "clones"):
            for path in await asyncio.to_thread(entries, self._snapshots.root / kind):
                repository_id = path.name
                async with self._database.read() as session:
                    repository = await session.get(Repository, repository_id)
                    live = set(
                        await session.scalars(
                            select(Pack.key).where(
                                Pack.repository_id == repository_id, Pack.superseded_at.is_(None)
                            )
                        )
                    )
                keep = f"{repository.refs_version}-{repository.state}" if repository else None
                if kind == "packs":
                    gone += await asyncio.to_thread(_sweep_packs, path, live)
                elif kind == "clones":
                    gone += await asyncio.to_thread(sweep_clones, path, keep, time.time() - _DRAFT_SECONDS)
                else:
                    gone += await asyncio.to_thread(
                        sweep_snapshots, self._snapshots.root, repository_id, keep=keep
                    )
        return gone


def _sweep_packs(folder: Path, live: set[str]) -> int:
    """Deletes downloaded packs that are not live; snapshots hold links of their own."""
    dead = [path for path in entries(folder) if path.name not in live]
    for path in dead:
        shutil.rmtree(path, ignore_errors=True)
    for draft in folder.glob("*/.draft-*"):  # of downloads whose process was killed
        with contextlib.suppress(FileNotFoundError):
            if time.time() - draft.stat().st_mtime > _DRAFT_SECONDS:
                draft.unlink()
    return len(dead)
