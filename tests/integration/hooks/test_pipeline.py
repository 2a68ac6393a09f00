"""The post-receive pipeline on real databases: order, sharing, failures, and what whoever pushed is told."""

import asyncio
from datetime import timedelta

import pytest
from sqlalchemy import delete

from core.database import Database
from core.errors import RepositoryNotFound, Unavailable
from core.models import Repository, now
from core.settings import HooksSettings
from hooks.pipeline import Pipeline, ReceivedPush, Report
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

# Nobody finds work by looking for it: only by being told, as `hint` does, and `received` after a moment.
NEVER_POLLS = HooksSettings(poll_seconds=3600.0)


@pytest.fixture
async def repository(database: Database) -> str:
    return await new_repository(database)


async def test_steps_run_in_order_and_tell(database: Database, repository: str) -> None:
    seen: list[ReceivedPush] = []

    async def tell(push: ReceivedPush, report: Report) -> None:
        seen.append(push)
        report.say(f"say \x1b[31m{len(seen)}")

    pipeline = Pipeline(database, [Step("one", tell), Step("two", tell)], NEVER_POLLS)
    push_id = await new_push(database, repository)
    async with running(pipeline):
        assert await pipeline.received(push_id) == ("say \\x1b[31m1", "say \\x1b[31m2")
    assert [push.id for push in seen] == [push_id, push_id]
    assert seen[0].repository.path == "ann/model"
    assert [(one.name, one.old, one.new) for one in seen[0].updates] == [
        ("refs/heads/main", "0" * 40, "1" * 40)
    ]
    assert seen[0].options == ("skip",)
    assert await tasks(database) == {}


async def test_a_report_made_before_it_is_asked_for_is_kept(database: Database, repository: str) -> None:
    async def tell(push: ReceivedPush, report: Report) -> None:
        report.say("early")

    step = Step("one", tell)
    pipeline = Pipeline(database, [step], NEVER_POLLS)
    async with running(pipeline):
        push_id = await new_push(database, repository)
        pipeline.hint(repository)
        await until(lambda: step.ended)
        assert await pipeline.received(push_id) == ("early",)


async def test_whoever_waits_for_long_is_told_what_is_left(database: Database, repository: str) -> None:
    go_on = asyncio.Event()

    async def wait(push: ReceivedPush, report: Report) -> None:
        report.say("begun")
        await go_on.wait()

    slow = Step("slow", wait)
    settings = HooksSettings(poll_seconds=3600.0, report_seconds=4.0)
    pipeline = Pipeline(database, [Step("quick"), slow, Step("last")], settings)
    push_id = await new_push(database, repository)
    async with running(pipeline):
        lines = await pipeline.received(push_id)
        assert lines == ("begun", f"push {push_id} is still being worked on: slow, last")
        assert (await tasks(database))[push_id].done == ["quick"]
        go_on.set()
        await drained(database)
    assert slow.ended == [push_id]


async def test_what_may_run_again_is_stored_before_what_may_not(database: Database, repository: str) -> None:
    go_on = asyncio.Event()
    steps = [
        Step("first"),
        Step("second", lambda push, report: wait_for(go_on)),
        Step("third", lambda push, report: asyncio.sleep(3600)),
    ]
    pipeline = Pipeline(database, steps, NEVER_POLLS, repeatable=["first", "second"])
    push_id = await new_push(database, repository)
    async with running(pipeline):
        pipeline.hint(repository)
        await until(lambda: steps[1].began)
        assert (await tasks(database))[push_id].done == []
        go_on.set()
        await until(lambda: steps[2].began)
        assert (await tasks(database))[push_id].done == ["first", "second"]


async def test_what_was_not_stored_is_when_another_step_fails(database: Database, repository: str) -> None:
    async def fail(push: ReceivedPush, report: Report) -> None:
        raise Unavailable("the store is away")

    steps = [Step("first"), Step("second", fail), Step("third")]
    pipeline = Pipeline(database, steps, NEVER_POLLS, repeatable=["first", "second", "third"])
    push_id = await new_push(database, repository)
    async with running(pipeline):
        await pipeline.received(push_id)
        assert (await tasks(database))[push_id].done == ["first", "third"]


async def test_whoever_leaves_stops_nothing(database: Database, repository: str) -> None:
    go_on = asyncio.Event()
    step = Step("one", lambda push, report: wait_for(go_on))
    pipeline = Pipeline(database, [step], NEVER_POLLS)
    push_id = await new_push(database, repository)
    async with running(pipeline):
        waiting = asyncio.ensure_future(pipeline.received(push_id))
        await until(lambda: step.began)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        go_on.set()
        await drained(database)
    assert step.ended == [push_id]


