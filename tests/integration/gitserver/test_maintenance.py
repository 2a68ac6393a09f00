"""Repacking, sweeping, the queue; export, import and fsck. Real git on real repositories."""

import asyncio
import shutil
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import select, update

from core.access import SYSTEM
from core.errors import AlreadyExists
from core.models import DeletedRepository, MaintenanceTask, ObjectFormat, Pack, PackKind, Repository, now
from core.repositories import RepositoryInfo
from core.settings import MaintenanceSettings
from gitserver.commits import Put
from gitserver.exchange import Exchange, ImportFailed
from gitserver.fsck import Fsck
from gitserver.maintenance import Maintenance
from gitserver.repack import Repacker
from gitserver.snapshots import Snapshots, pack_key
from gitserver.sweeper import Sweeper, SweepReport
from tests.support.git_world import ACTOR, GitWorld, git
from tests.support.histories import generate

SETTINGS = MaintenanceSettings()


def repacker(world: GitWorld) -> Repacker:
    return Repacker(world.database, world.snapshots, world.publisher, world.git, SETTINGS)


def sweeper(world: GitWorld) -> Sweeper:
    return Sweeper(world.database, world.store, world.snapshots, SETTINGS)


def maintenance(world: GitWorld) -> Maintenance:
    return Maintenance(world.database, repacker(world), sweeper(world), SETTINGS)


async def commits(world: GitWorld, repository: RepositoryInfo, count: int, *, start: int = 0) -> None:
    for number in range(start, start + count):
        content = f"{number}\n".encode()
        await world.committer.commit(repository, ACTOR, "main", [Put(f"f{number}", content)], f"c{number}")


async def live(world: GitWorld, repository: RepositoryInfo) -> list[Pack]:
    return list((await world.snapshots.state(repository.id)).packs)


async def stored(world: GitWorld, repository: RepositoryInfo) -> set[str]:
    return {info.key async for info in world.store.list(f"git/{repository.id}/")}


@pytest.mark.parametrize("object_format", list(ObjectFormat))
async def test_geometric_then_full(world: GitWorld, tmp_path: Path, object_format: ObjectFormat) -> None:
    repository = await world.repository(object_format)
    await commits(world, repository, 6)
    before = await world.clone(repository, tmp_path / "before")
    report = await repacker(world).repack(repository.id, full=False)
    assert report is not None
    assert (report.packs_before, report.packs_after) == (6, 1)
    index = next(pack for pack in await live(world, repository) if pack.kind is PackKind.INDEX)
    assert {"midx", "bitmap", "commit-graph"} <= set(index.suffixes)
    await commits(world, repository, 2, start=6)
    report = await repacker(world).repack(repository.id, full=True)
    assert report is not None
    assert report.packs_after == 1
    packs = await live(world, repository)
    assert {pack.kind for pack in packs} == {PackKind.REPACK, PackKind.INDEX}
    assert "bitmap" in next(pack for pack in packs if pack.kind is PackKind.REPACK).suffixes
    after = await world.clone(repository, tmp_path / "after")
    assert git(after, "merge-base", "--is-ancestor", git(before, "rev-parse", "main").strip(), "main") == b""
    async with world.snapshots.open(repository.id) as snapshot:
        assert (snapshot.objects / "info" / "commit-graph").exists()
        git(snapshot.path, "commit-graph", "verify")


async def test_nothing_to_repack(world: GitWorld) -> None:
    repository = await world.repository()
    assert await repacker(world).repack(repository.id, full=True) is None


async def test_unreachable_objects_stay_until_a_prune_finds_them_old(world: GitWorld) -> None:
    repository = await world.repository()
    await commits(world, repository, 1)
    await world.branches.create(repository, ACTOR, "side", "main")
    lost = await world.committer.commit(repository, ACTOR, "side", [Put("lost", b"lost\n")], "lost")
    await world.branches.delete(repository, ACTOR, "side")

    assert await repacker(world).repack(repository.id, full=True)
    assert {pack.kind for pack in await live(world, repository)} >= {PackKind.CRUFT}
    assert (await world.reader.commit(repository.id, lost.oid)).oid == lost.oid, "still there by its oid"
    report = await repacker(world).repack(repository.id, full=True, prune=True)
    assert report is not None
    assert (await world.reader.commit(repository.id, lost.oid)).oid == lost.oid, "too young to be dropped"

    eager = Repacker(
        world.database, world.snapshots, world.publisher, world.git, MaintenanceSettings(unreachable_days=0)
    )
    await asyncio.sleep(1.1)  # git counts ages in whole seconds
    report = await eager.repack(repository.id, full=True, prune=True)
    assert report is not None
    assert report.pruned
    state = await world.snapshots.state(repository.id)
    assert state.prune_epoch == 2
    async with world.snapshots.open(repository.id) as snapshot:
        assert b"missing" in git(snapshot.path, "cat-file", "--batch-check", data=lost.oid.encode() + b"\n")


