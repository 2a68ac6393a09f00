"""Collecting what nothing refers to: what goes, when, and above all what stays."""

import asyncio
import shutil
from pathlib import Path

import pytest
from sqlalchemy import delete, select

from core.access import SYSTEM
from core.database import Database
from core.models import AuditEntry, LfsLink, LfsObject, Pack, Repository
from core.settings import LfsSettings
from gitserver.process import GitRunner
from lfs.collector import Collected, RepositoryCollected
from lfs.reclaim import Purged
from storage.protocol import StoreUnavailable
from tests.support.lfs_keeping import Keeping, open_keeping
from tests.support.lfs_world import oid_of


async def collect(keeping: Keeping) -> Collected:
    done = await keeping.files.collector.collect()
    assert [one.error for one in done.repositories if one.error] == []
    return done


async def trashed(keeping: Keeping) -> set[str]:
    return {link.oid for link in await keeping.world.rows(LfsLink) if link.trashed_at is not None}


async def test_what_a_ref_reaches_stays_whatever_its_age(keeping: Keeping) -> None:
    used = await keeping.commit(b"used")
    tagged = await keeping.commit(b"tagged", path="t")
    tip = await keeping.remove("t")
    before = await keeping.git.reader.commit(keeping.repository.id, f"{tip}")
    await keeping.git.branches.create(keeping.repository, SYSTEM, "old", before.parents[0])
    await keeping.later(days=1000)
    assert await collect(keeping) == Collected()
    assert {link.oid for link in await keeping.world.rows(LfsLink)} == {used, tagged}
    await keeping.world.expect_sound()


async def test_the_life_of_an_object_that_nothing_refers_to(keeping: Keeping) -> None:
    oid = await keeping.world.upload(b"never committed")
    kept = await keeping.commit(b"kept")
    assert await collect(keeping) == Collected(), "it is young: a push may come"
    await keeping.later(days=15)
    done = await collect(keeping)
    assert done.repositories == [RepositoryCollected("ann/model", trashed=1, trashed_bytes=15)]
    assert await keeping.world.objects.find(keeping.repository.id, [oid]) == {}
    assert (await collect(keeping)).repositories == []
    await keeping.later(days=29)
    assert await collect(keeping) == Collected(), "it waits for thirty days"
    await keeping.later(days=2)
    done = await collect(keeping)
    assert done.repositories == [RepositoryCollected("ann/model", purged=1)]
    assert done.purged == Purged(1, 15, 0)
    assert await keeping.world.object(oid) is None
    assert [row.oid for row in await keeping.world.rows(LfsObject)] == [kept]
    await keeping.world.expect_sound()
    async with keeping.world.database.read() as session:
        actions = set(await session.scalars(select(AuditEntry.action)))
    assert {"lfs:trash", "lfs:purge"} <= actions


async def test_touching_saves_a_link(keeping: Keeping) -> None:
    oid = await keeping.world.upload(b"again and again")
    await keeping.later(days=20)
    await keeping.world.objects.touch(keeping.repository.id, [oid])
    assert await collect(keeping) == Collected()


async def test_a_client_that_comes_while_it_is_judged_saves_a_link(keeping: Keeping) -> None:
    oid = await keeping.world.upload(b"just in time")
    await keeping.later(days=20)
    pointers = keeping.files.pointers
    reach = pointers.reachable

    async def reachable(repository_id: str, tips: list[str]) -> set[str]:
        found = await reach(repository_id, tips)
        await keeping.world.objects.touch(repository_id, [oid])
        return found

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pointers, "reachable", reachable)
        done = await keeping.files.collector.collect()
    assert [one.trashed for one in done.repositories] in ([], [0])
    assert await trashed(keeping) == set()


async def test_a_push_while_it_is_judged_postpones_a_repository(keeping: Keeping) -> None:
    oid = await keeping.world.upload(b"about to be pushed")
    other = await keeping.world.new_repository("other")
    await keeping.world.upload(b"rubbish", repository=other)
    await keeping.later(days=20)
    pointers = keeping.files.pointers
    reach = pointers.reachable

    async def reachable(repository_id: str, tips: list[str]) -> set[str]:
        found = await reach(repository_id, tips)
        if repository_id == keeping.repository.id:
            await keeping.point("late", b"about to be pushed")
        return found

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pointers, "reachable", reachable)
        done = await keeping.files.collector.collect()
    assert [(one.path, one.trashed, bool(one.error)) for one in done.repositories] == [
        ("ann/model", 0, True),
        ("ann/other", 1, False),
    ]
    assert "changed while" in done.repositories[0].error
    assert await keeping.world.objects.missing(keeping.repository.id, [oid]) == set()


