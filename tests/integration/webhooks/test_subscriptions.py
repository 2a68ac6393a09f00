"""Who may subscribe to what, what they hear, and their secrets."""

import base64
import time
from dataclasses import replace

import pytest
from sqlalchemy import select
from standardwebhooks.webhooks import Webhook as Verifier

from core.access import ANONYMOUS, SYSTEM, Permission
from core.audit import Action
from core.database import Database
from core.errors import (
    AccountNotFound,
    AuthenticationRequired,
    ModelyardError,
    PermissionDenied,
    RepositoryNotFound,
    Unprocessable,
)
from core.models import AuditEntry, DeliveryState, Role, Scope, Webhook
from core.names import parse_address
from core.outbox import EventName
from tests.support.webhook_receiver import Receiver, answering
from tests.support.webhook_world import WebhookWorld, address_of, webhook_world
from webhooks.errors import DestinationRefused, WebhookNotFound, WebhookPaused
from webhooks.scopes import SERVER, ScopeKind, WebhookScope

URL = "https://hooks.example.org/in"


async def test_who_may_manage_which_scope(world: WebhookWorld) -> None:
    core, subscriptions = world.core, world.notifying.subscriptions
    bob, carol, root = (
        await core.user("bob"),
        await core.user("carol"),
        await core.user("root1", is_admin=True),
    )
    await core.accounts.create_organisation(world.ann, "acme")
    await core.organisations.set_member(world.ann, "acme", "bob", Role.WRITE)
    await core.collaboration.set_collaborator(world.ann, world.repository.address, "bob", Role.WRITE)
    await core.collaboration.set_collaborator(world.ann, world.repository.address, "carol", Role.ADMIN)
    weak = replace(world.ann, scope=Scope.WRITE, credential="token:1")
    owner, organisation = WebhookScope(owner="ann"), WebhookScope(owner="acme")
    allowed = {
        (world.ann.name, world.scope),
        (world.ann.name, owner),
        (world.ann.name, organisation),
        (carol.name, world.scope),
        *(
            (actor.name, scope)
            for actor in (root, SYSTEM)
            for scope in (world.scope, owner, organisation, SERVER)
        ),
    }
    refusals: dict[tuple[str, WebhookScope], type[ModelyardError]] = {
        (bob.name, world.scope): PermissionDenied,
        (carol.name, owner): PermissionDenied,
        (ANONYMOUS.name, world.scope): AuthenticationRequired,
        (ANONYMOUS.name, SERVER): AuthenticationRequired,
    }
    for actor in (world.ann, bob, carol, root, SYSTEM, ANONYMOUS):
        for scope in (world.scope, owner, organisation, SERVER):
            if (actor.name, scope) in allowed:
                info, _ = await subscriptions.create(actor, scope, URL, ["*"])
                assert (info.scope, info.created_by) == (scope.kind, actor.name)
                assert await subscriptions.get(actor, scope, info.id) == info
                await subscriptions.delete(actor, scope, info.id)
                continue
            with pytest.raises((PermissionDenied, AuthenticationRequired)) as refused:
                await subscriptions.create(actor, scope, URL, ["*"])
            expected = refusals.get((actor.name, scope))
            assert expected is None or isinstance(refused.value, expected)
            with pytest.raises((PermissionDenied, AuthenticationRequired)):
                await subscriptions.list(actor, scope)
    for scope in (world.scope, owner, SERVER):
        with pytest.raises(PermissionDenied):
            await subscriptions.create(weak, scope, URL, ["*"])
    with pytest.raises(RepositoryNotFound):
        await subscriptions.list(await core.user("dave"), world.scope)
    with pytest.raises(AccountNotFound):
        await subscriptions.list(world.ann, WebhookScope(owner="nobody"))


