"""Webhooks: who is told of what, every delivery, and every attempt at one."""

from datetime import datetime
from enum import StrEnum
from typing import Any
from uuid import uuid4

from sqlalchemy import JSON, BigInteger, CheckConstraint, ForeignKey, Index, LargeBinary, String, Text
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


class Delivery(Base):
    """One event for one subscription. `body` is what is signed and sent, byte for byte.

    Those of one subscription about one repository go out in the order of `position`, one after the other.
    """

    __tablename__ = "webhook_delivery"
    __table_args__ = (
        Index("ix_webhook_delivery_queue", "state", "due_at"),
        Index("ix_webhook_delivery_order", "webhook_id", "repository_id", "position"),
        Index("ix_webhook_delivery_listed", "webhook_id", "position"),
    )

    id: Mapped[str] = mapped_column(String(40), primary_key=True, default=delivery_id)
    position: Mapped[int] = mapped_column(BigInteger)  # the id of the outbox event
    webhook_id: Mapped[int] = mapped_column(ForeignKey("webhook.id", ondelete="CASCADE"))
    # Not a foreign key: what is to be told of a repository outlives it.
    repository_id: Mapped[str | None] = mapped_column(String(32))
    event: Mapped[str] = mapped_column(String(64))
    body: Mapped[str] = mapped_column(Text)
    state: Mapped[DeliveryState] = mapped_column(default=DeliveryState.PENDING)
    attempts: Mapped[int] = mapped_column(default=0)
    due_at: Mapped[datetime] = mapped_column(Timestamp, default=now)
    leased_until: Mapped[datetime | None] = mapped_column(Timestamp)
    created_at: Mapped[datetime] = mapped_column(Timestamp, default=now)
    finished_at: Mapped[datetime | None] = mapped_column(Timestamp)


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
