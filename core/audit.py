"""The audit log: who changed which right or credential, when, and how they had proved who they were.

An entry is written in the transaction of the change, so there is neither a change without an entry nor an
entry without a change. Details never hold a secret.
"""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from core.access import Actor, require_site_admin
from core.database import Database
from core.models import AuditEntry


class Action(StrEnum):
    """`subject:verb`, by subject."""

    BRANCH_RULE_ADD = "branch_rule:add"
    BRANCH_RULE_REMOVE = "branch_rule:remove"
    BRANCH_RULE_UPDATE = "branch_rule:update"
    COLLABORATOR_REMOVE = "collaborator:remove"
    COLLABORATOR_SET = "collaborator:set"
    DEPLOY_KEY_ADD = "deploy_key:add"
    DEPLOY_KEY_REMOVE = "deploy_key:remove"
    KEY_ADD = "key:add"
    KEY_REMOVE = "key:remove"
    LFS_GC = "lfs:gc"
    LFS_MIGRATE = "lfs:migrate"
    LFS_PURGE = "lfs:purge"
    LFS_RESTORE = "lfs:restore"
    LFS_TRASH = "lfs:trash"
    LOCK_FORCE = "lock:force"
    MEMBER_REMOVE = "member:remove"
    MEMBER_SET = "member:set"
    ORGANISATION_CREATE = "organisation:create"
    ORGANISATION_DELETE = "organisation:delete"
    ORGANISATION_RENAME = "organisation:rename"
    ORGANISATION_UPDATE = "organisation:update"
    PUSH_OVERRIDE = "push:override"
    QUOTA_SET = "quota:set"
    REPOSITORY_CREATE = "repository:create"
    REPOSITORY_DELETE = "repository:delete"
    REPOSITORY_MOVE = "repository:move"
    REPOSITORY_UPDATE = "repository:update"
    TOKEN_MINT = "token:mint"  # noqa: S105 - the name of an action
    TOKEN_REVOKE = "token:revoke"  # noqa: S105 - the name of an action
    TRIGGER_RULE_ADD = "trigger_rule:add"
    TRIGGER_RULE_REMOVE = "trigger_rule:remove"
    TRIGGER_RULE_UPDATE = "trigger_rule:update"
    USER_CREATE = "user:create"
    USER_DELETE = "user:delete"
    USER_PASSWORD = "user:password"  # noqa: S105 - the name of an action
    USER_RENAME = "user:rename"
    USER_SUSPEND = "user:suspend"
    USER_UNSUSPEND = "user:unsuspend"
    USER_UPDATE = "user:update"
    WEBHOOK_CREATE = "webhook:create"
    WEBHOOK_DELETE = "webhook:delete"
    WEBHOOK_PAUSE = "webhook:pause"
    WEBHOOK_REDELIVER = "webhook:redeliver"
    WEBHOOK_RESUME = "webhook:resume"
    WEBHOOK_SECRET = "webhook:secret"  # noqa: S105 - the name of an action
    WEBHOOK_UPDATE = "webhook:update"


@dataclass(frozen=True, slots=True)
class AuditInfo:
    """One entry. `target` is a name, or a repository's path; `details` depends on the action."""

    id: int
    at: datetime
    actor: str
    action: str
    target: str
    details: dict[str, Any]


def record(session: AsyncSession, actor: Actor, action: Action, target: str, **details: object) -> None:
    """Adds an entry to the transaction of `session`; details are JSON values, never secrets."""
    session.add(entry(actor, action, target, **details))


def entry(actor: Actor, action: Action, target: str, **details: object) -> AuditEntry:
    """The same entry, for a transaction that comes later."""
    how = {"credential": actor.credential, "address": actor.address}
    return AuditEntry(actor=actor.name, action=action, target=target, details={**details, **how})


class Audit:
    """Reads the log."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def list(
        self,
        actor: Actor,
        *,
        action: str | None = None,
        target: str | None = None,
        limit: int = 100,
        before: int | None = None,
    ) -> list[AuditInfo]:
        """Newest first; `before` is the id of the last entry of the page before. For site admins."""
        require_site_admin(actor)
        query = select(AuditEntry).order_by(AuditEntry.id.desc()).limit(limit)
        if action is not None:
            query = query.where(AuditEntry.action == action.replace("\0", ""))
        if target is not None:
            query = query.where(AuditEntry.target == target.replace("\0", ""))
        if before is not None:
            query = query.where(AuditEntry.id < before)
        async with self._database.read() as session:
            return [
                AuditInfo(row.id, row.at, row.actor, row.action, row.target, row.details)
                for row in await session.scalars(query)
            ]
