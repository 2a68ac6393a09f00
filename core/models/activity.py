"""What happened: pushes, the outbox, the audit log, and the maintenance queue."""

from datetime import datetime
from enum import StrEnum
from typing import Any

from sqlalchemy import JSON, ForeignKey, Index, String, Text, false
from sqlalchemy.orm import Mapped, mapped_column

from core.models.base import Base, Identity, Timestamp, now


class Transport(StrEnum):
    HTTP = "http"
    SSH = "ssh"
    API = "api"
    LOCAL = "local"


class Push(Base):
    """One acknowledged change of refs. `updates` is a list of `{"ref", "old", "new"}`, oids in full."""

    __tablename__ = "push"
    __table_args__ = (
        Index("ix_push_repository_created", "repository_id", "id"),
        {"sqlite_autoincrement": True},
    )

    id: Mapped[int] = mapped_column(Identity, primary_key=True)
    repository_id: Mapped[str] = mapped_column(ForeignKey("repository.id", ondelete="CASCADE"))
    actor: Mapped[str] = mapped_column(String(120))
    actor_id: Mapped[int | None] = mapped_column(ForeignKey("account.id", ondelete="SET NULL"))
    transport: Mapped[Transport]
    updates: Mapped[list[dict[str, str]]] = mapped_column(JSON)
    options: Mapped[list[str]] = mapped_column(JSON)
    # By a token that was made for runs: rules do not fire for what they made themselves.
    by_run: Mapped[bool] = mapped_column(default=False, server_default=false())
    created_at: Mapped[datetime] = mapped_column(Timestamp, default=now)


class OutboxEvent(Base):
    """A side effect that must happen, written in the transaction that made it true (invariant I6)."""

    __tablename__ = "outbox_event"
    __table_args__ = {"sqlite_autoincrement": True}

    id: Mapped[int] = mapped_column(Identity, primary_key=True)
    name: Mapped[str] = mapped_column(String(64))
    repository_id: Mapped[str | None] = mapped_column(
        ForeignKey("repository.id", ondelete="SET NULL"), index=True
    )
    payload: Mapped[dict[str, Any]] = mapped_column(JSON)
    created_at: Mapped[datetime] = mapped_column(Timestamp, default=now)
    handled_at: Mapped[datetime | None] = mapped_column(Timestamp, index=True)  # its deliveries are written


class AuditEntry(Base):
    """A change of rights or credentials. Never updated, survives what it speaks of."""

    __tablename__ = "audit_entry"
    __table_args__ = {"sqlite_autoincrement": True}

    id: Mapped[int] = mapped_column(Identity, primary_key=True)
    at: Mapped[datetime] = mapped_column(Timestamp, default=now, index=True)
    actor: Mapped[str] = mapped_column(String(120))
    action: Mapped[str] = mapped_column(String(64), index=True)
    target: Mapped[str] = mapped_column(Text)
    details: Mapped[dict[str, Any]] = mapped_column(JSON)


class MaintenanceTask(Base):
    """A repository that wants repacking. Held by one worker until `leased_until`."""

    __tablename__ = "maintenance_task"

    repository_id: Mapped[str] = mapped_column(
        ForeignKey("repository.id", ondelete="CASCADE"), primary_key=True
    )
    full: Mapped[bool] = mapped_column(default=False)
    due_at: Mapped[datetime] = mapped_column(Timestamp, default=now, index=True)
    leased_until: Mapped[datetime | None] = mapped_column(Timestamp)
    attempts: Mapped[int] = mapped_column(default=0)
