"""`/deliveries`: what a webhook was sent, every attempt at it, and sending it again."""

from datetime import UTC, datetime
from typing import Annotated, Any

import msgspec
from msgspec import UNSET, Meta, UnsetType

from core.errors import Unprocessable
from core.models import DeliveryState, now
from core.outbox import EventName
from modelyard.api.call import Call
from modelyard.api.cursors import Page, Window
from modelyard.api.operation import Operations
from modelyard.api.parameters import Id, given
from modelyard.api.webhook_places import everywhere
from modelyard.api.webhooks import ONE
from webhooks.errors import DeliveryNotFound, WebhookNotFound, WebhookPaused
from webhooks.history import MAX_REDELIVERED, DeliveryInfo
from webhooks.outcomes import Outcome
from webhooks.scopes import WebhookScope

operations = Operations(
    "webhook deliveries",
    "What webhooks were sent, every attempt at it, and sending it again. Dead letters are those with the "
    "state `dead`. Finished deliveries are kept for `[webhooks] keep_days`.",
)

DeliveryId = Annotated[str, Meta(min_length=1, max_length=64, description="Its `webhook-id`.")]
RepositoryId = Annotated[str, Meta(min_length=1, max_length=64, description="Only about this repository.")]
Moment = Annotated[datetime, Meta(tz=True, description="As in RFC 3339, with its zone.")]


class DeliveryView(msgspec.Struct, kw_only=True):
    """A delivery: one event for one webhook.

    `event_id` is the `id` in its body. `next_attempt_at` is null when it is finished, and while others about
    the same repository come before it. `last_outcome` is null while an attempt is under way.
    """

    id: str
    webhook_id: int
    event: str
    event_id: str
    repository_id: str | None
    state: DeliveryState
    attempts: int
    last_outcome: Outcome | None
    last_status: int | None
    next_attempt_at: datetime | None
    created_at: datetime
    finished_at: datetime | None


class AttemptView(msgspec.Struct):
    """One attempt; `outcome` is null while it is under way, and when the server died with it.

    `address` is where it went to, or would have. `response` is the first 4 KiB of what came back.
    """

    number: int
    started_at: datetime
    milliseconds: int | None
    outcome: Outcome | None
    status: int | None
    address: str | None
    error: str | None
    response_headers: dict[str, Any]
    response: str | None


class WholeDeliveryView(DeliveryView, kw_only=True):
    """A delivery with its body, byte for byte what was signed and sent, and its attempts, first one first."""

    body: str
    history: list[AttemptView]


class Redelivery(msgspec.Struct, forbid_unknown_fields=True):
    ids: Annotated[list[DeliveryId], Meta(min_length=1, max_length=MAX_REDELIVERED)]


class Replay(msgspec.Struct, forbid_unknown_fields=True):
    """Deliveries that were queued from `since` and before `until`, which is now when it is left out."""

    since: Moment
    until: Moment | UnsetType = UNSET
    states: Annotated[list[DeliveryState], Meta(min_length=1, max_length=4)] = msgspec.field(
        default_factory=lambda: [DeliveryState.DEAD, DeliveryState.CANCELLED]
    )
    event: EventName | UnsetType = UNSET


class RequeuedView(msgspec.Struct):
    """How many deliveries are sent again."""

    deliveries: int


def _view(delivery: DeliveryInfo) -> DeliveryView:
    view = msgspec.convert(delivery, DeliveryView, from_attributes=True)
    view.repository_id = view.repository_id or None
    return view


def _utc(moment: datetime | None, field: str) -> datetime | None:
    try:
        return moment.astimezone(UTC) if moment else None
    except OverflowError as error:  # the first and the last day there is, in other zones
        raise Unprocessable("this moment is out of range", field=field) from error


@everywhere(operations, "GET", "/webhook-deliveries", errors=(Unprocessable,))
async def list_webhook_deliveries(
    call: Call,
    scope: WebhookScope,
    window: Window[tuple[int, str]],
    state: DeliveryState | None = None,
    event: EventName | None = None,
    repository_id: RepositoryId | None = None,
    since: Moment | None = None,
    until: Moment | None = None,
) -> Page[DeliveryView]:
    """List what all webhooks here were sent.

    Newest first. `since` and `until` are about when they were queued.
    """
    return await _listed(call, scope, None, window, state, event, repository_id, since, until)


