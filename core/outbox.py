"""The outbox: side effects written in the transaction that made them true (invariant I6)."""

from collections.abc import Mapping
from enum import StrEnum
from typing import Any

from sqlalchemy.ext.asyncio import AsyncSession

from core.models import OutboxEvent


class EventName(StrEnum):
    """`subject.what-happened`; `push` alone is the one that Git people know."""

    PUSH = "push"
    BRANCH = "branch"
    TAG = "tag"
    REPOSITORY_CREATED = "repository.created"
    REPOSITORY_DEFAULT_BRANCH_CHANGED = "repository.default_branch_changed"
    REPOSITORY_DELETED = "repository.deleted"
    REPOSITORY_RENAMED = "repository.renamed"
    MODEL_VERSION_CREATED = "model.version.created"
    MODEL_METADATA_UPDATED = "model.metadata.updated"
    DATASET_VERSION_CREATED = "dataset.version.created"
    TRAINING_REQUESTED = "training.requested"
    EVALUATION_REQUESTED = "evaluation.requested"
    DEPLOYMENT_REQUESTED = "deployment.requested"
    RUN_QUEUED = "run.queued"
    RUN_STARTED = "run.started"
    RUN_SUCCEEDED = "run.succeeded"
    RUN_FAILED = "run.failed"
    RUN_CANCELLED = "run.cancelled"
    WEBHOOK_PAUSED = "webhook.paused"
    PING = "ping"


def emit(
    session: AsyncSession, name: EventName, repository_id: str | None, payload: Mapping[str, Any]
) -> None:
    """Adds an event to the transaction of `session`; the payload is JSON and says all that a reader needs."""
    session.add(OutboxEvent(name=name, repository_id=repository_id, payload=dict(payload)))
