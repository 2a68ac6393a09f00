"""`/webhooks`: who is told of what happens in a repository, at an owner, or on the server."""

from datetime import datetime
from typing import Annotated

import msgspec
from msgspec import UNSET, Meta, UnsetType

from core.errors import Unprocessable
from core.outbox import EventName
from modelyard.api.call import Call
from modelyard.api.cursors import Page, Window
from modelyard.api.operation import Operations
from modelyard.api.parameters import Id, given
from modelyard.api.webhook_places import everywhere
from webhooks.errors import (
    DestinationRefused,
    SecretsUnreadable,
    WebhookNotFound,
    WebhookPaused,
)
from webhooks.scopes import WebhookScope
from webhooks.subscriptions import WebhookInfo

operations = Operations(
    "webhooks",
    "Who is told of what happens: in one repository, in everything that a user or an organisation owns, or "
    "anywhere on the server. `docs/webhooks.md` says what receivers get. Secrets are answered once, when "
    "they are made.",
)

ONE = "/webhooks/{webhook}"

Url = Annotated[str, Meta(min_length=1, max_length=2000, description="`https://…`, in ASCII.")]
Events = Annotated[
    list[Annotated[str, Meta(min_length=1, max_length=64)]],
    Meta(min_length=1, max_length=50, description="Names as `/events` lists them, `repository.*`, or `*`."),
]
Secret = Annotated[
    str,
    Meta(
        min_length=1,
        max_length=200,
        description="`whsec_` and the base64 of 24 to 64 bytes; one is made when it is left out.",
    ),
]
Label = Annotated[str, Meta(max_length=200, description="What people call it.")]


class NewWebhook(msgspec.Struct, forbid_unknown_fields=True):
    """A subscription to be."""

    url: Url
    events: Events
    name: Label = ""
    secret: Secret | UnsetType = UNSET


class WebhookChanges(msgspec.Struct, forbid_unknown_fields=True):
    """What is left out stays as it is."""

    url: Url | UnsetType = UNSET
    events: Events | UnsetType = UNSET
    name: Label | UnsetType = UNSET


class SecretRotation(msgspec.Struct, forbid_unknown_fields=True):
    """For how long the former secrets sign too: 0 ends them at once, null keeps them until dropped."""

    keep_hours: Annotated[float, Meta(ge=0, le=720)] | None = 24.0
    secret: Secret | UnsetType = UNSET


class WebhookTest(msgspec.Struct, forbid_unknown_fields=True):
    event: EventName


class SecretView(msgspec.Struct):
    """A secret that signs; null for `expires_at` is until it is dropped."""

    created_at: datetime
    expires_at: datetime | None


class WebhookView(msgspec.Struct, kw_only=True):
    """A subscription.

    `paused_reason` is why the server paused it, null when somebody did. `failures` counts the attempts since
    the last one that did not fail, which was before `failing_since`. `secrets` are those that sign, newest
    first; none when the server cannot open them: rotate the secret then.
    """

    id: int
    name: str
    url: str
    events: list[str]
    active: bool
    paused_reason: str | None
    failures: int
    failing_since: datetime | None
    secrets: list[SecretView]
    created_by: str
    created_at: datetime
    updated_at: datetime


class WebhookWithSecretView(WebhookView, kw_only=True):
    """A subscription and its new secret, which nobody can see again."""

    secret: str


class QueuedView(msgspec.Struct):
    """The id of the delivery that was queued: its `webhook-id`."""

    id: str


def _view(webhook: WebhookInfo) -> WebhookView:
    return msgspec.convert(webhook, WebhookView, from_attributes=True)


def _with_secret(webhook: WebhookInfo, secret: str) -> WebhookWithSecretView:
    return WebhookWithSecretView(**msgspec.structs.asdict(_view(webhook)), secret=secret)


@everywhere(operations, "GET", "/webhooks")
async def list_webhooks(call: Call, scope: WebhookScope, window: Window[int]) -> Page[WebhookView]:
    """List webhooks.

    Oldest first.
    """
    found = await call.services.notifying.subscriptions.list(call.actor, scope)
    return window.page_of_all(found, _view, lambda webhook: webhook.id)


