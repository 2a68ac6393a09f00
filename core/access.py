"""Who may do what: the only place that decides, whatever face the request came through.

A right is the best of what somebody is (owner, member, collaborator, site administrator, or anybody for a
public repository), capped by what the credential allows (token scope, token's repository, read-only key).
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import Literal

from sqlalchemy import ColumnElement, and_, bindparam, false, or_, select, true
from sqlalchemy.ext.asyncio import AsyncSession

from core.errors import (
    AuthenticationRequired,
    InvalidCredentials,
    PermissionDenied,
    RepositoryNotFound,
)
from core.models import (
    AccessToken,
    Account,
    Collaborator,
    Membership,
    Repository,
    Role,
    Scope,
    SshKey,
    Visibility,
    now,
)
from core.throttle import site


class Permission(StrEnum):
    """What an operation needs of one repository; `subject:right`, weakest first."""

    READ = "repository:read"
    WRITE = "repository:write"
    ADMIN = "repository:admin"


class ActorKind(StrEnum):
    ANONYMOUS = "anonymous"
    USER = "user"
    DEPLOY_KEY = "deploy-key"
    SYSTEM = "system"  # the administration commands on the machine itself


@dataclass(frozen=True, slots=True)
class Actor:
    """Somebody who asks, as one credential proved it. Made by `core.credentials`, for one request.

    Attributes:
        name: the account name; of a deploy key `deploy-key:<id>`, which no account can be called.
        scope: the most that the credential allows; None is no limit.
        repository_id: the only repository that a restricted token or a deploy key is good for.
        for_runs: by a token that was made for a run: what it pushes fires no rules unless they ask for it.
        credential: `password`, `token:<id>`, `key:<id>`, `system` or `none`.
        address: the client's IP address, or empty.
    """

    kind: ActorKind
    name: str
    user_id: int | None = None
    is_admin: bool = False
    scope: Scope | None = None
    repository_id: str | None = None
    read_only: bool = False
    for_runs: bool = False
    credential: str = "none"
    address: str = ""

    @property
    def client(self) -> str:
        """Whom to count shared resources for: an account or a key, and of nobody the address."""
        if self.kind is not ActorKind.ANONYMOUS:
            return self.name
        try:
            return f"{self.name}@{site(self.address)}"
        except ValueError:  # a Unix socket
            return self.name


ANONYMOUS = Actor(ActorKind.ANONYMOUS, "anonymous")
SYSTEM = Actor(ActorKind.SYSTEM, "system", is_admin=True, credential="system")

_RANK = {Role.READ: 1, Role.WRITE: 2, Role.ADMIN: 3}
_NEEDED = {Permission.READ: Role.READ, Permission.WRITE: Role.WRITE, Permission.ADMIN: Role.ADMIN}


# What a user is on this server, for this owner and in this repository. Built once: every request asks.
_STANDING = (
    select(Account.is_admin, Membership.role, Collaborator.role)
    .outerjoin(
        Membership,
        and_(Membership.user_id == Account.id, Membership.organisation_id == bindparam("owner")),
    )
    .outerjoin(
        Collaborator,
        and_(Collaborator.user_id == Account.id, Collaborator.repository_id == bindparam("repository")),
    )
    .where(Account.id == bindparam("user"), Account.suspended_at.is_(None))
)


@dataclass(frozen=True, slots=True)
class Owned:
    """A repository, as far as rights depend on it."""

    id: str
    owner_id: int
    visibility: str


@dataclass(frozen=True, slots=True)
class Standing:
    """What a user is on this server, for the owner of a repository, and in it."""

    is_admin: bool
    membership: str | None
    collaboration: str | None


async def role_of(
    session: AsyncSession, actor: Actor, repository: Repository, *, anonymous_read: bool = False
) -> Role | None:
    """What `actor` may do with `repository`, caps included; None: not even know that it exists.

    `anonymous_read` is `[auth] anonymous_read`: whether public means everybody or everybody logged in.

    Raises:
        InvalidCredentials: the account was suspended or deleted after the actor logged in.
    """
    standing = await _standing(session, actor, repository)
    return _capped(actor, _granted(actor, _owned(repository), standing, anonymous_read))


async def authorize(
    session: AsyncSession,
    actor: Actor,
    repository: Repository | None,
    permission: Permission,
    *,
    anonymous_read: bool = False,
) -> None:
    """Returns if `actor` may; None stands for a repository that does not exist.

    Raises:
        AuthenticationRequired: nobody is logged in; the same answer whether or not it exists.
        RepositoryNotFound: it does not exist, or the actor may not know that it does.
        PermissionDenied: the actor sees it, and the message says what is missing.
    """
    if repository is None:
        _require(actor, None, None, permission)
        return
    standing = await _standing(session, actor, repository)
    authorize_standing(actor, _owned(repository), standing, permission, anonymous_read=anonymous_read)


def authorize_standing(
    actor: Actor,
    repository: Owned,
    standing: Standing | None,
    permission: Permission,
    *,
    anonymous_read: bool = False,
) -> None:
    """`authorize` by what was read; `standing` is None for whoever is no user, or none any more."""
    _require(actor, repository, _granted(actor, repository, standing, anonymous_read), permission)


async def authorize_again(
    session: AsyncSession,
    actor: Actor,
    repository: Repository,
    permission: Permission,
    *,
    anonymous_read: bool = False,
) -> None:
    """`authorize` at the end of something long: the credential must not have been taken away meanwhile.

    Raises:
        InvalidCredentials: it was revoked or expired, or the account was suspended or deleted.
        RepositoryNotFound, PermissionDenied: as `authorize`.
    """
    kind, _, number = actor.credential.partition(":")
    tables: dict[str, type[AccessToken] | type[SshKey]] = {"token": AccessToken, "key": SshKey}
    if kind in tables:
        found = await session.get(tables[kind], int(number))
        if found is None:
            raise InvalidCredentials("this token or key was revoked meanwhile")
        if isinstance(found, AccessToken) and found.expires_at is not None and found.expires_at <= now():
            raise InvalidCredentials("this token expired meanwhile")
    await authorize(session, actor, repository, permission, anonymous_read=anonymous_read)


async def visible_to(
    session: AsyncSession, actor: Actor, *, anonymous_read: bool = False
) -> ColumnElement[bool]:
    """The condition on `Repository` that is true exactly where `role_of` is not None.

    Raises:
        InvalidCredentials: as `role_of`.
    """
    public = Repository.visibility == Visibility.PUBLIC
    if actor.kind is ActorKind.SYSTEM:
        return true()
    if actor.kind is ActorKind.DEPLOY_KEY:
        return Repository.id == actor.repository_id
    if actor.kind is ActorKind.ANONYMOUS:
        return public if anonymous_read else false()
    own = true() if await standing(session, actor) else or_(public, *_ties(actor))
    if actor.repository_id is None:
        return own
    elsewhere = public if anonymous_read else false()
    return or_(and_(Repository.id == actor.repository_id, own), elsewhere)


async def standing(session: AsyncSession, actor: Actor) -> bool:
    """Whether `actor` is a site administrator now, whatever was true when the actor logged in.

    Raises:
        InvalidCredentials: the account was suspended or deleted since.
    """
    if actor.kind is not ActorKind.USER:
        return actor.kind is ActorKind.SYSTEM
    query = select(Account.is_admin).where(Account.id == actor.user_id, Account.suspended_at.is_(None))
    is_admin = await session.scalar(query)
    if is_admin is None:
        raise InvalidCredentials("this account is suspended or deleted")
    return is_admin


def require_write_scope(actor: Actor) -> int:
    """The user who may create things in their own name.

    Raises:
        AuthenticationRequired: nobody is logged in.
        PermissionDenied: a deploy key, a restricted token, or a token with the scope `read`.
    """
    return _require_scope(actor, (Scope.WRITE, Scope.ADMIN))


def require_account_scope(actor: Actor) -> int:
    """The user who may manage their own account: keys, tokens, organisations.

    Raises:
        AuthenticationRequired: nobody is logged in.
        PermissionDenied: a deploy key, a restricted token, or a token without the scope `admin`.
    """
    return _require_scope(actor, (Scope.ADMIN,))


def require_site_admin(actor: Actor) -> None:
    """Returns if `actor` administers this server.

    Raises:
        AuthenticationRequired: nobody is logged in.
        PermissionDenied: everybody else, and an administrator's token without the scope `admin`.
    """
    if actor.kind is ActorKind.SYSTEM:
        return
    require_account_scope(actor)
    if not actor.is_admin:
        raise PermissionDenied("only an administrator of this server may do this")


async def require_account_admin(session: AsyncSession, actor: Actor, account: Account) -> None:
    """Returns if `actor` may manage `account`: themselves, an organisation they own, or a site admin any.

    Raises:
        AuthenticationRequired: nobody is logged in.
        PermissionDenied: somebody else's account, or the credential is too weak.
    """
    if actor.kind is ActorKind.SYSTEM:
        return
    user_id = require_account_scope(actor)
    if await standing(session, actor) or user_id == account.id:
        return
    if await _membership(session, account.id, user_id) is not Role.ADMIN:
        raise PermissionDenied(f"you may not manage the account {account.name}")


async def require_creation(
    session: AsyncSession, actor: Actor, owner: Account, creators: Literal["users", "admins"]
) -> None:
    """Returns if `actor` may create repositories that `owner` owns; `creators` is the setting.

    Raises:
        AuthenticationRequired: nobody is logged in.
        PermissionDenied: the message says why.
    """
    if actor.kind is ActorKind.SYSTEM:
        return
    user_id = require_write_scope(actor)
    if await standing(session, actor):
        return
    if creators == "admins":
        raise PermissionDenied("only an administrator of this server may create repositories")
    if user_id == owner.id:
        return
    if await _membership(session, owner.id, user_id) not in (Role.WRITE, Role.ADMIN):
        raise PermissionDenied(f"you may not create repositories under {owner.name}", owner=owner.name)


async def _standing(session: AsyncSession, actor: Actor, repository: Repository) -> Standing | None:
    if actor.kind is not ActorKind.USER:
        return None
    parameters = {"user": actor.user_id, "owner": repository.owner_id, "repository": repository.id}
    row = (await session.execute(_STANDING, parameters)).one_or_none()
    return Standing(*row) if row is not None else None


def _owned(repository: Repository) -> Owned:
    return Owned(repository.id, repository.owner_id, repository.visibility)


def _granted(actor: Actor, repository: Owned, standing: Standing | None, anonymous_read: bool) -> Role | None:
    """The best role, before what the credential allows."""
    public = repository.visibility == Visibility.PUBLIC
    if actor.kind is ActorKind.SYSTEM:
        return Role.ADMIN
    if actor.kind is ActorKind.DEPLOY_KEY:
        return Role.WRITE if repository.id == actor.repository_id else None
    if actor.kind is ActorKind.ANONYMOUS:
        return Role.READ if public and anonymous_read else None
    if standing is None:
        raise InvalidCredentials("this account is suspended or deleted")
    if actor.repository_id not in (None, repository.id):
        return Role.READ if public and anonymous_read else None
    if standing.is_admin or repository.owner_id == actor.user_id:
        return Role.ADMIN
    roles = [Role(role) for role in (standing.membership, standing.collaboration) if role]
    if public:
        roles.append(Role.READ)
    return max(roles, key=_RANK.__getitem__, default=None)


def _require(actor: Actor, repository: Owned | None, granted: Role | None, permission: Permission) -> None:
    role = _capped(actor, granted)
    needed = _NEEDED[permission]
    if role and _RANK[role] >= _RANK[needed]:
        return
    if actor.kind is ActorKind.ANONYMOUS:
        raise AuthenticationRequired("log in with a user name and a password or token")
    if repository is None or granted is None or role is None:
        raise RepositoryNotFound("no such repository, or you may not see it")
    raise _denied(actor, repository, granted, needed)


def _ties(actor: Actor) -> tuple[ColumnElement[bool], ...]:
    memberships = select(Membership.organisation_id).where(Membership.user_id == actor.user_id)
    collaborations = select(Collaborator.repository_id).where(Collaborator.user_id == actor.user_id)
    return (
        Repository.owner_id == actor.user_id,
        Repository.owner_id.in_(memberships),
        Repository.id.in_(collaborations),
    )


async def _membership(session: AsyncSession, organisation_id: int, user_id: int) -> Role | None:
    query = select(Membership.role).where(
        Membership.organisation_id == organisation_id, Membership.user_id == user_id
    )
    role = await session.scalar(query)
    return Role(role) if role else None


def _capped(actor: Actor, role: Role | None) -> Role | None:
    if role is None:
        return None
    cap = Role.READ if actor.read_only else Role(actor.scope) if actor.scope else Role.ADMIN
    return min(role, cap, key=_RANK.__getitem__)


def _denied(actor: Actor, repository: Owned, granted: Role, needed: Role) -> PermissionDenied:
    if actor.kind is ActorKind.DEPLOY_KEY:
        text = "this deploy key may only read" if actor.read_only else "a deploy key cannot administer"
    elif actor.repository_id not in (None, repository.id):
        text = "this token is for another repository"
    elif actor.scope and _RANK[granted] >= _RANK[needed]:
        text = f"this token has the scope {actor.scope}, and {needed} is needed"
    else:
        text = f"your role here is {granted}, and {needed} is needed"
    return PermissionDenied(text, needed=needed.value)


def _require_scope(actor: Actor, enough: tuple[Scope, ...]) -> int:
    if actor.kind is ActorKind.ANONYMOUS:
        raise AuthenticationRequired("log in with a user name and a password or token")
    if actor.user_id is None:
        raise PermissionDenied(f"only a user may do this, and {actor.name} is none")
    if actor.repository_id is not None:
        raise PermissionDenied("this token is limited to one repository")
    if actor.scope is not None and actor.scope not in enough:
        raise PermissionDenied(
            f"this token has the scope {actor.scope}, and {enough[0]} is needed", needed=enough[0].value
        )
    return actor.user_id
