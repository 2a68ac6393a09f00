"""Contents that are read in the background: by one worker at a time, whatever becomes of it or of them."""

import asyncio
import json
import os
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from sqlalchemy import update

from core.access import SYSTEM
from core.errors import RepositoryNotFound
from core.models import LfsLink, TensorDigestTask, now
from hooks.tensors.queueing import DigestQueue, LeaseLost
from hooks.version import VersionFile
from tests.support.hooks_world import HooksWorld, pointer_to
from tests.support.model_files import entry
from tests.support.processes import memory
from tests.support.tensor_world import TensorWorld, base_model, fine_tuned, told, weights

FILE = "model.safetensors"
BASE = base_model()
NAMES = sorted(BASE)
MIB = 1024**2


@pytest.fixture
def tensors(world: HooksWorld) -> TensorWorld:
    return TensorWorld(world)


async def two_commits(world: HooksWorld, folder: Path) -> tuple[str, str]:
    """One tensor is changed between them."""
    before, after = [
        await world.commit(lfs={FILE: weights(folder, one)}) for one in (BASE, fine_tuned(BASE, NAMES[:1]))
    ]
    return before, after


async def queue_two(tensors: TensorWorld, base: str, head: str) -> None:
    compared = await tensors.compare(base, head, at_once=0)
    assert not compared.complete
    assert len(await tensors.tasks()) == 2


async def until(happens: asyncio.Task[None], tensors: TensorWorld, attempts: int) -> TensorDigestTask:
    """Waits until a content is taken up."""
    while True:
        assert not happens.done()
        for task in await tensors.tasks():
            if task.attempts >= attempts and task.leased_until is not None:
                return task
        await asyncio.sleep(0.02)


async def test_what_is_large_is_read_later(stored: HooksWorld, tmp_path: Path) -> None:
    tensors = TensorWorld(stored)
    base, head = await two_commits(stored, tmp_path)
    found = await tensors.only(base, head, at_once=0)
    assert (told(found), found.difference.undecided) == ({}, 40)
    assert found.pending_bytes == 2 * len(weights(tmp_path, BASE))
    # Asked again, nothing is queued twice.
    assert await tensors.only(base, head, at_once=0) == found
    assert len(await tensors.tasks()) == 2
    assert await tensors.digester.run_due() == 2
    assert await tensors.tasks() == []
    compared = await tensors.compare(base, head, at_once=0)
    assert compared.complete
    assert told(compared.checkpoints[0]) == {"changed": {NAMES[0]}}
    assert await tensors.digester.run_due() == 0


async def test_large_files_of_git_are_read_too(
    world: HooksWorld, tensors: TensorWorld, tmp_path: Path
) -> None:
    """Over a mebibyte, where blobs stream."""
    model = base_model(8, side=400)
    name = max(model)
    base, head = [
        await world.commit({FILE: weights(tmp_path, one)}) for one in (model, fine_tuned(model, [name]))
    ]
    await queue_two(tensors, base, head)
    assert await tensors.digester.run_due() == 2
    assert told(await tensors.only(base, head)) == {"changed": {name}}


async def test_each_is_read_by_one_worker(world: HooksWorld, tensors: TensorWorld, tmp_path: Path) -> None:
    base, head = await two_commits(world, tmp_path)
    await queue_two(tensors, base, head)
    world.counting.bytes, world.counting.pause = 0, 0.02
    workers = [TensorWorld(world).digester for _ in range(4)]
    assert sum(await asyncio.gather(*(one.run_due() for one in workers))) == 2
    size = 2 * len(weights(tmp_path, BASE))
    assert size <= world.counting.bytes <= 3 * size  # headers are read first
    assert len(await tensors.rows()) == 2


