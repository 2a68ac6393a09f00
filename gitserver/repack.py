"""One repack of one repository, done aside and swapped in while pushes and fetches go on."""

import asyncio
import shutil
from dataclasses import dataclass
from pathlib import Path
from secrets import token_hex

import structlog
from sqlalchemy import select

from core import failpoints
from core.database import Database
from core.models import Pack, PackKind, now
from core.settings import MaintenanceSettings
from gitserver.process import GitRunner
from gitserver.publish import Publisher, advance, lock_repository
from gitserver.quarantine import PackFiles, describe_pack, open_workplace
from gitserver.snapshots import CacheUnavailable, Snapshot, Snapshots

log = structlog.get_logger(__name__)

BEFORE_SWAP = failpoints.declare("repack.before-swap", "new packs are stored, the old ones are still live")
AFTER_SWAP = failpoints.declare("repack.after-swap", "new packs are live, the old ones are superseded")

_TRIES = 3
_CONFIG = {
    "pack.threads": "1",
    "pack.windowMemory": "256m",
    "core.bigFileThreshold": "16m",
    "pack.writeReverseIndex": "true",
    "repack.updateServerInfo": "false",
    "repack.writeBitmaps": "true",
    "pack.writeBitmapHashCache": "true",
}


@dataclass(frozen=True, slots=True)
class RepackReport:
    """What one repack did; `bytes` are of the packs alone."""

    repository_id: str
    full: bool
    packs_before: int
    packs_after: int
    bytes_before: int
    bytes_after: int
    pruned: bool


class Repacker:
    """Repacks: geometrically (cheap, often) or fully, with bitmaps and a commit-graph.

    Unreachable objects are kept in a cruft pack and dropped only by a full repack with `prune`, once they
    are older than `[maintenance] unreachable_days`.
    """

    def __init__(
        self,
        database: Database,
        snapshots: Snapshots,
        publisher: Publisher,
        git: GitRunner,
        settings: MaintenanceSettings,
    ) -> None:
        self._database = database
        self._snapshots = snapshots
        self._publisher = publisher
        self._git = git
        self._settings = settings

    async def repack(self, repository_id: str, *, full: bool, prune: bool = False) -> RepackReport | None:
        """Repacks one repository; None when there is nothing to do, or another repack was faster.

        Safe beside pushes, fetches and other repacks on any node.

        Raises:
            RepositoryNotFound, CacheUnavailable, StoreUnavailable, DatabaseUnavailable: nothing was changed.
            GitFailed: git could not repack; nothing was changed.
        """
        for left in reversed(range(_TRIES)):
            try:
                # A prune needs a moment without pushes; the last try does without, so that the rest is done.
                return await self._attempt(repository_id, full=full, prune=prune and left > 0)
            except _Outrun as outrun:
                if not outrun.again:
                    return None
            except OSError as error:
                raise CacheUnavailable(f"the cache cannot be used: {error.strerror}") from error
        log.info("repack.outrun", repository_id=repository_id)
        return None

    async def _attempt(self, repository_id: str, *, full: bool, prune: bool) -> RepackReport | None:
        async with (
            self._snapshots.open(repository_id) as snapshot,
            open_workplace(self._snapshots.root) as work,
        ):
            if not any(pack.kind is not PackKind.INDEX for pack in snapshot.state.packs):
                return None
            await asyncio.to_thread(_link_tree, snapshot.path, work)
            await self._run(work, full=full, prune=prune)
            return await self._swap(snapshot, work, full=full, pruned=full and prune)

    async def _run(self, work: Path, *, full: bool, prune: bool) -> None:
        environment = self._git.environment(_CONFIG, {"GIT_DIR": str(work)})
        if full:
            arguments = ["repack", "-a", "-d", "-q", "--cruft", "--write-bitmap-index"]
            if prune:
                arguments.append(f"--cruft-expiration={self._settings.unreachable_days}.days.ago")
        else:
            arguments = ["repack", "--geometric=2", "-d", "-q", "--write-midx", "--write-bitmap-index"]
        await self._git.run(arguments, environment=environment)
        await self._git.run(
            ["commit-graph", "write", "--reachable", "--no-progress"], environment=environment
        )

    async def _prove(self, snapshot: Snapshot, work: Path, *, empty: bool) -> None:
        """Makes sure that the packs just listed hold what refs reach, before others are given up for them.

        The cache may be deleted at any time: a pack that vanished before the list was made is missed here,
        one that vanishes later when it is stored. For refs the work directory is not asked.
        """
        if empty:
            raise CacheUnavailable("the cache was deleted in the middle of a repack")
        await self._git.run(
            ["rev-list", "--objects", "--stdin", "--use-bitmap-index", "--count"],
            data="".join(f"{value.oid}\n" for value in snapshot.refs.values()).encode(),
            environment=self._git.environment(extra={"GIT_DIR": str(work)}),
        )

    async def _swap(self, snapshot: Snapshot, work: Path, *, full: bool, pruned: bool) -> RepackReport:
        state = snapshot.state
        before = {pack.name: pack for pack in state.packs if pack.kind is not PackKind.INDEX}
        after = await asyncio.to_thread(_packs_in, work / "objects" / "pack")
        await self._prove(snapshot, work, empty=not after and not pruned)
        # The same pack under the same name may have gained a bitmap.
        added = {
            name: files
            for name, files in after.items()
            if name not in before or set(files.suffixes) != set(before[name].suffixes)
        }
        rows = [
            await self._publisher.store_pack(
                state.repository_id,
                files,
                PackKind.CRUFT if "mtimes" in files.suffixes else PackKind.REPACK,
            )
            for files in added.values()
        ]
        index = await asyncio.to_thread(_index_files, work / "objects")
        if index is not None:
            rows.append(await self._publisher.store_pack(state.repository_id, index, PackKind.INDEX))
        failpoints.reach(BEFORE_SWAP)
        replaced = {
            pack.id
            for pack in state.packs
            if pack.kind is PackKind.INDEX or pack.name not in after or pack.name in added
        }
        async with self._database.transaction() as session:
            repository = await lock_repository(session, state.repository_id)
            live = {
                pack.id: pack
                for pack in await session.scalars(
                    select(Pack).where(
                        Pack.repository_id == state.repository_id, Pack.superseded_at.is_(None)
                    )
                )
            }
            # All that was read, not only what is replaced: the new index names every pack it was made from.
            if not {pack.id for pack in state.packs} <= live.keys():
                raise _Outrun(again=False)  # another node repacked the same packs
            if pruned and repository.refs_version != state.version:
                raise _Outrun(again=True)  # reachability was computed for refs of the past
            # An index that appeared meanwhile may name packs that go now.
            replaced |= {pack.id for pack in live.values() if pack.kind is PackKind.INDEX}
            for pack_id in replaced:
                live[pack_id].superseded_at = now()
            session.add_all(rows)
            repository.full_repack_at = now() if full else repository.full_repack_at
            repository.prune_epoch += 1 if pruned else 0
            updated = repository.updated_at
            advance(repository)
            repository.updated_at = updated  # nothing a user would notice
        failpoints.reach(AFTER_SWAP)
        report = RepackReport(
            state.repository_id,
            full,
            len(before),
            len(after),
            sum(pack.bytes for pack in before.values()),
            sum(files.bytes for files in after.values()),
            pruned,
        )
        log.info("repack.done", repository_id=state.repository_id, full=full, packs=len(after), pruned=pruned)
        return report


