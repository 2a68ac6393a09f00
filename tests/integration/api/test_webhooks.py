"""Webhooks, their deliveries and the catalogue of events over REST."""

from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import quote

import msgspec
import pytest

from core.access import SYSTEM
from core.models import Role, Scope, now
from core.outbox import EventName
from core.settings import AuthSettings
from tests.support.api import API, ApiServer, Caller, api_settings, running_api
from tests.support.database import Databases
from tests.support.webhook_receiver import Receiver, answering, running_receiver
from tests.support.webhook_world import webhook_settings

NEW = {"url": "https://receiver.invalid/hook", "events": ["training.*", "push"], "name": "trainer"}


async def places(api: ApiServer) -> dict[str, Caller]:
    """Paths that have webhooks, with somebody who may manage them."""
    alice = await api.user("alice")
    repository = await api.repository(alice, "net")
    await alice.ok("POST", "/organisations", {"name": "acme"})
    return {repository: alice, "/users/alice": alice, "/organisations/acme": alice, "": api.root}


async def test_the_life_of_a_webhook_at_every_place(each_api: ApiServer) -> None:
    for path, caller in (await places(each_api)).items():
        made = await caller("POST", f"{path}/webhooks", NEW)
        assert made.status == 201
        shown = made.json
        first = shown.pop("secret")
        url = made.headers["Location"]
        assert url == f"{each_api.base}{API}{path}/webhooks/{shown['id']}"
        assert shown["events"] == ["push", "training.*"]
        assert (shown["url"], shown["name"], shown["active"]) == (NEW["url"], "trainer", True)
        seen = [await caller("GET", url), await caller("GET", f"{path}/webhooks")]
        assert (seen[0].json, seen[1].json) == (shown, [shown])

        seen.append(await caller("PATCH", url, {"events": ["*"]}))
        assert (seen[-1].json["events"], seen[-1].json["name"]) == (["*"], "trainer")
        rotated = await caller.ok("POST", f"{url}/secret", {"keep_hours": 2})
        second = rotated["secret"]
        assert second != first
        assert [one["expires_at"] is None for one in rotated["secrets"]] == [True, False]
        seen.append(await caller("DELETE", f"{url}/secret/former"))
        seen.append(await caller("GET", url))
        assert [one["expires_at"] for one in seen[-1].json["secrets"]] == [None]

        seen.append(await caller("POST", f"{url}/pause"))
        assert not seen[-1].json["active"]
        assert (await caller("POST", f"{url}/ping")).code == "webhook_paused"
        seen.append(await caller("POST", f"{url}/resume"))
        assert seen[-1].json["active"]
        for reply in seen:
            assert reply.status < 300
            assert first.encode() not in reply.body
            assert second.encode() not in reply.body
        await caller.ok("DELETE", url)
        assert (await caller("GET", url)).code == "webhook_not_found"
    told = await each_api.root.ok("GET", "/audit?action=webhook:create")
    assert [one["target"] for one in told] == ["server", "acme", "alice", "alice/net"]
    assert "/hook" not in str(await each_api.root.ok("GET", "/audit?limit=100")), "URLs may hold secrets"


async def test_pages_of_webhooks(api: ApiServer) -> None:
    ids = [(await api.root.ok("POST", "/webhooks", NEW))["id"] for _ in range(3)]
    pages = await api.root.pages("/webhooks?limit=2")
    assert [[one["id"] for one in page] for page in pages] == [ids[:2], ids[2:]]


async def test_a_secret_of_ones_own(api: ApiServer) -> None:
    secret = "whsec_" + "QUJD" * 8
    made = await api.root.ok("POST", "/webhooks", {**NEW, "secret": secret})
    assert made["secret"] == secret
    kept = await api.root.ok("POST", f"/webhooks/{made['id']}/secret", {"keep_hours": None})
    assert [one["expires_at"] for one in kept["secrets"]] == [None, None]
    ended = await api.root.ok("POST", f"/webhooks/{made['id']}/secret", {"keep_hours": 0, "secret": secret})
    assert (len(ended["secrets"]), ended["secret"]) == (1, secret)


