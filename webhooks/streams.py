"""Streams: what is due, and who may deliver it.

A stream is one subscription about one repository. Its row is a queue's head: `due_at` says when its first
unfinished delivery is to be tried, and a lease on it lets one worker try. So there is one attempt at a time,
in the order of the events, however many workers share the database; streams know nothing of each other.

Locks are taken in the order subscription, stream, delivery, everywhere.
"""

from collections.abc import Collection
from datetime import datetime

from sqlalchemy import ColumnElement, Select, exists, func, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from core.models import Delivery, DeliveryState, DeliveryStream, Webhook, now
from core.upsert import insert_into

StreamKey = tuple[int, str]  # a webhook's id and a repository's id, or "" for none

# Rows of one statement; SQLite takes 32,766 parameters.
_ROWS = 500


async def feed(session: AsyncSession, keys: Collection[StreamKey], *, at_once: bool = False) -> None:
    """Makes streams due that were idle; call it after their deliveries were written.

    With `at_once` those that wait to try again become due now as well.
    """
    ordered = sorted(keys)  # whoever feeds the same streams queues, instead of dead-locking
    for start in range(0, len(ordered), _ROWS):
        rows = [
            {"webhook_id": webhook_id, "repository_id": repository_id, "due_at": now()}
            for webhook_id, repository_id in ordered[start : start + _ROWS]
        ]
        statement = insert_into(session, DeliveryStream).values(rows)
        due = statement.excluded.due_at
        kept = due if at_once else func.coalesce(DeliveryStream.due_at, due)
        await session.execute(
            statement.on_conflict_do_update(
                index_elements=[DeliveryStream.webhook_id, DeliveryStream.repository_id],
                set_={"due_at": kept},
            )
        )


def first_unfinished(webhook_id: int, repository_id: str) -> Select[Delivery]:
    """The delivery that a stream is about now."""
    return (
        select(Delivery)
        .where(
            Delivery.webhook_id == webhook_id,
            Delivery.repository_id == repository_id,
            Delivery.finished_at.is_(None),
        )
        .order_by(Delivery.position)
        .limit(1)
    )


async def lock_webhook(session: AsyncSession, webhook_id: int) -> Webhook | None:
    """The subscription, for whoever changes it or what it is told; None when it is gone."""
    # FOR NO KEY UPDATE: those who only refer to the row do not wait.
    return await session.get(Webhook, webhook_id, with_for_update={"key_share": True})


async def halt(session: AsyncSession, webhook: Webhook, reason: str | None) -> None:
    """Ends deliveries to a locked subscription until `start`; what is pending stays.

    `reason` is why the server does it; None when somebody asked for it.
    """
    webhook.active, webhook.paused_reason, webhook.updated_at = False, reason, now()
    await lock_streams(session, webhook.id)
    await session.execute(
        update(DeliveryStream).where(DeliveryStream.webhook_id == webhook.id).values(due_at=None)
    )


async def start(session: AsyncSession, webhook: Webhook) -> None:
    """Goes on with a locked subscription: what is pending is due, and the time to try it begins anew."""
    webhook.active, webhook.paused_reason, webhook.updated_at = True, None, now()
    webhook.failures, webhook.failing_since = 0, None
    await lock_streams(session, webhook.id)
    await session.execute(
        update(DeliveryStream)
        .where(DeliveryStream.webhook_id == webhook.id, _has_unfinished())
        .values(due_at=now())
    )
    await session.execute(
        update(Delivery)
        .where(Delivery.webhook_id == webhook.id, Delivery.finished_at.is_(None))
        .values(failures=0, failing_since=None)
    )


async def cancel_pending(session: AsyncSession, webhook_id: int, *, at: datetime) -> None:
    """Nothing that waits for a locked subscription, whose streams are locked too, is delivered any more."""
    await session.execute(
        update(Delivery)
        .where(Delivery.webhook_id == webhook_id, Delivery.finished_at.is_(None))
        .values(state=DeliveryState.CANCELLED, finished_at=at)
    )


async def lock_streams(session: AsyncSession, webhook_id: int) -> None:
    """All streams of a locked subscription; whoever needs more than one of them takes them so, first."""
    # In the order of `feed`.
    streams = select(DeliveryStream.repository_id).where(DeliveryStream.webhook_id == webhook_id)
    await session.execute(streams.order_by(DeliveryStream.repository_id).with_for_update())


def _has_unfinished() -> ColumnElement[bool]:
    return exists().where(
        Delivery.webhook_id == DeliveryStream.webhook_id,
        Delivery.repository_id == DeliveryStream.repository_id,
        Delivery.finished_at.is_(None),
    )