async def wait_for(event: asyncio.Event) -> None:
    await event.wait()


async def test_nobody_waits_where_nothing_works(database: Database, repository: str) -> None:
    push_id = await new_push(database, repository)
    step = Step("one")
    pipeline = Pipeline(database, [step], NEVER_POLLS)
    assert await pipeline.received(push_id) == ()
    assert not step.began
    assert await pipeline.run_due() == 1
    assert step.ended == [push_id]
    impatient = Pipeline(database, [step], HooksSettings(poll_seconds=3600.0, report_seconds=0))
    async with running(impatient):
        assert await impatient.received(await new_push(database, repository)) == ()


async def test_pushes_of_a_repository_are_in_order_and_others_beside(
    database: Database, repository: str
) -> None:
    go_on = asyncio.Event()
    first = await new_push(database, repository)
    second = await new_push(database, repository)
    elsewhere = await new_push(database, await new_repository(database, "other"))

    async def wait(push: ReceivedPush, report: Report) -> None:
        if push.id == first:
            await go_on.wait()

    step = Step("one", wait)
    pipeline = Pipeline(database, [step], NEVER_POLLS)
    async with running(pipeline):
        async with asyncio.timeout(60):
            await pipeline.received(elsewhere)
        waiting = asyncio.ensure_future(pipeline.received(second))
        await asyncio.sleep(0.2)
        assert sorted(step.began) == [first, elsewhere]
        go_on.set()
        await waiting
    assert step.ended == [elsewhere, first, second]


async def test_whoever_waits_comes_before_a_backlog(database: Database) -> None:
    for number in range(5):
        await new_push(database, await new_repository(database, f"r{number}"))
    late = await new_repository(database, "late")
    mine = [await new_push(database, late) for _ in range(2)]
    step = Step("one", lambda push, report: asyncio.sleep(0.02))
    pipeline = Pipeline(database, [step], HooksSettings(poll_seconds=3600.0, workers=1))
    async with running(pipeline):
        await pipeline.received(mine[1])
        assert [one for one in step.ended if one in mine] == mine
        assert len(step.ended) <= 3


async def test_only_what_failed_is_tried_again(database: Database, repository: str) -> None:
    reasons: list[Exception] = [Unavailable("the store is away"), ValueError("hunter2")]

    async def fail(push: ReceivedPush, report: Report) -> None:
        if reasons:
            raise reasons.pop(0)

    steps = [Step("one"), Step("two", fail), Step("three")]
    pipeline = Pipeline(database, steps, NEVER_POLLS)
    push_id = await new_push(database, repository)
    begun = now()
    async with running(pipeline):
        assert await pipeline.received(push_id) == ("two: the store is away; it will be tried again",)
        task = (await tasks(database))[push_id]
        assert (task.done, task.attempts, task.leased_until) == (["one", "three"], 1, None)
        assert task.due_at - begun > timedelta(seconds=4)
        assert task.due_at - now() < timedelta(seconds=10)

        # Due before the other comes: a worker may still be looking whether there is more.
        begun = now()
        await change_task(database, push_id, due_at=begun)
        later = await new_push(database, repository)
        assert await pipeline.received(later) == ()
        task = (await tasks(database))[push_id]
        assert (task.done, task.attempts) == (["one", "three"], 2)
        assert task.due_at - begun > timedelta(seconds=9)
        assert task.due_at - now() < timedelta(seconds=20)
        await change_task(database, push_id, due_at=now())
        await pipeline.run_due()  # if nobody did it that looked whether there is more
        await drained(database)
    assert [step.began.count(push_id) for step in steps] == [1, 3, 1]
    assert steps[1].began == [push_id, push_id, later, push_id]


async def test_a_fault_is_not_shown(database: Database, repository: str) -> None:
    async def fail(push: ReceivedPush, report: Report) -> None:
        raise ValueError("hunter2")

    pipeline = Pipeline(database, [Step("one", fail)], NEVER_POLLS)
    async with running(pipeline):
        push_id = await new_push(database, repository)
        assert await pipeline.received(push_id) == ("one: failed; it will be tried again",)


async def test_a_step_that_cancels_itself_ends_no_worker(database: Database, repository: str) -> None:
    async def leave(push: ReceivedPush, report: Report) -> None:
        if push.id == first:
            raise asyncio.CancelledError

    step = Step("one", leave)
    pipeline = Pipeline(database, [step], HooksSettings(poll_seconds=3600.0, workers=1))
    first = await new_push(database, repository)
    async with running(pipeline):
        assert await pipeline.received(first) == ("one: failed; it will be tried again",)
        assert await pipeline.received(await new_push(database, repository)) == ()
    assert list(await tasks(database)) == [first]


