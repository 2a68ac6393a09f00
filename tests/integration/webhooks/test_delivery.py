"""From an event to a receiver, and what is made of each answer."""

import asyncio
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
from aiohttp import web
from sqlalchemy import select

from core.access import SYSTEM
from core.audit import Action
from core.database import Database
from core.models import AuditEntry, DeliveryState, DeliveryStream, OutboxEvent, Webhook
from core.outbox import EventName
from tests.support.webhook_receiver import (
    Received,
    Receiver,
    answering,
    one_after_the_other,
    silent,
)
from tests.support.webhook_world import KEY, WebhookWorld, webhook_world
from webhooks.outcomes import Outcome
from webhooks.sealing import SecretBox


async def due_in(world: WebhookWorld) -> float:
    """Seconds until the only stream is due."""
    async with world.database.read() as session:
        stream = (await session.scalars(select(DeliveryStream))).one()
        assert stream.due_at is not None
        assert stream.leased_until is None
        return (stream.due_at - datetime.now(UTC)).total_seconds()


async def test_an_event_arrives_signed(world: WebhookWorld, receiver: Receiver) -> None:
    webhook_id, secret = await world.subscribe(receiver, "push")
    await world.happen(7, updates=[{"ref": "refs/heads/main", "old": "0" * 40, "new": "1" * 40}])
    await world.happen(8, EventName.TAG)
    assert await world.tell() == 1
    (got,) = receiver.requests
    got.verify(secret)
    (delivery,) = await world.deliveries()
    assert (got.method, got.path, got.event) == ("POST", "/hook", "push")
    assert got.headers["Host"] == receiver.base.removeprefix("http://")
    assert got.headers["Content-Type"] == "application/json"
    assert got.attempt == (delivery.id, 1)
    assert got.headers["X-Modelyard-Delivery"] == delivery.id
    assert got.json == {
        "id": f"evt_{delivery.position}",
        "type": "push",
        "version": 1,
        "timestamp": got.json["timestamp"],
        "repository": {
            "id": world.repository.id,
            "type": "model",
            "owner": "ann",
            "name": "net",
            "path": "ann/net",
            "visibility": "private",
            "default_branch": "main",
        },
        "actor": "ann",
        "data": {
            "push_id": 7,
            "updates": [{"ref": "refs/heads/main", "old": "0" * 40, "new": "1" * 40}],
        },
        "truncated": False,
        "test": False,
    }
    details = await world.notifying.history.get(world.ann, world.scope, webhook_id, delivery.id)
    assert details.body.encode() == got.body
    assert details.delivery.state is DeliveryState.DELIVERED
    (attempt,) = details.attempts
    assert (attempt.outcome, attempt.status, attempt.address) == (Outcome.DELIVERED, 200, "127.0.0.1")
    assert attempt.milliseconds is not None
    assert await world.tell() == 0


async def test_failures_are_retried_with_the_same_id(world: WebhookWorld, receiver: Receiver) -> None:
    webhook_id, secret = await world.subscribe(receiver)
    receiver.behave = one_after_the_other(
        answering(500, text="broken\0 \U0001f600" * 999),
        answering(302, headers={"Location": "http://127.0.0.1:1/other"}),
        silent(),
        answering(204),
    )
    await world.happen(1)
    while not receiver.accepted:
        await world.tell()
        await asyncio.sleep(0.02)
    assert {one.delivery_id for one in receiver.requests} == {receiver.requests[0].delivery_id}
    assert [one.attempt[1] for one in receiver.requests] == [1, 2, 3, 4]
    for one in receiver.requests:
        one.verify(secret)
    attempts = await world.attempts()
    assert [one.outcome for one in attempts] == ["failed", "redirected", "timeout", "delivered"]
    assert [one.status for one in attempts] == [500, 302, None, 204]
    assert attempts[0].response is not None
    assert len(attempts[0].response) <= 4096
    assert attempts[0].response.startswith("broken\ufffd ")
    assert attempts[1].response_headers is not None
    assert attempts[1].response_headers["Location"] == "http://127.0.0.1:1/other"
    assert "127.0.0.1:1/other" in str(attempts[1].error)
    info = await world.notifying.subscriptions.get(world.ann, world.scope, webhook_id)
    assert (info.failures, info.failing_since) == (0, None)


