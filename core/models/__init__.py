"""The mapped classes, one aggregate per module."""

from core.models.accounts import Account, AccountKind, AccountRedirect, Membership, Role
from core.models.activity import AuditEntry, MaintenanceTask, OutboxEvent, Push, Transport
from core.models.base import Base, now
from core.models.credentials import AccessToken, LoginFailure, Scope, SshKey
from core.models.lfs import LfsLink, LfsLock, LfsObject, LfsUpload, StoreKind
from core.models.repositories import (
    BranchRule,
    Collaborator,
    DeletedRepository,
    ObjectFormat,
    Pack,
    PackKind,
    Ref,
    Repository,
    RepositoryRedirect,
    RepositoryType,
    Visibility,
    random_id,
)

__all__ = [
    "AccessToken",
    "Account",
    "AccountKind",
    "AccountRedirect",
    "AuditEntry",
    "Base",
    "BranchRule",
    "Collaborator",
    "DeletedRepository",
    "LfsLink",
    "LfsLock",
    "LfsObject",
    "LfsUpload",
    "LoginFailure",
    "MaintenanceTask",
    "Membership",
    "ObjectFormat",
    "OutboxEvent",
    "Pack",
    "PackKind",
    "Push",
    "Ref",
    "Repository",
    "RepositoryRedirect",
    "RepositoryType",
    "Role",
    "Scope",
    "SshKey",
    "StoreKind",
    "Transport",
    "Visibility",
    "now",
    "random_id",
]
