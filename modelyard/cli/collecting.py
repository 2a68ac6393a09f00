"""`modelyard gc`."""

from dataclasses import asdict
from typing import Annotated

import typer

from core.errors import ModelyardError
from gitserver.process import GitFailed
from modelyard.cli.administration import administer, named_repositories
from modelyard.cli.framework import Verb
from modelyard.cli.output import Answer


async def gc(
    context: typer.Context,
    repo: Annotated[
        list[str] | None,
        typer.Option("--repo", metavar="OWNER/NAME", help="Only this one; again for more."),
    ] = None,
    full: Annotated[bool, typer.Option("--full", help="One pack for each, however long it takes.")] = False,
    prune: Annotated[
        bool,
        typer.Option(
            "--prune", help="With --full: drop what was unreachable for [maintenance] unreachable_days."
        ),
    ] = False,
) -> Answer:
    """Repack repositories now and sweep what nothing needs.

    Pushes and fetches go on meanwhile. The server does the same by itself, from a queue.
    """
    if prune and not full:
        raise typer.BadParameter("needs --full", param_hint="--prune")
    async with administer(context) as services:
        repositories = await named_repositories(services, repo)
        repacked, failed = [], []
        for repository in repositories:
            try:
                report = await services.maintenance.run(repository.id, full=full, prune=prune)
            except (ModelyardError, GitFailed) as error:  # the others need it all the same
                failed.append({"path": repository.path, "reason": str(error)})
                continue
            if report is not None:
                repacked.append({"path": repository.path, **asdict(report)})
        swept = await services.sweeper.sweep()
    sentence = (
        f"repacked {len(repacked)} of {len(repositories)} repositories; "
        f"swept {swept.objects} orphaned objects, {swept.packs} replaced packs, "
        f"{swept.repositories} deleted repositories, {swept.cached + swept.quarantines} things in the cache"
    )
    document = {"repacked": repacked, "failed": failed, "swept": asdict(swept)}
    failure = "; ".join(f"{one['path']}: {one['reason']}" for one in failed)
    return Answer(document, sentence, failure=failure)


command = Verb(gc)
