"""Large files: what is stored, which repository may reach it, what is still on its way, and locks."""

from datetime import datetime
from enum import StrEnum

from sqlalchemy import BigInteger, ForeignKey, Index, String, Text, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from core.models.base import Base, Bytewise, Timestamp, now
from core.models.repositories import random_id


class StoreKind(StrEnum):
    """Which of the configured object stores holds something."""

    LOCAL = "local"
    MINIO = "minio"


class LfsObject(Base):
    """Bytes whose size and sha256 were verified (invariant I5), stored once for all repositories.

    `oid` is their sha256. `key` names them in the store, is random and never used twice, so that an upload
    can never bring back what a sweeper is about to delete.
    """

    __tablename__ = "lfs_object"

    oid: Mapped[str] = mapped_column(String(64), primary_key=True)
    size: Mapped[int] = mapped_column(BigInteger)
    store: Mapped[StoreKind]
    key: Mapped[str] = mapped_column(String(120), unique=True)
    verified_at: Mapped[datetime] = mapped_column(Timestamp, default=now)
    # The bytes were found missing or changed; the next upload of the same object replaces them.
    damaged_at: Mapped[datetime | None] = mapped_column(Timestamp)
    # No repository has had a link to it since; null while one has.
    unlinked_at: Mapped[datetime | None] = mapped_column(Timestamp, index=True)


class LfsLink(Base):
    """That a repository may reach an object (invariant I7). Only an upload of the bytes makes one.

    `touched_at` is when a client last relied on it for an upload or a push. A link in the trash
    (`trashed_at`) is to clients as if it were not there; uploading the bytes again brings it back.
    """

    __tablename__ = "lfs_link"
    __table_args__ = (Index("ix_lfs_link_trashed", "trashed_at"),)

    repository_id: Mapped[str] = mapped_column(
        ForeignKey("repository.id", ondelete="CASCADE"), primary_key=True
    )
    oid: Mapped[str] = mapped_column(ForeignKey("lfs_object.oid"), primary_key=True, index=True)
    created_at: Mapped[datetime] = mapped_column(Timestamp, default=now)
    touched_at: Mapped[datetime] = mapped_column(Timestamp, default=now)
    trashed_at: Mapped[datetime | None] = mapped_column(Timestamp)


class LfsUpload(Base):
    """Bytes that go to the store in parts, or past this server; nothing is visible before they are verified.

    `key` is where they will be. `multipart_id` is the store's name for the parts, empty for a single PUT.
    """

    __tablename__ = "lfs_upload"
    __table_args__ = (UniqueConstraint("repository_id", "oid"),)

    id: Mapped[str] = mapped_column(String(32), primary_key=True, default=random_id)
    repository_id: Mapped[str] = mapped_column(ForeignKey("repository.id", ondelete="CASCADE"))
    oid: Mapped[str] = mapped_column(String(64))
    size: Mapped[int] = mapped_column(BigInteger)
    store: Mapped[StoreKind]
    key: Mapped[str] = mapped_column(String(120))
    multipart_id: Mapped[str] = mapped_column(Text, default="")
    part_bytes: Mapped[int] = mapped_column(BigInteger, default=0)
    created_at: Mapped[datetime] = mapped_column(Timestamp, default=now)
    touched_at: Mapped[datetime] = mapped_column(Timestamp, default=now, index=True)


class LfsLock(Base):
    """A path that one user alone may change. `ref` is what the client named, if anything."""

    __tablename__ = "lfs_lock"
    __table_args__ = (UniqueConstraint("repository_id", "path"),)

    id: Mapped[str] = mapped_column(String(32), primary_key=True, default=random_id)
    repository_id: Mapped[str] = mapped_column(ForeignKey("repository.id", ondelete="CASCADE"))
    path: Mapped[str] = mapped_column(Bytewise)
    ref: Mapped[str | None] = mapped_column(Bytewise)
    owner_id: Mapped[int] = mapped_column(ForeignKey("account.id", ondelete="CASCADE"), index=True)
    locked_at: Mapped[datetime] = mapped_column(Timestamp, default=now)
