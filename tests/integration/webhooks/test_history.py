"""What the history tells, doing it again, giving up, and forgetting."""

import asyncio
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import select, update

from core.access import SYSTEM
from core.audit import Action
from core.models import (
    Attempt,
    AuditEntry,
    Delivery,
    DeliveryState,
    DeliveryStream,
    OutboxEvent,
)
from core.outbox import EventName
from tests.support.webhook_receiver import Receiver, answering
from tests.support.webhook_world import WebhookWorld
from webhooks.errors import DeliveryNotFound, WebhookPaused
from webhooks.outcomes import Outcome
from webhooks.scopes import WebhookScope
from webhooks.upkeep import UpkeepReport

OWNER = WebhookScope(owner="ann")


async def finish_all(world: WebhookWorld, state: DeliveryState) -> None:
    """As if all pending ones had ended so."""
    async with world.database.transaction() as session:
        await session.execute(
            update(Delivery)
            .where(Delivery.finished_at.is_(None))
            .values(state=state, finished_at=datetime.now(UTC))
        )


async def test_lists_have_pages_and_filters(world: WebhookWorld, receiver: Receiver) -> None:
    history = world.notifying.history
    other = await world.core.repository("ann/other")
    first, _ = await world.subscribe(receiver, "push", "tag", scope=OWNER)
    second, _ = await world.subscribe("http://127.0.0.1:9/", "push", scope=OWNER)
    begun = datetime.now(UTC)
    for number in range(3):
        await world.happen(number)
        await world.happen(10 + number, EventName.TAG, repository=other)
    await world.tell()
    everything = await history.list(world.ann, OWNER)
    assert len(everything) == 9
    assert [one.cursor for one in everything] == sorted((one.cursor for one in everything), reverse=True)
    pages = []
    before = None
    while page := await history.list(world.ann, OWNER, limit=2, before=before):
        pages += page
        before = page[-1].cursor
    assert pages == everything

    delivered = await history.list(world.ann, OWNER, first)
    assert {(one.state, one.last_outcome, one.last_status) for one in delivered} == {
        (DeliveryState.DELIVERED, Outcome.DELIVERED, 200)
    }
    assert {one.next_attempt_at for one in delivered} == {None}
    waiting = await history.list(world.ann, OWNER, second)
    assert [one.attempts > 0 for one in waiting] == [False, False, True]
    assert [one.next_attempt_at is not None for one in waiting] == [False, False, True]
    assert waiting[2].last_outcome is Outcome.UNREACHABLE

    async def count(**filters: object) -> int:
        return len(await history.list(world.ann, OWNER, **filters))  # type: ignore[arg-type]

    assert await count(state=DeliveryState.PENDING) == 3
    assert await count(event="tag") == 3
    assert await count(event="a\0b") == 0
    assert await count(repository_id=other.id) == 3
    assert await count(since=begun) == 9
    assert await count(until=begun) == 0
    assert await count(before=(0, "\0")) == 0
    # The scope of the repository has subscriptions of its own, and these are none of them.
    assert await history.list(world.ann, world.scope) == []
    with pytest.raises(DeliveryNotFound):
        await history.get(world.ann, OWNER, first, waiting[0].id)
    with pytest.raises(DeliveryNotFound):
        await history.get(world.ann, OWNER, first, "msg_\0")


async def test_one_some_and_a_time_range_come_again(world: WebhookWorld, receiver: Receiver) -> None:
    history = world.notifying.history
    webhook_id, secret = await world.subscribe(receiver, "push")
    for number in range(5):
        await world.happen(number)
    await world.tell()
    ids = [one.delivery_id for one in receiver.accepted]
    receiver.requests.clear()

    assert await history.redeliver(world.ann, world.scope, webhook_id, [ids[3]]) == 1
    await world.tell()
    assert [one.attempt for one in receiver.accepted] == [(ids[3], 2)]
    receiver.accepted[0].verify(secret)

    assert await history.redeliver(world.ann, world.scope, webhook_id, [ids[2], ids[0], ids[2]]) == 2
    await world.tell()
    assert [one.delivery_id for one in receiver.accepted[1:]] == [ids[0], ids[2]], "in their old order"

    with pytest.raises(DeliveryNotFound):
        await history.redeliver(world.ann, world.scope, webhook_id, [ids[1], "msg_other"])
    assert await world.tell() == 0

    receiver.requests.clear()
    deliveries = await world.deliveries()
    since, until = deliveries[1].created_at, deliveries[4].created_at + timedelta(seconds=1)
    span = (world.ann, world.scope, webhook_id, since, until)
    assert await history.redeliver_between(*span) == 0, "those that were delivered need not come again"
    assert await history.redeliver_between(*span, states=[DeliveryState.DELIVERED], event="tag") == 0
    count = await history.redeliver_between(*span, states=[DeliveryState.DELIVERED])
    await world.tell()
    again = [one.delivery_id for one in receiver.accepted]
    assert again == ids[5 - count :]
    async with world.database.read() as session:
        query = select(AuditEntry).where(AuditEntry.action == Action.WEBHOOK_REDELIVER)
        assert [one.details["deliveries"] for one in await session.scalars(query)][:2] == [1, 2]


