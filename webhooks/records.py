"""What is told of deliveries and attempts."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Self

from sqlalchemy import ColumnElement, and_, select
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import defer

from core.models import Attempt, Delivery, DeliveryState, DeliveryStream, Webhook
from webhooks.envelopes import event_id
from webhooks.outcomes import Outcome


@dataclass(frozen=True, slots=True)
class DeliveryInfo:
    """A delivery without its body.

    Attributes:
        id: the `webhook-id` that the receiver sees, however often it is tried.
        event_id: the `id` in the body.
        repository_id: empty when it is about no repository.
        next_attempt_at: when it is tried again; None when it is finished, or others come before it.
        last_outcome, last_status: of the last attempt; both None while it is under way, or never was.
    """

    id: str
    webhook_id: int
    event: str
    event_id: str
    position: int
    repository_id: str
    state: DeliveryState
    attempts: int
    last_outcome: Outcome | None
    last_status: int | None
    next_attempt_at: datetime | None
    created_at: datetime
    finished_at: datetime | None

    @property
    def cursor(self) -> tuple[int, str]:
        """Its place in the order of `History.list`."""
        return self.position, self.id


@dataclass(frozen=True, slots=True)
class AttemptInfo:
    """One attempt. `outcome` None: it is under way, or the server died with it.

    `response` is the first 4 KiB of the body as text; `response_headers` are some of the headers.
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

    @classmethod
    def of(cls, attempt: Attempt) -> Self:
        return cls(
            number=attempt.number,
            started_at=attempt.started_at,
            milliseconds=attempt.milliseconds,
            outcome=Outcome(attempt.outcome) if attempt.outcome else None,
            status=attempt.status,
            address=attempt.address,
            error=attempt.error,
            response_headers=attempt.response_headers or {},
            response=attempt.response,
        )


@dataclass(frozen=True, slots=True)
class DeliveryDetails:
    """A delivery, what was sent, and every attempt, the first one first."""

    delivery: DeliveryInfo
    body: str
    attempts: tuple[AttemptInfo, ...]


async def listed(session: AsyncSession, condition: ColumnElement[bool], limit: int) -> list[DeliveryInfo]:
    """The newest deliveries of which `condition` is true; it may be about their `Webhook` too."""
    earlier = Delivery.__table__.alias("earlier")
    is_first = ~(
        select(earlier.c.id)
        .where(
            earlier.c.webhook_id == Delivery.webhook_id,
            earlier.c.repository_id == Delivery.repository_id,
            earlier.c.finished_at.is_(None),
            earlier.c.position < Delivery.position,
        )
        .exists()
    )
    query = (
        # Never the bodies: a page of them may hold hundreds of megabytes.
        select(Delivery, Attempt.outcome, Attempt.status, DeliveryStream.due_at, is_first)
        .join(Webhook, Webhook.id == Delivery.webhook_id)
        .outerjoin(Attempt, and_(Attempt.delivery_id == Delivery.id, Attempt.number == Delivery.attempts))
        .outerjoin(
            DeliveryStream,
            and_(
                Delivery.finished_at.is_(None),
                DeliveryStream.webhook_id == Delivery.webhook_id,
                DeliveryStream.repository_id == Delivery.repository_id,
            ),
        )
        .where(condition)
        .order_by(Delivery.position.desc(), Delivery.id.desc())
        .limit(limit)
        .options(defer(Delivery.body))
    )
    return [
        DeliveryInfo(
            id=delivery.id,
            webhook_id=delivery.webhook_id,
            event=delivery.event,
            event_id=event_id(delivery.position),
            position=delivery.position,
            repository_id=delivery.repository_id,
            state=DeliveryState(delivery.state),
            attempts=delivery.attempts,
            last_outcome=Outcome(outcome) if outcome else None,
            last_status=status,
            next_attempt_at=due_at if first else None,
            created_at=delivery.created_at,
            finished_at=delivery.finished_at,
        )
        for delivery, outcome, status, due_at, first in await session.execute(query)
    ]
