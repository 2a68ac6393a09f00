"""`modelyard repo fsck|export|import`: the bytes of a repository, examined, out and in."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from core.access import SYSTEM, Permission
from core.errors import BadRequest, RepositoryNotFound
from core.models import ObjectFormat, Transport
from core.names import parse_address
from core.repositories import RepositoryInfo
from gitserver.exchange import ImportReport
from gitserver.fsck import Finding
from modelyard.cli.administration import (
    Kind,
    Private,
    RepositoryPath,
    administer,
    named_repositories,
    new_address,
    visibility_of,
)
from modelyard.cli.framework import Noun
from modelyard.cli.output import Answer, done, listing
from modelyard.services import Services


def add_commands(noun: Noun) -> None:
    """Makes the commands of this module a part of `noun`."""
    noun.command("fsck")(fsck)
    noun.command("export")(export)
    noun.command("import")(import_)


async def fsck(
    context: typer.Context,
    paths: Annotated[
        list[str] | None,
        typer.Argument(metavar="[OWNER/NAME]...", help="The repositories; without: all of them."),
    ] = None,
) -> Answer:
    """Read every byte of repositories from the store and verify that their histories are complete."""
    findings: list[Finding] = []
    async with administer(context) as services:
        repositories = await named_repositories(services, paths)
        for repository in repositories:
            findings += await services.fsck.check(repository)
    damaged = len({finding.repository for finding in findings})
    failure = f"{damaged} of {len(repositories)} repositories are damaged" if damaged else ""
    if not findings:
        return Answer([], f"checked {len(repositories)}, all sound")
    return listing(map(asdict, findings), "repository problem remedy", failure=failure)


async def export(
    context: typer.Context,
    path: RepositoryPath,
    directory: Annotated[
        Path, typer.Argument(metavar="DIR", help="Where it goes; must not exist.", show_default=False)
    ],
) -> Answer:
    """Write a repository as a plain bare Git repository that needs nothing of this server."""
    async with administer(context) as services:
        repository = await services.repositories.open(SYSTEM, parse_address(path), Permission.ADMIN)
        try:
            refs = await services.exchange.export(repository, directory)
        except OSError as error:
            raise BadRequest(f"cannot write {directory}: {error.strerror}") from error
    return done(
        f"exported {repository.path} with {refs} refs to {directory}",
        path=repository.path,
        directory=directory.absolute(),
        refs=refs,
    )


async def import_(
    context: typer.Context,
    path: RepositoryPath,
    source: Annotated[
        str, typer.Argument(metavar="URL|DIR", help="Any repository that git can fetch.", show_default=False)
    ],
    kind: Kind = None,
    private: Private = None,
    object_format: Annotated[
        ObjectFormat, typer.Option(help="How Git names the objects of the source.")
    ] = ObjectFormat.SHA1,
) -> Answer:
    """Fetch all refs of another repository into one here, which is created if it is missing.

    Refs that both have are set to those of the source; refs that only the repository here has stay.
    """
    async with administer(context) as services:
        try:
            address = parse_address(path)
            repository = await services.repositories.open(SYSTEM, address, Permission.ADMIN)
            created = False
        except RepositoryNotFound:
            repository = await services.repositories.create(
                SYSTEM,
                new_address(path, kind),
                visibility=visibility_of(private),
                object_format=object_format,
                transport=Transport.LOCAL,
            )
            created = True
        try:
            report = await services.exchange.import_(repository, source, actor=SYSTEM)
        except BaseException:
            if created:  # an import that fails changes nothing
                await services.repositories.delete(SYSTEM, repository.address)
            raise
        await _adopt_head(services, repository, report)
    return _answer(repository, report)


async def _adopt_head(services: Services, repository: RepositoryInfo, report: ImportReport) -> None:
    """Follows the source if a clone would find no default branch here."""
    branches = (await services.snapshots.state(repository.id)).refs
    if f"refs/heads/{repository.default_branch}" not in branches and f"refs/heads/{report.head}" in branches:
        await services.repositories.update(SYSTEM, repository.address, default_branch=report.head)


def _answer(repository: RepositoryInfo, report: ImportReport) -> Answer:
    refused = [{"name": verdict.name, "reason": verdict.error} for verdict in report.refused]
    document = {
        "path": repository.path,
        "refs": report.refs,
        "objects": report.objects,
        "bytes": report.bytes,
        "refused": refused,
    }
    sentence = f"imported {report.refs} refs and {report.objects} objects into {repository.path}"
    reasons = "; ".join(f"{verdict.name}: {verdict.error}" for verdict in report.refused)
    return Answer(document, sentence, failure=f"not imported: {reasons}" if reasons else "")
