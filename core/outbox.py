"""The outbox: side effects written in the transaction that made them true (invariant I6)."""

from collections.abc import Mapping
from enum import StrEnum
from typing import Any

from sqlalchemy.ext.asyncio import AsyncSession

from core.models import OutboxEvent


class EventName(StrEnum):
    """`subject.what-happened`; `push` alone is the one that Git people know."""

    PUSH = "push"
    REPOSITORY_CREATED = "repository.created"
    REPOSITORY_DEFAULT_BRANCH_CHANGED = "repository.default_branch_changed"
    REPOSITORY_DELETED = "repository.deleted"
    REPOSITORY_RENAMED = "repository.renamed"


def emit(
    session: AsyncSession, name: EventName, repository_id: str | None, payload: Mapping[str, Any]
) -> None:
    """Adds an event to the transaction of `session`; the payload is JSON and says all that a reader needs."""
    session.add(OutboxEvent(name=name, repository_id=repository_id, payload=dict(payload)))