async def test_another_scope_does_not_have_it(world: WebhookWorld) -> None:
    subscriptions = world.notifying.subscriptions
    bob = await world.core.user("bob")
    await world.core.repository("bob/net")
    webhook_id, _ = await world.subscribe(URL)
    theirs = address_of("bob/net")
    for scope, actor in ((theirs, bob), (WebhookScope(owner="ann"), world.ann), (SERVER, SYSTEM)):
        for work in (
            subscriptions.get(actor, scope, webhook_id),
            subscriptions.update(actor, scope, webhook_id, name="mine"),
            subscriptions.delete(actor, scope, webhook_id),
            subscriptions.rotate_secret(actor, scope, webhook_id),
            subscriptions.ping(actor, scope, webhook_id),
            world.notifying.history.list(actor, scope, webhook_id),
            world.notifying.history.redeliver(actor, scope, webhook_id, []),
        ):
            with pytest.raises(WebhookNotFound):
                await work
        assert await subscriptions.list(actor, scope) == []
        assert await world.notifying.history.list(actor, scope) == []


async def test_every_scope_hears_what_is_its_own(world: WebhookWorld, receiver: Receiver) -> None:
    bob = await world.core.user("bob")
    await world.core.repository("bob/net")
    theirs = await world.core.repositories.open(bob, parse_address("bob/net"), Permission.ADMIN)
    await world.subscribe(f"{receiver.base}/repository", "push")
    await world.subscribe(f"{receiver.base}/owner", scope=WebhookScope(owner="ann"))
    for path, scope, actor in (
        ("server", SERVER, SYSTEM),
        ("bob", WebhookScope(owner="bob"), bob),
        ("tags", SERVER, SYSTEM),
    ):
        events = ["tag"] if path == "tags" else ["push", "repository.*"]
        await world.notifying.subscriptions.create(actor, scope, f"{receiver.base}/{path}", events)
    await world.tell()
    receiver.requests.clear()
    await world.happen(1)
    await world.happen(2, repository=theirs)
    await world.tell()
    heard = {(one.path, one.data["push_id"]) for one in receiver.accepted}
    assert heard == {("/repository", 1), ("/owner", 1), ("/server", 1), ("/server", 2), ("/bob", 2)}


async def test_the_end_of_a_repository_is_told_after_all_else(
    world: WebhookWorld, receiver: Receiver
) -> None:
    repositories = world.core.repositories
    await world.subscribe(f"{receiver.base}/repository")
    await world.subscribe(f"{receiver.base}/owner", scope=WebhookScope(owner="ann"))
    await world.happen(1)
    moved = await repositories.move(world.ann, world.repository.address, parse_address("ann/newer"))
    await world.happen(2)
    await repositories.delete(world.ann, moved.address)
    await world.tell()
    assert [one.path for one in receiver.accepted] == ["/owner"] * 4, "the repository's own went with it"
    assert [one.event for one in receiver.accepted] == [
        "push",
        "repository.renamed",
        "push",
        "repository.deleted",
    ]
    for one in receiver.accepted:
        assert one.json["repository"]["id"] == world.repository.id
        assert one.repository == "ann/newer"
        assert "repository" not in one.data
    assert {one.repository_id for one in await world.deliveries()} == {world.repository.id}
    assert receiver.accepted[3].data == {"id": world.repository.id, "path": "ann/newer"}