async def test_nobody_listens(world: WebhookWorld) -> None:
    await world.subscribe("http://127.0.0.1:9/")
    await world.happen(1)
    await world.tell()
    attempts = await world.attempts()
    assert attempts[0].outcome == "unreachable"
    assert attempts[0].address == "127.0.0.1"
    assert attempts[0].error
    assert [one.state for one in await world.deliveries()] == [DeliveryState.PENDING]


async def test_an_endless_answer_is_cut(world: WebhookWorld, receiver: Receiver) -> None:
    receiver.behave = answering(200, text="x" * 10_000_000)
    await world.subscribe(receiver)
    await world.happen(1)
    await world.tell()
    (attempt,) = await world.attempts()
    assert (attempt.outcome, attempt.response) == ("delivered", "x" * 4096)


async def test_it_gives_up_after_a_while(database: Database, receiver: Receiver) -> None:
    receiver.behave = answering(500)
    async with webhook_world(database, retry_hours=3 / 3600) as world:
        webhook_id, _ = await world.subscribe(receiver)
        await world.happen(1)
        await world.happen(2)
        for _ in range(2000):
            await world.tell()
            if (await world.deliveries())[0].state == DeliveryState.DEAD:
                break
            await asyncio.sleep(0.01)
        first, second = await world.deliveries()
        assert first.state == DeliveryState.DEAD
        assert first.attempts >= 3  # doubling from 10 ms, and one at the very end
        dead = await world.notifying.history.list(
            world.ann, world.scope, webhook_id, state=DeliveryState.DEAD
        )
        assert [one.id for one in dead] == [first.id]
        # Its successor has all the time there is, and what is dead comes again when somebody asks.
        receiver.behave = answering(200)
        await asyncio.sleep(0.02)
        await world.tell()
        assert [one.data["push_id"] for one in receiver.accepted] == [2]
        assert await world.notifying.history.redeliver(world.ann, world.scope, webhook_id, [first.id]) == 1
        await world.tell()
        assert [one.data["push_id"] for one in receiver.accepted] == [2, 1]
        assert second.id == receiver.accepted[0].delivery_id
        numbers = [one.number for one in await world.attempts() if one.delivery_id == first.id]
        assert numbers == list(range(1, first.attempts + 2))


@pytest.mark.parametrize("form", ["seconds", "date"])
@pytest.mark.parametrize("status", [429, 503])
async def test_retry_after_is_heeded(database: Database, receiver: Receiver, form: str, status: int) -> None:
    text = (
        "60" if form == "seconds" else format_datetime(datetime.now(UTC) + timedelta(seconds=60), usegmt=True)
    )
    receiver.behave = answering(status, headers={"Retry-After": text})
    async with webhook_world(database, max_retry_seconds=3600) as world:
        await world.subscribe(receiver)
        await world.happen(1)
        assert await world.tell() == 1
        assert 55 < await due_in(world) <= 60


@pytest.mark.parametrize(
    "text",
    [
        "99999999999999",
        "soon",
        "-5",
        "Sat, 31 Feb 2026 99:00:00 GMT",
        "1e9",
        "Mon, 1 Jan 99999999999 00:00:00 GMT",
        "Mon, 1 Jan 2024 00:00:00 +99999999999999",
    ],
)
async def test_retry_after_has_its_limits(database: Database, receiver: Receiver, text: str) -> None:
    receiver.behave = answering(503, headers={"Retry-After": text})
    async with webhook_world(database, max_retry_seconds=100) as world:
        await world.subscribe(receiver)
        await world.happen(1)
        assert await world.tell() >= 1
        assert await due_in(world) <= 100
        assert {one.status for one in await world.attempts()} == {503}


