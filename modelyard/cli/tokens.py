"""`modelyard token …`."""

from typing import Annotated

import typer

from core.access import SYSTEM
from core.models import Scope
from core.names import parse_address
from core.tokens import TokenInfo
from modelyard.cli.administration import UserName, administer
from modelyard.cli.framework import Noun
from modelyard.cli.output import Answer, Document, done, listing

command = Noun()


@command.command("create")
async def create(
    context: typer.Context,
    user: UserName,
    name: Annotated[str, typer.Option(metavar="TEXT", help="What it is for.", show_default=False)],
    scope: Annotated[Scope, typer.Option(help="The most that it may do.", show_default=False)],
    repo: Annotated[
        str | None, typer.Option(metavar="OWNER/NAME", help="The only repository that it is good for.")
    ] = None,
    expires: Annotated[int | None, typer.Option(metavar="DAYS", help="How long it is good for.")] = None,
    for_runs: Annotated[
        bool, typer.Option("--for-runs", help="For training runs: their pushes do not fire rules again.")
    ] = False,
) -> Answer:
    """Create an access token and print it, alone; nobody can see it again."""
    repository = parse_address(repo) if repo is not None else None
    async with administer(context) as services:
        secret, token = await services.keyring.mint_token(
            SYSTEM, user, name, scope, repository=repository, expires_in_days=expires, for_runs=for_runs
        )
    return done(secret, token=secret, **_view(token))


@command.command("list")
async def list_(context: typer.Context, user: UserName) -> Answer:
    """List a user's tokens, without their secrets."""
    async with administer(context) as services:
        found = await services.keyring.tokens(SYSTEM, user)
    return listing(map(_view, found), "id name scope repository for_runs expires_at last_used_at")


@command.command("revoke")
async def revoke(
    context: typer.Context,
    user: UserName,
    token_id: Annotated[int, typer.Argument(metavar="ID", help="As `list` shows it.", show_default=False)],
) -> Answer:
    """End a token at once."""
    async with administer(context) as services:
        await services.keyring.revoke_token(SYSTEM, user, token_id)
    return done(f"revoked the token {token_id} of {user}", id=token_id, user=user)


def _view(token: TokenInfo) -> Document:
    return {
        "id": token.id,
        "user": token.user,
        "name": token.name,
        "scope": token.scope,
        "repository": token.repository,
        "for_runs": token.for_runs,
        "expires_at": token.expires_at,
        "last_used_at": token.last_used_at,
        "created_at": token.created_at,
    }