async def test_two_repacks_at_once_leave_one_result(world: GitWorld, tmp_path: Path) -> None:
    repository = await world.repository()
    await commits(world, repository, 5)
    reports = await asyncio.gather(*(repacker(world).repack(repository.id, full=True) for _ in range(3)))
    assert sum(report is not None for report in reports) >= 1
    assert sum(pack.kind is PackKind.REPACK for pack in await live(world, repository)) == 1
    await world.clone(repository, tmp_path / "copy")


async def test_pushes_during_repacks_are_kept(world: GitWorld, tmp_path: Path) -> None:
    repository = await world.repository()
    await commits(world, repository, 2)

    async def repacks() -> None:
        for number in range(6):
            await repacker(world).repack(repository.id, full=number % 2 == 0, prune=number % 3 == 0)
            await sweeper(world).sweep(grace_seconds=0)

    await asyncio.gather(repacks(), commits(world, repository, 12, start=2))
    copy = await world.clone(repository, tmp_path / "copy")
    assert git(copy, "rev-list", "--count", "main").strip() == b"14"


async def test_sweep_keeps_what_is_live_and_young(world: GitWorld) -> None:
    repository = await world.repository()
    await commits(world, repository, 3)
    await repacker(world).repack(repository.id, full=True)
    everything = await stored(world, repository)
    await sweeper(world).sweep()
    assert await stored(world, repository) == everything, "superseded packs have an hour of grace"
    report = await sweeper(world).sweep(grace_seconds=0)
    assert report.packs == 3
    wanted = {
        pack_key(repository.id, pack.key, f"{pack.name}.{suffix}")
        for pack in await live(world, repository)
        for suffix in pack.suffixes
    }
    assert await stored(world, repository) == wanted
    assert await sweeper(world).sweep(grace_seconds=0) == SweepReport()


async def test_sweep_of_orphans_and_deleted_repositories(world: GitWorld, tmp_path: Path) -> None:
    repository = await world.repository()
    await commits(world, repository, 1)
    junk = tmp_path / "junk"
    junk.write_bytes(b"half a push")
    orphan = pack_key(repository.id, "f" * 32, "pack-1.pack")
    await world.store.put_file(orphan, junk)
    await sweeper(world).sweep()
    assert orphan in await stored(world, repository), "it may belong to a push that is not over"
    report = await sweeper(world).sweep(orphan_seconds=0)
    assert (report.objects, report.bytes) == (1, len(b"half a push"))
    assert orphan not in await stored(world, repository)

    async with world.database.transaction() as session:
        await session.delete(await session.get(Repository, repository.id))
        session.add(DeletedRepository(repository_id=repository.id, address="ann/model"))
    await sweeper(world).sweep()
    assert await stored(world, repository), "a deletion has its grace too"
    report = await sweeper(world).sweep(grace_seconds=0)
    assert report.repositories == 1
    assert await stored(world, repository) == set()
    assert not (world.cache / "snapshots" / repository.id).exists() or not any(
        (world.cache / "snapshots" / repository.id).iterdir()
    )


async def test_a_snapshot_in_use_survives_the_sweep(world: GitWorld) -> None:
    repository = await world.repository()
    await commits(world, repository, 2)
    async with world.snapshots.open(repository.id) as old:
        await repacker(world).repack(repository.id, full=True)
        await sweeper(world).sweep(grace_seconds=0)
        git(old.path, "fsck", "--strict")
        assert old.path.exists()
    await commits(world, repository, 1, start=2)
    await sweeper(world).sweep(grace_seconds=0)
    assert not old.path.exists()


async def test_losing_the_cache_loses_nothing(world: GitWorld, tmp_path: Path) -> None:
    repository = await world.repository()
    await commits(world, repository, 3)
    await asyncio.to_thread(shutil.rmtree, world.cache)
    await commits(world, repository, 1, start=3)
    copy = await world.clone(repository, tmp_path / "copy")
    assert git(copy, "rev-list", "--count", "main").strip() == b"4"


async def test_half_deleted_cache_is_rebuilt(world: GitWorld, tmp_path: Path) -> None:
    """A crash between deletions leaves packs without files and snapshots without a lease."""
    repository = await world.repository()
    await commits(world, repository, 2)
    async with world.snapshots.open(repository.id) as snapshot:
        path = snapshot.path
    for pack in (world.cache / "packs" / repository.id).rglob("*.idx"):
        pack.unlink()
    await asyncio.to_thread(shutil.rmtree, path)
    await world.clone(repository, tmp_path / "copy")