@everywhere(operations, "POST", "/webhooks", status=201, errors=(DestinationRefused, Unprocessable))
async def create_webhook(call: Call, scope: WebhookScope, body: NewWebhook) -> WebhookWithSecretView:
    """Create a webhook.

    The answer has its secret, which is not shown again. Nothing is sent to private addresses or without TLS,
    unless the settings of the server allow it.
    """
    webhook, secret = await call.services.notifying.subscriptions.create(
        call.actor, scope, body.url, body.events, name=body.name, secret=given(body.secret)
    )
    path = call.request.rel_url.raw_path.removesuffix("/")
    call.headers["Location"] = f"{call.base}{path}/{webhook.id}"
    return _with_secret(webhook, secret)


@everywhere(operations, "GET", ONE, errors=(WebhookNotFound,))
async def read_webhook(call: Call, scope: WebhookScope, webhook: Id) -> WebhookView:
    """Read a webhook."""
    return _view(await call.services.notifying.subscriptions.get(call.actor, scope, webhook))


@everywhere(operations, "PATCH", ONE, errors=(DestinationRefused, Unprocessable, WebhookNotFound))
async def update_webhook(call: Call, scope: WebhookScope, webhook: Id, body: WebhookChanges) -> WebhookView:
    """Change a webhook.

    With another URL, what is pending is sent there at once.
    """
    changed = await call.services.notifying.subscriptions.update(
        call.actor, scope, webhook, url=given(body.url), events=given(body.events), name=given(body.name)
    )
    return _view(changed)


@everywhere(operations, "DELETE", ONE, errors=(WebhookNotFound,))
async def delete_webhook(call: Call, scope: WebhookScope, webhook: Id) -> None:
    """Delete a webhook.

    With all that was delivered to it, and all that was to be.
    """
    await call.services.notifying.subscriptions.delete(call.actor, scope, webhook)


@everywhere(operations, "POST", ONE + "/secret", errors=(Unprocessable, WebhookNotFound))
async def rotate_webhook_secret(
    call: Call, scope: WebhookScope, webhook: Id, body: SecretRotation
) -> WebhookWithSecretView:
    """Give a webhook a new secret.

    The answer has it, and it is not shown again. The former ones sign too for a while, four together at most.
    """
    changed, secret = await call.services.notifying.subscriptions.rotate_secret(
        call.actor, scope, webhook, keep_hours=body.keep_hours, secret=given(body.secret)
    )
    return _with_secret(changed, secret)


@everywhere(operations, "DELETE", ONE + "/secret/former", errors=(SecretsUnreadable, WebhookNotFound))
async def drop_former_webhook_secrets(call: Call, scope: WebhookScope, webhook: Id) -> None:
    """Let only the newest secret of a webhook sign."""
    await call.services.notifying.subscriptions.drop_old_secrets(call.actor, scope, webhook)


@everywhere(operations, "POST", ONE + "/pause", errors=(WebhookNotFound,))
async def pause_webhook(call: Call, scope: WebhookScope, webhook: Id) -> WebhookView:
    """Pause a webhook.

    What is pending waits. What happens meanwhile is not told later.
    """
    return _view(await call.services.notifying.subscriptions.pause(call.actor, scope, webhook))


@everywhere(operations, "POST", ONE + "/resume", errors=(WebhookNotFound,))
async def resume_webhook(call: Call, scope: WebhookScope, webhook: Id) -> WebhookView:
    """Resume a webhook.

    What is pending is tried at once, and its time to fail begins anew.
    """
    return _view(await call.services.notifying.subscriptions.resume(call.actor, scope, webhook))


@everywhere(operations, "POST", ONE + "/ping", status=202, errors=(WebhookNotFound, WebhookPaused))
async def ping_webhook(call: Call, scope: WebhookScope, webhook: Id) -> QueuedView:
    """Send a `ping` to a webhook.

    Whatever it is for.
    """
    return QueuedView(await call.services.notifying.subscriptions.ping(call.actor, scope, webhook))


@everywhere(operations, "POST", ONE + "/test", status=202, errors=(WebhookNotFound, WebhookPaused))
async def test_webhook(call: Call, scope: WebhookScope, webhook: Id, body: WebhookTest) -> QueuedView:
    """Send the example of an event to a webhook.

    Whatever it is for. The body has `"test": true`.
    """
    return QueuedView(
        await call.services.notifying.subscriptions.test(call.actor, scope, webhook, body.event)
    )
