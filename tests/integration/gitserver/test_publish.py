"""The transaction that writes refs, on every database: one winner, all or nothing."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from sqlalchemy import func, select

from core.database import Database
from core.errors import RepositoryNotFound
from core.models import MaintenanceTask, ObjectFormat, OutboxEvent, Pack, Push, Ref, Repository, Transport
from core.repositories import RepositoryInfo
from gitserver.commits import Put
from gitserver.publish import Publisher, StaleConnectivity
from gitserver.updates import RefUpdate, Verdict
from tests.support.git_world import ACTOR, GitWorld, open_world

ZERO, ONE, TWO = ("0" * 40, "1" * 40, "2" * 40)


@pytest.fixture
async def world(database: Database, tmp_path: Path) -> AsyncIterator[GitWorld]:
    """As everywhere in this room, but on each database."""
    async with open_world(database, tmp_path) as opened:
        yield opened


async def publish(
    world: GitWorld, repository: RepositoryInfo, *updates: RefUpdate, atomic: bool = False, epoch: int = 0
) -> list[Verdict]:
    published = await world.publisher.publish(
        repository.id, updates, None, actor=ACTOR, transport=Transport.HTTP, atomic=atomic, epoch=epoch
    )
    assert (published.push_id is None) == all(one.error for one in published.verdicts)
    return list(published.verdicts)


async def refs(world: GitWorld, repository: RepositoryInfo) -> dict[str, str]:
    state = await world.snapshots.state(repository.id)
    return {name: value.oid for name, value in state.refs.items()}


async def rows(world: GitWorld, model: type[Push] | type[OutboxEvent] | type[MaintenanceTask]) -> int:
    async with world.database.read() as session:
        return await session.scalar(select(func.count()).select_from(model)) or 0


async def test_one_push_writes_refs_push_event_and_a_new_state(world: GitWorld) -> None:
    repository = await world.repository(name="one")
    verdicts = await publish(world, repository, RefUpdate("refs/heads/main", ZERO, ONE))
    assert verdicts == [Verdict("refs/heads/main")]
    state = await world.snapshots.state(repository.id)
    assert (state.version, state.refs["refs/heads/main"].oid) == (1, ONE)
    assert state.state != repository.state
    async with world.database.read() as session:
        push = (await session.scalars(select(Push))).one()
        event = (await session.scalars(select(OutboxEvent).where(OutboxEvent.name == "push"))).one()
    assert push.updates == [{"ref": "refs/heads/main", "old": ZERO, "new": ONE}]
    assert (push.actor, push.transport) == ("ann", Transport.HTTP)
    assert event.payload["push_id"] == push.id


async def test_eight_writers_of_one_ref_have_one_winner(world: GitWorld) -> None:
    repository = await world.repository(name="race")
    await publish(world, repository, RefUpdate("refs/heads/main", ZERO, ONE))
    results = await asyncio.gather(
        *(publish(world, repository, RefUpdate("refs/heads/main", ONE, f"{n:040x}")) for n in range(2, 10))
    )
    winners = [index for index, [verdict] in enumerate(results, start=2) if verdict.error is None]
    assert len(winners) == 1
    assert (await refs(world, repository))["refs/heads/main"] == f"{winners[0]:040x}"
    assert all("fetch first" in str(verdict.error) for [verdict] in results if verdict.error)
    assert await rows(world, Push) == 2


async def test_eight_writers_of_eight_refs_all_land(world: GitWorld) -> None:
    repository = await world.repository(name="many")
    results = await asyncio.gather(
        *(publish(world, repository, RefUpdate(f"refs/heads/b{n}", ZERO, ONE)) for n in range(8))
    )
    assert all(verdict.error is None for [verdict] in results)
    assert len(await refs(world, repository)) == 8
    assert (await world.snapshots.state(repository.id)).version == 8


async def test_creators_of_one_name_have_one_winner(world: GitWorld) -> None:
    repository = await world.repository(name="create")
    results = await asyncio.gather(
        *(publish(world, repository, RefUpdate("refs/heads/x", ZERO, f"{n:040x}")) for n in range(1, 6))
    )
    assert sum(verdict.error is None for [verdict] in results) == 1


async def test_atomic_writes_all_or_nothing(world: GitWorld) -> None:
    repository = await world.repository(name="atomic")
    good, bad = RefUpdate("refs/heads/a", ZERO, ONE), RefUpdate("refs/heads/b", ONE, TWO)
    verdicts = await publish(world, repository, good, bad, atomic=True)
    assert all(verdict.error for verdict in verdicts)
    assert await refs(world, repository) == {}
    assert await rows(world, Push) == 0
    verdicts = await publish(world, repository, good, bad)
    assert [verdict.error is None for verdict in verdicts] == [True, False]
    assert await refs(world, repository) == {"refs/heads/a": ONE}


@pytest.mark.parametrize("extra", [0, 60])
async def test_file_against_directory(world: GitWorld, extra: int) -> None:
    """With few and with many new names, because they are looked up differently."""
    repository = await world.repository(name="conflict")
    await publish(world, repository, RefUpdate("refs/heads/a/b", ZERO, ONE))
    others = [RefUpdate(f"refs/heads/n{n}", ZERO, ONE) for n in range(extra)]
    for name in ("refs/heads/a", "refs/heads/a/b/c"):
        verdicts = await publish(world, repository, RefUpdate(name, ZERO, ONE), *others)
        assert "conflicts" in str(verdicts[0].error), name
    for name in ("refs/heads/a-b", "refs/heads/a/c", "refs/heads/a0"):
        assert (await publish(world, repository, RefUpdate(name, ZERO, ONE)))[0].error is None, name


async def test_a_directory_may_become_a_file_in_one_push(world: GitWorld) -> None:
    repository = await world.repository(name="swap")
    await publish(world, repository, RefUpdate("refs/heads/a/b", ZERO, ONE))
    verdicts = await publish(
        world,
        repository,
        RefUpdate("refs/heads/a/b", ONE, ZERO),
        RefUpdate("refs/heads/a", ZERO, TWO),
        atomic=True,
    )
    assert [verdict.error for verdict in verdicts] == [None, None]
    assert await refs(world, repository) == {"refs/heads/a": TWO}


async def test_a_prune_since_the_check_stops_the_push(world: GitWorld) -> None:
    repository = await world.repository(name="pruned")
    async with world.database.transaction() as session:
        row = await session.get(Repository, repository.id)
        assert row is not None
        row.prune_epoch = 1
    with pytest.raises(StaleConnectivity):
        await publish(world, repository, RefUpdate("refs/heads/main", ZERO, ONE), epoch=0)
    assert await refs(world, repository) == {}


async def test_a_repository_deleted_meanwhile(world: GitWorld) -> None:
    repository = await world.repository(name="gone")
    async with world.database.transaction() as session:
        await session.delete(await session.get(Repository, repository.id))
    with pytest.raises(RepositoryNotFound):
        await publish(world, repository, RefUpdate("refs/heads/main", ZERO, ONE))


async def test_names_sort_and_compare_by_bytes(world: GitWorld) -> None:
    repository = await world.repository(name="bytes")
    names = [f"refs/heads/{name}" for name in ("b", "B", "a-b", "a_b", "ä", "Z", "é", "zz", "aa", "a.b")]
    await publish(world, repository, *(RefUpdate(name, ZERO, ONE) for name in names))
    listed = list(await refs(world, repository))
    assert listed == sorted(names, key=lambda name: name.encode())


async def test_many_small_packs_queue_maintenance(world: GitWorld) -> None:
    repository = await world.repository(name="packs")
    publisher = Publisher(world.database, world.store, world.snapshots, packs_threshold=3)
    async with world.database.transaction() as session:
        for number in range(2):
            session.add(_pack(repository, number))
    await _push(publisher, repository, "refs/heads/a")
    assert await rows(world, MaintenanceTask) == 0
    async with world.database.transaction() as session:
        session.add(_pack(repository, 2))
    await _push(publisher, repository, "refs/heads/b")
    await _push(publisher, repository, "refs/heads/c")
    assert await rows(world, MaintenanceTask) == 1


async def test_a_large_pack_queues_a_full_repack(world: GitWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    """For its bitmap: without one each clone walks the whole history."""
    monkeypatch.setattr("gitserver.publish._LARGE", 3)
    repository = await world.repository(name="large")
    await world.committer.commit(repository, ACTOR, "main", [Put("a/b", b"1")], "four objects")
    async with world.database.read() as session:
        task = (await session.scalars(select(MaintenanceTask))).one()
    assert task.full


async def _push(publisher: Publisher, repository: RepositoryInfo, name: str) -> None:
    await publisher.publish(
        repository.id, [RefUpdate(name, ZERO, ONE)], None, actor=ACTOR, transport=Transport.SSH, epoch=0
    )


def _pack(repository: RepositoryInfo, number: int) -> Pack:
    return Pack(
        repository_id=repository.id,
        key=f"{number:032x}",
        name=f"pack-{number:040x}",
        kind="push",
        suffixes=["pack"],
        objects=1,
        bytes=1,
    )


async def test_a_cancelled_caller_waits_for_the_commit(world: GitWorld) -> None:
    repository = await world.repository(name="cancel")
    task = asyncio.ensure_future(publish(world, repository, RefUpdate("refs/heads/main", ZERO, ONE)))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    # Whatever it was, it is over: a second push sees the final state and no lock.
    current = (await refs(world, repository)).get("refs/heads/main", ZERO)
    [verdict] = await publish(world, repository, RefUpdate("refs/heads/main", current, TWO))
    assert verdict.error is None


async def test_sha256_oids_fit(world: GitWorld) -> None:
    repository = await world.repository(ObjectFormat.SHA256, name="long")
    await publish(world, repository, RefUpdate("refs/heads/main", "0" * 64, "a" * 64, "b" * 64))
    async with world.database.read() as session:
        ref = (await session.scalars(select(Ref).where(Ref.repository_id == repository.id))).one()
    assert (ref.oid, ref.peeled) == ("a" * 64, "b" * 64)
