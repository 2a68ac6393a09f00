"""What pushes mean: parsed files, model and dataset versions, rules, and what these asked for."""

from datetime import datetime
from enum import StrEnum
from typing import Any
from uuid import uuid4

from sqlalchemy import JSON, BigInteger, ForeignKey, Index, LargeBinary, String, Text, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from core.models.base import Base, Bytewise, Identity, Timestamp, now


class PostReceiveTask(Base):
    """A push whose post-receive steps are not all done. Held by one worker until `leased_until`.

    `done` names the steps that are, so that a restart goes on where a crash ended. The tasks of one
    repository are its queue; `attempts` counts how often this one was taken up.
    """

    __tablename__ = "post_receive_task"
    __table_args__ = (Index("ix_post_receive_task_repository", "repository_id", "push_id"),)

    push_id: Mapped[int] = mapped_column(
        ForeignKey("push.id", ondelete="CASCADE"), primary_key=True, autoincrement=False
    )
    repository_id: Mapped[str] = mapped_column(ForeignKey("repository.id", ondelete="CASCADE"))
    done: Mapped[list[str]] = mapped_column(JSON, default=list)
    due_at: Mapped[datetime] = mapped_column(Timestamp, default=now)
    leased_until: Mapped[datetime | None] = mapped_column(Timestamp)
    attempts: Mapped[int] = mapped_column(default=0)


class ParsedFile(Base):
    """What one parser, in one version, found in one content. The same content is never parsed twice.

    `digest` is `sha256:<oid>` of an LFS object or `git:<oid>` of a blob. Who may see it is decided by the
    repository through which it is reached.
    """

    __tablename__ = "parsed_file"

    digest: Mapped[str] = mapped_column(String(80), primary_key=True)
    parser: Mapped[str] = mapped_column(String(32), primary_key=True)
    version: Mapped[int]
    metadata_: Mapped[dict[str, Any] | None] = mapped_column("metadata", JSON(none_as_null=True))
    findings: Mapped[list[dict[str, Any]]] = mapped_column(JSON)
    parsed_at: Mapped[datetime] = mapped_column(Timestamp, default=now)


class ModelVersion(Base):
    """A commit of a model or dataset repository, understood: its files and what they say together.

    `files` is a list of `{"path", "digest", "size", "parser"}`; `summary` is what facets are made from. It is
    `announced` with the event that says so, once.
    """

    __tablename__ = "model_version"

    repository_id: Mapped[str] = mapped_column(
        ForeignKey("repository.id", ondelete="CASCADE"), primary_key=True
    )
    commit: Mapped[str] = mapped_column(String(64), primary_key=True)
    # Of the code that made it: another version makes it anew.
    version: Mapped[int]
    files: Mapped[list[dict[str, Any]]] = mapped_column(JSON)
    summary: Mapped[dict[str, Any]] = mapped_column(JSON)
    findings: Mapped[list[dict[str, Any]]] = mapped_column(JSON)
    announced: Mapped[bool] = mapped_column(default=False)
    created_at: Mapped[datetime] = mapped_column(Timestamp, default=now)


class RepositoryFacet(Base):
    """One thing that the head of the default branch says of a repository; lists are filtered by it."""

    __tablename__ = "repository_facet"
    __table_args__ = (Index("ix_repository_facet_value", "kind", "value"),)

    repository_id: Mapped[str] = mapped_column(
        ForeignKey("repository.id", ondelete="CASCADE"), primary_key=True
    )
    kind: Mapped[str] = mapped_column(String(32), primary_key=True)
    value: Mapped[str] = mapped_column(Bytewise, primary_key=True)


class RepositoryHead(Base):
    """The commit that a repository's facets come from, and how many parameters it has."""

    __tablename__ = "repository_head"

    repository_id: Mapped[str] = mapped_column(
        ForeignKey("repository.id", ondelete="CASCADE"), primary_key=True
    )
    commit: Mapped[str] = mapped_column(String(64))
    parameters: Mapped[int | None] = mapped_column(BigInteger, index=True)
    updated_at: Mapped[datetime] = mapped_column(Timestamp, default=now)