async def test_it_goes_on_until_told_to_stop(world: HooksWorld, tensors: TensorWorld, tmp_path: Path) -> None:
    running = asyncio.create_task(tensors.digester.run_forever())
    try:
        _, head = await two_commits(world, tmp_path)
        lines = await world.received(TensorWorld(world).step)  # reads at once
        assert lines == (f"{FILE}: 1 of 40 tensors changed ({NAMES[0]}), 64.8 kB → 64.8 kB",)
        last = await world.commit(lfs={FILE: weights(tmp_path, base_model(seed=2))})
        await tensors.compare(head, last, at_once=0)
        tensors.digester.hint()
        async with asyncio.timeout(60):
            while not (await tensors.compare(head, last, at_once=0)).complete:  # noqa: ASYNC110
                await asyncio.sleep(0.02)
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


async def test_whoever_stops_gives_it_back(world: HooksWorld, tensors: TensorWorld, tmp_path: Path) -> None:
    base, head = await two_commits(world, tmp_path)
    await queue_two(tensors, base, head)
    world.counting.pause = 60
    running = asyncio.create_task(tensors.digester.run_forever())
    await until(running, tensors, 1)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    assert [(one.attempts, one.leased_until) for one in await tensors.tasks()] == [(0, None)] * 2
    world.counting.pause = 0
    assert await tensors.digester.run_due() == 2


async def test_a_lease_is_kept_and_ends(world: HooksWorld, tensors: TensorWorld, tmp_path: Path) -> None:
    base, head = await two_commits(world, tmp_path)
    await queue_two(tensors, base, head)
    queue = DigestQueue(world.database, poll_seconds=0.1)  # for three seconds
    held, other = await queue.claim(), await queue.claim()
    assert held
    assert other
    assert await queue.claim() is None
    ended = asyncio.Event()
    async with asyncio.TaskGroup() as group:
        group.create_task(held.keep(ended))
        await asyncio.sleep(3.3)
        again = await queue.claim()  # nobody kept the other one
        ended.set()
    assert again
    assert (again.file, again.attempts) == (other.file, 2)
    with pytest.raises(LeaseLost):
        await other.release()
    await other.drop()
    assert len(await tensors.tasks()) == 2
    await held.drop()
    await again.release()
    assert [one.attempts for one in await tensors.tasks()] == [1]


async def test_who_lost_it_stops_reading(world: HooksWorld, tmp_path: Path) -> None:
    tensors = TensorWorld(world, poll_seconds=0.1)
    base, head = await two_commits(world, tmp_path)
    await queue_two(tensors, base, head)
    world.counting.pause = 60
    running = asyncio.create_task(tensors.digester.run_forever())
    task = await until(running, tensors, 1)
    moment = now()
    async with world.database.transaction() as session:
        theirs = TensorDigestTask.digest == task.digest
        await session.execute(update(TensorDigestTask).where(theirs).values(leased_until=moment, attempts=5))
    async with asyncio.timeout(60):
        while not any(one.attempts == 1 and one.leased_until for one in await tensors.tasks()):  # noqa: ASYNC110
            await asyncio.sleep(0.05)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


async def test_an_outage_is_waited_for(world: HooksWorld, tensors: TensorWorld, tmp_path: Path) -> None:
    base, head = await two_commits(world, tmp_path)
    await queue_two(tensors, base, head)
    keys = await world.lfs.keys()
    kept = {key: world.lfs.store.local_path(key).read_bytes() for key in keys}  # type: ignore[attr-defined]
    for key in keys:
        await world.lfs.store.delete(key)
    for attempt in range(1, 5):
        assert await tensors.digester.run_due() == 2
        assert [one.attempts for one in await tensors.tasks()] == [attempt] * 2
        assert await tensors.digester.run_due() == 0
        async with world.database.transaction() as session:
            await session.execute(update(TensorDigestTask).values(due_at=now()))
    for key, data in kept.items():
        await world.lfs.put(key, data)
    assert await tensors.digester.run_due() == 2
    assert told(await tensors.only(base, head, at_once=0)) == {"changed": {NAMES[0]}}


