"""Many workers on one queue: order within a stream, nothing sent twice, nobody waits for a stranger."""

import asyncio
import random
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager

import pytest
from aiohttp import web
from sqlalchemy import select, update

from core.database import Database
from core.models import Delivery, DeliveryState, DeliveryStream, OutboxEvent
from core.outbox import EventName, emit
from core.settings import Settings
from gitserver.publish import lock_repository
from modelyard.notifying import Notifying, open_notifying
from tests.support.webhook_receiver import Received, Receiver, answering, running_receiver, silent
from tests.support.webhook_world import KEY, WebhookWorld, webhook_settings, webhook_world
from webhooks import fanout
from webhooks.outcomes import Answer, Outcome
from webhooks.scopes import WebhookScope
from webhooks.streams import feed

OWNER = WebhookScope(owner="ann")


@asynccontextmanager
async def working(*workers: Notifying) -> AsyncIterator[None]:
    """Lets them work as a server does."""
    tasks = [asyncio.ensure_future(worker.run_forever()) for worker in workers]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    """Returns when it is true; the test's own time limit ends it otherwise."""
    while not await condition():  # noqa: ASYNC110 - the database sets no event
        await asyncio.sleep(0.05)


async def test_many_workers_many_pushers(database_url: str, database: Database) -> None:
    """Each worker with connections of its own, as a process has."""
    chance = random.Random(1)

    async def unreliable(received: Received) -> web.StreamResponse:
        drawn = chance.random()
        if drawn < 0.02:
            return await silent()(received)
        return await answering(500 if drawn < 0.2 else 200)(received)

    async with AsyncExitStack() as stack:
        receiver = await stack.enter_async_context(running_receiver())
        world = await stack.enter_async_context(webhook_world(database))
        settings = Settings(webhooks=webhook_settings())
        workers = [world.notifying]
        for _ in range(2):
            other = Database(database_url)
            stack.push_async_callback(other.close)
            workers.append(await stack.enter_async_context(open_notifying(settings, KEY, other)))
        receiver.behave = unreliable
        _, secret = await world.subscribe(receiver, "push", scope=OWNER)
        repositories = [await world.core.repository(f"ann/r{number}") for number in range(4)]

        async def push(number: int) -> None:
            for count in range(30):
                await world.happen(1000 * number + count, repository=repositories[number])

        async def nothing_pends() -> bool:
            return all(one.state != DeliveryState.PENDING for one in await world.deliveries())

        async with working(*workers):
            await asyncio.gather(*(push(number) for number in range(4)))
            await receiver.wait_for(120)
            await until(nothing_pends)
        attempts = {(one.delivery_id, one.number) for one in await world.attempts()}
    sent = [one.attempt for one in receiver.requests]
    assert len(sent) == len(set(sent))
    assert set(sent) <= attempts  # some may have timed out on their way
    arrived: dict[str, list[int]] = defaultdict(list)
    for one in receiver.accepted:
        one.verify(secret)
        arrived[one.repository].append(one.data["push_id"])
    # Twice, where the answer came too late.
    order = {name: list(dict.fromkeys(told)) for name, told in arrived.items()}
    assert order == {f"ann/r{n}": [1000 * n + count for count in range(30)] for n in range(4)}


async def test_an_event_that_becomes_visible_late(world: WebhookWorld, receiver: Receiver) -> None:
    """Its id is lower than one that was told already; on SQLite the writers queue, and nothing is late."""
    await world.subscribe(receiver, scope=OWNER)
    other = await world.core.repository("ann/other")
    await world.tell()
    receiver.requests.clear()
    if world.database.dialect == "sqlite":
        await world.happen(1)
        await world.happen(2, repository=other)
    else:
        async with world.database.transaction() as session:
            await lock_repository(session, world.repository.id)
            emit(session, EventName.PUSH, world.repository.id, {"push_id": 1, "updates": []})
            await session.flush()
            await world.happen(2, repository=other)
            # A push into the same repository waits for the first one, so it cannot be told before it.
            waiting = asyncio.ensure_future(world.happen(3))
            await asyncio.sleep(0.1)
            assert not waiting.done()
            assert await world.notifying.fanout.run_due() == 1
        await waiting
    await world.tell()
    async with world.database.read() as session:
        assert all(one.handled_at is not None for one in await session.scalars(select(OutboxEvent)))
    here = [one.data["push_id"] for one in receiver.accepted if one.repository == "ann/net"]
    assert here == ([1] if world.database.dialect == "sqlite" else [1, 3])


async def test_failures_hold_up_their_own_stream_only(world: WebhookWorld, receiver: Receiver) -> None:
    other = await world.core.repository("ann/other")

    async def picky(received: Received) -> web.StreamResponse:
        bad = received.path == "/picky" and received.repository == "ann/net"
        return await answering(500 if bad else 200)(received)

    receiver.behave = picky
    await world.subscribe(f"{receiver.base}/picky", "push", scope=OWNER)
    await world.subscribe(f"{receiver.base}/happy", "push", scope=OWNER)
    for number in range(3):
        await world.happen(number)
        await world.happen(10 + number, repository=other)
    await world.tell()
    seen = {(one.path, one.data["push_id"]) for one in receiver.accepted}
    assert seen == {("/happy", n) for n in (0, 1, 2, 10, 11, 12)} | {("/picky", n) for n in (10, 11, 12)}
    failed = {one.data["push_id"] for one in receiver.requests if not one.accepted}
    assert failed == {0}, "those behind it were not tried"


