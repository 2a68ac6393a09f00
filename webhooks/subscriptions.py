"""Subscriptions: who is told of what, and where."""

import time
from collections.abc import Callable, Sequence
from datetime import timedelta

from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncSession

from core.access import Actor
from core.audit import Action, record
from core.database import Database
from core.errors import Unprocessable
from core.models import Delivery, OutboxEvent, Webhook, now
from core.outbox import EventName, identity
from core.settings import AuthSettings, WebhooksSettings
from core.texts import checked_text
from webhooks.descriptions import SecretInfo, WebhookInfo
from webhooks.destinations import Destinations
from webhooks.envelopes import body_of
from webhooks.errors import SecretsUnreadable, WebhookPaused
from webhooks.events import check_patterns, example_data, example_repository
from webhooks.scopes import Held, Scopes, WebhookScope
from webhooks.sealing import MAX_SECRETS, SecretBox, StoredSecret, check_secret, new_secret
from webhooks.streams import feed, halt, start

__all__ = ["SecretInfo", "Subscriptions", "WebhookInfo"]

_NAME = 200
_MAX_KEEP = timedelta(days=30)


class Subscriptions:
    """Every method finds the scope and asks for the right to manage it, and refuses as `Scopes` does.

    Methods that take the id of a subscription raise `WebhookNotFound` when the scope has none with it.
    Changes are in the audit log; URLs may hold secrets, so the log has receivers instead.
    """

    def __init__(
        self,
        database: Database,
        box: SecretBox,
        destinations: Destinations,
        settings: WebhooksSettings,
        auth: AuthSettings,
        on_deliveries: Callable[[], None],
    ) -> None:
        """`on_deliveries` is called whenever there may be something to deliver."""
        self._scopes = Scopes(database, auth)
        self._box = box
        self._destinations = destinations
        self._settings = settings
        self._on_deliveries = on_deliveries

    async def create(
        self,
        actor: Actor,
        scope: WebhookScope,
        url: str,
        events: Sequence[str],
        *,
        name: str = "",
        secret: str | None = None,
    ) -> tuple[WebhookInfo, str]:
        """A new subscription and its secret, which is not shown again. Without `secret` one is made.

        Raises:
            DestinationRefused: the server does not send to this URL.
            Unprocessable: no such event, a secret that is none, or `[webhooks] max_per_scope` are there.
        """
        async with self._scopes.adding(actor, scope) as (session, held):
            destination = self._destinations.check(url)
            text = check_secret(secret) if secret is not None else new_secret()
            webhook = Webhook(
                repository_id=held.repository_id,
                owner_id=held.owner_id,
                name=checked_text(name, "name", _NAME),
                url=url,
                receiver=destination.receiver,
                events=check_patterns(events),
                secrets=b"",
                created_by=actor.name,
            )
            count = select(func.count()).select_from(Webhook).where(held.condition())
            if (await session.scalar(count) or 0) >= self._settings.max_per_scope:
                raise Unprocessable(f"there are {self._settings.max_per_scope} webhooks already")
            session.add(webhook)
            await session.flush()
            webhook.secrets = self._box.seal(webhook.id, [StoredSecret(text, int(time.time()))])
            _record(session, actor, Action.WEBHOOK_CREATE, held, webhook, events=webhook.events)
            return self._info(webhook, held), text

    async def list(self, actor: Actor, scope: WebhookScope) -> list[WebhookInfo]:
        """Those of this scope, oldest first; `[webhooks] max_per_scope` at most."""
        async with self._scopes.reading(actor, scope) as (session, held):
            query = select(Webhook).where(held.condition()).order_by(Webhook.id)
            return [self._info(webhook, held) for webhook in await session.scalars(query)]

    async def get(self, actor: Actor, scope: WebhookScope, webhook_id: int) -> WebhookInfo:
        """One subscription."""
        async with self._scopes.reading(actor, scope) as (session, held):
            return self._info(held.own(await session.get(Webhook, webhook_id)), held)

    async def update(
        self,
        actor: Actor,
        scope: WebhookScope,
        webhook_id: int,
        *,
        url: str | None = None,
        events: Sequence[str] | None = None,
        name: str | None = None,
    ) -> WebhookInfo:
        """Changes what is not None. To another URL, what is pending is tried at once. Raises as `create`."""
        async with self._scopes.changing(actor, scope, webhook_id) as (session, held, webhook):
            if name is not None:
                webhook.name = checked_text(name, "name", _NAME)
            if events is not None:
                webhook.events = check_patterns(events)
            if url is not None and url != webhook.url:
                webhook.url, webhook.receiver = url, self._destinations.check(url).receiver
                if webhook.active:
                    await start(session, webhook)
            webhook.updated_at = now()
            _record(session, actor, Action.WEBHOOK_UPDATE, held, webhook, events=webhook.events)
            return self._info(webhook, held)

    async def delete(self, actor: Actor, scope: WebhookScope, webhook_id: int) -> None:
        """Ends a subscription with everything that was, and was to be, delivered to it."""
        async with self._scopes.changing(actor, scope, webhook_id) as (session, held, webhook):
            _record(session, actor, Action.WEBHOOK_DELETE, held, webhook)
            await session.delete(webhook)

    async def rotate_secret(
        self,
        actor: Actor,
        scope: WebhookScope,
        webhook_id: int,
        *,
        keep_hours: float | None = 24.0,
        secret: str | None = None,
    ) -> tuple[WebhookInfo, str]:
        """A new secret, which is not shown again. The former ones sign too for `keep_hours`.

        0 ends them at once, None keeps them until `drop_old_secrets`; four at most are kept.

        Raises:
            Unprocessable: a secret that is none, or longer than 30 days.
        """
        at = time.time()
        if keep_hours is not None and not 0 <= keep_hours <= _MAX_KEEP.total_seconds() / 3600:
            raise Unprocessable("former secrets are kept for 0 to 720 hours", field="keep_hours")
        text = check_secret(secret) if secret is not None else new_secret()
        async with self._scopes.changing(actor, scope, webhook_id) as (session, held, webhook):
            former = [one for one in self._readable(webhook) if one.signs(at)]
            if keep_hours is not None:
                end = int(at + keep_hours * 3600)
                former = [_ending(one, end) for one in former if end > at]
            kept = [StoredSecret(text, int(at)), *former][:MAX_SECRETS]
            webhook.secrets = self._box.seal(webhook.id, kept)
            webhook.updated_at = now()
            _record(session, actor, Action.WEBHOOK_SECRET, held, webhook, secrets=len(kept))
            return self._info(webhook, held), text

    async def drop_old_secrets(self, actor: Actor, scope: WebhookScope, webhook_id: int) -> WebhookInfo:
        """Leaves only the newest secret."""
        async with self._scopes.changing(actor, scope, webhook_id) as (session, held, webhook):
            kept = self._box.open(webhook.id, webhook.secrets)[:1]
            webhook.secrets = self._box.seal(webhook.id, kept)
            webhook.updated_at = now()
            _record(session, actor, Action.WEBHOOK_SECRET, held, webhook, secrets=len(kept))
            return self._info(webhook, held)

    async def pause(self, actor: Actor, scope: WebhookScope, webhook_id: int) -> WebhookInfo:
        """Sends nothing more. What is pending waits; what happens meanwhile is not told later."""
        async with self._scopes.changing(actor, scope, webhook_id) as (session, held, webhook):
            if webhook.active:
                await halt(session, webhook, None)
                _record(session, actor, Action.WEBHOOK_PAUSE, held, webhook)
            return self._info(webhook, held)

    async def resume(self, actor: Actor, scope: WebhookScope, webhook_id: int) -> WebhookInfo:
        """Goes on, also with what the server paused: what is pending is tried at once and anew."""
        async with self._scopes.changing(actor, scope, webhook_id) as (session, held, webhook):
            if not webhook.active:
                await start(session, webhook)
                _record(session, actor, Action.WEBHOOK_RESUME, held, webhook)
            info = self._info(webhook, held)
        self._on_deliveries()
        return info

    async def ping(self, actor: Actor, scope: WebhookScope, webhook_id: int) -> str:
        """Sends a `ping`, whatever the subscription is for; returns the id of the delivery.

        Raises:
            WebhookPaused: it is not active.
        """
        async with self._scopes.changing(actor, scope, webhook_id) as (session, held, webhook):
            payload = {"webhook_id": webhook.id, "events": webhook.events, "actor": actor.name}
            about = identity(held.repository) if held.repository else None
            delivery_id = await self._send(session, webhook, EventName.PING, payload, about, test=False)
        self._on_deliveries()
        return delivery_id

    async def test(self, actor: Actor, scope: WebhookScope, webhook_id: int, event: EventName) -> str:
        """Sends the example of an event, with `"test": true` in it; returns the id of the delivery.

        Raises:
            WebhookPaused: it is not active.
        """
        async with self._scopes.changing(actor, scope, webhook_id) as (session, held, webhook):
            payload = {**example_data(event), "actor": actor.name}
            about = identity(held.repository) if held.repository else example_repository()
            delivery_id = await self._send(session, webhook, event, payload, about, test=True)
        self._on_deliveries()
        return delivery_id

    async def _send(
        self,
        session: AsyncSession,
        webhook: Webhook,
        name: EventName,
        payload: dict[str, object],
        about: dict[str, str] | None,
        *,
        test: bool,
    ) -> str:
        if not webhook.active:
            raise WebhookPaused("this webhook is paused; resume it first")
        # An event like any other, with an id of its own, but told to this subscription only. It belongs to no
        # repository: what waits to be told of one must not wait for it, nor it for that.
        event = OutboxEvent(name=name, repository_id=None, payload=payload, handled_at=now())
        session.add(event)
        await session.flush()
        body = body_of(event, about, max_bytes=self._settings.max_payload_bytes, test=test)
        delivery = Delivery(
            webhook_id=webhook.id, repository_id="", position=event.id, event=name.value, body=body
        )
        session.add(delivery)
        await session.flush()
        await feed(session, [(webhook.id, "")])
        return delivery.id

    def _readable(self, webhook: Webhook) -> Sequence[StoredSecret]:
        try:
            return self._box.open(webhook.id, webhook.secrets)
        except SecretsUnreadable:
            return []

    def _info(self, webhook: Webhook, held: Held) -> WebhookInfo:
        return WebhookInfo.of(webhook, held, self._readable(webhook))


def _ending(secret: StoredSecret, end: int) -> StoredSecret:
    sooner = end if secret.expires is None else min(end, secret.expires)
    return StoredSecret(secret.text, secret.created, sooner)


def _record(
    session: AsyncSession, actor: Actor, action: Action, held: Held, webhook: Webhook, **details: object
) -> None:
    record(session, actor, action, held.target, id=webhook.id, receiver=webhook.receiver, **details)