@pytest.mark.parametrize(
    ("members", "code"),
    [
        ({"url": "http://receiver.invalid/"}, "webhook_destination_refused"),
        ({"url": "https://127.0.0.1/"}, "webhook_destination_refused"),
        ({"url": "https://0x7f.1/"}, "webhook_destination_refused"),
        ({"url": "https://user:password@receiver.invalid/"}, "webhook_destination_refused"),
        ({"url": "ftp://receiver.invalid/"}, "webhook_destination_refused"),
        ({"url": ""}, "invalid_request"),
        ({"events": []}, "invalid_request"),
        ({"events": ["pushed"]}, "unprocessable"),
        ({"events": "push"}, "invalid_request"),
        ({"name": "x" * 201}, "invalid_request"),
        ({"name": "a\nb\x00"}, "unprocessable"),
        ({"secret": "short"}, "unprocessable"),
        ({"secret": "whsec_AAAA"}, "unprocessable"),
        ({"colour": "red"}, "invalid_request"),
    ],
)
async def test_webhooks_that_cannot_be(api: ApiServer, members: dict[str, Any], code: str) -> None:
    refused = await api.root("POST", "/webhooks", {**NEW, **members})
    assert refused.code == code, refused.body
    assert await api.root.ok("GET", "/webhooks") == []
    if "secret" not in members:
        url = (await api.root("POST", "/webhooks", NEW)).headers["Location"]
        before = await api.root.ok("GET", url)
        assert (await api.root("PATCH", url, members)).code == code
        assert await api.root.ok("GET", url) == before


async def test_requests_that_cannot_be(api: ApiServer) -> None:
    url = (await api.root("POST", "/webhooks", NEW)).headers["Location"]
    for path, body in (
        ("/secret", {"keep_hours": 721}),
        ("/secret", {"keep_hours": -1}),
        ("/test", {"event": "pushed"}),
        ("/redeliver", {"ids": []}),
        ("/replay", {"since": "2026-01-01T00:00:00"}),
        ("/replay", {"since": "2026-01-01T00:00:00Z", "states": []}),
    ):
        assert (await api.root("POST", url + path, body)).code == "invalid_request", (path, body)
    first = "0001-01-01T00:00:00+01:00"  # which is in the year 0, in UTC
    assert (await api.root("POST", f"{url}/replay", {"since": first})).code == "unprocessable"
    assert (await api.root("GET", f"{url}/deliveries?since={quote(first)}")).code == "unprocessable"
    assert (await api.root("GET", "/webhook-deliveries?since=2026-01-01")).code == "invalid_request"
    assert (await api.root("GET", f"{url}/deliveries?event=pushed")).code == "invalid_request"
    assert (await api.root("POST", f"{url}/deliveries/none/redeliver")).code == "webhook_delivery_not_found"


async def test_who_may(api: ApiServer) -> None:
    alice, bob = await api.user("alice"), await api.user("bob")
    path = await api.repository(alice, "net")
    await alice.ok("POST", "/organisations", {"name": "acme"})
    await api.services.organisations.set_member(SYSTEM, "acme", "bob", Role.WRITE)
    writing = await api.token("alice", Scope.WRITE)
    for place in (path, "/users/alice", "/organisations/acme", ""):
        for below in ("/webhooks", "/webhooks/1", "/webhooks/1/deliveries", "/webhook-deliveries"):
            assert (await api.anonymous("GET", place + below)).status == 401
            assert (await writing("GET", place + below)).code == "permission_denied"
            status = 404 if place == path else 403  # bob may not know of the repository
            assert (await bob("GET", place + below)).status == status
    await alice.ok("PUT", f"{path}/collaborators/bob", {"role": "write"})
    assert (await bob("POST", f"{path}/webhooks", NEW)).code == "permission_denied"
    await alice.ok("PUT", f"{path}/collaborators/bob", {"role": "admin"})
    assert (await bob("POST", f"{path}/webhooks", NEW)).status == 201


