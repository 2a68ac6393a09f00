"""`modelyard doctor`: examines an installation without changing it, unless `--fix` is given."""

from dataclasses import asdict
from typing import Annotated

import typer

from core import failpoints
from core.database import Database
from core.settings import Settings
from modelyard.cli.administration import quieten
from modelyard.cli.data_checks import check_database, check_packs, check_store, check_transfers
from modelyard.cli.findings import Finding, Level
from modelyard.cli.framework import Verb
from modelyard.cli.machine_checks import (
    check_cache,
    check_certificate,
    check_data_directory,
    check_disks,
    check_environment,
    check_git,
    check_hooks,
    check_host_key,
)
from modelyard.cli.output import Answer, listing
from modelyard.cli.settings import settings_of
from storage.build import build_store


async def doctor(
    context: typer.Context,
    fix: Annotated[
        bool, typer.Option("--fix", help="Do what is safe: close files to others, sweep remains.")
    ] = False,
    list_failpoints: Annotated[
        bool, typer.Option("--failpoints", help="Only list the points that MODELYARD_FAILPOINT can name.")
    ] = False,
) -> Answer:
    """Examine the installation and name a remedy for each finding.

    Looks at the data directory and its keys, the disks, git, the cache, hook programs and plug-ins, the
    object store and whether clients can be sent there, the database and its packs, the SSH host key and the
    TLS certificate. Fails when any finding is an error.
    """
    if list_failpoints:
        known = failpoints.known().items()
        return listing(({"name": name, "stands_before": text} for name, text in known), "name stands_before")
    settings = settings_of(context)
    quieten(context, settings)
    findings = await _examine(settings, fix=fix)
    errors = sum(finding.level is Level.ERROR for finding in findings)
    failure = f"{errors} {'error' if errors == 1 else 'errors'} found" if errors else ""
    return listing(map(asdict, findings), "level check message remedy", failure=failure)


command = Verb(doctor)


async def _examine(settings: Settings, *, fix: bool) -> list[Finding]:
    findings = [
        *check_environment(),
        *check_data_directory(settings, fix=fix),
        *check_disks(settings),
        *await check_git(settings),
        *check_cache(settings, fix=fix),
        *check_hooks(settings),
        *check_host_key(settings),
        *check_certificate(settings),
    ]
    database = Database(settings.database_url, settings.database)
    store = build_store(settings)
    try:
        stored = await check_store(settings, store, fix=fix)
        known = await check_database(database)
        findings += [*stored, *await check_transfers(settings), *known]
        # With either of them out of order every pack would seem to be missing.
        if not any(finding.level is Level.ERROR for finding in stored + known):
            findings += await check_packs(database, store)
    finally:
        await store.close()
        await database.close()
    return findings