async def test_secrets_are_shown_once_and_rotated(world: WebhookWorld, receiver: Receiver) -> None:
    subscriptions, database = world.notifying.subscriptions, world.database
    webhook_id, first = await world.subscribe(receiver)
    async with database.read() as session:
        sealed = (await session.get_one(Webhook, webhook_id)).secrets
    assert first.encode() not in sealed
    assert first not in repr(await subscriptions.get(world.ann, world.scope, webhook_id))

    info, second = await subscriptions.rotate_secret(world.ann, world.scope, webhook_id, keep_hours=2)
    assert len(info.secrets) == 2
    assert info.secrets[0].expires_at is None
    assert info.secrets[1].expires_at is not None
    assert abs(info.secrets[1].expires_at.timestamp() - time.time() - 7200) < 60
    await subscriptions.ping(world.ann, world.scope, webhook_id)
    await world.tell()
    got = receiver.requests[-1]
    got.verify(second)
    Verifier(first).verify(got.body, dict(got.headers))

    info = await subscriptions.drop_old_secrets(world.ann, world.scope, webhook_id)
    assert len(info.secrets) == 1
    chosen = "whsec_" + base64.b64encode(b"c" * 32).decode()
    info, third = await subscriptions.rotate_secret(
        world.ann, world.scope, webhook_id, keep_hours=0, secret=chosen
    )
    assert (third, len(info.secrets)) == (chosen, 1)
    await subscriptions.ping(world.ann, world.scope, webhook_id)
    await world.tell()
    got = receiver.requests[-1]
    got.verify(chosen)
    with pytest.raises(Exception, match="No matching signature"):
        Verifier(second).verify(got.body, dict(got.headers))
    for _ in range(9):
        info, _ = await subscriptions.rotate_secret(world.ann, world.scope, webhook_id, keep_hours=None)
    assert len(info.secrets) == 4
    for hours in (-1, 721, float("nan")):
        with pytest.raises(Unprocessable):
            await subscriptions.rotate_secret(world.ann, world.scope, webhook_id, keep_hours=hours)


async def test_changes_are_in_the_audit_log(world: WebhookWorld) -> None:
    subscriptions = world.notifying.subscriptions
    secret_url = "https://hooks.example.org/T0/sEcReT?token=tOkEn"
    webhook_id, secret = await world.subscribe(secret_url)
    scope, ann = world.scope, world.ann
    await subscriptions.update(ann, scope, webhook_id, name="trainer", events=["push"])
    _, other = await subscriptions.rotate_secret(ann, scope, webhook_id)
    await subscriptions.pause(ann, scope, webhook_id)
    await subscriptions.resume(ann, scope, webhook_id)
    await subscriptions.delete(ann, scope, webhook_id)
    async with world.database.read() as session:
        query = select(AuditEntry).where(AuditEntry.action.startswith("webhook:")).order_by(AuditEntry.id)
        entries = (await session.scalars(query)).all()
    assert [entry.action for entry in entries] == [
        Action.WEBHOOK_CREATE,
        Action.WEBHOOK_UPDATE,
        Action.WEBHOOK_SECRET,
        Action.WEBHOOK_PAUSE,
        Action.WEBHOOK_RESUME,
        Action.WEBHOOK_DELETE,
    ]
    for entry in entries:
        assert (entry.actor, entry.target, entry.details["id"]) == ("ann", "ann/net", webhook_id)
        for hidden in (secret, other, "sEcReT", "tOkEn"):
            assert hidden not in repr(entry.details)


async def test_what_cannot_be(world: WebhookWorld) -> None:
    subscriptions = world.notifying.subscriptions
    webhook_id, _ = await world.subscribe(URL)
    before = await subscriptions.get(world.ann, world.scope, webhook_id)
    refused: list[tuple[dict[str, object], type[ModelyardError]]] = [
        ({"url": "ftp://example.org/"}, DestinationRefused),
        ({"events": []}, Unprocessable),
        ({"events": ["pushed"]}, Unprocessable),
        ({"name": "a\nb"}, Unprocessable),
        ({"name": "x" * 201}, Unprocessable),
    ]
    for change, error in refused:
        with pytest.raises(error):
            await subscriptions.update(world.ann, world.scope, webhook_id, **change)  # type: ignore[arg-type]
        with pytest.raises(error):
            await subscriptions.create(
                world.ann,
                world.scope,
                **{"url": URL, "events": ["*"], **change},  # type: ignore[arg-type]
            )
    with pytest.raises(Unprocessable):
        await subscriptions.create(world.ann, world.scope, URL, ["*"], secret="short")
    assert await subscriptions.list(world.ann, world.scope) == [before]