async def test_a_webhook_is_at_one_place(api: ApiServer) -> None:
    found = await places(api)
    made = {path: (await one.ok("POST", f"{path}/webhooks", NEW))["id"] for path, one in found.items()}
    for path in found:
        for other, webhook in made.items():
            reply = await api.root("GET", f"{path}/webhooks/{webhook}")
            assert reply.status == (200 if path == other else 404)
            if path != other:
                for verb in ("ping", "pause"):
                    url = f"{path}/webhooks/{webhook}/{verb}"
                    assert (await api.root("POST", url)).code == "webhook_not_found"
    assert (await api.root("GET", "/users/acme/webhooks")).code == "account_not_found"
    assert (await api.root("GET", "/organisations/alice/webhooks")).code == "account_not_found"


async def test_webhooks_of_a_repository_that_moved(api: ApiServer) -> None:
    alice = await api.user("alice")
    path = await api.repository(alice, "net")
    await alice.ok("POST", f"{path}/webhooks", NEW)
    await alice.ok("POST", f"{path}/move", {"name": "web"})
    moved = await alice("POST", f"{path}/webhooks/1/ping")
    assert moved.status == 307
    assert moved.headers["Location"].endswith("/alice/web/webhooks/1/ping")


# -- deliveries --------------------------------------------------------------------------------------


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    async with running_receiver() as running:
        yield running


@pytest.fixture
async def sending(tmp_path: Path, database_url: str) -> AsyncIterator[ApiServer]:
    """An API whose webhooks may go to this machine, and are dead when they fail once."""
    settings = msgspec.structs.replace(
        api_settings(tmp_path, database_url), webhooks=webhook_settings(retry_hours=0)
    )
    async with running_api(settings) as server:
        yield server


async def test_what_was_sent_and_sending_it_again(sending: ApiServer, receiver: Receiver) -> None:
    alice = await sending.user("alice")
    path = await sending.repository(alice, "net")
    made = await alice.ok("POST", f"{path}/webhooks", {"url": receiver.url, "events": ["*"]})
    hook, deliver = f"{path}/webhooks/{made['id']}", sending.services.notifying.deliveries.run_due

    pinged = await alice("POST", f"{hook}/ping")
    assert pinged.status == 202
    await deliver()
    receiver.behave = answering(500, text="no")
    tested = (await alice.ok("POST", f"{hook}/test", {"event": "training.requested"}))["id"]
    await deliver()
    receiver.behave = answering(200)
    assert [one.event for one in receiver.requests] == ["ping", "training.requested"]
    assert receiver.requests[1].json["test"] is True
    for request in receiver.requests:
        request.verify(made["secret"])

    listed = await alice.ok("GET", f"{hook}/deliveries")
    assert [(one["id"], one["state"], one["last_status"]) for one in listed] == [
        (tested, "dead", 500),
        (pinged.json["id"], "delivered", 200),
    ]
    assert await alice.ok("GET", f"{path}/webhook-deliveries") == listed
    assert [page[0]["id"] for page in await alice.pages(f"{hook}/deliveries?limit=1")] == [
        one["id"] for one in listed
    ]
    middle = quote(listed[0]["created_at"])
    for query, expected in {
        "state=dead": [tested],
        "state=pending": [],
        "event=ping": [pinged.json["id"]],
        f"since={middle}": [tested],
        f"until={middle}": [pinged.json["id"]],
        "repository_id=none": [],
    }.items():
        for where in (f"{hook}/deliveries", f"{path}/webhook-deliveries"):
            assert [one["id"] for one in await alice.ok("GET", f"{where}?{query}")] == expected, query

    whole = await alice.ok("GET", f"{hook}/deliveries/{tested}")
    assert {name: whole[name] for name in listed[0]} == listed[0]
    assert whole["body"].encode() == receiver.requests[1].body
    (attempt,) = whole["history"]
    assert (attempt["outcome"], attempt["status"], attempt["response"]) == ("failed", 500, "no")

    assert await alice.ok("POST", f"{hook}/deliveries/{tested}/redeliver") == {"deliveries": 1}
    assert await deliver() == 1
    again = await alice.ok("GET", f"{hook}/deliveries/{tested}")
    assert (again["state"], [one["number"] for one in again["history"]]) == ("delivered", [1, 2])
    ids = [tested, pinged.json["id"]]
    assert await alice.ok("POST", f"{hook}/redeliver", {"ids": ids}) == {"deliveries": 2}
    assert await deliver() == 2
    refused = await alice("POST", f"{hook}/redeliver", {"ids": [tested, "msg_none"]})
    assert refused.code == "webhook_delivery_not_found"
    assert await deliver() == 0
    long_ago = (now() - timedelta(days=1)).isoformat()
    replay = {"since": long_ago, "states": ["delivered"], "event": "ping"}
    assert await alice.ok("POST", f"{hook}/replay", replay) == {"deliveries": 1}
    assert await deliver() == 1
    assert await alice.ok("POST", f"{hook}/replay", {"since": long_ago}) == {"deliveries": 0}