@everywhere(operations, "GET", ONE + "/deliveries", errors=(Unprocessable, WebhookNotFound))
async def list_deliveries_of_webhook(
    call: Call,
    scope: WebhookScope,
    webhook: Id,
    window: Window[tuple[int, str]],
    state: DeliveryState | None = None,
    event: EventName | None = None,
    repository_id: RepositoryId | None = None,
    since: Moment | None = None,
    until: Moment | None = None,
) -> Page[DeliveryView]:
    """List what a webhook was sent.

    Newest first. `since` and `until` are about when they were queued.
    """
    return await _listed(call, scope, webhook, window, state, event, repository_id, since, until)


async def _listed(
    call: Call,
    scope: WebhookScope,
    webhook: int | None,
    window: Window[tuple[int, str]],
    state: DeliveryState | None,
    event: EventName | None,
    repository_id: str | None,
    since: datetime | None,
    until: datetime | None,
) -> Page[DeliveryView]:
    found = await call.services.notifying.history.list(
        call.actor,
        scope,
        webhook,
        state=state,
        event=event,
        repository_id=repository_id,
        since=_utc(since, "since"),
        until=_utc(until, "until"),
        limit=window.fetch,
        before=window.after,
    )
    return window.page(found, _view, lambda delivery: delivery.cursor)


@everywhere(operations, "GET", ONE + "/deliveries/{delivery}", errors=(DeliveryNotFound, WebhookNotFound))
async def read_webhook_delivery(
    call: Call, scope: WebhookScope, webhook: Id, delivery: DeliveryId
) -> WholeDeliveryView:
    """Read a delivery, with its body and every attempt."""
    found = await call.services.notifying.history.get(call.actor, scope, webhook, delivery)
    attempts = msgspec.convert(found.attempts, list[AttemptView], from_attributes=True)
    members = msgspec.structs.asdict(_view(found.delivery))
    return WholeDeliveryView(**members, body=found.body, history=attempts)


_AGAIN = (DeliveryNotFound, Unprocessable, WebhookNotFound, WebhookPaused)


@everywhere(operations, "POST", ONE + "/deliveries/{delivery}/redeliver", status=202, errors=_AGAIN)
async def redeliver_webhook_delivery(
    call: Call, scope: WebhookScope, webhook: Id, delivery: DeliveryId
) -> RequeuedView:
    """Send a delivery again.

    With the same body and `webhook-id`; or now, if it waits. It keeps its place: what comes after it about
    the same repository waits for it.
    """
    history = call.services.notifying.history
    return RequeuedView(await history.redeliver(call.actor, scope, webhook, [delivery]))


@everywhere(
    operations,
    "POST",
    ONE + "/deliveries/{delivery}/cancel",
    errors=(DeliveryNotFound, WebhookNotFound),
)
async def cancel_webhook_delivery(call: Call, scope: WebhookScope, webhook: Id, delivery: DeliveryId) -> None:
    """Give up a delivery that is pending.

    What waits behind it goes on.
    """
    await call.services.notifying.history.cancel(call.actor, scope, webhook, delivery)


@everywhere(operations, "POST", ONE + "/redeliver", status=202, errors=_AGAIN)
async def redeliver_to_webhook(
    call: Call, scope: WebhookScope, webhook: Id, body: Redelivery
) -> RequeuedView:
    """Send some deliveries again: all that are named, or none."""
    history = call.services.notifying.history
    return RequeuedView(await history.redeliver(call.actor, scope, webhook, body.ids))


@everywhere(
    operations, "POST", ONE + "/replay", status=202, errors=(Unprocessable, WebhookNotFound, WebhookPaused)
)
async def replay_to_webhook(call: Call, scope: WebhookScope, webhook: Id, body: Replay) -> RequeuedView:
    """Send the deliveries of a time again: by default those that are dead or were cancelled."""
    since, until = _utc(body.since, "since"), _utc(given(body.until), "until")
    assert since is not None
    requeued = await call.services.notifying.history.redeliver_between(
        call.actor,
        scope,
        webhook,
        since,
        until or now(),
        states=body.states,
        event=given(body.event),
    )
    return RequeuedView(requeued)
