"""`modelyard lfs …`: the trash, usage and quotas; the other commands are in the modules beside."""

import re
from typing import Annotated

import typer

from core.access import SYSTEM, Permission
from core.names import parse_address
from lfs.objects import Usage
from modelyard.cli import lfs_bytes, lfs_collecting
from modelyard.cli.administration import RepositoryPath, administer, named_repositories
from modelyard.cli.framework import Noun
from modelyard.cli.lfs_bytes import check_oids
from modelyard.cli.output import Answer, Document, done, listing, record
from modelyard.services import Services

command = Noun()
lfs_collecting.add_commands(command)
lfs_bytes.add_commands(command)

_PAGE = 1000
_BYTES = re.compile(r"(\d{1,19})(?: ?([KMGT])iB)?")
_UNITS = {"": 0, "K": 10, "M": 20, "G": 30, "T": 40}


@command.command("trash")
async def trash(
    context: typer.Context,
    path: Annotated[
        str | None,
        typer.Argument(
            metavar="OWNER/NAME",
            help="Without: objects that no repository has any more.",
            show_default=False,
        ),
    ] = None,
) -> Answer:
    """List what is in the trash of a repository, and until when it can be restored."""
    async with administer(context) as services:
        trashed = services.safekeeping.trash
        found: list[Document] = []
        after = ""
        repository = await _open(services, path) if path else None
        while True:
            if repository is not None:
                page = await trashed.of_repository(repository, limit=_PAGE, after=after)
            else:
                page = await trashed.unlinked(limit=_PAGE, after=after)
            found += [
                {"oid": one.oid, "size": one.size, "since": one.since, "until": one.until} for one in page
            ]
            if len(page) < _PAGE:
                return listing(found, "oid size since until")
            after = page[-1].oid


@command.command("restore")
async def restore(
    context: typer.Context,
    path: RepositoryPath,
    oids: Annotated[
        list[str] | None, typer.Argument(metavar="OID", help="Which objects.", show_default=False)
    ] = None,
    all_: Annotated[bool, typer.Option("--all", help="The whole trash of the repository.")] = False,
    unlinked: Annotated[
        bool, typer.Option("--unlinked", help="Also objects that no repository has any more.")
    ] = False,
) -> Answer:
    """Bring objects back from the trash: all that are named, or none."""
    if bool(oids) == all_:
        raise typer.BadParameter("name objects, or say --all", param_hint="OID")
    check_oids(oids, "OID")
    async with administer(context) as services:
        repository = await _open(services, path)
        restored = await services.safekeeping.trash.restore(
            SYSTEM, repository, None if all_ else oids, unlinked=unlinked
        )
    return done(f"restored {restored} objects to {path}", path=path, restored=restored)


@command.command("usage")
async def usage(
    context: typer.Context,
    name: Annotated[
        str | None,
        typer.Argument(
            metavar="OWNER|OWNER/NAME", help="Without: every repository that has any.", show_default=False
        ),
    ] = None,
) -> Answer:
    """Show how many bytes of large files a repository has, or an owner over all repositories."""
    async with administer(context) as services:
        objects, quotas = services.large_files.objects, services.large_files.quotas
        if name is None or "/" in name:
            found = []
            for repository in await named_repositories(services, [name] if name else None):
                used = await objects.usage(repository.id)
                if name or used != Usage():
                    found.append({"path": repository.path, **_view(used)})
            if name:
                return record(found[0])
            return listing(found, "path objects bytes trashed_objects trashed_bytes")
        owner = await services.accounts.get(name)
        used = await objects.owner_usage(owner.id)
        limit = await quotas.limit_of(owner.id)
    return record({"owner": owner.name, **_view(used), "quota_bytes": limit or None})


@command.command("quota")
async def quota(
    context: typer.Context,
    owner: Annotated[
        str, typer.Argument(metavar="OWNER", help="A user or an organisation.", show_default=False)
    ],
    limit: Annotated[
        str | None,
        typer.Argument(
            metavar="BYTES",
            help="As in `500GiB`; `none` is no limit, `default` what [lfs] quota_bytes says.",
            show_default=False,
        ),
    ] = None,
) -> Answer:
    """Show or set how many bytes of large files an owner may have over all repositories."""
    wanted = _parse_limit(limit) if limit is not None else None
    async with administer(context) as services:
        quotas = services.large_files.quotas
        account = await services.accounts.get(owner)
        if limit is not None:
            await quotas.set(SYSTEM, account.name, wanted)
        bytes_ = await quotas.limit_of(account.id)
    said = f"{bytes_} bytes" if bytes_ else "no limit"
    return done(f"the quota of {account.name} is {said}", owner=account.name, quota_bytes=bytes_ or None)


async def _open(services: Services, path: str) -> str:
    repository = await services.repositories.open(SYSTEM, parse_address(path), Permission.ADMIN)
    return repository.id


def _view(usage: Usage) -> dict[str, int]:
    return {
        "objects": usage.objects,
        "bytes": usage.bytes,
        "trashed_objects": usage.trashed_objects,
        "trashed_bytes": usage.trashed_bytes,
    }


def _parse_limit(text: str) -> int | None:
    if text == "default":
        return None
    if text == "none":
        return 0
    match = _BYTES.fullmatch(text)
    if match is None:
        raise typer.BadParameter("a number of bytes, as in 500GiB, `none` or `default`", param_hint="BYTES")
    return int(match[1]) << _UNITS[match[2] or ""]
