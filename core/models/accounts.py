"""Users and organisations share one table, because they share one namespace of names."""

from datetime import datetime
from enum import StrEnum

from sqlalchemy import BigInteger, ForeignKey, String
from sqlalchemy.orm import Mapped, mapped_column

from core.models.base import Base, Bytewise, Identity, Timestamp, now


class AccountKind(StrEnum):
    USER = "user"
    ORGANISATION = "organisation"


class Role(StrEnum):
    """What a member may do with every repository of an organisation, or a collaborator with one."""

    READ = "read"
    WRITE = "write"
    ADMIN = "admin"  # of an organisation: its owners


class Account(Base):
    __tablename__ = "account"
    __table_args__ = {"sqlite_autoincrement": True}

    id: Mapped[int] = mapped_column(Identity, primary_key=True)
    kind: Mapped[AccountKind]
    name: Mapped[str] = mapped_column(Bytewise, unique=True)
    full_name: Mapped[str] = mapped_column(String(200), default="")
    email: Mapped[str] = mapped_column(String(254), default="")
    password_hash: Mapped[str | None] = mapped_column(String(200))
    is_admin: Mapped[bool] = mapped_column(default=False)
    suspended_at: Mapped[datetime | None] = mapped_column(Timestamp)
    # Bytes of large files in all repositories; null is what the settings say, 0 no limit.
    lfs_quota_bytes: Mapped[int | None] = mapped_column(BigInteger)
    created_at: Mapped[datetime] = mapped_column(Timestamp, default=now)


class AccountRedirect(Base):
    """A name that an account once had. Dropped when somebody takes the name anew."""

    __tablename__ = "account_redirect"

    name: Mapped[str] = mapped_column(Bytewise, primary_key=True)
    account_id: Mapped[int] = mapped_column(ForeignKey("account.id", ondelete="CASCADE"), index=True)


class Membership(Base):
    __tablename__ = "membership"

    organisation_id: Mapped[int] = mapped_column(
        ForeignKey("account.id", ondelete="CASCADE"), primary_key=True
    )
    user_id: Mapped[int] = mapped_column(
        ForeignKey("account.id", ondelete="CASCADE"), primary_key=True, index=True
    )
    role: Mapped[Role]
    created_at: Mapped[datetime] = mapped_column(Timestamp, default=now)
