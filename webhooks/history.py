"""What was delivered, what was not, every attempt at it; and doing it again."""

from collections.abc import Callable, Collection, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, and_, select, tuple_, update
from sqlalchemy.ext.asyncio import AsyncSession

from core.access import Actor
from core.audit import Action, record
from core.database import Database
from core.errors import Unprocessable
from core.models import Attempt, Delivery, DeliveryState, Webhook, now
from core.settings import AuthSettings
from webhooks.errors import DeliveryNotFound, WebhookPaused
from webhooks.records import AttemptInfo, DeliveryDetails, DeliveryInfo, listed
from webhooks.scopes import Held, Scopes, WebhookScope
from webhooks.streams import feed

__all__ = ["MAX_REDELIVERED", "AttemptInfo", "DeliveryDetails", "DeliveryInfo", "History"]

# Deliveries of one call.
MAX_REDELIVERED = 10_000
_ROWS = 500


class History:
    """Rights as with `Subscriptions`: whoever may manage the scope. Refuses as `Scopes` does.

    Methods that take the id of a subscription raise `WebhookNotFound` when the scope has none with it.
    """

    def __init__(self, database: Database, auth: AuthSettings, on_deliveries: Callable[[], None]) -> None:
        """`on_deliveries` is called whenever there may be something to deliver."""
        self._scopes = Scopes(database, auth)
        self._on_deliveries = on_deliveries

    async def list(
        self,
        actor: Actor,
        scope: WebhookScope,
        webhook_id: int | None = None,
        *,
        state: DeliveryState | None = None,
        event: str | None = None,
        repository_id: str | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
        limit: int = 100,
        before: tuple[int, str] | None = None,
    ) -> list[DeliveryInfo]:
        """Newest first; of all subscriptions of the scope, or of one.

        Dead letters are those with the state `DEAD`. `since` and `until` are about when the event was
        told to the subscription; `before` is the `cursor` of the last item of the page before.
        """
        async with self._scopes.reading(actor, scope) as (session, held):
            if webhook_id is not None:
                held.own(await session.get(Webhook, webhook_id))
            conditions: Sequence[ColumnElement[bool] | None] = (
                held.condition(),
                None if webhook_id is None else Delivery.webhook_id == webhook_id,
                None if state is None else Delivery.state == state,
                None if event is None else Delivery.event == event.replace("\0", ""),
                None if repository_id is None else Delivery.repository_id == repository_id.replace("\0", ""),
                None if since is None else Delivery.created_at >= since,
                None if until is None else Delivery.created_at < until,
                None if before is None else _order() < tuple_(before[0], before[1].replace("\0", "")),
            )
            return await listed(session, and_(*(one for one in conditions if one is not None)), limit)

    async def get(
        self, actor: Actor, scope: WebhookScope, webhook_id: int, delivery_id: str
    ) -> DeliveryDetails:
        """One delivery with its body and its attempts. Raises `DeliveryNotFound`."""
        async with self._scopes.reading(actor, scope) as (session, held):
            held.own(await session.get(Webhook, webhook_id))
            of_this = and_(Delivery.webhook_id == webhook_id, Delivery.id == delivery_id.replace("\0", ""))
            found = await listed(session, of_this, 1)
            if not found:
                raise DeliveryNotFound("no such delivery")
            body = await session.scalar(select(Delivery.body).where(of_this))
            query = select(Attempt).where(Attempt.delivery_id == found[0].id).order_by(Attempt.number)
            attempts = tuple(AttemptInfo.of(one) for one in await session.scalars(query))
            return DeliveryDetails(found[0], body or "", attempts)

    async def redeliver(
        self, actor: Actor, scope: WebhookScope, webhook_id: int, delivery_ids: Sequence[str]
    ) -> int:
        """Delivers these again, or those that still wait now; returns how many.

        They keep their ids and their place: what comes after them in their repository waits for them.

        Raises:
            DeliveryNotFound: one of them is not there; then none is delivered again.
            WebhookPaused: the subscription is not active.
            Unprocessable: more than 10,000.
        """
        wanted = {one.replace("\0", "") for one in delivery_ids}
        _check_number(len(wanted))
        async with self._scopes.changing(actor, scope, webhook_id) as (session, held, webhook):
            found: set[str] = set()
            for some in _chunks(sorted(wanted)):
                query = select(Delivery.id).where(Delivery.webhook_id == webhook.id, Delivery.id.in_(some))
                found.update(await session.scalars(query))
            if found != wanted:
                raise DeliveryNotFound("no such delivery")
            await self._queue(session, actor, held, webhook, found)
        self._on_deliveries()
        return len(found)

    async def redeliver_between(
        self,
        actor: Actor,
        scope: WebhookScope,
        webhook_id: int,
        since: datetime,
        until: datetime,
        *,
        states: Collection[DeliveryState] = (DeliveryState.DEAD, DeliveryState.CANCELLED),
        event: str | None = None,
    ) -> int:
        """As `redeliver`, for what was told from `since` and before `until` and has one of `states`.

        Raises:
            WebhookPaused, Unprocessable: as `redeliver`.
        """
        async with self._scopes.changing(actor, scope, webhook_id) as (session, held, webhook):
            query = select(Delivery.id).where(
                Delivery.webhook_id == webhook.id,
                Delivery.created_at >= since,
                Delivery.created_at < until,
                Delivery.state.in_(states),
            )
            if event is not None:
                query = query.where(Delivery.event == event.replace("\0", ""))
            found = set(await session.scalars(query.limit(MAX_REDELIVERED + 1)))
            _check_number(len(found))
            await self._queue(session, actor, held, webhook, found)
        self._on_deliveries()
        return len(found)

    async def cancel(self, actor: Actor, scope: WebhookScope, webhook_id: int, delivery_id: str) -> None:
        """Gives up a pending delivery, so that what waits behind it goes on.

        Raises:
            DeliveryNotFound: it is not there, or not pending any more.
        """
        async with self._scopes.changing(actor, scope, webhook_id) as (session, held, webhook):
            found = await session.get(Delivery, delivery_id.replace("\0", ""))
            if found is None or found.webhook_id != webhook.id:
                raise DeliveryNotFound("no such delivery")
            if webhook.active:
                await feed(session, [(webhook.id, found.repository_id)], at_once=True)
            delivery = await session.get(Delivery, found.id, with_for_update=True, populate_existing=True)
            if delivery is None or delivery.finished_at is not None:
                raise DeliveryNotFound("this delivery is finished already")
            delivery.state, delivery.finished_at = DeliveryState.CANCELLED, now()
            details = {"id": webhook.id, "cancelled": delivery.id}
            record(session, actor, Action.WEBHOOK_UPDATE, held.target, **details)
        self._on_deliveries()

    async def _queue(
        self, session: AsyncSession, actor: Actor, held: Held, webhook: Webhook, ids: Collection[str]
    ) -> None:
        if not webhook.active:
            raise WebhookPaused("this webhook is paused; resume it first")
        streams: set[str] = set()
        for some in _chunks(sorted(ids)):
            query = select(Delivery.repository_id).where(Delivery.id.in_(some)).distinct()
            streams.update(await session.scalars(query))
        # First the streams, as whoever records an attempt does.
        await feed(session, [(webhook.id, one) for one in streams], at_once=True)
        for some in _chunks(sorted(ids)):
            await session.execute(
                update(Delivery)
                .where(Delivery.id.in_(some))
                .values(state=DeliveryState.PENDING, finished_at=None, failures=0, failing_since=None)
            )
        record(session, actor, Action.WEBHOOK_REDELIVER, held.target, id=webhook.id, deliveries=len(ids))


def _order() -> Any:
    return tuple_(Delivery.position, Delivery.id)


def _check_number(count: int) -> None:
    if count > MAX_REDELIVERED:
        raise Unprocessable(f"at most {MAX_REDELIVERED} deliveries can be asked for at once")


def _chunks(ids: Sequence[str]) -> Sequence[Sequence[str]]:
    return [ids[start : start + _ROWS] for start in range(0, len(ids), _ROWS)]