async def test_the_queue_is_worked_once_and_failures_back_off(world: GitWorld) -> None:
    repository = await world.repository()
    await commits(world, repository, 3)
    async with world.database.transaction() as session:
        session.add(MaintenanceTask(repository_id=repository.id))
    works = await asyncio.gather(*(maintenance(world).run_due() for _ in range(3)))
    assert sum(works) == 1
    assert await maintenance(world).queue_length() == 0

    async with world.database.transaction() as session:
        session.add(MaintenanceTask(repository_id=repository.id))
        await session.execute(update(Pack).values(key=Pack.key + "x").where(Pack.superseded_at.is_(None)))
    shutil.rmtree(world.cache)
    assert await maintenance(world).run_due() == 1
    async with world.database.read() as session:
        task = (await session.scalars(select(MaintenanceTask))).one()
    assert task.attempts == 1
    assert task.leased_until is None
    assert task.due_at > now() + timedelta(seconds=60)
    assert await maintenance(world).run_due() == 0


async def test_old_repositories_are_planned_for_a_full_repack(world: GitWorld) -> None:
    old = await world.repository(name="old")
    young = await world.repository(name="young")
    for repository in (old, young):
        await commits(world, repository, 2)
    async with world.database.transaction() as session:
        month = now() - timedelta(days=30)
        await session.execute(update(Repository).where(Repository.id == old.id).values(created_at=month))
    assert await maintenance(world).plan() == 1
    assert await maintenance(world).plan() == 0, "already queued"
    assert await maintenance(world).run_due() == 1
    assert await maintenance(world).plan() == 0, "just done"


@pytest.mark.parametrize("object_format", list(ObjectFormat))
async def test_export_and_import_round_trip(
    world: GitWorld, tmp_path: Path, sample: Path, object_format: ObjectFormat
) -> None:
    kind = git(sample, "rev-parse", "--show-object-format").decode().strip()
    exchange = Exchange(world.snapshots, world.publisher, world.git)
    copy = await world.repository(object_format, name="copy")
    if kind != object_format:
        with pytest.raises(ImportFailed):
            await exchange.import_(copy, str(sample), actor=SYSTEM)
        assert (await world.snapshots.state(copy.id)).refs == {}
        return
    report = await exchange.import_(copy, str(sample), actor=SYSTEM)
    assert report.refused == ()
    assert report.head == "main"
    target = tmp_path / "export"
    assert await exchange.export(copy, target) == report.refs
    git(target, "fsck", "--strict", "--no-dangling")
    assert git(target, "for-each-ref") == git(sample, "for-each-ref")
    with pytest.raises(AlreadyExists):
        await exchange.export(copy, target)
    again = await exchange.import_(copy, str(sample), actor=SYSTEM)
    assert again.refs == 0, "nothing changed at the source"


async def test_import_of_what_is_no_repository(world: GitWorld, tmp_path: Path) -> None:
    exchange = Exchange(world.snapshots, world.publisher, world.git)
    repository = await world.repository()
    for source in (
        str(tmp_path),
        "ext::sh -c id",
        "/nonexistent",
        "http://127.0.0.1:9/x.git",
        "--upload-pack=id",
    ):
        with pytest.raises(ImportFailed):
            await exchange.import_(repository, source, actor=SYSTEM)
    assert (await world.snapshots.state(repository.id)).refs == {}


async def test_fsck_finds_what_is_missing_and_what_is_rotten(world: GitWorld, tmp_path: Path) -> None:
    source = await asyncio.to_thread(lambda: generate(tmp_path / "source", commits=20))
    await asyncio.to_thread(source, "repack", "-adq")
    repository = await world.adopt(source.cwd)
    fsck = Fsck(world.database, world.store, world.cache, world.git)
    assert await fsck.check(repository) == []

    [pack] = await live(world, repository)
    file = world.store.local_path(pack_key(repository.id, pack.key, f"{pack.name}.pack"))
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 0xFF
    file.unlink()
    file.write_bytes(data)
    found = await fsck.check(repository)
    assert found
    assert all(finding.remedy for finding in found)

    file.unlink()
    [missing] = [one for one in await fsck.check(repository) if "missing in the store" in one.problem]
    assert missing.repository == repository.path


async def test_nobody_else_sees_a_foreign_cache(world: GitWorld, tmp_path: Path) -> None:
    """Two nodes with caches of their own serve the same state."""
    repository = await world.repository()
    await commits(world, repository, 2)
    other = Snapshots(world.database, world.store, tmp_path / "other")
    async with other.open(repository.id) as theirs, world.snapshots.open(repository.id) as ours:
        assert theirs.state.state == ours.state.state
        assert git(theirs.path, "rev-parse", "main") == git(ours.path, "rev-parse", "main")