class TensorDigests(Base):
    """Digests of the tensors in one content, by name: compressed JSON, see `hooks.tensors.weights`."""

    __tablename__ = "tensor_digests"

    digest: Mapped[str] = mapped_column(String(80), primary_key=True)
    data: Mapped[bytes] = mapped_column(LargeBinary)
    computed_at: Mapped[datetime] = mapped_column(Timestamp, default=now)


class TensorDigestTask(Base):
    """A content whose tensors are to be digested, from a repository that has it; `path` is for people."""

    __tablename__ = "tensor_digest_task"

    digest: Mapped[str] = mapped_column(String(80), primary_key=True)
    repository_id: Mapped[str] = mapped_column(ForeignKey("repository.id", ondelete="CASCADE"), index=True)
    path: Mapped[str] = mapped_column(Text)
    parser: Mapped[str] = mapped_column(String(32))
    size: Mapped[int] = mapped_column(BigInteger)
    due_at: Mapped[datetime] = mapped_column(Timestamp, default=now, index=True)
    leased_until: Mapped[datetime | None] = mapped_column(Timestamp)
    attempts: Mapped[int] = mapped_column(default=0)


class RequestKind(StrEnum):
    """What a rule asks for."""

    TRAINING = "training"
    EVALUATION = "evaluation"
    DEPLOYMENT = "deployment"


class TriggerRule(Base):
    """A rule that was made over REST. Those in `.modelyard.toml` live in commits; `spec` has their form."""

    __tablename__ = "trigger_rule"
    __table_args__ = (
        UniqueConstraint("repository_id", "name"),
        {"sqlite_autoincrement": True},
    )

    id: Mapped[int] = mapped_column(Identity, primary_key=True)
    repository_id: Mapped[str] = mapped_column(ForeignKey("repository.id", ondelete="CASCADE"))
    name: Mapped[str] = mapped_column(Bytewise)
    spec: Mapped[dict[str, Any]] = mapped_column(JSON)
    enabled: Mapped[bool] = mapped_column(default=True)
    created_by: Mapped[str] = mapped_column(String(120))
    created_at: Mapped[datetime] = mapped_column(Timestamp, default=now)
    updated_at: Mapped[datetime] = mapped_column(Timestamp, default=now)


def request_id() -> str:
    """A new id of a request, which its consumer hands back with what it pushes."""
    return f"req_{uuid4().hex}"


class TriggerRequest(Base):
    """One firing of one rule by one push. Written with its event in one transaction, so it happens once.

    `chain` is the ids of the requests that led to this push, oldest first: none of their rules fires again in
    it. `parent` is the last of them, which the push answered.
    """

    __tablename__ = "trigger_request"
    __table_args__ = (
        UniqueConstraint("push_id", "rule", "ref"),
        Index("ix_trigger_request_listed", "repository_id", "created_at"),
        Index("ix_trigger_request_parent", "parent", "rule"),
    )

    id: Mapped[str] = mapped_column(String(40), primary_key=True, default=request_id)
    repository_id: Mapped[str] = mapped_column(ForeignKey("repository.id", ondelete="CASCADE"))
    push_id: Mapped[int] = mapped_column(ForeignKey("push.id", ondelete="CASCADE"))
    rule: Mapped[str] = mapped_column(Bytewise)
    kind: Mapped[RequestKind]
    ref: Mapped[str] = mapped_column(Bytewise)
    commit: Mapped[str] = mapped_column(String(64))
    parameters: Mapped[dict[str, Any]] = mapped_column(JSON)
    chain: Mapped[list[str]] = mapped_column(JSON)
    parent: Mapped[str | None] = mapped_column(String(40))
    payload: Mapped[str] = mapped_column(Text, default="")
    created_at: Mapped[datetime] = mapped_column(Timestamp, default=now)
