"""The outbox: side effects written in the transaction that made them true (invariant I6).

Whoever emits something about a repository holds the lock on its row, from before the event is written until
the transaction ends. Ids are given before the commit: without the lock, an event could become visible after
a later one of the same repository was told already.
"""

from collections.abc import Mapping
from enum import StrEnum
from typing import Any

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from core.database import EMITS
from core.models import OutboxEvent
from core.opening import RepositoryInfo


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
    session.info[EMITS] = True


def identity(repository: RepositoryInfo) -> dict[str, str]:
    """What subscribers are told of the repository that an event is about."""
    return {
        "id": repository.id,
        "type": repository.type.value,
        "owner": repository.owner,
        "name": repository.name,
        "path": repository.path,
        "visibility": repository.visibility.value,
        "default_branch": repository.default_branch,
    }


async def keep_identity(session: AsyncSession, repository: RepositoryInfo) -> None:
    """Lets the events that wait remember, in `payload["repository"]`, a repository that is about to go."""
    waiting = (
        select(OutboxEvent)
        .where(OutboxEvent.repository_id == repository.id, OutboxEvent.handled_at.is_(None))
        .order_by(OutboxEvent.id)
        .with_for_update()
    )
    for event in await session.scalars(waiting):
        event.payload = {**event.payload, "repository": identity(repository)}
