"""`modelyard lfs fsck|migrate-store`: every byte read again, or moved."""

import sys
from dataclasses import asdict
from typing import Annotated

import typer

from core.access import SYSTEM
from core.models import StoreKind
from lfs.fsck import FsckReport
from lfs.pointer import is_oid
from lfs.relocation import Moved
from modelyard.cli.administration import administer, named_repositories
from modelyard.cli.framework import Noun
from modelyard.cli.output import Answer


def add_commands(noun: Noun) -> None:
    """Makes the commands of this module a part of `noun`."""
    noun.command("fsck")(fsck)
    noun.command("migrate-store")(migrate_store)


def check_oids(oids: list[str] | None, hint: str) -> None:
    """Raises `typer.BadParameter` for what is no oid."""
    for oid in oids or ():
        if not is_oid(oid):
            raise typer.BadParameter("an oid is 64 lower-case hexadecimal digits", param_hint=hint)


async def fsck(
    context: typer.Context,
    path: Annotated[
        str | None,
        typer.Argument(
            metavar="OWNER/NAME", help="Only what this repository has; without: all.", show_default=False
        ),
    ] = None,
    oids: Annotated[
        list[str] | None, typer.Option("--oid", metavar="OID", help="Only this object; again for more.")
    ] = None,
) -> Answer:
    """Read large files again and compare their size and sha256 with what they are called.

    What is damaged is noted, and the next upload of the same content mends it. A store that does not answer
    damages nothing. Everything else goes on meanwhile.
    """
    check_oids(oids, "--oid")
    ticker = _Ticker()
    async with administer(context) as services:
        repository_id = (await named_repositories(services, [path]))[0].id if path else None
        report = await services.safekeeping.fsck.check(
            repository_id=repository_id, oids=oids or (), progress=ticker.checked
        )
    ticker.end()
    if not report.findings:
        healed = f", {report.healed} of them whole again" if report.healed else ""
        return Answer(
            asdict(report), f"checked {report.objects} objects, {report.bytes} bytes{healed}: all sound"
        )
    failure = f"{len(report.findings)} of {report.objects} objects are not sound"
    return Answer(
        asdict(report),
        "\n".join(f"{one.oid}  {one.problem}  {one.store}  {one.detail}" for one in report.findings),
        failure=failure,
    )


async def migrate_store(
    context: typer.Context,
    to: Annotated[
        StoreKind, typer.Option("--to", help="Where the large files shall be.", show_default=False)
    ],
) -> Answer:
    """Move large files to another store, one by one, while they are being served.

    [storage] must describe both stores. Set [lfs] store first, so that new objects go there, too. It can be
    stopped and started again at any time. Packs of Git stay where they are.
    """
    ticker = _Ticker()
    async with administer(context) as services:
        current = services.large_files.stores.current_kind
        moved = await services.safekeeping.relocation.run(SYSTEM, to, progress=ticker.moved)
    ticker.end()
    lines = [f"moved {moved.objects} objects, {moved.bytes} bytes, to {to.value}"]
    if current is not to:
        lines.append(f'new objects still go to {current.value}: set [lfs] store = "{to.value}" and restart')
    if moved.left > len(moved.failed) or moved.uploads:
        lines.append(
            f"{moved.left} objects and {moved.uploads} uploads under way are elsewhere: run it again later"
        )
    failure = "; ".join(f"{oid}: {reason}" for oid, reason in sorted(moved.failed.items()))
    document = {**asdict(moved), "to": to.value, "new_objects": current.value}
    return Answer(document, "\n".join(lines), failure=failure and f"not moved, see lfs fsck: {failure}")


class _Ticker:
    """Shows a person at a terminal how far it is."""

    def __init__(self) -> None:
        self._shown = False

    def checked(self, report: FsckReport) -> None:
        self._show(f"{report.objects} objects, {report.bytes} bytes checked")

    def moved(self, moved: Moved) -> None:
        self._show(f"{moved.objects} objects, {moved.bytes} bytes moved")

    def end(self) -> None:
        """Makes room for the answer."""
        if self._shown:
            sys.stderr.write("\r\x1b[K")

    def _show(self, text: str) -> None:
        if sys.stderr.isatty():
            self._shown = True
            sys.stderr.write(f"\r\x1b[K{text}")
            sys.stderr.flush()