async def test_trashing_makes_pushes_that_were_judged_before_be_judged_again(keeping: Keeping) -> None:
    await keeping.commit(b"x")
    await keeping.world.upload(b"rubbish")
    await keeping.later(days=20)
    async with keeping.world.database.read() as session:
        before = await session.get_one(Repository, keeping.repository.id)
    await collect(keeping)
    async with keeping.world.database.read() as session:
        after = await session.get_one(Repository, keeping.repository.id)
    assert after.prune_epoch == before.prune_epoch + 1
    assert (after.refs_version, after.state) == (before.refs_version, before.state)


async def test_tips_of_recent_pushes_count_and_older_ones_do_not(keeping: Keeping) -> None:
    """A branch that was forced or deleted last week may be wanted back."""
    await keeping.commit(b"base")
    base = await keeping.git.reader.resolve(keeping.repository.id, "main")
    await keeping.git.branches.create(keeping.repository, SYSTEM, "gone", base.oid)
    lost = await keeping.commit(b"lost", path="lost", branch="gone")
    tip = (await keeping.git.reader.resolve(keeping.repository.id, "gone")).oid
    await keeping.later(days=100)
    await keeping.git.branches.delete(keeping.repository, SYSTEM, "gone", expected=tip)
    await keeping.later(days=13)
    assert await collect(keeping) == Collected()
    await keeping.later(days=2)
    assert (await collect(keeping)).repositories[0].trashed == 1
    assert await trashed(keeping) == {lost}
    # Somebody finds the commit in a clone and pushes it back.
    await keeping.git.branches.create(keeping.repository, SYSTEM, "back", tip)
    assert (await collect(keeping)).repositories[0].restored == 1
    assert await keeping.world.objects.missing(keeping.repository.id, [lost]) == set()


async def test_bytes_stay_while_any_repository_has_them(keeping: Keeping) -> None:
    fork = await keeping.world.new_repository("fork")
    oid = await keeping.world.upload(b"shared")
    await keeping.commit(b"shared", repository=fork)
    await keeping.later(days=20)
    await collect(keeping)
    await keeping.later(days=40)
    done = await collect(keeping)
    assert (done.repositories[0].purged, done.purged) == (1, Purged())
    assert await keeping.world.link(oid) is None
    assert await keeping.world.read(oid) == b"shared"
    await keeping.world.expect_sound()


async def test_what_a_deleted_repository_leaves_waits_too(keeping: Keeping) -> None:
    oid = await keeping.commit(b"orphaned")
    await keeping.later(days=100)
    await keeping.world.core.repositories.delete(SYSTEM, keeping.repository.address)
    done = await collect(keeping)
    assert (done.unlinked, done.purged) == (1, Purged())
    await keeping.later(days=29)
    assert await collect(keeping) == Collected()
    assert await keeping.world.read(oid) == b"orphaned"
    await keeping.later(days=2)
    assert (await collect(keeping)).purged == Purged(1, 8, 0)
    assert await keeping.world.keys() == []


async def test_an_upload_saves_what_is_about_to_be_purged(keeping: Keeping) -> None:
    oid = await keeping.commit(b"precious")
    await keeping.world.core.repositories.delete(SYSTEM, keeping.repository.address)
    await collect(keeping)
    await keeping.later(days=100)
    other = await keeping.world.new_repository("other")
    await asyncio.gather(collect(keeping), keeping.world.upload(b"precious", repository=other))
    assert await keeping.world.objects.missing(other.id, [oid]) == set()
    assert await keeping.world.read(oid) == b"precious"
    await keeping.world.expect_sound()


async def test_many_collections_at_once_beside_uploads(keeping: Keeping) -> None:
    kept = [await keeping.commit(b"kept %d" % number) for number in range(3)]
    gone = [await keeping.world.upload(b"gone %d" % number) for number in range(20)]
    await keeping.later(days=20)
    await collect(keeping)
    await keeping.later(days=31)
    await asyncio.gather(
        *(keeping.files.collector.collect() for _ in range(3)),
        *(keeping.world.upload(b"gone %d" % number) for number in range(5)),
    )
    assert await keeping.world.objects.missing(keeping.repository.id, [*kept, *gone[:5]]) == set()
    await collect(keeping)
    assert len(await keeping.world.rows(LfsObject)) == 8
    await keeping.world.expect_sound()


