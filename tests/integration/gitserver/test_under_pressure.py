"""Races and losses that were real once: each test tells what happened, and fails if it happens again."""

import asyncio
import shutil
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import update

from core.access import Actor
from core.database import Database
from core.errors import ModelyardError
from core.models import MaintenanceTask, Repository, Transport, now
from core.repositories import RepositoryInfo
from core.settings import MaintenanceSettings
from gitserver.commits import Put
from gitserver.maintenance import Maintenance
from gitserver.policy import ProposedPush
from gitserver.publish import lock_repository
from gitserver.repack import Repacker, RepackReport
from gitserver.sweeper import Sweeper
from gitserver.updates import RefUpdate
from tests.support.database import Databases
from tests.support.git_world import ACTOR, GitWorld, git, open_world

SETTINGS = MaintenanceSettings()


def repacker(world: GitWorld) -> Repacker:
    return Repacker(world.database, world.snapshots, world.publisher, world.git, SETTINGS)


def maintenance(world: GitWorld) -> Maintenance:
    sweeper = Sweeper(world.database, world.store, world.snapshots, SETTINGS)
    return Maintenance(world.database, repacker(world), sweeper, SETTINGS)


class DeletesTheCache:
    """A policy during which somebody runs `rm -rf` on the cache."""

    async def before_pack(self, repository: RepositoryInfo, actor: Actor, updates: Any) -> Mapping[str, str]:
        return {}

    async def check(self, push: ProposedPush) -> Mapping[str, str]:
        await asyncio.to_thread(shutil.rmtree, push.quarantine.path)
        return {}


async def test_no_ref_without_its_pack_when_the_cache_goes_before_the_store(
    sqlite: Database, tmp_path: Path
) -> None:
    """The pack was looked for after the check, was not there, and the refs were published without it."""
    async with open_world(sqlite, tmp_path, policies=[DeletesTheCache()]) as world:
        repository = await world.repository()
        with pytest.raises(ModelyardError):
            await world.committer.commit(repository, ACTOR, "main", [Put("a", b"1\n")], "first")
        state = await world.snapshots.state(repository.id)
        assert (state.refs, state.packs) == ({}, ())


class HeldRepacker(Repacker):
    """Stops before the swap until it is let go."""

    def __init__(self, world: GitWorld) -> None:
        super().__init__(world.database, world.snapshots, world.publisher, world.git, SETTINGS)
        self.arrived = asyncio.Event()
        self.go = asyncio.Event()

    async def _swap(self, *arguments: Any, **options: Any) -> RepackReport:
        self.arrived.set()
        await self.go.wait()
        return await super()._swap(*arguments, **options)


@pytest.mark.parametrize("late_is_full", [True, False])
async def test_the_slower_of_two_first_repacks_gives_up(
    world: GitWorld, tmp_path: Path, late_is_full: bool
) -> None:
    """The geometric one replaced no pack, so both won, and its index named packs that were superseded."""
    repository = await world.repository()
    many = [Put(f"f{number}", f"{number}\n".encode() * 3) for number in range(60)]
    await world.committer.commit(repository, ACTOR, "main", many, "big")
    await world.committer.commit(repository, ACTOR, "main", [Put("small", b"x")], "small")
    late = HeldRepacker(world)
    slower = asyncio.ensure_future(late.repack(repository.id, full=late_is_full))
    await late.arrived.wait()
    assert await repacker(world).repack(repository.id, full=not late_is_full) is not None
    late.go.set()
    await slower
    copy = await world.clone(repository, tmp_path / "copy")
    assert (copy / "HEAD").exists()
    async with world.snapshots.open(repository.id) as snapshot:
        reading = ["rev-list", "--objects", "--all", "--use-bitmap-index", "--count"]
        assert await asyncio.to_thread(git, snapshot.path, *reading)


async def test_a_full_disk_postpones_maintenance_and_ends_nothing(
    world: GitWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An OSError ended the background worker, and with it the whole server."""
    repository = await world.repository()
    await world.committer.commit(repository, ACTOR, "main", [Put("a", b"x")], "a")
    async with world.database.transaction() as session:
        session.add(MaintenanceTask(repository_id=repository.id))

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(shutil, "copyfile", full)
    assert await maintenance(world).run_due() == 1
    async with world.database.read() as session:
        task = await session.get(MaintenanceTask, repository.id)
    assert task is not None
    assert task.leased_until is None
    assert task.due_at > now()


async def test_a_download_goes_on_when_whoever_asked_for_it_leaves(
    world: GitWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each impatient client began the download anew, so a large repository never reached a cold node."""
    repository = await world.repository()
    await world.committer.commit(repository, ACTOR, "main", [Put("a", b"x")], "a")
    await asyncio.to_thread(shutil.rmtree, world.cache)
    fetched: list[str] = []
    real = world.store.get_file

    async def slow(key: str, path: Path) -> None:
        fetched.append(key)
        await asyncio.sleep(0.2)
        await real(key, path)

    monkeypatch.setattr(world.store, "get_file", slow)
    opened = 0
    for _ in range(400):
        try:
            async with asyncio.timeout(0.15), world.snapshots.open(repository.id):
                opened += 1
                break
        except TimeoutError:
            continue
    assert opened == 1
    assert len(fetched) == len(set(fetched)), "every file was fetched once"


async def test_planning_and_pushing_do_not_deadlock(databases: Databases, tmp_path: Path) -> None:
    """PostgreSQL ended one of the two, and it could be a push of hours."""
    async with databases.fresh("postgresql") as url:
        database = Database(url)
        async with open_world(database, tmp_path) as world:
            repository = await world.repository()
            for number in range(2):
                await world.committer.commit(repository, ACTOR, "main", [Put("a", b"%d" % number)], "a")
            async with database.transaction() as session:
                month = now() - timedelta(days=30)
                await session.execute(update(Repository).values(created_at=month))
            async with database.transaction() as session:  # a push that is about to queue maintenance
                await lock_repository(session, repository.id)
                planned = await asyncio.wait_for(maintenance(world).plan(), 60)
                session.add(MaintenanceTask(repository_id=repository.id))
                await session.flush()
            assert planned == 0
        await database.close()


async def test_thousands_of_refs_move_and_go_in_a_few_statements(world: GitWorld) -> None:
    """Row by row they held every other writer up for seconds; here only the outcome is checked."""
    repository = await world.repository()
    tip = await world.committer.commit(repository, ACTOR, "main", [Put("a", b"1")], "1")
    new = await world.committer.commit(repository, ACTOR, "main", [Put("a", b"2")], "2")
    zero = "0" * 40
    names = [f"refs/heads/b{number}" for number in range(2000)]

    async def publish(updates: list[RefUpdate]) -> None:
        published = await world.publisher.publish(
            repository.id, updates, None, actor=ACTOR, transport=Transport.HTTP, epoch=0
        )
        assert all(verdict.error is None for verdict in published.verdicts)

    await publish([RefUpdate(name, zero, tip.oid) for name in names])
    await publish([RefUpdate(name, tip.oid, new.oid) for name in names])
    state = await world.snapshots.state(repository.id)
    assert {state.refs[name].oid for name in names} == {new.oid}
    await publish([RefUpdate(name, new.oid, zero) for name in names])
    assert set((await world.snapshots.state(repository.id)).refs) == {"refs/heads/main"}
