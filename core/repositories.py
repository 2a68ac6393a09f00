"""Repositories: opening, creating, changing, moving, deleting and listing them."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import ColumnElement, delete, func, or_, select, tuple_
from sqlalchemy.ext.asyncio import AsyncSession

from core.access import Actor, ActorKind, Permission, require_creation, require_write_scope, visible_to
from core.audit import Action, record
from core.database import Database
from core.errors import AccountNotFound, AlreadyExists, PermissionDenied, RepositoryNotFound, Unprocessable
from core.lookup import require_account
from core.models import (
    Account,
    Collaborator,
    DeletedRepository,
    ObjectFormat,
    Ref,
    Repository,
    RepositoryRedirect,
    RepositoryType,
    Transport,
    Visibility,
    now,
    random_id,
)
from core.names import Address, check_branch_name, check_repository_name
from core.opening import Opener, RepositoryInfo
from core.outbox import EventName, emit, identity, keep_identity
from core.settings import AuthSettings, RepositorySettings
from core.texts import checked_text
from core.unique import flush_or_exists

__all__ = ["Repositories", "RepositoryInfo"]

_DESCRIPTION = 1000


class Repositories:
    """Every method finds and authorises by itself; addresses may be former ones."""

    def __init__(self, database: Database, settings: RepositorySettings, auth: AuthSettings) -> None:
        self._database = database
        self._opener = Opener(database, auth)
        self._settings = settings
        self._anonymous_read = auth.anonymous_read

    async def open(self, actor: Actor, address: Address, permission: Permission) -> RepositoryInfo:
        """The repository at `address`, or the one that moved away from there.

        Raises:
            AuthenticationRequired, RepositoryNotFound, PermissionDenied: as `core.access.authorize`.
        """
        return await self._opener.open(actor, address, permission)

    async def open_or_create(self, actor: Actor, address: Address, transport: Transport) -> RepositoryInfo:
        """The repository to push to; created if it is missing, the actor may, and the settings allow it.

        Raises:
            AuthenticationRequired, RepositoryNotFound, PermissionDenied: as `open` for writing.
            InvalidName: no repository may be created under this name.
        """
        try:
            return await self.open(actor, address, Permission.WRITE)
        except RepositoryNotFound:
            if self._settings.push_to_create == "off":
                raise
        visibility = Visibility(self._settings.push_to_create)
        try:
            return await self.create(actor, address, visibility=visibility, transport=transport)
        except AlreadyExists:  # another push was faster
            return await self.open(actor, address, Permission.WRITE)
        except (AccountNotFound, PermissionDenied) as error:
            # Who may not create here must not learn whether something is hidden here.
            raise RepositoryNotFound("no such repository, or you may not see it") from error

    async def create(
        self,
        actor: Actor,
        address: Address,
        *,
        visibility: Visibility | None = None,
        description: str = "",
        default_branch: str | None = None,
        object_format: ObjectFormat = ObjectFormat.SHA1,
        transport: Transport = Transport.API,
    ) -> RepositoryInfo:
        """A new, empty repository. A redirect from its address ends.

        Raises:
            AuthenticationRequired, PermissionDenied: as `core.access.require_creation`.
            AccountNotFound: there is no such owner.
            AlreadyExists: with the `path` that is taken.
            InvalidName, Unprocessable: the name, the branch or the description cannot be.
        """
        if actor.kind is not ActorKind.SYSTEM:
            require_write_scope(actor)  # before anything is said about accounts
        async with self._database.transaction() as session:
            owner = await require_account(session, address.owner, lock="share")
            await require_creation(session, actor, owner, self._settings.creators)
            target = Address(address.type, owner.name, check_repository_name(address.name))
            repository = Repository(
                owner_id=owner.id,
                type=target.type,
                name=target.name,
                visibility=visibility or Visibility(self._settings.default_visibility),
                description=checked_text(description, "description", _DESCRIPTION, lines=True),
                default_branch=check_branch_name(default_branch or self._settings.default_branch),
                object_format=object_format,
            )
            session.add(repository)
            await flush_or_exists(session, f"{target.path} exists already", path=target.path)
            await _drop_redirect(session, owner.id, target)
            record(
                session,
                actor,
                Action.REPOSITORY_CREATE,
                target.path,
                id=repository.id,
                visibility=repository.visibility,
                transport=transport.value,
            )
            payload = {"id": repository.id, "path": target.path, "actor": actor.name}
            emit(session, EventName.REPOSITORY_CREATED, repository.id, payload)
            return RepositoryInfo.of(repository, owner.name)

    async def update(
        self,
        actor: Actor,
        address: Address,
        *,
        visibility: Visibility | None = None,
        description: str | None = None,
        default_branch: str | None = None,
    ) -> RepositoryInfo:
        """Changes what is not None. Another default branch makes a new state of the refs.

        Raises:
            AuthenticationRequired, RepositoryNotFound, PermissionDenied: it needs ADMIN.
            InvalidName, Unprocessable: the branch cannot be, or is not among those that exist; or the
                description is too long.
        """
        async with self._opener.changing(actor, address) as (session, repository, before):
            changes: dict[str, Any] = {}
            if visibility is not None and visibility != repository.visibility:
                changes["visibility"] = [repository.visibility, visibility.value]
                repository.visibility = visibility
            if description is not None:
                repository.description = checked_text(description, "description", _DESCRIPTION, lines=True)
            if default_branch is not None and default_branch != repository.default_branch:
                changes["default_branch"] = [repository.default_branch, default_branch]
                await _set_default_branch(session, repository, default_branch)
                payload = {"path": before.path, "default_branch": default_branch, "actor": actor.name}
                emit(session, EventName.REPOSITORY_DEFAULT_BRANCH_CHANGED, repository.id, payload)
            repository.updated_at = now()
            info = RepositoryInfo.of(repository, before.owner)
            if changes:
                record(session, actor, Action.REPOSITORY_UPDATE, info.path, **changes)
            return info

    async def move(self, actor: Actor, address: Address, to: Address) -> RepositoryInfo:
        """Renames or transfers; the old address keeps working until something takes it.

        Raises:
            AuthenticationRequired, RepositoryNotFound, PermissionDenied: it needs ADMIN here and the right
                to create there.
            AccountNotFound: there is no such new owner.
            AlreadyExists: with the `path` that is taken.
            InvalidName, Unprocessable: the new name cannot be, or the type would change.
        """
        async with self._opener.changing(actor, address) as (session, repository, info):
            before = info.address
            if to.type is not before.type:
                raise Unprocessable("a model cannot become a dataset, nor a dataset a model")
            target = await require_account(session, to.owner, lock="share")
            if target.id != repository.owner_id:
                await require_creation(session, actor, target, self._settings.creators)
            after = Address(to.type, target.name, check_repository_name(to.name))
            if after == before:
                return info
            former_owner_id = repository.owner_id
            repository.owner_id, repository.name, repository.updated_at = target.id, after.name, now()
            await flush_or_exists(session, f"{after.path} exists already", path=after.path)
            await _drop_redirect(session, target.id, after)
            await _drop_redirect(session, former_owner_id, before)
            session.add(
                RepositoryRedirect(
                    owner_id=former_owner_id, type=before.type, name=before.name, repository_id=repository.id
                )
            )
            # An owner needs no other right, and must not keep one after the next transfer.
            tie = (Collaborator.repository_id == repository.id, Collaborator.user_id == target.id)
            await session.execute(delete(Collaborator).where(*tie))
            record(session, actor, Action.REPOSITORY_MOVE, after.path, previous=before.path)
            payload = {"path": after.path, "previous": before.path, "actor": actor.name}
            emit(session, EventName.REPOSITORY_RENAMED, repository.id, payload)
            return RepositoryInfo.of(repository, target.name)

    async def delete(self, actor: Actor, address: Address) -> None:
        """Forgets the repository with its refs, rules, keys and redirects; the sweeper frees its bytes.

        Raises:
            AuthenticationRequired, RepositoryNotFound, PermissionDenied: it needs ADMIN.
        """
        async with self._opener.changing(actor, address) as (session, repository, info):
            session.add(DeletedRepository(repository_id=info.id, address=info.path))
            record(session, actor, Action.REPOSITORY_DELETE, info.path, id=info.id)
            await keep_identity(session, info)
            payload = {"id": info.id, "path": info.path, "actor": actor.name, "repository": identity(info)}
            emit(session, EventName.REPOSITORY_DELETED, None, payload)
            await session.delete(repository)

    async def list_visible(
        self,
        actor: Actor,
        *,
        owner: str | None = None,
        type: RepositoryType | None = None,  # noqa: A002 - the name that addresses give it
        search: str | None = None,
        narrow: Sequence[ColumnElement[bool]] = (),
        limit: int = 100,
        after: tuple[str, str, str] | None = None,
    ) -> list[RepositoryInfo]:
        """What `actor` may see, by owner, type and name; `after` is the last item's `cursor`.

        `search` is looked for in names and descriptions, in any case; `narrow` are further conditions.

        Raises:
            AccountNotFound: there is no such owner.
        """
        order = (Account.name, Repository.type, Repository.name)
        query = (
            select(Repository, Account.name)
            .join(Account, Account.id == Repository.owner_id)
            .where(*narrow)
            .order_by(*order)
            .limit(limit)
        )
        if type is not None:
            query = query.where(Repository.type == type)
        if search:
            query = query.where(_matches(checked_text(search, "search", 200)))
        if after is not None:
            query = query.where(
                tuple_(*order) > tuple_(*(checked_text(part, "cursor", 200) for part in after))
            )
        async with self._database.read() as session:
            if owner is not None:
                query = query.where(Account.id == (await require_account(session, owner)).id)
            visible = await visible_to(session, actor, anonymous_read=self._anonymous_read)
            rows = await session.execute(query.where(visible))
            return [RepositoryInfo.of(repository, name) for repository, name in rows]


async def _set_default_branch(session: AsyncSession, repository: Repository, branch: str) -> None:
    ref = f"refs/heads/{check_branch_name(branch)}"
    branches = select(Ref.name).where(Ref.repository_id == repository.id, Ref.name.startswith("refs/heads/"))
    exists = await session.scalar(branches.where(Ref.name == ref).limit(1))
    if exists is None and await session.scalar(branches.limit(1)) is not None:
        raise Unprocessable(f"there is no branch {branch}", field="default_branch")
    repository.default_branch = branch
    repository.refs_version += 1
    repository.state = random_id()


async def _drop_redirect(session: AsyncSession, owner_id: int, address: Address) -> None:
    await session.execute(
        delete(RepositoryRedirect).where(
            RepositoryRedirect.owner_id == owner_id,
            RepositoryRedirect.type == address.type,
            RepositoryRedirect.name == address.name,
        )
    )


def _matches(search: str) -> ColumnElement[bool]:
    text = search.lower()
    return or_(
        Account.name.contains(text, autoescape=True),
        Repository.name.contains(text, autoescape=True),
        func.lower(Repository.description).contains(text, autoescape=True),
    )