async def test_retry_after_means_nothing_with_other_statuses(world: WebhookWorld, receiver: Receiver) -> None:
    receiver.behave = answering(500, headers={"Retry-After": "60"})
    await world.subscribe(receiver)
    await world.happen(1)
    await world.tell()
    assert await due_in(world) < 2


async def test_gone_ends_the_subscription(world: WebhookWorld, receiver: Receiver) -> None:
    receiver.behave = answering(410)
    webhook_id, _ = await world.subscribe(receiver)
    for number in range(3):
        await world.happen(number)
    assert await world.tell() == 1
    assert [one.state for one in await world.deliveries()] == [DeliveryState.CANCELLED] * 3
    info = await world.notifying.subscriptions.get(world.ann, world.scope, webhook_id)
    assert not info.active
    assert "410" in str(info.paused_reason)
    await world.happen(4)
    assert await world.tell() == 0
    assert len(await world.deliveries()) == 3


async def test_a_subscription_that_only_fails_is_paused(database: Database, receiver: Receiver) -> None:
    receiver.behave = answering(500)
    async with webhook_world(database, pause_after_hours=0.2 / 3600) as world:
        webhook_id, _ = await world.subscribe(receiver)
        await world.happen(1)
        await world.happen(2)
        watcher_id, _ = await world.subscribe(f"{receiver.base}/watcher", "webhook.paused")
        while (await world.notifying.subscriptions.get(world.ann, world.scope, webhook_id)).active:
            await world.tell()
            await asyncio.sleep(0.01)
        info = await world.notifying.subscriptions.get(world.ann, world.scope, webhook_id)
        assert "could be delivered" in str(info.paused_reason)
        assert info.failing_since is not None
        tried = len(receiver.requests)
        await asyncio.sleep(0.05)
        receiver.behave = answering(200)
        assert await world.tell() == 1, "only the notice goes out, and what is pending waits"
        notice = receiver.requests[tried]
        assert (notice.path, notice.event, notice.json["actor"]) == ("/watcher", "webhook.paused", None)
        assert notice.data["webhook_id"] == webhook_id
        assert notice.data["target"] == "ann/net"
        assert notice.repository == "ann/net"
        assert watcher_id != webhook_id
        async with database.read() as session:
            entry = await session.scalar(select(AuditEntry).where(AuditEntry.action == Action.WEBHOOK_PAUSE))
        assert entry is not None
        assert (entry.actor, entry.target, entry.details["id"]) == (SYSTEM.name, "ann/net", webhook_id)
        await world.notifying.subscriptions.resume(world.ann, world.scope, webhook_id)
        await world.tell()
        assert [one.data["push_id"] for one in receiver.requests[tried + 1 :]] == [1, 2]


