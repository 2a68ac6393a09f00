"""`modelyard repo collaborator|deploy-key|rule …`: who else may use one repository, and how."""

from typing import Annotated

import typer

from core.access import SYSTEM
from core.collaboration import BranchRuleInfo, CollaboratorInfo
from core.keyring import KeyInfo
from core.models import Role
from core.names import parse_address
from modelyard.cli.administration import (
    KeyFile,
    KeyTitle,
    RepositoryPath,
    UserName,
    administer,
    read_key,
)
from modelyard.cli.framework import Noun
from modelyard.cli.output import Answer, Document, done, listing

collaborators = Noun()
deploy_keys = Noun()
rules = Noun()

Identity = Annotated[int, typer.Argument(metavar="ID", help="As `list` shows it.", show_default=False)]


@collaborators.command("list")
async def list_collaborators(context: typer.Context, path: RepositoryPath) -> Answer:
    """List the users who were given a role in a repository."""
    async with administer(context) as services:
        found = await services.collaboration.collaborators(SYSTEM, parse_address(path))
    return listing(map(_collaborator, found), "user role since")


@collaborators.command("add")
async def add_collaborator(
    context: typer.Context,
    path: RepositoryPath,
    user: UserName,
    role: Annotated[Role, typer.Option(help="What they may do.")] = Role.READ,
) -> Answer:
    """Give a user a role in a repository, or another one."""
    async with administer(context) as services:
        added = await services.collaboration.set_collaborator(SYSTEM, parse_address(path), user, role)
    return done(f"{added.user} has the role {added.role} in {path}", **_collaborator(added))


@collaborators.command("remove")
async def remove_collaborator(context: typer.Context, path: RepositoryPath, user: UserName) -> Answer:
    """Take a user's role in a repository away."""
    async with administer(context) as services:
        await services.collaboration.remove_collaborator(SYSTEM, parse_address(path), user)
    return done(f"{user} is no longer a collaborator of {path}", user=user)


@deploy_keys.command("list")
async def list_deploy_keys(context: typer.Context, path: RepositoryPath) -> Answer:
    """List the keys that open this repository only."""
    async with administer(context) as services:
        found = await services.collaboration.deploy_keys(SYSTEM, parse_address(path))
    return listing(map(_deploy_key, found), "id title read_only fingerprint last_used_at")


@deploy_keys.command("add")
async def add_deploy_key(
    context: typer.Context,
    path: RepositoryPath,
    file: KeyFile,
    title: KeyTitle = "",
    write: Annotated[bool, typer.Option("--write", help="It may push too.")] = False,
) -> Answer:
    """Let whoever holds a key read this repository."""
    text = read_key(file)
    async with administer(context) as services:
        key = await services.collaboration.add_deploy_key(
            SYSTEM, parse_address(path), text, title, read_only=not write
        )
    return done(f"added the deploy key {key.fingerprint} to {path}", **_deploy_key(key))


@deploy_keys.command("remove")
async def remove_deploy_key(context: typer.Context, path: RepositoryPath, key_id: Identity) -> Answer:
    """End a deploy key at once."""
    async with administer(context) as services:
        await services.collaboration.remove_deploy_key(SYSTEM, parse_address(path), key_id)
    return done(f"removed the deploy key {key_id} of {path}", id=key_id)


@rules.command("list")
async def list_rules(context: typer.Context, path: RepositoryPath) -> Answer:
    """List the rules that protect branches."""
    async with administer(context) as services:
        found = await services.collaboration.branch_rules(SYSTEM, parse_address(path))
    return listing(map(_rule, found), "id pattern allow_force allow_delete pushers")


@rules.command("add")
async def add_rule(
    context: typer.Context,
    path: RepositoryPath,
    pattern: Annotated[
        str,
        typer.Argument(help="Branch name, or a pattern as in a shell: `release/*`.", show_default=False),
    ],
    allow_force: Annotated[bool, typer.Option("--allow-force", help="History may be rewritten.")] = False,
    allow_delete: Annotated[bool, typer.Option("--allow-delete", help="They may be deleted.")] = False,
    pushers: Annotated[
        list[str] | None,
        typer.Option(
            "--pusher",
            metavar="USER",
            help="Only this user may push; again for more. Without: all who may write.",
        ),
    ] = None,
    nobody: Annotated[bool, typer.Option("--no-pushers", help="Nobody may push.")] = False,
) -> Answer:
    """Protect the branches that match a pattern: no force, no deletion, and perhaps not for everybody."""
    if nobody and pushers:
        raise typer.BadParameter("contradicts --pusher", param_hint="--no-pushers")
    async with administer(context) as services:
        rule = await services.collaboration.add_branch_rule(
            SYSTEM,
            parse_address(path),
            pattern,
            allow_force=allow_force,
            allow_delete=allow_delete,
            pushers=[] if nobody else pushers,
        )
    return done(f"the branches {rule.pattern} of {path} are protected", **_rule(rule))


@rules.command("remove")
async def remove_rule(context: typer.Context, path: RepositoryPath, rule_id: Identity) -> Answer:
    """End the protection."""
    async with administer(context) as services:
        await services.collaboration.remove_branch_rule(SYSTEM, parse_address(path), rule_id)
    return done(f"removed the rule {rule_id} of {path}", id=rule_id)


def _collaborator(collaborator: CollaboratorInfo) -> Document:
    return {"user": collaborator.user, "role": collaborator.role, "since": collaborator.since}


def _deploy_key(key: KeyInfo) -> Document:
    return {
        "id": key.id,
        "title": key.title,
        "fingerprint": key.fingerprint,
        "public_key": key.public_key,
        "read_only": key.read_only,
        "last_used_at": key.last_used_at,
        "created_at": key.created_at,
    }


def _rule(rule: BranchRuleInfo) -> Document:
    return {
        "id": rule.id,
        "pattern": rule.pattern,
        "allow_force": rule.allow_force,
        "allow_delete": rule.allow_delete,
        "pushers": rule.pushers,
        "created_at": rule.created_at,
    }
