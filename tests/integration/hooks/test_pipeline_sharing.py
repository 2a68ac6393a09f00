"""The post-receive pipeline in several processes: two of them on one queue."""

import asyncio
import random
from collections import defaultdict
from datetime import timedelta

import pytest

from core.database import Database
from core.errors import Unavailable
from core.models import now
from core.settings import HooksSettings
from hooks.pipeline import Pipeline, ReceivedPush, Report
from hooks.queueing import HeldPush, PushQueue
from tests.support.push_queue import (
    Step,
    change_task,
    drained,
    new_push,
    new_repository,
    running,
    tasks,
    until,
)

# Each finds work only by being told of it.
NEVER_POLLS = HooksSettings(poll_seconds=3600.0, report_seconds=300.0)


@pytest.fixture
async def repository(database: Database) -> str:
    return await new_repository(database)


async def test_nobody_waits_for_what_was_done_elsewhere(database: Database, repository: str) -> None:
    push_id = await new_push(database, repository)
    elsewhere = Pipeline(database, [Step("one")], NEVER_POLLS)
    assert await elsewhere.run_due() == 1
    step = Step("one")
    pipeline = Pipeline(database, [step], NEVER_POLLS)
    async with running(pipeline):
        async with asyncio.timeout(60):
            assert await pipeline.received(push_id) == ()
    assert not step.began


async def test_what_another_process_had_to_do_first_is_followed_up_at_once(
    database: Database, repository: str
) -> None:
    """The other one, busy elsewhere from then on, tells nobody that the repository is free again."""
    first = await new_push(database, repository)
    held = await PushQueue(database, timedelta(seconds=60)).claim()
    assert held is not None
    assert held.push.id == first
    second = await new_push(database, repository)
    pipeline = Pipeline(database, [Step("one", _tell)], NEVER_POLLS)
    async with running(pipeline):
        waiting = asyncio.ensure_future(pipeline.received(second))
        await asyncio.sleep(0.6)
        assert not waiting.done()
        await held.finish()
        async with asyncio.timeout(60):
            assert await waiting == ("done",)


async def _tell(push: ReceivedPush, report: Report) -> None:
    report.say("done")


async def test_whoever_leaves_before_anything_begins_leaves_nothing_behind(
    database: Database, repository: str
) -> None:
    held = await _held(database, repository, seconds=60)
    pipeline = Pipeline(database, [Step("one")], NEVER_POLLS)
    second = await new_push(database, repository)
    async with running(pipeline):
        waiting = asyncio.ensure_future(pipeline.received(second))
        await until(lambda: second in pipeline._works)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert not pipeline._works
    await held.finish()


async def test_a_renewal_that_comes_late_takes_nothing_back(database: Database, repository: str) -> None:
    held = await _held(database, repository, seconds=1)
    ended = asyncio.Event()
    keeping = asyncio.ensure_future(held.keep(ended))
    await held.postpone(timedelta(hours=1))
    await asyncio.sleep(0.6)
    assert [task.leased_until for task in (await tasks(database)).values()] == [None]
    ended.set()
    await keeping


async def _held(database: Database, repository: str, *, seconds: float) -> HeldPush:
    await new_push(database, repository)
    held = await PushQueue(database, timedelta(seconds=seconds)).claim()
    assert held is not None
    return held


async def test_workers_share_the_queue(database_url: str) -> None:
    """Two workers with places for three each: every push once, a repository's in order and one at a time."""
    databases = [Database(database_url) for _ in range(2)]
    under_way: set[str] = set()
    overlaps: list[int] = []
    order: dict[str, list[int]] = defaultdict(list)
    workers: list[list[int]] = [[], []]

    async def note(push: ReceivedPush, report: Report) -> None:
        if push.repository.id in under_way:
            overlaps.append(push.id)
        under_way.add(push.repository.id)
        await asyncio.sleep(random.uniform(0, 0.01))
        under_way.discard(push.repository.id)
        order[push.repository.id].append(push.id)

    steps = [Step("one", note, began=began) for began in workers]
    settings = HooksSettings(poll_seconds=0.05, workers=3)
    pipelines = [Pipeline(one, [step], settings) for one, step in zip(databases, steps, strict=True)]
    try:
        repositories = [await new_repository(databases[0], f"r{number}") for number in range(4)]
        pushes: dict[str, list[int]] = defaultdict(list)
        async with running(*pipelines):
            for number in range(60):
                repository = repositories[number % 4]
                pushes[repository].append(await new_push(databases[0], repository))
                pipelines[number % 2].hint(repository)
            await drained(databases[0])
        assert not overlaps
        assert order == pushes
        assert all(workers), "one of them did nothing"
        assert sorted(workers[0] + workers[1]) == sorted(id_ for ids in pushes.values() for id_ in ids)
    finally:
        for one in databases:
            await one.close()


async def test_what_is_tried_again_never_runs_beside_another(database_url: str) -> None:
    """Two workers, and tasks that become due while later ones are held: a repository's are never at once."""
    databases = [Database(database_url) for _ in range(2)]
    under_way: set[str] = set()
    overlaps: list[int] = []

    async def fail_often(push: ReceivedPush, report: Report) -> None:
        if push.repository.id in under_way:
            overlaps.append(push.id)
        under_way.add(push.repository.id)
        await asyncio.sleep(random.uniform(0, 0.01))
        under_way.discard(push.repository.id)
        if step.began.count(push.id) < 4:
            raise Unavailable("not yet")

    step = Step("one", fail_often)
    settings = HooksSettings(poll_seconds=0.05, workers=3)
    try:
        repositories = [await new_repository(databases[0], f"r{number}") for number in range(2)]
        pushes = [await new_push(databases[0], repositories[number % 2]) for number in range(16)]
        async with running(*(Pipeline(one, [step], settings) for one in databases)):
            async with asyncio.timeout(60):
                while left := await tasks(databases[0]):
                    for push_id, task in left.items():
                        if task.attempts and task.leased_until is None:
                            await change_task(databases[0], push_id, due_at=now())
                    await asyncio.sleep(0.02)
        assert not overlaps
        assert {step.began.count(push_id) for push_id in pushes} == {4}
        assert len(step.ended) == len(pushes)
    finally:
        for one in databases:
            await one.close()