@pytest.mark.parametrize("answer", ["redirect", "no HTTP"])
async def test_a_notice_of_a_pause_says_nothing_of_the_url(database: Database, answer: str) -> None:
    async def behave(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        request = await reader.readuntil(b"\r\n")
        path = request.split()[1]
        redirect = b"HTTP/1.1 301 Moved\r\nContent-Length: 0\r\nLocation: " + path + b"/\r\n\r\n"
        writer.write(redirect if answer == "redirect" else b"SSH-2.0-OpenSSH_9.9\r\n")
        writer.close()

    server = await asyncio.start_server(behave, "127.0.0.1", 0)
    async with server, webhook_world(database, pause_after_hours=0.1 / 3600) as world:
        port = server.sockets[0].getsockname()[1]
        webhook_id, _ = await world.subscribe(f"http://127.0.0.1:{port}/token-1234", "push")
        await world.happen(1)
        while (await world.notifying.subscriptions.get(world.ann, world.scope, webhook_id)).active:
            await world.tell()
            await asyncio.sleep(0.01)
        info = await world.notifying.subscriptions.get(world.ann, world.scope, webhook_id)
        assert "hours: the last attempt ended as " in str(info.paused_reason)
        async with database.read() as session:
            notices = list(
                await session.scalars(
                    select(OutboxEvent.payload).where(OutboxEvent.name == EventName.WEBHOOK_PAUSED)
                )
            )
            entries = list(await session.scalars(select(AuditEntry.details)))
        assert len(notices) == 1
        assert "1234" not in f"{info.paused_reason} {notices} {entries}"
        if answer == "no HTTP":
            assert "1234" not in " ".join(str(one.error) for one in await world.attempts())


async def test_what_a_former_url_answers_says_nothing_about_the_present_one(
    world: WebhookWorld, receiver: Receiver
) -> None:
    webhook_id, _ = await world.subscribe(f"{receiver.base}/old")

    async def behave(received: Received) -> web.StreamResponse:
        if received.path != "/old":
            return await answering(200)(received)
        await world.notifying.subscriptions.update(
            world.ann, world.scope, webhook_id, url=f"{receiver.base}/new"
        )
        return await answering(410)(received)

    receiver.behave = behave
    await world.happen(1)
    await world.tell()
    assert [one.path for one in receiver.requests] == ["/old", "/new"]
    assert [one.outcome for one in await world.attempts()] == ["gone", "delivered"]
    info = await world.notifying.subscriptions.get(world.ann, world.scope, webhook_id)
    assert info.active


async def test_a_fault_of_the_server_is_a_failed_attempt(database: Database, receiver: Receiver) -> None:
    async with webhook_world(database, retry_hours=0.0) as world:
        webhook_id, _ = await world.subscribe(receiver)
        async with database.transaction() as session:
            webhook = await session.get_one(Webhook, webhook_id)
            webhook.secrets = SecretBox(KEY).seal(webhook_id, [])  # which nothing makes
        await world.happen(1)
        await world.tell()
        assert [one.outcome for one in await world.attempts()] == ["failed"]
        assert [one.state for one in await world.deliveries()] == [DeliveryState.DEAD]


async def test_a_payload_that_is_too_long_loses_its_details(database: Database, receiver: Receiver) -> None:
    async with webhook_world(database, max_payload_bytes=2000) as world:
        await world.subscribe(receiver)
        updates = [{"ref": f"refs/heads/{number}", "old": "0" * 40, "new": "1" * 40} for number in range(100)]
        await world.happen(1, updates=updates)
        await world.tell()
        (got,) = receiver.requests
        assert len(got.body) <= 2000
        assert got.json["truncated"] is True
        assert got.data == {"push_id": 1}


async def test_secrets_that_cannot_be_opened(world: WebhookWorld, receiver: Receiver) -> None:
    webhook_id, _ = await world.subscribe(receiver)
    other_id, _ = await world.subscribe(receiver)
    async with world.database.transaction() as session:
        one, other = await session.get_one(Webhook, webhook_id), await session.get_one(Webhook, other_id)
        one.secrets = other.secrets  # bound to the other one's id
    await world.happen(1)
    await world.tell()
    assert len(receiver.requests) == 1
    outcomes = {attempt.outcome for attempt in await world.attempts()}
    assert outcomes == {"delivered", "unsigned"}
    info = await world.notifying.subscriptions.get(world.ann, world.scope, webhook_id)
    assert info.secrets == ()
    _, secret = await world.notifying.subscriptions.rotate_secret(world.ann, world.scope, webhook_id)
    await asyncio.sleep(0.02)
    await world.tell()
    receiver.requests[1].verify(secret)


async def test_events_that_nobody_hears_are_handled(world: WebhookWorld) -> None:
    await world.happen(1)
    assert await world.tell() == 0
    async with world.database.read() as session:
        events = (await session.scalars(select(OutboxEvent))).all()
    assert all(event.handled_at is not None for event in events)
    assert await world.deliveries() == []
