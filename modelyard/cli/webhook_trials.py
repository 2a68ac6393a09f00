"""`modelyard webhook ping|test|events`: trying a receiver out, and what it can be told."""

import asyncio
import time
from typing import Annotated
from uuid import uuid4

import msgspec
import typer

from core.access import SYSTEM
from core.models import now
from core.outbox import EventName
from core.settings import Settings
from modelyard.cli.administration import administer
from modelyard.cli.framework import Noun
from modelyard.cli.output import Answer, Document, listing, record
from modelyard.cli.settings import settings_of
from modelyard.cli.webhook_scopes import TrialSecret, WebhookId, Where, scope_of
from modelyard.services import Services
from webhooks.destinations import Destinations
from webhooks.egress import Egress
from webhooks.envelopes import rfc3339
from webhooks.events import EventKind, catalogue
from webhooks.history import AttemptInfo
from webhooks.outcomes import Answer as Sent
from webhooks.outcomes import Outcome
from webhooks.scopes import WebhookScope
from webhooks.sealing import check_secret, new_secret
from webhooks.sending import Sender
from webhooks.signing import headers


def add_commands(noun: Noun) -> None:
    """Makes the commands of this module a part of `noun`."""
    noun.command("ping")(send_ping)
    noun.command("test")(send_example)
    noun.command("events")(show_events)


async def send_ping(context: typer.Context, where: Where, webhook_id: WebhookId) -> Answer:
    """Send a `ping` to a webhook, and print what came back.

    The delivery is recorded like any other. A running server may be the one that sends it.
    """
    async with administer(context) as services:
        scope = scope_of(where)
        delivery_id = await services.notifying.subscriptions.ping(SYSTEM, scope, webhook_id)
        return await _sent(services, scope, webhook_id, delivery_id)


async def send_example(
    context: typer.Context,
    event: Annotated[
        EventName, typer.Argument(metavar="EVENT", help="A name as `events` shows it.", show_default=False)
    ],
    where: Annotated[
        str | None,
        typer.Argument(metavar="WHERE", help="`OWNER/NAME`, `OWNER` or `server`.", show_default=False),
    ] = None,
    webhook_id: Annotated[
        int | None, typer.Argument(metavar="ID", help="As `list` shows it.", show_default=False)
    ] = None,
    url: Annotated[
        str | None, typer.Option(metavar="URL", help="Send it there, to no webhook.", show_default=False)
    ] = None,
    secret: TrialSecret = None,
) -> Answer:
    """Send the example of an event to a webhook or to a URL, and print what came back.

    To a webhook it is recorded like any other delivery, and a running server may be the one that sends it. To
    a URL it is signed with `--secret`, or with one that nobody knows. Where the server would not send, this
    does not either.
    """
    if url is not None:
        if where is not None:
            raise typer.BadParameter("name a webhook or a URL, not both", param_hint="--url")
        return await _sent_to_url(settings_of(context), event, url, check_secret(secret or new_secret()))
    if where is None or webhook_id is None:
        raise typer.BadParameter("name a webhook, or a URL with --url", param_hint="WHERE ID")
    async with administer(context) as services:
        scope = scope_of(where)
        delivery_id = await services.notifying.subscriptions.test(SYSTEM, scope, webhook_id, event)
        return await _sent(services, scope, webhook_id, delivery_id)


def show_events(
    event: Annotated[
        EventName | None,
        typer.Argument(metavar="EVENT", help="With its schema and an example.", show_default=False),
    ] = None,
) -> Answer:
    """List what webhooks can be told of, or show one event."""
    kinds = [_kind(one) for one in catalogue() if event in (None, one.name)]
    if event is None:
        return listing(kinds, "name version description")
    document = kinds[0]
    shown = msgspec.json.format(msgspec.json.encode(document["example"]), indent=2).decode()
    return Answer(document, f"{document['description']}\n\n{shown}")


async def _sent(services: Services, scope: WebhookScope, webhook_id: int, delivery_id: str) -> Answer:
    """What came of the first attempt at a delivery about no repository that was just queued.

    Whoever is first makes it: a server that runs, or this process, which touches nothing else of the queue.
    """
    notifying, settings = services.notifying, services.settings.webhooks
    deadline = time.monotonic() + 2 * settings.timeout_seconds + settings.poll_seconds
    while True:
        await notifying.deliveries.run_due((webhook_id, ""))
        found = await notifying.history.get(SYSTEM, scope, webhook_id, delivery_id)
        for attempt in found.attempts:
            if attempt.outcome is not None:
                return _told(delivery_id, attempt.outcome, attempt, attempt.response)
        if time.monotonic() > deadline:
            failure = "it was not sent yet: earlier deliveries to this webhook are tried first"
            return Answer({"id": delivery_id}, delivery_id, failure=failure)
        await asyncio.sleep(0.1)


async def _sent_to_url(settings: Settings, event: EventName, url: str, secret: str) -> Answer:
    kind = next(one for one in catalogue() if one.name is event)
    body = msgspec.json.encode({**kind.example, "timestamp": rfc3339(now()), "test": True})
    delivery_id = f"msg_{uuid4().hex}"
    signed = headers(
        [secret],
        delivery_id=delivery_id,
        timestamp=int(time.time()),
        event=event.value,
        attempt=1,
        body=body,
    )
    egress = Egress(Destinations(settings.webhooks))
    try:
        sent = await Sender(egress, settings.webhooks.timeout_seconds).send(url, signed, body)
    finally:
        await egress.close()
    return _told(delivery_id, sent.outcome, sent, sent.body)


def _told(delivery_id: str, outcome: Outcome, how: AttemptInfo | Sent, response: str | None) -> Answer:
    document = {
        "id": delivery_id,
        "outcome": outcome,
        "status": how.status,
        "milliseconds": how.milliseconds,
        "address": how.address,
        "response": response,
    }
    failure = "" if outcome is Outcome.DELIVERED else how.error or outcome.value
    return Answer(document, record(document).text, failure=failure)


def _kind(kind: EventKind) -> Document:
    return {
        "name": kind.name,
        "version": kind.version,
        "description": kind.description,
        "schema": kind.schema,
        "example": kind.example,
    }
