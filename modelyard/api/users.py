"""`/user` and `/users`: people who log in."""

from datetime import datetime

import msgspec
from msgspec import UNSET, UnsetType

from core.access import Actor, require_site_admin
from core.accounts import AccountInfo
from core.errors import (
    AccountNotFound,
    AlreadyExists,
    AuthenticationRequired,
    Conflict,
    InvalidName,
    PermissionDenied,
    Unprocessable,
)
from core.models import AccountKind, Role
from core.organisations import Member
from modelyard.api.call import Call
from modelyard.api.cursors import Page, Window
from modelyard.api.operation import Access, Operations
from modelyard.api.parameters import Email, FullName, Name, Password, Search, given

operations = Operations("users", "People who log in, and what they are called.")


class UserView(msgspec.Struct):
    """A user. `email` is shown to the user and to administrators only, and null to everybody else."""

    name: str
    full_name: str
    email: str | None
    is_admin: bool
    suspended: bool
    created_at: datetime


class NewUser(msgspec.Struct, forbid_unknown_fields=True):
    """A user to be. Without a password they use keys and tokens."""

    name: Name
    password: Password | None = None
    full_name: FullName = ""
    email: Email = ""
    is_admin: bool = False


class UserChanges(msgspec.Struct, forbid_unknown_fields=True):
    """What is left out stays as it is. `is_admin` is for administrators of the server."""

    full_name: FullName | UnsetType = UNSET
    email: Email | UnsetType = UNSET
    is_admin: bool | UnsetType = UNSET


class NewName(msgspec.Struct, forbid_unknown_fields=True):
    """What an account will be called. The old name leads to it until somebody takes that."""

    name: Name


class NewPassword(msgspec.Struct, forbid_unknown_fields=True):
    password: Password


class OwnMembership(msgspec.Struct):
    """An organisation that a user belongs to, and as what."""

    organisation: str
    role: Role
    since: datetime


def view(call: Call, account: AccountInfo) -> UserView:
    """How a user is shown to this caller."""
    private = call.actor.user_id == account.id or _administers(call.actor)
    return UserView(
        name=account.name,
        full_name=account.full_name,
        email=account.email if private else None,
        is_admin=account.is_admin,
        suspended=account.suspended_at is not None,
        created_at=account.created_at,
    )


def _administers(actor: Actor) -> bool:
    try:
        require_site_admin(actor)
    except (AuthenticationRequired, PermissionDenied):
        return False
    return True


async def _user(call: Call, name: str) -> AccountInfo:
    account = await call.services.accounts.get(name)
    if account.kind is not AccountKind.USER:
        raise AccountNotFound(f"{account.name} is an organisation, not a user")
    return account


@operations.add("GET", "/user", access=Access.USER)
async def read_me(call: Call) -> UserView:
    """Read who you are."""
    return view(call, await call.services.accounts.get(call.actor.name))


@operations.add("GET", "/users", access=Access.USER, errors=(Unprocessable,))
async def list_users(call: Call, window: Window[str], search: Search | None = None) -> Page[UserView]:
    """List users.

    Ordered by name.
    """
    found = await call.services.accounts.list(
        kind=AccountKind.USER, search=search, limit=window.fetch, after=window.after
    )
    return window.page(found, lambda account: view(call, account), lambda account: account.name)


@operations.add(
    "POST",
    "/users",
    access=Access.SITE_ADMIN,
    status=201,
    errors=(AlreadyExists, InvalidName, Unprocessable),
)
async def create_user(call: Call, body: NewUser) -> UserView:
    """Create a user."""
    account = await call.services.accounts.create_user(
        call.actor,
        body.name,
        password=body.password,
        full_name=body.full_name,
        email=body.email,
        is_admin=body.is_admin,
    )
    call.created("/users/{name}", name=account.name)
    return view(call, account)


@operations.add("GET", "/users/{name}", access=Access.READER, errors=(AccountNotFound,))
async def read_user(call: Call, name: Name) -> UserView:
    """Read a user.

    A former name leads to the user until somebody takes it.
    """
    return view(call, await _user(call, name))


@operations.add(
    "PATCH", "/users/{name}", access=Access.ACCOUNT, errors=(AccountNotFound, Conflict, Unprocessable)
)
async def update_user(call: Call, name: Name, body: UserChanges) -> UserView:
    """Change a user.

    Yourself, or anybody for an administrator.
    """
    user = await _user(call, name)
    changed = await call.services.accounts.update_user(
        call.actor,
        user.name,
        full_name=given(body.full_name),
        email=given(body.email),
        is_admin=given(body.is_admin),
    )
    return view(call, changed)


@operations.add(
    "POST",
    "/users/{name}/rename",
    access=Access.ACCOUNT,
    errors=(AccountNotFound, AlreadyExists, InvalidName),
)
async def rename_user(call: Call, name: Name, body: NewName) -> UserView:
    """Give a user another name.

    Their repositories move along, and the old addresses keep working.
    """
    user = await _user(call, name)
    renamed = await call.services.accounts.rename(call.actor, user.name, body.name)
    call.created("/users/{name}", name=renamed.name)
    return view(call, renamed)


@operations.add(
    "PUT", "/users/{name}/password", access=Access.ACCOUNT, errors=(AccountNotFound, Unprocessable)
)
async def set_password(call: Call, name: Name, body: NewPassword) -> None:
    """Set a password."""
    user = await _user(call, name)
    await call.services.keyring.set_password(call.actor, user.name, body.password)


@operations.add(
    "PUT", "/users/{name}/suspension", access=Access.SITE_ADMIN, errors=(AccountNotFound, Conflict)
)
async def suspend_user(call: Call, name: Name) -> UserView:
    """Suspend a user.

    Password, tokens and keys stop working at once.
    """
    return view(call, await call.services.accounts.suspend(call.actor, name))


@operations.add("DELETE", "/users/{name}/suspension", access=Access.SITE_ADMIN, errors=(AccountNotFound,))
async def unsuspend_user(call: Call, name: Name) -> UserView:
    """Let a suspended user in again."""
    return view(call, await call.services.accounts.unsuspend(call.actor, name))


@operations.add("DELETE", "/users/{name}", access=Access.ACCOUNT, errors=(AccountNotFound, Conflict))
async def delete_user(call: Call, name: Name) -> None:
    """Delete a user.

    Possible once they own no repositories and are no organisation's last owner.
    """
    user = await _user(call, name)
    await call.services.accounts.delete(call.actor, user.name)


@operations.add("GET", "/users/{name}/organisations", access=Access.USER, errors=(AccountNotFound,))
async def list_user_organisations(call: Call, name: Name, window: Window[str]) -> Page[OwnMembership]:
    """List the organisations of a user.

    Ordered by name.
    """
    found = await call.services.organisations.organisations_of(name)
    return window.page_of_all(found, _membership, lambda member: member.organisation)


def _membership(member: Member) -> OwnMembership:
    return OwnMembership(member.organisation, member.role, member.since)
