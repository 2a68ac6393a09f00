"""From an address to a repository that somebody may use."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Self

from sqlalchemy import Row, and_, bindparam, select
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import aliased

from core.access import Actor, ActorKind, Owned, Permission, Standing, authorize, authorize_standing
from core.database import Database
from core.lookup import find_repository
from core.models import (
    Account,
    Collaborator,
    Membership,
    ObjectFormat,
    Repository,
    RepositoryType,
    Visibility,
)
from core.names import Address
from core.settings import AuthSettings


@dataclass(frozen=True, slots=True)
class RepositoryInfo:
    """A repository as it was when it was read, under its present name."""

    id: str
    type: RepositoryType
    owner: str
    name: str
    visibility: Visibility
    description: str
    default_branch: str
    object_format: ObjectFormat
    refs_version: int
    state: str
    created_at: datetime
    updated_at: datetime

    @property
    def address(self) -> Address:
        return Address(self.type, self.owner, self.name)

    @property
    def path(self) -> str:
        return self.address.path

    @property
    def cursor(self) -> tuple[str, str, str]:
        """Its place in the order of `Repositories.list_visible`."""
        return (self.owner, self.type.value, self.name)

    @classmethod
    def of(cls, repository: Repository | Row[*tuple[Any, ...]], owner: str) -> Self:
        """From a row, or from one that has all its columns."""
        return cls(
            id=repository.id,
            type=RepositoryType(repository.type),
            owner=owner,
            name=repository.name,
            visibility=Visibility(repository.visibility),
            description=repository.description,
            default_branch=repository.default_branch,
            object_format=ObjectFormat(repository.object_format),
            refs_version=repository.refs_version,
            state=repository.state,
            created_at=repository.created_at,
            updated_at=repository.updated_at,
        )


_User = aliased(Account)
# What a repository is, and what a user is to it.
_AT_ADDRESS = (
    select(
        Repository.id,
        Repository.type,
        Account.name.label("owner"),
        Repository.name,
        Repository.visibility,
        Repository.description,
        Repository.default_branch,
        Repository.object_format,
        Repository.refs_version,
        Repository.state,
        Repository.created_at,
        Repository.updated_at,
        Repository.owner_id,
        _User.id.label("user_id"),
        _User.is_admin,
        Membership.role.label("membership"),
        Collaborator.role.label("collaboration"),
    )
    .join(Account, Account.id == Repository.owner_id)
    .outerjoin(_User, and_(_User.id == bindparam("user"), _User.suspended_at.is_(None)))
    .outerjoin(
        Membership,
        and_(Membership.user_id == _User.id, Membership.organisation_id == Repository.owner_id),
    )
    .outerjoin(
        Collaborator,
        and_(Collaborator.user_id == _User.id, Collaborator.repository_id == Repository.id),
    )
    .where(
        Account.name == bindparam("owner"),
        Repository.type == bindparam("type"),
        Repository.name == bindparam("name"),
    )
)


async def require_repository(
    session: AsyncSession,
    actor: Actor,
    address: Address,
    permission: Permission,
    *,
    anonymous_read: bool,
    lock: bool = False,
) -> tuple[Repository, str]:
    """The repository and its owner's name, found and authorised in one transaction.

    Raises:
        AuthenticationRequired, RepositoryNotFound, PermissionDenied: as `core.access.authorize`.
    """
    found = await find_repository(session, address, lock=lock)
    await authorize(session, actor, found[0] if found else None, permission, anonymous_read=anonymous_read)
    assert found is not None, "authorize refuses what does not exist"
    return found


class Opener:
    """Transactions about one repository, found and authorised in them. Refuses as `core.access.authorize`."""

    def __init__(self, database: Database, auth: AuthSettings) -> None:
        self._database = database
        self._anonymous_read = auth.anonymous_read

    async def open(self, actor: Actor, address: Address, permission: Permission) -> RepositoryInfo:
        """The repository, if the actor may. One statement, unless it moved, because every request asks."""
        user_id = actor.user_id if actor.kind is ActorKind.USER else None
        names = {"owner": address.owner, "type": address.type, "name": address.name, "user": user_id}
        rows = await self._database.rows(_AT_ADDRESS, names)
        if not rows:
            async with self.reading(actor, address, permission) as (_, info):
                return info
        row = rows[0]
        authorize_standing(
            actor,
            Owned(row.id, row.owner_id, row.visibility),
            Standing(row.is_admin, row.membership, row.collaboration) if row.user_id else None,
            permission,
            anonymous_read=self._anonymous_read,
        )
        return RepositoryInfo.of(row, row.owner)

    @asynccontextmanager
    async def reading(
        self, actor: Actor, address: Address, permission: Permission
    ) -> AsyncIterator[tuple[AsyncSession, RepositoryInfo]]:
        """A snapshot, as `Database.read`."""
        async with self._database.read() as session:
            found = await require_repository(
                session, actor, address, permission, anonymous_read=self._anonymous_read
            )
            yield session, RepositoryInfo.of(*found)

    @asynccontextmanager
    async def changing(
        self, actor: Actor, address: Address
    ) -> AsyncIterator[tuple[AsyncSession, Repository, RepositoryInfo]]:
        """A unit of work that holds the lock on the repository's row; it takes ADMIN."""
        async with self._database.transaction() as session:
            repository, owner = await require_repository(
                session, actor, address, Permission.ADMIN, anonymous_read=self._anonymous_read, lock=True
            )
            yield session, repository, RepositoryInfo.of(repository, owner)
