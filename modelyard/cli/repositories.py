"""`modelyard repo …`: what a repository is called, and what it is like."""

from typing import Annotated

import typer

from core.access import SYSTEM, Permission
from core.models import ObjectFormat, RepositoryType, Transport, Visibility
from core.names import parse_address
from core.repositories import RepositoryInfo
from modelyard.cli.administration import (
    Kind,
    Private,
    RepositoryPath,
    Yes,
    administer,
    confirm,
    new_address,
    repositories_of,
    visibility_of,
)
from modelyard.cli.collaboration import collaborators, deploy_keys, rules
from modelyard.cli.exchange import add_commands
from modelyard.cli.framework import Noun
from modelyard.cli.output import Answer, Document, done, listing, record

command = Noun()
command.add(collaborators, "collaborator", "Manage the users who were given a role in a repository.")
command.add(deploy_keys, "deploy-key", "Manage the SSH keys that open one repository only.")
command.add(rules, "rule", "Manage the rules that protect branches.")


@command.command("create")
async def create(
    context: typer.Context,
    path: RepositoryPath,
    kind: Kind = None,
    private: Private = None,
    description: Annotated[str, typer.Option(help="A sentence about it.", show_default=False)] = "",
    default_branch: Annotated[
        str | None, typer.Option(metavar="BRANCH", help="The branch that a clone checks out.")
    ] = None,
    object_format: Annotated[
        ObjectFormat, typer.Option(help="How Git names its objects.")
    ] = ObjectFormat.SHA1,
) -> Answer:
    """Create an empty repository."""
    address = new_address(path, kind)
    async with administer(context) as services:
        made = await services.repositories.create(
            SYSTEM,
            address,
            visibility=visibility_of(private),
            description=description,
            default_branch=default_branch,
            object_format=object_format,
            transport=Transport.LOCAL,
        )
    return done(f"created the {made.visibility} {made.type} {made.path}", **_view(made))


@command.command("list")
async def list_(
    context: typer.Context,
    owner: Annotated[str | None, typer.Option(help="Only those of this account.")] = None,
    kind: Annotated[RepositoryType | None, typer.Option("--type", help="Only those of this type.")] = None,
    search: Annotated[
        str | None, typer.Option(help="Only those with this text in name or description.")
    ] = None,
) -> Answer:
    """List repositories by owner, type and name."""
    async with administer(context) as services:
        found = await repositories_of(services, owner=owner, kind=kind, search=search)
    return listing(map(_view, found), "path visibility default_branch updated_at description")


@command.command("show")
async def show(context: typer.Context, path: RepositoryPath) -> Answer:
    """Show one repository; a former address finds it too."""
    async with administer(context) as services:
        return record(_view(await services.repositories.open(SYSTEM, parse_address(path), Permission.READ)))


@command.command("move")
async def move(
    context: typer.Context,
    path: RepositoryPath,
    to: Annotated[str, typer.Argument(metavar="OWNER/NAME", help="Its new address.", show_default=False)],
) -> Answer:
    """Rename a repository or transfer it to another account; the old address keeps working."""
    async with administer(context) as services:
        source = await services.repositories.open(SYSTEM, parse_address(path), Permission.ADMIN)
        moved = await services.repositories.move(SYSTEM, source.address, new_address(to, source.type))
    return done(f"{source.path} is now {moved.path}", **_view(moved))


@command.command("visibility")
async def set_visibility(
    context: typer.Context,
    path: RepositoryPath,
    visibility: Annotated[Visibility, typer.Argument(help="Who may read it.", show_default=False)],
) -> Answer:
    """Make a repository public or private."""
    async with administer(context) as services:
        changed = await services.repositories.update(SYSTEM, parse_address(path), visibility=visibility)
    return done(f"{changed.path} is now {changed.visibility}", **_view(changed))


@command.command("default-branch")
async def set_default_branch(
    context: typer.Context,
    path: RepositoryPath,
    branch: Annotated[str, typer.Argument(help="The branch that a clone checks out.", show_default=False)],
) -> Answer:
    """Choose the branch that a clone checks out."""
    async with administer(context) as services:
        changed = await services.repositories.update(SYSTEM, parse_address(path), default_branch=branch)
    return done(f"the default branch of {changed.path} is now {changed.default_branch}", **_view(changed))


@command.command("delete")
async def delete(context: typer.Context, path: RepositoryPath, yes: Yes = False) -> Answer:
    """Delete a repository with everything in it."""
    confirm(f"Delete {path} for good?", yes=yes)
    async with administer(context) as services:
        gone = await services.repositories.open(SYSTEM, parse_address(path), Permission.ADMIN)
        await services.repositories.delete(SYSTEM, gone.address)
    return done(f"deleted {gone.path}", **_view(gone))


add_commands(command)


def _view(info: RepositoryInfo) -> Document:
    return {
        "path": info.path,
        "id": info.id,
        "type": info.type,
        "owner": info.owner,
        "name": info.name,
        "visibility": info.visibility,
        "description": info.description,
        "default_branch": info.default_branch,
        "object_format": info.object_format,
        "created_at": info.created_at,
        "updated_at": info.updated_at,
    }
