"""`modelyard key …`."""

from typing import Annotated

import typer

from core.access import SYSTEM
from core.keyring import KeyInfo
from modelyard.cli.administration import KeyFile, KeyTitle, UserName, administer, read_key
from modelyard.cli.framework import Noun
from modelyard.cli.output import Answer, Document, done, listing

command = Noun()


@command.command("add")
async def add(context: typer.Context, user: UserName, file: KeyFile, title: KeyTitle = "") -> Answer:
    """Let a user log in over SSH with the key."""
    text = read_key(file)
    async with administer(context) as services:
        key = await services.keyring.add_key(SYSTEM, user, text, title)
    return done(f"added the key {key.fingerprint} of {user}", **_view(key))


@command.command("list")
async def list_(context: typer.Context, user: UserName) -> Answer:
    """List a user's SSH keys."""
    async with administer(context) as services:
        found = await services.keyring.keys(SYSTEM, user)
    return listing(map(_view, found), "id title fingerprint last_used_at created_at")


@command.command("remove")
async def remove(
    context: typer.Context,
    user: UserName,
    key_id: Annotated[int, typer.Argument(metavar="ID", help="As `list` shows it.", show_default=False)],
) -> Answer:
    """End a key at once."""
    async with administer(context) as services:
        await services.keyring.remove_key(SYSTEM, user, key_id)
    return done(f"removed the key {key_id} of {user}", id=key_id, user=user)


def _view(key: KeyInfo) -> Document:
    return {
        "id": key.id,
        "title": key.title,
        "fingerprint": key.fingerprint,
        "public_key": key.public_key,
        "last_used_at": key.last_used_at,
        "created_at": key.created_at,
    }