class _Outrun(Exception):
    """Somebody changed the repository first; `again` says whether trying again makes sense."""

    def __init__(self, *, again: bool) -> None:
        super().__init__()
        self.again = again


def _link_tree(source: Path, target: Path) -> None:
    """Makes a private copy of a snapshot, of hard links."""
    for folder in ("objects/pack", "objects/info", "refs/heads"):
        (target / folder).mkdir(parents=True)
    for name in ("HEAD", "config", "packed-refs"):
        shutil.copyfile(source / name, target / name)
    for file in (source / "objects" / "pack").iterdir():
        # The old index over packs would be rewritten in place; it is made anew.
        if not file.name.startswith("multi-pack-index"):
            (target / "objects" / "pack" / file.name).hardlink_to(file)


def _packs_in(folder: Path) -> dict[str, PackFiles]:
    return {pack.stem: describe_pack(pack) for pack in sorted(folder.glob("pack-*.pack"))}


def _index_files(objects: Path) -> PackFiles | None:
    """Gathers multi-pack-index, its bitmap and the commit-graph as the files of one INDEX row."""
    folder = objects / "index"
    folder.mkdir()
    midx = objects / "pack" / "multi-pack-index"
    name = token_hex(20)
    sources = {"midx": midx, "commit-graph": objects / "info" / "commit-graph"}
    for bitmap in (objects / "pack").glob("multi-pack-index-*.*"):
        sources[bitmap.suffix[1:]] = bitmap
        name = bitmap.stem.removeprefix("multi-pack-index-")
    present = {suffix: source for suffix, source in sources.items() if source.exists()}
    if not present:
        return None
    for suffix, source in present.items():
        (folder / f"{name}.{suffix}").hardlink_to(source)
    total = sum(source.stat().st_size for source in present.values())
    return PackFiles(folder, name, tuple(present), 0, total)
