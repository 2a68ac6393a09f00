"""Webhooks: who is told of what, every delivery, and every attempt at one."""

from datetime import datetime
from enum import StrEnum
from typing import Any
from uuid import uuid4

from sqlalchemy import (
    JSON,
    BigInteger,
    CheckConstraint,
    ForeignKey,
    Index,
    LargeBinary,
    String,
    Text,
    text,
)
from sqlalchemy.orm import Mapped, mapped_column

from core.models.base import Base, Identity, Timestamp, now


class DeliveryState(StrEnum):
    """Where a delivery stands. The last three are final, until somebody asks for it again."""

    PENDING = "pending"
    DELIVERED = "delivered"
    DEAD = "dead"
    CANCELLED = "cancelled"


def delivery_id() -> str:
    """A new `webhook-id`; receivers know a delivery again by it, however often it is tried."""
    return f"msg_{uuid4().hex}"


class Webhook(Base):
    """A subscription: of one repository, of everything that an account owns, or (both null) of the server.

    `secrets` is sealed JSON, the newest secret first; `events` are names or patterns like `repository.*`.
    """

    __tablename__ = "webhook"
    __table_args__ = (
        CheckConstraint("repository_id IS NULL OR owner_id IS NULL", name="scope"),
        {"sqlite_autoincrement": True},
    )

    id: Mapped[int] = mapped_column(Identity, primary_key=True)
    repository_id: Mapped[str | None] = mapped_column(
        ForeignKey("repository.id", ondelete="CASCADE"), index=True
    )
    owner_id: Mapped[int | None] = mapped_column(ForeignKey("account.id", ondelete="CASCADE"), index=True)
    name: Mapped[str] = mapped_column(String(200), default="")
    url: Mapped[str] = mapped_column(Text)
    # Host and port of `url`: no receiver holds all places for deliveries.
    receiver: Mapped[str] = mapped_column(String(270))
    events: Mapped[list[str]] = mapped_column(JSON)
    secrets: Mapped[bytes] = mapped_column(LargeBinary)
    active: Mapped[bool] = mapped_column(default=True)
    # Why it is not active, when nobody but the server decided so.
    paused_reason: Mapped[str | None] = mapped_column(Text)
    failing_since: Mapped[datetime | None] = mapped_column(Timestamp)
    failures: Mapped[int] = mapped_column(default=0)
    created_by: Mapped[str] = mapped_column(String(120))
    created_at: Mapped[datetime] = mapped_column(Timestamp, default=now)
    updated_at: Mapped[datetime] = mapped_column(Timestamp, default=now)


class DeliveryStream(Base):
    """What one subscription is told about one repository: one delivery after the other.

    A worker that delivers leases the stream, so that a second one of it is never under way. `due_at` is when
    the first unfinished delivery is to be tried; null when there is none, or the subscription is not active.
    """

    __tablename__ = "webhook_stream"
    __table_args__ = (
        Index(
            "ix_webhook_stream_due_at",
            "due_at",
            sqlite_where=text("due_at IS NOT NULL"),
            postgresql_where=text("due_at IS NOT NULL"),
        ),
    )

    webhook_id: Mapped[int] = mapped_column(
        ForeignKey("webhook.id", ondelete="CASCADE"), primary_key=True, autoincrement=False
    )
    repository_id: Mapped[str] = mapped_column(String(32), primary_key=True)
    due_at: Mapped[datetime | None] = mapped_column(Timestamp)
    leased_until: Mapped[datetime | None] = mapped_column(Timestamp)


class Delivery(Base):
    """One event for one subscription. `body` is what is signed and sent, byte for byte.

    Those of one subscription about one repository go out in the order of `position`, one after the other.
    """

    __tablename__ = "webhook_delivery"
    __table_args__ = (
        Index(
            "ix_webhook_delivery_unfinished",
            "webhook_id",
            "repository_id",
            "position",
            sqlite_where=text("finished_at IS NULL"),
            postgresql_where=text("finished_at IS NULL"),
        ),
        Index("ix_webhook_delivery_listed", "webhook_id", "position"),
        Index("ix_webhook_delivery_finished_at", "finished_at"),
    )

    id: Mapped[str] = mapped_column(String(40), primary_key=True, default=delivery_id)
    position: Mapped[int] = mapped_column(BigInteger)  # the id of the outbox event
    webhook_id: Mapped[int] = mapped_column(ForeignKey("webhook.id", ondelete="CASCADE"))
    # Empty when it is about no repository. Not a foreign key: what is to be told of one outlives it.
    repository_id: Mapped[str] = mapped_column(String(32))
    event: Mapped[str] = mapped_column(String(64))
    body: Mapped[str] = mapped_column(Text)
    state: Mapped[DeliveryState] = mapped_column(default=DeliveryState.PENDING)
    attempts: Mapped[int] = mapped_column(default=0)
    # Failures in a row since it was queued, or queued again, and when the first of them was.
    failures: Mapped[int] = mapped_column(default=0)
    failing_since: Mapped[datetime | None] = mapped_column(Timestamp)
    created_at: Mapped[datetime] = mapped_column(Timestamp, default=now)
    finished_at: Mapped[datetime | None] = mapped_column(Timestamp)  # null exactly while it is pending


class Attempt(Base):
    """One try: written before the request leaves, completed with what came of it.

    `outcome` is null while it runs, and stays so when the process died with it.
    """

    __tablename__ = "webhook_attempt"
    __table_args__ = (Index("ix_webhook_attempt_delivery", "delivery_id", "number", unique=True),)

    id: Mapped[int] = mapped_column(Identity, primary_key=True)
    delivery_id: Mapped[str] = mapped_column(ForeignKey("webhook_delivery.id", ondelete="CASCADE"))
    number: Mapped[int]
    started_at: Mapped[datetime] = mapped_column(Timestamp, default=now)
    milliseconds: Mapped[int | None]
    outcome: Mapped[str | None] = mapped_column(String(32))
    status: Mapped[int | None]
    address: Mapped[str | None] = mapped_column(String(64))
    error: Mapped[str | None] = mapped_column(Text)
    response_headers: Mapped[dict[str, Any] | None] = mapped_column(JSON(none_as_null=True))
    response: Mapped[str | None] = mapped_column(Text)  # its first 4 KiB