class TestFailsClosed:
    """What cannot be read is kept, and the other repositories are collected all the same."""

    @pytest.fixture
    async def rubbish(self, keeping: Keeping) -> set[str]:
        """Old and unused objects: one in ann/model, which also has a commit, and one in ann/other."""
        await keeping.commit(b"used")
        other = await keeping.world.new_repository("other")
        found = {
            await keeping.world.upload(b"rubbish"),
            await keeping.world.upload(b"more rubbish", repository=other),
        }
        await keeping.later(days=100)
        return found

    async def check(self, keeping: Keeping, rubbish: set[str], done: Collected) -> None:
        failed = {one.path: one for one in done.repositories if one.error}
        assert list(failed) == ["ann/model"]
        assert (failed["ann/model"].trashed, failed["ann/model"].purged) == (0, 0)
        assert await trashed(keeping) == {oid_of(b"more rubbish")}

    async def test_a_pack_is_gone(self, keeping: Keeping, rubbish: set[str]) -> None:
        async for info in keeping.git.store.list(f"git/{keeping.repository.id}/"):
            await keeping.git.store.delete(info.key)
        for folder in ("snapshots", "packs"):
            await asyncio.to_thread(_remove_tree, keeping.git.cache / folder)
        await self.check(keeping, rubbish, await keeping.files.collector.collect())

    async def test_a_ref_names_an_object_that_is_missing(self, keeping: Keeping, rubbish: set[str]) -> None:
        async with keeping.world.database.transaction() as session:
            await session.execute(delete(Pack).where(Pack.repository_id == keeping.repository.id))
            repository = await session.get_one(Repository, keeping.repository.id)
            repository.refs_version, repository.state = repository.refs_version + 1, "b" * 32
        await self.check(keeping, rubbish, await keeping.files.collector.collect())

    async def test_git_fails(self, keeping: Keeping, rubbish: set[str], tmp_path: Path) -> None:
        program = tmp_path / "git-that-fails"
        program.write_text("#!/bin/sh\nexit 1\n")
        program.chmod(0o755)
        files = keeping.files_with(GitRunner(str(program)))
        done = await files.collector.collect([keeping.repository.id])
        assert done.repositories[0].error
        assert await trashed(keeping) == set()

    async def test_git_dies_in_the_middle(self, keeping: Keeping, rubbish: set[str], tmp_path: Path) -> None:
        """The list of objects is cut short, as by the killer of the kernel."""
        program = tmp_path / "git-that-dies"
        program.write_text('#!/bin/sh\ncase "$1" in rev-list) kill -9 $$;; *) exec git "$@";; esac\n')
        program.chmod(0o755)
        files = keeping.files_with(GitRunner(str(program)))
        done = await files.collector.collect([keeping.repository.id])
        assert done.repositories[0].error
        assert await trashed(keeping) == set()

    async def test_the_trash_of_an_unreadable_repository_is_not_emptied(self, keeping: Keeping) -> None:
        await keeping.commit(b"used")
        oid = await keeping.world.upload(b"rubbish")
        await keeping.later(days=20)
        await collect(keeping)
        await keeping.later(days=100)
        async with keeping.world.database.transaction() as session:
            await session.execute(delete(Pack).where(Pack.repository_id == keeping.repository.id))
            repository = await session.get_one(Repository, keeping.repository.id)
            repository.refs_version, repository.state = repository.refs_version + 1, "b" * 32
        done = await keeping.files.collector.collect()
        assert done.repositories[0].error
        assert await keeping.world.link(oid) is not None
        assert await keeping.world.read(oid) == b"rubbish"


async def test_a_store_that_is_away_keeps_bytes_as_orphans(
    keeping: Keeping, monkeypatch: pytest.MonkeyPatch
) -> None:
    await keeping.commit(b"gone")
    await keeping.world.core.repositories.delete(SYSTEM, keeping.repository.address)
    await collect(keeping)
    await keeping.later(days=40)

    async def away(key: str) -> None:
        raise StoreUnavailable("the object store cannot be reached")

    with monkeypatch.context() as patch:
        patch.setattr(keeping.world.store, "delete", away)
        assert (await collect(keeping)).purged == Purged(1, 4, 1)
    assert len(await keeping.world.keys()) == 1
    assert (await keeping.files.orphans.sweep()).objects == 1
    assert await keeping.world.keys() == []


async def test_one_worker_of_many_claims_a_collection(keeping: Keeping) -> None:
    collector = keeping.files.collector
    claims = await asyncio.gather(*(collector.due(24) for _ in range(5)))
    assert sorted(claims) == [False] * 4 + [True]
    assert await collector.due(24) is False
    assert await collector.due(0) is True
    await collector.begin(SYSTEM)
    assert await collector.due(1) is False


async def test_upkeep_collects_when_it_is_time(database: Database, tmp_path: Path) -> None:
    async with open_keeping(database, tmp_path, settings=LfsSettings(gc_hours=24)) as keeping:
        await keeping.world.upload(b"rubbish")
        await keeping.world.put(f"lfs/aa/bb/{'a' * 64}.{'0' * 16}", b"orphan")
        await keeping.later(days=20)
        await keeping.files.upkeep.run()
        assert len(await trashed(keeping)) == 1
        assert len(await keeping.world.keys()) == 1
        await keeping.world.upload(b"more rubbish")
        await keeping.later(days=20)
        await keeping.files.upkeep.run()
        assert len(await trashed(keeping)) == 1, "the next one is tomorrow"


def _remove_tree(path: Path) -> None:
    shutil.rmtree(path, ignore_errors=True)