async def test_what_waits_for_another_try_lets_others_pass(database: Database, repository: str) -> None:
    parked = await new_push(database, repository, attempts=1, due_at=now() + timedelta(hours=1))
    later = await new_push(database, repository)
    step = Step("one")
    pipeline = Pipeline(database, [step], NEVER_POLLS)
    assert await pipeline.run_due() == 1
    assert step.ended == [later]
    assert list(await tasks(database)) == [parked]


async def test_a_clock_that_is_ahead_delays_nothing(database: Database, repository: str) -> None:
    """Written by another machine: new pushes are due whatever the time."""
    first = await new_push(database, repository, due_at=now() + timedelta(minutes=1))
    second = await new_push(database, repository)
    step = Step("one")
    assert await Pipeline(database, [step], NEVER_POLLS).run_due() == 2
    assert step.ended == [first, second]


@pytest.mark.parametrize("attempts", [9, 10])
async def test_it_is_given_up_at_last(database: Database, repository: str, attempts: int) -> None:
    """The tenth failure is the last; and what was taken up ten times without any end is not run at all."""

    async def fail(push: ReceivedPush, report: Report) -> None:
        raise Unavailable("never")

    steps = [Step("one", fail), Step("two")]
    push_id = await new_push(database, repository, attempts=attempts)
    assert await Pipeline(database, steps, NEVER_POLLS).run_due() == 1
    assert [step.began for step in steps] == ([[push_id]] * 2 if attempts == 9 else [[], []])
    assert await tasks(database) == {}


async def test_the_push_of_a_dead_worker_is_caught_up(database: Database, repository: str) -> None:
    steps = [Step("one"), Step("two")]
    dead = await new_push(
        database, repository, done=["one"], attempts=1, leased_until=now() + timedelta(seconds=4)
    )
    later = await new_push(database, repository)
    pipeline = Pipeline(database, steps, HooksSettings(poll_seconds=0.2))
    assert await pipeline.run_due() == 0
    async with running(pipeline):
        await drained(database)
    assert steps[0].ended == [later]
    assert steps[1].ended == [dead, later]


async def test_a_stopped_worker_gives_back_what_it_holds(database: Database, repository: str) -> None:
    steps = [Step("one"), Step("two", lambda push, report: asyncio.sleep(3600))]
    pipeline = Pipeline(database, steps, NEVER_POLLS)
    push_id = await new_push(database, repository)
    async with running(pipeline):
        waiting = asyncio.ensure_future(pipeline.received(push_id))
        await until(lambda: steps[1].began)
    assert await waiting == (f"push {push_id} is still being worked on: two",)
    task = (await tasks(database))[push_id]
    assert (task.done, task.attempts, task.leased_until) == (["one"], 0, None)


async def test_leases_are_renewed_and_what_was_taken_over_is_let_go(
    database: Database, repository: str
) -> None:
    step = Step("one", lambda push, report: asyncio.sleep(3600))
    push_id = await new_push(database, repository)
    async with running(Pipeline(database, [step], HooksSettings(poll_seconds=0.5))):
        await until(lambda: step.began)
        first = (await tasks(database))[push_id].leased_until
        assert first is not None
        async with asyncio.timeout(60):
            while (await tasks(database))[push_id].leased_until == first:  # noqa: ASYNC110
                await asyncio.sleep(0.05)
        theirs = now() + timedelta(seconds=60)
        await change_task(database, push_id, leased_until=theirs)
        await asyncio.sleep(1.5)
        assert (await tasks(database))[push_id].leased_until == theirs
        # It works on: another push of another repository is taken up, though both places were not free.
        other = await new_push(database, await new_repository(database, "other"))
        await until(lambda: other in step.began)
    assert (await tasks(database))[push_id].leased_until == theirs


async def test_deleted_meanwhile(database: Database, repository: str) -> None:
    async def delete_it(push: ReceivedPush, report: Report) -> None:
        async with database.transaction() as session:
            await session.execute(delete(Repository).where(Repository.id == push.repository.id))

    async def miss_it(push: ReceivedPush, report: Report) -> None:
        raise RepositoryNotFound("no such repository")

    steps = [Step("one", delete_it), Step("two", miss_it), Step("three")]
    pipeline = Pipeline(database, steps[1:], NEVER_POLLS)
    push_id = await new_push(database, repository)
    assert await pipeline.run_due() == 1
    assert steps[2].ended == [push_id]
    await new_push(database, repository)
    assert await Pipeline(database, steps, NEVER_POLLS).run_due() == 1
    assert len(steps[2].ended) == 1
    assert await tasks(database) == {}