async def test_what_kills_whoever_reads_it_is_given_up(
    world: HooksWorld, tensors: TensorWorld, tmp_path: Path
) -> None:
    base, head = await two_commits(world, tmp_path)
    await queue_two(tensors, base, head)
    async with world.database.transaction() as session:
        await session.execute(update(TensorDigestTask).values(attempts=5))
    assert await tensors.digester.run_due() == 0
    assert await tensors.tasks() == []


async def test_what_is_gone_is_dropped(world: HooksWorld, tensors: TensorWorld, tmp_path: Path) -> None:
    base, head = await two_commits(world, tmp_path)
    await queue_two(tensors, base, head)
    async with world.database.transaction() as session:
        await session.execute(update(LfsLink).values(trashed_at=now()))
    blob = VersionFile(FILE, "git:" + "1" * 40, 10, "safetensors")  # of a commit that was swept
    await tensors.queue.enqueue(world.repository.id, [blob])
    assert await tensors.digester.run_due() == 3
    assert (await tensors.tasks(), await tensors.rows()) == ([], [])


async def test_nothing_is_read_for_a_repository_that_is_deleted(
    world: HooksWorld, tensors: TensorWorld, tmp_path: Path
) -> None:
    base, head = await two_commits(world, tmp_path)
    await queue_two(tensors, base, head)
    [file, *_] = [VersionFile(one.path, one.digest, one.size, one.parser) for one in await tensors.tasks()]
    await world.lfs.core.repositories.delete(SYSTEM, world.repository.address)
    assert await tensors.tasks() == []
    with pytest.raises(RepositoryNotFound):
        await tensors.queue.enqueue(world.repository.id, [file])


async def test_a_content_of_another_repository_is_not_read(
    world: HooksWorld, tensors: TensorWorld, tmp_path: Path
) -> None:
    data = weights(tmp_path, BASE)
    await world.commit(lfs={FILE: data})
    other = await world.new_repository("thief")
    await world.commit({FILE: pointer_to(data)}, repository=other)
    [file] = (await world.versions.look(world.repository.id, await head_of(world))).files
    await tensors.queue.enqueue(other.id, [file])
    assert await tensors.digester.run_due() == 1
    assert (await tensors.tasks(), await tensors.rows()) == ([], [])


async def head_of(world: HooksWorld) -> str:
    state = await world.git.snapshots.state(world.repository.id)
    return state.refs["refs/heads/main"].oid


@contextmanager
def rss_growth(growth: list[int]) -> Iterator[None]:
    """Appends how much this process grew at most, in bytes."""
    before, stop = memory(os.getpid(), "Rss"), threading.Event()
    most = [before]

    def watch() -> None:
        while not stop.wait(0.02):
            most.append(memory(os.getpid(), "Rss"))

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
        growth.append(max(most) - before)


@pytest.mark.slow
async def test_memory_is_flat(world: HooksWorld, tensors: TensorWorld) -> None:
    """600 MB in one tensor of 500 MB and many small ones."""
    sizes = [500 * MIB, *[10_000] * 10_000]
    header, end = {}, 0
    for number, size in enumerate(sizes):
        header[f"t{number}"] = entry(end, end + size, "U8", (size,))
        end += size
    text = json.dumps(header).encode()
    head = struct.pack("<Q", len(text)) + text
    oid, size = "a" * 64, len(head) + end
    assert size > 600 * 1000**2
    await world.adopt_sparse(oid, size, head)
    await tensors.queue.enqueue(
        world.repository.id, [VersionFile(FILE, f"sha256:{oid}", size, "safetensors")]
    )
    growth: list[int] = []
    world.counting.bytes = 0
    with rss_growth(growth):
        assert await tensors.digester.run_due() == 1
    assert len(await tensors.rows()) == 1
    assert growth[0] < 150 * MIB, f"{growth[0] / MIB:.0f} MiB"
    assert world.counting.bytes < size + 12 * MIB