async def test_a_slow_receiver_leaves_places_to_others(database: Database, receiver: Receiver) -> None:
    async with (
        webhook_world(database, concurrent_deliveries=8, timeout_seconds=300.0) as world,
        running_receiver() as slow,
    ):
        slow.behave = silent(290)
        repositories = [await world.core.repository(f"ann/r{number}") for number in range(12)]
        await world.subscribe(slow, "push", scope=OWNER)
        await world.subscribe(f"{slow.base}/again", "push", scope=OWNER)
        await world.notifying.fanout.run_due()
        async with working(world.notifying):
            for number, repository in enumerate(repositories):
                await world.happen(number, repository=repository)
            await slow.wait_for_requests(2)
            await world.subscribe(receiver, "push", scope=OWNER)
            for number, repository in enumerate(repositories):
                await world.happen(100 + number, repository=repository)
            await receiver.wait_for(12)
            assert len(slow.requests) == 2, "a quarter of the places"


async def test_a_worker_that_is_stopped_hands_over(database: Database) -> None:
    async with (
        webhook_world(database, timeout_seconds=20.0) as world,
        running_receiver() as receiver,
    ):
        receiver.behave = silent(30)
        await world.subscribe(receiver, "push")
        await world.happen(1)
        async with working(world.notifying):
            await receiver.wait_for_requests(1)
        (attempt,) = await world.attempts()
        assert attempt.outcome == "interrupted"
        receiver.behave = answering(200)
        assert await world.tell() == 1, "at once, whatever the lease was"
        assert [one.attempt[1] for one in receiver.requests] == [1, 2]


async def test_a_worker_that_died_is_replaced_after_its_lease(database: Database, receiver: Receiver) -> None:
    async with webhook_world(database, timeout_seconds=0.5) as world:
        await world.subscribe(receiver, "push")
        await world.happen(1)
        await world.notifying.fanout.run_due()
        (claim,) = await world.notifying.deliveries._claims.claim(10, {})  # and nobody ever completes it
        assert await world.tell() == 0
        async with database.read() as session:
            stream = (await session.scalars(select(DeliveryStream))).one()
        assert stream.leased_until == claim.leased_until
        async with working(world.notifying):
            (got,) = await receiver.wait_for(1)
        assert got.attempt >= (claim.delivery_id, 2)
        outcomes = [one.outcome for one in await world.attempts()]
        assert (outcomes[0], outcomes[-1]) == (None, "delivered")
        # The dead one comes back, and has nothing to say any more.
        await world.notifying.deliveries._claims.complete(claim, Answer(Outcome.FAILED, error="late"))
        assert [one.outcome for one in await world.attempts()] == ["failed", *outcomes[1:]]
        assert [one.state for one in await world.deliveries()] == [DeliveryState.DELIVERED]


async def test_commits_are_told_without_waiting_for_the_next_look(
    database: Database, receiver: Receiver
) -> None:
    async with webhook_world(database, poll_seconds=3600.0) as world:
        await world.subscribe(receiver, "push")
        async with working(world.notifying):
            await asyncio.sleep(0.1)
            for number in range(3):
                await world.happen(number)
                await receiver.wait_for(number + 1)


async def test_an_end_queues_behind_those_who_claim_and_feed(world: WebhookWorld, receiver: Receiver) -> None:
    """An answer of 410 ends all streams of a subscription, locked in the order of all others."""
    webhook_id, _ = await world.subscribe(receiver, "push", scope=OWNER)
    repositories = [world.repository, await world.core.repository("ann/other")]
    for number, repository in enumerate(repositories):
        await world.happen(number, repository=repository)
    await world.notifying.fanout.run_due()
    first, last = sorted((webhook_id, one.id) for one in repositories)
    claims = world.notifying.deliveries._claims
    (claim,) = await claims.claim(10, {}, last)
    async with world.database.transaction() as session:
        await session.get_one(DeliveryStream, first, with_for_update=True)
        ending = asyncio.ensure_future(claims.complete(claim, Answer(Outcome.GONE)))
        await asyncio.sleep(0.3)
        await session.execute(update(Delivery).where(Delivery.repository_id == first[1]).values(attempts=1))
        await feed(session, [last])
    await ending
    assert [one.state for one in await world.deliveries()] == [DeliveryState.CANCELLED] * 2


async def test_upkeep_waits_for_nobody_who_feeds(world: WebhookWorld, receiver: Receiver) -> None:
    webhook_id, _ = await world.subscribe(receiver, "push", scope=OWNER)
    first, last = (webhook_id, "a" * 32), (webhook_id, "b" * 32)
    for key in (last, first):
        async with world.database.transaction() as session:
            await feed(session, [key])
            await session.execute(update(DeliveryStream).values(due_at=None))
    async with world.database.transaction() as session:
        await feed(session, [first])
        upkeep = asyncio.ensure_future(world.notifying.upkeep.run())
        await asyncio.sleep(0.3)
        await feed(session, [last])
    await upkeep
    async with world.database.transaction() as session:
        await session.execute(update(DeliveryStream).values(due_at=None))
    await world.notifying.upkeep.run()
    async with world.database.read() as session:
        assert (await session.scalars(select(DeliveryStream))).all() == []


async def test_long_bodies_are_written_in_several_transactions(
    world: WebhookWorld, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fanout, "_CHARACTERS", 2000)
    await world.subscribe(receiver, "push", scope=OWNER)
    for number in range(6):
        await world.happen(number, note="x" * 1000)
    assert await world.notifying.fanout.run_due() == 6
    async with world.database.read() as session:
        pushes = select(OutboxEvent.handled_at).where(OutboxEvent.name == EventName.PUSH)
        assert len(set(await session.scalars(pushes))) == 3
    await world.tell()
    assert [one.data["push_id"] for one in receiver.accepted] == list(range(6))