async def test_there_is_a_limit_per_scope(database: Database) -> None:
    async with webhook_world(database, max_per_scope=2) as world:
        for _ in range(2):
            await world.subscribe(URL)
            await world.subscribe(URL, scope=WebhookScope(owner="ann"))
        for scope in (world.scope, WebhookScope(owner="ann")):
            with pytest.raises(Unprocessable, match="2 webhooks already"):
                await world.subscribe(URL, scope=scope)


async def test_pausing_keeps_what_is_pending(world: WebhookWorld, receiver: Receiver) -> None:
    subscriptions = world.notifying.subscriptions
    receiver.behave = answering(500)
    webhook_id, _ = await world.subscribe(receiver, "push")
    await world.happen(1)
    await world.happen(2)
    await world.tell()
    info = await subscriptions.pause(world.ann, world.scope, webhook_id)
    assert (info.active, info.paused_reason) == (False, None)
    await world.happen(3)
    receiver.behave = answering(200)
    assert await world.tell() == 0
    for work in (
        subscriptions.ping(world.ann, world.scope, webhook_id),
        subscriptions.test(world.ann, world.scope, webhook_id, EventName.PUSH),
    ):
        with pytest.raises(WebhookPaused):
            await work
    info = await subscriptions.resume(world.ann, world.scope, webhook_id)
    assert (info.active, info.failures) == (True, 0)
    await world.happen(4)
    await world.tell()
    assert [one.data["push_id"] for one in receiver.accepted] == [1, 2, 4]


async def test_another_url_gets_what_is_pending(world: WebhookWorld, receiver: Receiver) -> None:
    webhook_id, _ = await world.subscribe("http://127.0.0.1:9/", "push")
    await world.happen(1)
    await world.tell()
    info = await world.notifying.subscriptions.update(
        world.ann, world.scope, webhook_id, url=receiver.url, name="better"
    )
    assert (info.url, info.name, info.failures) == (receiver.url, "better", 0)
    await world.tell()
    assert [one.data["push_id"] for one in receiver.accepted] == [1]


async def test_pings_and_tests(world: WebhookWorld, receiver: Receiver) -> None:
    subscriptions, history = world.notifying.subscriptions, world.notifying.history
    receiver.behave = answering(500)
    webhook_id, secret = await world.subscribe(receiver, "push")
    other_id, _ = await world.subscribe(f"{receiver.base}/other")
    await world.happen(1)
    await world.tell()
    receiver.behave = answering(200)
    receiver.requests.clear()
    ping = await subscriptions.ping(world.ann, world.scope, webhook_id)
    await world.notifying.deliveries.run_due()
    got = next(one for one in receiver.accepted if one.event == "ping")
    assert (got.path, got.delivery_id, got.json["test"]) == ("/hook", ping, False)
    assert got.data == {"webhook_id": webhook_id, "events": ["push"]}
    assert got.repository == "ann/net"
    for event in EventName:
        test = await subscriptions.test(world.ann, world.scope, webhook_id, event)
        await world.notifying.deliveries.run_due()
        got = next(one for one in receiver.accepted if one.delivery_id == test)
        got.verify(secret)
        assert (got.event, got.json["test"], got.json["actor"]) == (event.value, True, "ann")
        details = await history.get(world.ann, world.scope, webhook_id, test)
        assert details.delivery.state is DeliveryState.DELIVERED
    assert {one.webhook_id for one in await world.deliveries() if one.event == "ping"} == {webhook_id}
    assert other_id != webhook_id
    assert await world.notifying.fanout.run_due() == 0, "told to nobody else"


async def test_an_owner_that_goes_takes_its_subscriptions(world: WebhookWorld) -> None:
    bob = await world.core.user("bob")
    await world.notifying.subscriptions.create(bob, WebhookScope(owner="bob"), URL, ["*"])
    info, _ = await world.notifying.subscriptions.create(SYSTEM, SERVER, URL, ["*"])
    assert (info.scope, info.target) == (ScopeKind.SERVER, "server")
    await world.core.accounts.delete(SYSTEM, "bob")
    async with world.database.read() as session:
        assert [one.id for one in await session.scalars(select(Webhook))] == [info.id]
