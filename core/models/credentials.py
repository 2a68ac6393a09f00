"""Everything that proves who somebody is."""

from datetime import datetime
from enum import StrEnum

from sqlalchemy import CheckConstraint, ForeignKey, String, Text, false
from sqlalchemy.orm import Mapped, mapped_column

from core.models.base import Base, Bytewise, Identity, Timestamp, now


class Scope(StrEnum):
    """The most that a token may do, whatever its user may."""

    READ = "read"
    WRITE = "write"
    ADMIN = "admin"


class AccessToken(Base):
    """A bearer secret, stored as the SHA-256 of its 190 random bits."""

    __tablename__ = "access_token"
    __table_args__ = {"sqlite_autoincrement": True}

    id: Mapped[int] = mapped_column(Identity, primary_key=True)
    user_id: Mapped[int] = mapped_column(ForeignKey("account.id", ondelete="CASCADE"), index=True)
    name: Mapped[str] = mapped_column(String(100))
    digest: Mapped[str] = mapped_column(String(64), unique=True)
    scope: Mapped[Scope]
    repository_id: Mapped[str | None] = mapped_column(
        ForeignKey("repository.id", ondelete="CASCADE"), index=True
    )
    # What a run pushes with it fires no rules, unless they ask for it (`from_runs`).
    for_runs: Mapped[bool] = mapped_column(default=False, server_default=false())
    expires_at: Mapped[datetime | None] = mapped_column(Timestamp)
    last_used_at: Mapped[datetime | None] = mapped_column(Timestamp)
    created_at: Mapped[datetime] = mapped_column(Timestamp, default=now)


class SshKey(Base):
    """A public key: of a user, or of one repository (a deploy key). A key proves one identity only."""

    __tablename__ = "ssh_key"
    __table_args__ = (
        CheckConstraint("(user_id IS NULL) <> (repository_id IS NULL)", name="one_subject"),
        {"sqlite_autoincrement": True},
    )

    id: Mapped[int] = mapped_column(Identity, primary_key=True)
    user_id: Mapped[int | None] = mapped_column(ForeignKey("account.id", ondelete="CASCADE"), index=True)
    repository_id: Mapped[str | None] = mapped_column(
        ForeignKey("repository.id", ondelete="CASCADE"), index=True
    )
    read_only: Mapped[bool] = mapped_column(default=False)
    title: Mapped[str] = mapped_column(String(100))
    fingerprint: Mapped[str] = mapped_column(Bytewise, unique=True)
    public_key: Mapped[str] = mapped_column(Text)
    last_used_at: Mapped[datetime | None] = mapped_column(Timestamp)
    created_at: Mapped[datetime] = mapped_column(Timestamp, default=now)


class LoginFailure(Base):
    """Failed logins of one account name or one address since the last success."""

    __tablename__ = "login_failure"

    subject: Mapped[str] = mapped_column(Bytewise, primary_key=True)
    failures: Mapped[int]
    blocked_until: Mapped[datetime] = mapped_column(Timestamp)
