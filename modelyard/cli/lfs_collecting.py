"""`modelyard lfs gc`: collecting, and saying beforehand what would be collected and why."""

from dataclasses import asdict
from typing import Annotated

import typer

from core.access import SYSTEM
from lfs.collector import Collected
from lfs.explanation import Explained, RepositoryExplained, StoreExplained, Tallies, Tally
from lfs.upkeep import UpkeepReport
from modelyard.cli.administration import administer, named_repositories
from modelyard.cli.framework import Noun
from modelyard.cli.output import Answer, one_line

_WORDS = {
    "referenced": "in use",
    "trashed_but_referenced": "in the trash, in use again: comes back",
    "unjudged": "kept: the repository cannot be read",
    "young": "kept: not in use, uploaded or touched lately",
    "to_trash": "not in use: goes to the trash",
    "in_trash": "in the trash",
    "to_purge": "in the trash for long enough: goes for good",
    "unlinked": "of no repository any more: waits",
    "unlinked_to_purge": "of no repository for long enough: goes for good",
    "object": "appeared while this was counted",
    "unfinished_upload": "uploads under way",
    "foreign": "not made by this program: stays",
    "replaced": "old place of an object that moved: waits for the last link",
    "young_orphan": "without a row: waits",
    "orphan": "without a row for long enough: goes for good",
}


def add_commands(noun: Noun) -> None:
    """Makes the commands of this module a part of `noun`."""
    noun.command("gc")(gc)


async def gc(
    context: typer.Context,
    repo: Annotated[
        list[str] | None,
        typer.Option("--repo", metavar="OWNER/NAME", help="Only this one; again for more."),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Change nothing; say why every byte is there, and until when.")
    ] = False,
) -> Answer:
    """Put large files that nothing refers to into the trash, and end what was there for long enough.

    Pushes, uploads and downloads go on meanwhile. A repository that cannot be read is left as it is.
    """
    async with administer(context) as services:
        ids = [one.id for one in await named_repositories(services, repo)] if repo else None
        keeping = services.safekeeping
        if dry_run:
            return _explanation(await keeping.explainer.explain(ids))
        await keeping.collector.begin(SYSTEM)
        done = await keeping.collector.collect(ids)
        swept = await keeping.upkeep.sweep() if ids is None else UpkeepReport()
    return _collection(done, swept)


def _collection(done: Collected, swept: UpkeepReport) -> Answer:
    changed = done.repositories
    sentence = (
        f"trashed {sum(one.trashed for one in changed)} objects "
        f"({sum(one.trashed_bytes for one in changed)} bytes), "
        f"brought back {sum(one.restored for one in changed)}, "
        f"ended {sum(one.purged for one in changed)} in the trash; "
        f"deleted {done.purged.objects} objects ({done.purged.bytes} bytes), "
        f"{swept.uploads} abandoned uploads, {swept.orphans} orphans ({swept.bytes} bytes)"
    )
    failure = "; ".join(f"{one.path}: {one.error}" for one in changed if one.error)
    return Answer({**asdict(done), "swept": asdict(swept)}, sentence, failure=failure)


def _explanation(explained: Explained) -> Answer:
    document = {
        "repositories": [_repository(one) for one in explained.repositories],
        "stores": [asdict(one) for one in explained.stores],
    }
    lines: list[str] = []
    for repository in explained.repositories:
        lines += [repository.path, *_table(repository.links)]
        for day, tally in repository.trash_until.items():
            lines.append(_line(f"  of these until {day.isoformat()}", tally))
        if repository.error:
            lines.append(f"  ! {one_line(repository.error)}")
    for store in explained.stores:
        lines += _store(store)
    failure = "; ".join(f"{one.path}: {one.error}" for one in explained.repositories if one.error)
    return Answer(document, "\n".join(lines) or "there are no large files", failure=failure)


def _repository(one: RepositoryExplained) -> dict[str, object]:
    until = {day.isoformat(): asdict(tally) for day, tally in one.trash_until.items()}
    links = {reason: asdict(tally) for reason, tally in one.links.items()}
    return {"path": one.path, "links": links, "trash_until": until, "error": one.error}


def _store(store: StoreExplained) -> list[str]:
    lines = [f"store {store.store.value}", *_table(store.reasons), _line("all together", store.held)]
    if store.parts.objects:
        lines.append(_line("beside them, parts of uploads under way", store.parts))
    if store.missing:
        lines.append(f"  ! {store.missing} objects are missing; `modelyard lfs fsck` names them")
    return lines


def _table(tallies: Tallies) -> list[str]:
    return [_line(_WORDS[reason], tally) for reason, tally in tallies.items()]


def _line(words: str, tally: Tally) -> str:
    return f"  {words:<60} {tally.objects:>9} objects {tally.bytes:>16} bytes"
