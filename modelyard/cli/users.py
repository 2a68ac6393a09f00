"""`modelyard user …`."""

from typing import Annotated

import typer

from core.access import SYSTEM
from core.accounts import AccountInfo
from core.models import AccountKind
from modelyard.cli.accounts import account_of_kind, list_accounts
from modelyard.cli.administration import UserName, Yes, administer, confirm, read_password
from modelyard.cli.framework import Noun
from modelyard.cli.output import Answer, Document, done, listing, record

command = Noun()

NewUserName = Annotated[
    str,
    typer.Argument(
        metavar="NAME", help="Lower-case letters, digits and single inner hyphens.", show_default=False
    ),
]
PasswordStdin = Annotated[
    bool, typer.Option("--password-stdin", help="Read the password from standard input.")
]
NoPassword = Annotated[bool, typer.Option("--no-password", help="They use SSH keys and access tokens only.")]


@command.command("create")
async def create(
    context: typer.Context,
    name: NewUserName,
    password_stdin: PasswordStdin = False,
    no_password: NoPassword = False,
    admin: Annotated[bool, typer.Option("--admin", help="They administer this server.")] = False,
    full_name: Annotated[str, typer.Option(help="What people call them.", show_default=False)] = "",
    email: Annotated[str, typer.Option(help="For the commits they make here.", show_default=False)] = "",
) -> Answer:
    """Create a user; a terminal is asked for the password unless an option says where it is."""
    password = _password(from_stdin=password_stdin, none=no_password)
    async with administer(context) as services:
        made = await services.accounts.create_user(
            SYSTEM, name, password=password, full_name=full_name, email=email, is_admin=admin
        )
    return done(f"created the {'administrator' if made.is_admin else 'user'} {made.name}", **_view(made))


@command.command("list")
async def list_(
    context: typer.Context,
    search: Annotated[str | None, typer.Option(help="Only those with this text in a name.")] = None,
) -> Answer:
    """List users by name."""
    async with administer(context) as services:
        found = await list_accounts(services, AccountKind.USER, search)
    return listing(map(_view, found), "name full_name email admin suspended created_at")


@command.command("show")
async def show(context: typer.Context, user: UserName) -> Answer:
    """Show a user and the organisations they belong to."""
    async with administer(context) as services:
        account = await account_of_kind(services, user, AccountKind.USER)
        memberships = await services.organisations.organisations_of(account.name)
    organisations = [{"name": one.organisation, "role": one.role} for one in memberships]
    return record({**_view(account), "organisations": organisations})


@command.command("update")
async def update(
    context: typer.Context,
    user: UserName,
    full_name: Annotated[str | None, typer.Option(help="What people call them.")] = None,
    email: Annotated[str | None, typer.Option(help="For the commits they make here.")] = None,
    admin: Annotated[
        bool | None, typer.Option("--admin/--no-admin", help="Whether they administer this server.")
    ] = None,
) -> Answer:
    """Change what is said of a user, or whether they administer this server."""
    async with administer(context) as services:
        account = await account_of_kind(services, user, AccountKind.USER)
        changed = await services.accounts.update_user(
            SYSTEM, account.name, full_name=full_name, email=email, is_admin=admin
        )
    return done(f"updated {changed.name}", **_view(changed))


@command.command("password")
async def password(
    context: typer.Context,
    user: UserName,
    password_stdin: PasswordStdin = False,
    no_password: NoPassword = False,
) -> Answer:
    """Set a user's password, or take it away."""
    secret = _password(from_stdin=password_stdin, none=no_password)
    async with administer(context) as services:
        account = await account_of_kind(services, user, AccountKind.USER)
        await services.keyring.set_password(SYSTEM, account.name, secret)
    return done(f"{account.name} has {'no' if secret is None else 'another'} password now", **_view(account))


@command.command("rename")
async def rename(context: typer.Context, user: UserName, new_name: NewUserName) -> Answer:
    """Give a user another name; addresses with the old one keep working."""
    async with administer(context) as services:
        account = await account_of_kind(services, user, AccountKind.USER)
        renamed = await services.accounts.rename(SYSTEM, account.name, new_name)
    return done(f"{account.name} is now {renamed.name}", **_view(renamed))


@command.command("suspend")
async def suspend(context: typer.Context, user: UserName) -> Answer:
    """Shut a user out: password, tokens and keys stop working at once."""
    async with administer(context) as services:
        account = await services.accounts.suspend(SYSTEM, user)
    return done(f"suspended {account.name}", **_view(account))


@command.command("unsuspend")
async def unsuspend(context: typer.Context, user: UserName) -> Answer:
    """Let a suspended user in again."""
    async with administer(context) as services:
        account = await services.accounts.unsuspend(SYSTEM, user)
    return done(f"{account.name} is no longer suspended", **_view(account))


@command.command("delete")
async def delete(context: typer.Context, user: UserName, yes: Yes = False) -> Answer:
    """Delete a user with their keys and tokens; refused while they own repositories."""
    confirm(f"Delete the user {user}?", yes=yes)
    async with administer(context) as services:
        account = await account_of_kind(services, user, AccountKind.USER)
        await services.accounts.delete(SYSTEM, account.name)
    return done(f"deleted the user {account.name}", **_view(account))


def _password(*, from_stdin: bool, none: bool) -> str | None:
    if none and from_stdin:
        raise typer.BadParameter("contradicts --password-stdin", param_hint="--no-password")
    return None if none else read_password(from_stdin=from_stdin)


def _view(account: AccountInfo) -> Document:
    return {
        "name": account.name,
        "full_name": account.full_name,
        "email": account.email,
        "admin": account.is_admin,
        "suspended": account.suspended_at is not None,
        "created_at": account.created_at,
    }
