"""`modelyard audit …`."""

from dataclasses import asdict
from typing import Annotated

import typer

from core.access import SYSTEM
from core.audit import Action
from modelyard.cli.administration import administer
from modelyard.cli.framework import Noun
from modelyard.cli.output import Answer, listing

command = Noun()


@command.command("list")
async def list_(
    context: typer.Context,
    action: Annotated[
        Action | None, typer.Option(metavar="SUBJECT:VERB", help="Only these, such as `token:mint`.")
    ] = None,
    target: Annotated[str | None, typer.Option(help="Only about this account or repository path.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="How many at most.")] = 100,
) -> Answer:
    """List who changed which right or credential, the newest first."""
    async with administer(context) as services:
        entries = await services.audit.list(SYSTEM, action=action, target=target, limit=limit)
    return listing(map(asdict, entries), "at actor action target details")
