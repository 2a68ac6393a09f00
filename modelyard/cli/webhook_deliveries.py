"""`modelyard webhook deliveries|delivery|redeliver|cancel`: what was sent, and sending it again."""

from typing import Annotated

import typer

from core.access import SYSTEM
from core.models import DeliveryState, now
from core.outbox import EventName
from modelyard.cli.administration import administer
from modelyard.cli.framework import Noun
from modelyard.cli.output import Answer, Document, done, listing, record
from modelyard.cli.webhook_scopes import DeliveryId, Since, Until, WebhookId, Where, parse_time, scope_of
from webhooks.history import AttemptInfo, DeliveryDetails, DeliveryInfo

_MAX_LISTED = 10_000
_AGAIN = [DeliveryState.DEAD, DeliveryState.CANCELLED]


def add_commands(command: Noun) -> None:
    """Makes the commands of this module a part of `command`."""
    for name, function in (
        ("deliveries", deliveries),
        ("delivery", delivery),
        ("redeliver", redeliver),
        ("cancel", cancel),
    ):
        command.command(name)(function)


async def deliveries(
    context: typer.Context,
    where: Where,
    webhook_id: Annotated[
        int | None,
        typer.Argument(
            metavar="ID", help="As `list` shows it; without: all that are there.", show_default=False
        ),
    ] = None,
    state: Annotated[
        DeliveryState | None, typer.Option(help="Only these; dead letters are `dead`.", show_default=False)
    ] = None,
    event: Annotated[EventName | None, typer.Option(metavar="NAME", help="Only of this event.")] = None,
    since: Since = None,
    until: Until = None,
    limit: Annotated[int, typer.Option(min=1, max=_MAX_LISTED, help="How many at most.")] = 100,
) -> Answer:
    """List what webhooks were sent, newest first."""
    from_, to = parse_time(since, "--since"), parse_time(until, "--until")
    async with administer(context) as services:
        found = await services.notifying.history.list(
            SYSTEM,
            scope_of(where),
            webhook_id,
            state=state,
            event=event,
            since=from_,
            until=to,
            limit=limit,
        )
    return listing(
        map(_view, found), "id webhook_id event state attempts last_outcome last_status created_at"
    )


async def delivery(
    context: typer.Context, where: Where, webhook_id: WebhookId, delivery_id: DeliveryId
) -> Answer:
    """Show a delivery with its body and every attempt."""
    async with administer(context) as services:
        found = await services.notifying.history.get(SYSTEM, scope_of(where), webhook_id, delivery_id)
    return whole(found)


async def redeliver(
    context: typer.Context,
    where: Where,
    webhook_id: WebhookId,
    deliveries: Annotated[
        list[str] | None,
        typer.Argument(metavar="DELIVERY", help="Which: all that are named, or none.", show_default=False),
    ] = None,
    since: Since = None,
    until: Until = None,
    states: Annotated[
        list[DeliveryState] | None,
        typer.Option(
            "--state", help="With --since: only these; without: dead and cancelled.", show_default=False
        ),
    ] = None,
    event: Annotated[
        EventName | None, typer.Option(metavar="NAME", help="With --since: only of this event.")
    ] = None,
) -> Answer:
    """Queue deliveries again, those that are named or those of a time; a running server sends them."""
    if bool(deliveries) == (since is not None):
        raise typer.BadParameter("name deliveries, or say --since", param_hint="DELIVERY")
    if deliveries and (until or states or event):
        raise typer.BadParameter("--until, --state and --event go with --since", param_hint="DELIVERY")
    from_, to = parse_time(since, "--since"), parse_time(until, "--until")
    async with administer(context) as services:
        history, scope = services.notifying.history, scope_of(where)
        if from_ is None:
            count = await history.redeliver(SYSTEM, scope, webhook_id, deliveries or [])
        else:
            count = await history.redeliver_between(
                SYSTEM, scope, webhook_id, from_, to or now(), states=states or _AGAIN, event=event
            )
    return done(f"queued {count} deliveries", id=webhook_id, deliveries=count)


async def cancel(
    context: typer.Context, where: Where, webhook_id: WebhookId, delivery_id: DeliveryId
) -> Answer:
    """Give up a delivery that is pending, so that what waits behind it goes on."""
    async with administer(context) as services:
        await services.notifying.history.cancel(SYSTEM, scope_of(where), webhook_id, delivery_id)
    return done(f"cancelled {delivery_id}", id=delivery_id)


def whole(found: DeliveryDetails) -> Answer:
    """A delivery, its attempts, and its body."""
    attempts = [_attempt(one) for one in found.attempts]
    shown = [record(document).text for document in (_view(found.delivery), *attempts, {"body": found.body})]
    return Answer({**_view(found.delivery), "history": attempts, "body": found.body}, "\n\n".join(shown))


def _view(delivery: DeliveryInfo) -> Document:
    return {
        "id": delivery.id,
        "webhook_id": delivery.webhook_id,
        "event": delivery.event,
        "event_id": delivery.event_id,
        "repository_id": delivery.repository_id or None,
        "state": delivery.state,
        "attempts": delivery.attempts,
        "last_outcome": delivery.last_outcome,
        "last_status": delivery.last_status,
        "next_attempt_at": delivery.next_attempt_at,
        "created_at": delivery.created_at,
        "finished_at": delivery.finished_at,
    }


def _attempt(attempt: AttemptInfo) -> Document:
    return {
        "attempt": attempt.number,
        "started_at": attempt.started_at,
        "milliseconds": attempt.milliseconds,
        "outcome": attempt.outcome,
        "status": attempt.status,
        "address": attempt.address,
        "error": attempt.error,
        "response_headers": attempt.response_headers,
        "response": attempt.response,
    }
