"""`/organisations`: accounts that several users share."""

from datetime import datetime

import msgspec
from msgspec import UNSET, UnsetType

from core.accounts import AccountInfo
from core.errors import AccountNotFound, AlreadyExists, Conflict, InvalidName, Unprocessable
from core.models import AccountKind, Role
from core.organisations import Member
from modelyard.api.call import Call
from modelyard.api.cursors import Page, Window
from modelyard.api.operation import Access, Operations
from modelyard.api.parameters import FullName, Name, Search, given
from modelyard.api.users import NewName

operations = Operations("organisations", "Accounts that several users share.")


class OrganisationView(msgspec.Struct):
    name: str
    full_name: str
    created_at: datetime


class NewOrganisation(msgspec.Struct, forbid_unknown_fields=True):
    """An organisation to be. `owner` is you, unless an administrator names somebody else."""

    name: Name
    full_name: FullName = ""
    owner: Name | None = None


class OrganisationChanges(msgspec.Struct, forbid_unknown_fields=True):
    """What is left out stays as it is."""

    full_name: FullName | UnsetType = UNSET


class MemberView(msgspec.Struct):
    """A user in an organisation: `read` and `write` its repositories, or `admin`, who owns it."""

    user: str
    role: Role
    since: datetime


class MemberRole(msgspec.Struct, forbid_unknown_fields=True):
    role: Role


def _view(account: AccountInfo) -> OrganisationView:
    return OrganisationView(account.name, account.full_name, account.created_at)


def _member(member: Member) -> MemberView:
    return MemberView(member.user, member.role, member.since)


async def _organisation(call: Call, name: str) -> AccountInfo:
    account = await call.services.accounts.get(name)
    if account.kind is not AccountKind.ORGANISATION:
        raise AccountNotFound(f"{account.name} is a user, not an organisation")
    return account


@operations.add("GET", "/organisations", access=Access.USER, errors=(Unprocessable,))
async def list_organisations(
    call: Call, window: Window[str], search: Search | None = None
) -> Page[OrganisationView]:
    """List organisations.

    Ordered by name.
    """
    found = await call.services.accounts.list(
        kind=AccountKind.ORGANISATION, search=search, limit=window.fetch, after=window.after
    )
    return window.page(found, _view, lambda account: account.name)


@operations.add(
    "POST",
    "/organisations",
    access=Access.ACCOUNT,
    status=201,
    errors=(AccountNotFound, AlreadyExists, InvalidName, Unprocessable),
)
async def create_organisation(call: Call, body: NewOrganisation) -> OrganisationView:
    """Create an organisation."""
    account = await call.services.accounts.create_organisation(
        call.actor, body.name, owner=body.owner, full_name=body.full_name
    )
    call.created("/organisations/{name}", name=account.name)
    return _view(account)


@operations.add("GET", "/organisations/{organisation}", access=Access.READER, errors=(AccountNotFound,))
async def read_organisation(call: Call, organisation: Name) -> OrganisationView:
    """Read an organisation.

    A former name leads to it until somebody takes that.
    """
    return _view(await _organisation(call, organisation))


@operations.add(
    "PATCH",
    "/organisations/{organisation}",
    access=Access.ACCOUNT,
    errors=(AccountNotFound, Unprocessable),
)
async def update_organisation(call: Call, organisation: Name, body: OrganisationChanges) -> OrganisationView:
    """Change an organisation.

    For its owners.
    """
    account = await _organisation(call, organisation)
    changed = await call.services.accounts.update_user(
        call.actor, account.name, full_name=given(body.full_name)
    )
    return _view(changed)


@operations.add(
    "POST",
    "/organisations/{organisation}/rename",
    access=Access.ACCOUNT,
    errors=(AccountNotFound, AlreadyExists, InvalidName),
)
async def rename_organisation(call: Call, organisation: Name, body: NewName) -> OrganisationView:
    """Give an organisation another name.

    For its owners. Its repositories move along, and the old addresses keep working.
    """
    account = await _organisation(call, organisation)
    renamed = await call.services.accounts.rename(call.actor, account.name, body.name)
    call.created("/organisations/{name}", name=renamed.name)
    return _view(renamed)


@operations.add(
    "DELETE", "/organisations/{organisation}", access=Access.ACCOUNT, errors=(AccountNotFound, Conflict)
)
async def delete_organisation(call: Call, organisation: Name) -> None:
    """Delete an organisation.

    For its owners, once it owns no repositories.
    """
    account = await _organisation(call, organisation)
    await call.services.accounts.delete(call.actor, account.name)


@operations.add("GET", "/organisations/{organisation}/members", access=Access.USER, errors=(AccountNotFound,))
async def list_members(call: Call, organisation: Name, window: Window[str]) -> Page[MemberView]:
    """List the members of an organisation.

    Ordered by name.
    """
    found = await call.services.organisations.members(organisation)
    return window.page_of_all(found, _member, lambda member: member.user)


@operations.add(
    "PUT",
    "/organisations/{organisation}/members/{user}",
    access=Access.ACCOUNT,
    errors=(AccountNotFound, Conflict),
)
async def set_member(call: Call, organisation: Name, user: Name, body: MemberRole) -> MemberView:
    """Add a member, or change a member's role.

    For owners of the organisation, which always keeps one.
    """
    return _member(await call.services.organisations.set_member(call.actor, organisation, user, body.role))


@operations.add(
    "DELETE",
    "/organisations/{organisation}/members/{user}",
    access=Access.ACCOUNT,
    errors=(AccountNotFound, Conflict),
)
async def remove_member(call: Call, organisation: Name, user: Name) -> None:
    """Remove a member.

    For owners of the organisation, and for the member.
    """
    await call.services.organisations.remove_member(call.actor, organisation, user)