async def test_giving_up_what_waits(sending: ApiServer, receiver: Receiver) -> None:
    made = await sending.root.ok("POST", "/webhooks", {"url": receiver.url, "events": ["push"]})
    hook = f"/webhooks/{made['id']}"
    first = (await sending.root.ok("POST", f"{hook}/ping"))["id"]
    second = (await sending.root.ok("POST", f"{hook}/ping"))["id"]
    await sending.root.ok("POST", f"{hook}/deliveries/{first}/cancel")
    await sending.services.notifying.deliveries.run_due()
    assert [one.delivery_id for one in receiver.requests] == [second]
    states = {one["id"]: one["state"] for one in await sending.root.ok("GET", f"{hook}/deliveries")}
    assert states == {first: "cancelled", second: "delivered"}
    assert (await sending.root("POST", f"{hook}/deliveries/{second}/cancel")).status == 404


async def test_what_a_repository_tells_reaches_every_place(sending: ApiServer, receiver: Receiver) -> None:
    alice = await sending.user("alice")
    path = await sending.repository(alice, "net")
    await sending.services.notifying.fanout.run_due()
    for place in (path, "/users/alice", ""):
        new = {"url": receiver.url, "events": ["repository.renamed"]}
        await sending.root.ok("POST", f"{place}/webhooks", new)
    await alice.ok("POST", f"{path}/move", {"name": "web"})
    await sending.services.notifying.fanout.run_due()
    assert await sending.services.notifying.deliveries.run_due((1, "")) == 0, "not what was asked for"
    assert await sending.services.notifying.deliveries.run_due() == 3
    assert {one.repository for one in receiver.accepted} == {"alice/web"}
    known = {one.json["repository"]["id"] for one in receiver.accepted}
    listed = await sending.root.ok("GET", "/webhook-deliveries")
    assert {one["repository_id"] for one in listed} == known
    assert {one["event_id"] for one in listed} == {one.json["id"] for one in receiver.accepted}


# -- events ------------------------------------------------------------------------------------------


async def test_the_catalogue_is_for_anyone(tmp_path: Path, databases: Databases) -> None:
    closed = AuthSettings(anonymous_read=False)
    async with (
        databases.fresh("sqlite") as url,
        running_api(api_settings(tmp_path, url, auth=closed)) as api,
    ):
        listed = [one for page in await api.anonymous.pages("/events?limit=7") for one in page]
        assert [one["name"] for one in listed] == sorted(EventName)
        for event in listed:
            assert event["example"]["type"] == event["name"]
            assert event["schema"]["$schema"].endswith("/2020-12/schema")
            assert await api.anonymous.ok("GET", f"/events/{event['name']}") == event
        assert (await api.anonymous("GET", "/events/pushed")).code == "not_found"
