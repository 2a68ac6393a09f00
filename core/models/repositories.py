"""Repositories, their refs and their packs."""

from datetime import datetime
from enum import StrEnum
from secrets import token_hex

from sqlalchemy import (
    JSON,
    BigInteger,
    ForeignKey,
    Index,
    String,
    Text,
    UniqueConstraint,
)
from sqlalchemy.orm import Mapped, mapped_column

from core.models.accounts import Role
from core.models.base import Base, Bytewise, Identity, Timestamp, now


class RepositoryType(StrEnum):
    MODEL = "model"
    DATASET = "dataset"


class Visibility(StrEnum):
    PUBLIC = "public"
    PRIVATE = "private"


class ObjectFormat(StrEnum):
    SHA1 = "sha1"
    SHA256 = "sha256"


class PackKind(StrEnum):
    PUSH = "push"
    COMMIT = "commit"
    IMPORT = "import"
    REPACK = "repack"
    CRUFT = "cruft"
    INDEX = "index"  # no pack: a multi-pack-index with its bitmap, and the commit-graph


def random_id() -> str:
    """128 random bits as 32 hexadecimal digits."""
    return token_hex(16)


class Repository(Base):
    """One repository.

    Its id is random and never used twice, because it names the repository's place in the object store.
    `refs_version` counts the states of refs and packs, `state` names the current one; together they name a
    snapshot in a node's cache. `prune_epoch` counts the times objects were dropped for good.
    """

    __tablename__ = "repository"
    __table_args__ = (UniqueConstraint("owner_id", "type", "name"),)

    id: Mapped[str] = mapped_column(String(32), primary_key=True, default=random_id)
    owner_id: Mapped[int] = mapped_column(ForeignKey("account.id"))
    type: Mapped[RepositoryType]
    name: Mapped[str] = mapped_column(Bytewise)
    visibility: Mapped[Visibility]
    description: Mapped[str] = mapped_column(String(1000), default="")
    default_branch: Mapped[str] = mapped_column(Bytewise)
    object_format: Mapped[ObjectFormat] = mapped_column(default=ObjectFormat.SHA1)
    refs_version: Mapped[int] = mapped_column(BigInteger, default=0)
    state: Mapped[str] = mapped_column(String(32), default=random_id)
    prune_epoch: Mapped[int] = mapped_column(BigInteger, default=0)
    full_repack_at: Mapped[datetime | None] = mapped_column(Timestamp)
    created_at: Mapped[datetime] = mapped_column(Timestamp, default=now)
    updated_at: Mapped[datetime] = mapped_column(Timestamp, default=now)


class RepositoryRedirect(Base):
    """An address that a repository once had under that owner."""

    __tablename__ = "repository_redirect"

    owner_id: Mapped[int] = mapped_column(ForeignKey("account.id", ondelete="CASCADE"), primary_key=True)
    type: Mapped[RepositoryType] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(Bytewise, primary_key=True)
    repository_id: Mapped[str] = mapped_column(ForeignKey("repository.id", ondelete="CASCADE"), index=True)


class Collaborator(Base):
    __tablename__ = "collaborator"

    repository_id: Mapped[str] = mapped_column(
        ForeignKey("repository.id", ondelete="CASCADE"), primary_key=True
    )
    user_id: Mapped[int] = mapped_column(
        ForeignKey("account.id", ondelete="CASCADE"), primary_key=True, index=True
    )
    role: Mapped[Role]
    created_at: Mapped[datetime] = mapped_column(Timestamp, default=now)


class BranchRule(Base):
    """Protects the branches that match `pattern` (fnmatch on the name without `refs/heads/`)."""

    __tablename__ = "branch_rule"
    __table_args__ = (
        UniqueConstraint("repository_id", "pattern"),
        {"sqlite_autoincrement": True},
    )

    id: Mapped[int] = mapped_column(Identity, primary_key=True)
    repository_id: Mapped[str] = mapped_column(ForeignKey("repository.id", ondelete="CASCADE"))
    pattern: Mapped[str] = mapped_column(Bytewise)
    allow_force: Mapped[bool] = mapped_column(default=False)
    allow_delete: Mapped[bool] = mapped_column(default=False)
    # Names of users who may push; null: everybody who may write.
    pushers: Mapped[list[str] | None] = mapped_column(JSON(none_as_null=True))
    created_at: Mapped[datetime] = mapped_column(Timestamp, default=now)


class Ref(Base):
    __tablename__ = "ref"

    repository_id: Mapped[str] = mapped_column(
        ForeignKey("repository.id", ondelete="CASCADE"), primary_key=True
    )
    name: Mapped[str] = mapped_column(Bytewise, primary_key=True)
    oid: Mapped[str] = mapped_column(String(64))
    peeled: Mapped[str | None] = mapped_column(String(64))


class Pack(Base):
    """A set of immutable files `<name>.<suffix>` below `git/<repository_id>/<key>/` in the object store.

    `key` is random and never used twice; `name` is what Git calls the pack, derived from its content.
    """

    __tablename__ = "pack"
    __table_args__ = (
        Index("ix_pack_live", "repository_id", "superseded_at"),
        {"sqlite_autoincrement": True},
    )

    id: Mapped[int] = mapped_column(Identity, primary_key=True)
    repository_id: Mapped[str] = mapped_column(ForeignKey("repository.id", ondelete="CASCADE"))
    key: Mapped[str] = mapped_column(String(32), unique=True)
    name: Mapped[str] = mapped_column(String(80))
    kind: Mapped[PackKind]
    suffixes: Mapped[list[str]] = mapped_column(JSON)
    objects: Mapped[int] = mapped_column(BigInteger)
    bytes: Mapped[int] = mapped_column(BigInteger)
    created_at: Mapped[datetime] = mapped_column(Timestamp, default=now)
    superseded_at: Mapped[datetime | None] = mapped_column(Timestamp)


class DeletedRepository(Base):
    """A repository whose objects still wait for the sweeper."""

    __tablename__ = "deleted_repository"

    repository_id: Mapped[str] = mapped_column(String(32), primary_key=True)
    address: Mapped[str] = mapped_column(Text)
    deleted_at: Mapped[datetime] = mapped_column(Timestamp, default=now)
