"""`modelyard org …`."""

from typing import Annotated

import typer

from core.access import SYSTEM
from core.accounts import AccountInfo
from core.models import AccountKind, Role
from core.organisations import Member
from modelyard.cli.accounts import account_of_kind, list_accounts
from modelyard.cli.administration import OrganisationName, UserName, Yes, administer, confirm
from modelyard.cli.framework import Noun
from modelyard.cli.output import Answer, Document, done, listing

command = Noun()

NewOrganisationName = Annotated[
    str,
    typer.Argument(
        metavar="NAME", help="Lower-case letters, digits and single inner hyphens.", show_default=False
    ),
]


@command.command("create")
async def create(
    context: typer.Context,
    name: NewOrganisationName,
    owner: Annotated[str, typer.Option(metavar="USER", help="Its first owner.", show_default=False)],
    full_name: Annotated[str, typer.Option(help="What people call it.", show_default=False)] = "",
) -> Answer:
    """Create an organisation with one owner."""
    async with administer(context) as services:
        made = await services.accounts.create_organisation(SYSTEM, name, owner=owner, full_name=full_name)
    return done(f"created the organisation {made.name}", **_view(made))


@command.command("list")
async def list_(
    context: typer.Context,
    search: Annotated[str | None, typer.Option(help="Only those with this text in a name.")] = None,
) -> Answer:
    """List organisations by name."""
    async with administer(context) as services:
        found = await list_accounts(services, AccountKind.ORGANISATION, search)
    return listing(map(_view, found), "name full_name created_at")


@command.command("members")
async def members(context: typer.Context, organisation: OrganisationName) -> Answer:
    """List the members of an organisation."""
    async with administer(context) as services:
        found = await services.organisations.members(organisation)
    return listing(map(_member, found), "user role since")


@command.command("add")
async def add(
    context: typer.Context,
    organisation: OrganisationName,
    user: UserName,
    role: Annotated[Role, typer.Option(help="What they may do; `admin` makes an owner.")] = Role.READ,
) -> Answer:
    """Add a member to an organisation, or change their role."""
    async with administer(context) as services:
        member = await services.organisations.set_member(SYSTEM, organisation, user, role)
    return done(
        f"{member.user} is a member of {member.organisation} with the role {member.role}", **_member(member)
    )


@command.command("remove")
async def remove(context: typer.Context, organisation: OrganisationName, user: UserName) -> Answer:
    """Take a member out of an organisation; its last owner stays."""
    async with administer(context) as services:
        await services.organisations.remove_member(SYSTEM, organisation, user)
    return done(f"{user} is no longer a member of {organisation}", organisation=organisation, user=user)


@command.command("rename")
async def rename(
    context: typer.Context, organisation: OrganisationName, new_name: NewOrganisationName
) -> Answer:
    """Give an organisation another name; addresses with the old one keep working."""
    async with administer(context) as services:
        account = await account_of_kind(services, organisation, AccountKind.ORGANISATION)
        renamed = await services.accounts.rename(SYSTEM, account.name, new_name)
    return done(f"{account.name} is now {renamed.name}", **_view(renamed))


@command.command("delete")
async def delete(context: typer.Context, organisation: OrganisationName, yes: Yes = False) -> Answer:
    """Delete an organisation; refused while it owns repositories."""
    confirm(f"Delete the organisation {organisation}?", yes=yes)
    async with administer(context) as services:
        account = await account_of_kind(services, organisation, AccountKind.ORGANISATION)
        await services.accounts.delete(SYSTEM, account.name)
    return done(f"deleted the organisation {account.name}", **_view(account))


def _view(account: AccountInfo) -> Document:
    return {"name": account.name, "full_name": account.full_name, "created_at": account.created_at}


def _member(member: Member) -> Document:
    return {
        "organisation": member.organisation,
        "user": member.user,
        "role": member.role,
        "since": member.since,
    }