async def test_dead_letters_come_before_what_waits(world: WebhookWorld, receiver: Receiver) -> None:
    history = world.notifying.history
    receiver.behave = answering(500)
    webhook_id, _ = await world.subscribe(receiver, "push")
    for number in range(3):
        await world.happen(number)
    await world.notifying.fanout.run_due()
    await finish_all(world, DeliveryState.DEAD)
    await world.happen(3)
    await world.notifying.fanout.run_due()
    await world.notifying.deliveries.run_due()
    dead = await history.list(world.ann, world.scope, state=DeliveryState.DEAD)
    assert len(dead) == 3
    hour = timedelta(hours=1)
    at = datetime.now(UTC)
    receiver.behave = answering(200)
    receiver.requests.clear()
    assert await history.redeliver_between(world.ann, world.scope, webhook_id, at - hour, at + hour) == 3
    await asyncio.sleep(0.02)
    await world.tell()
    assert [one.data["push_id"] for one in receiver.accepted] == [0, 1, 2, 3]


async def test_a_paused_subscription_gets_nothing_again(world: WebhookWorld, receiver: Receiver) -> None:
    webhook_id, _ = await world.subscribe(receiver, "push")
    await world.happen(1)
    await world.tell()
    await world.notifying.subscriptions.pause(world.ann, world.scope, webhook_id)
    ids = [one.delivery_id for one in receiver.accepted]
    with pytest.raises(WebhookPaused):
        await world.notifying.history.redeliver(world.ann, world.scope, webhook_id, ids)


async def test_giving_one_up_lets_the_next_go(world: WebhookWorld, receiver: Receiver) -> None:
    history = world.notifying.history
    receiver.behave = answering(500)
    webhook_id, _ = await world.subscribe(receiver, "push")
    await world.happen(1)
    await world.happen(2)
    await world.tell()
    poison, _ = await world.deliveries()
    receiver.behave = answering(200)
    await history.cancel(world.ann, world.scope, webhook_id, poison.id)
    await world.tell()
    assert [one.data["push_id"] for one in receiver.accepted] == [2]
    assert [one.state for one in await world.deliveries()] == [
        DeliveryState.CANCELLED,
        DeliveryState.DELIVERED,
    ]
    for id_ in (poison.id, "msg_none"):
        with pytest.raises(DeliveryNotFound):
            await history.cancel(world.ann, world.scope, webhook_id, id_)


async def test_what_is_old_and_done_is_forgotten(world: WebhookWorld, receiver: Receiver) -> None:
    await world.subscribe(receiver, "push")
    await world.subscribe("http://127.0.0.1:9/", "push")
    await world.happen(1)
    await world.tell()
    assert await world.notifying.upkeep.run() == UpkeepReport()
    old = datetime.now(UTC) - timedelta(days=31)
    async with world.database.transaction() as session:
        await session.execute(
            update(Delivery).where(Delivery.finished_at.is_not(None)).values(finished_at=old)
        )
        await session.execute(update(OutboxEvent).values(handled_at=old))
    await world.happen(2)  # waits, and is as old as it likes
    async with world.database.transaction() as session:
        await session.execute(update(OutboxEvent).values(created_at=old))
    report = await world.notifying.upkeep.run()
    assert report.deliveries == 1
    assert report.events >= 1
    async with world.database.read() as session:
        left = (await session.scalars(select(Delivery))).one()
        assert left.state == DeliveryState.PENDING
        assert {one.delivery_id for one in await session.scalars(select(Attempt))} == {left.id}
        (stream,) = (await session.scalars(select(DeliveryStream))).all()
        assert stream.webhook_id == left.webhook_id
        (event,) = (await session.scalars(select(OutboxEvent))).all()
        assert event.handled_at is None
    receiver.requests.clear()
    await world.tell()
    assert [one.data["push_id"] for one in receiver.accepted] == [2], "its stream was made anew"


async def test_site_admins_see_the_servers_own(world: WebhookWorld, receiver: Receiver) -> None:
    await world.notifying.subscriptions.create(SYSTEM, WebhookScope(), receiver.url, ["repository.*"])
    await world.core.repository("ann/new1")
    await world.tell()
    (delivery,) = await world.notifying.history.list(SYSTEM, WebhookScope())
    assert (delivery.event, delivery.state) == ("repository.created", DeliveryState.DELIVERED)
    assert delivery.event_id == f"evt_{delivery.position}"
