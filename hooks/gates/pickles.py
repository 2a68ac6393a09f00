"""The gate `pickle`: what would run code on whoever loads it."""

import asyncio
from collections.abc import Iterator
from typing import Final

from core.errors import ModelyardError
from hooks.errors import ContentMissing
from hooks.formats.source import SourceUnreadable
from hooks.gates.pickle_files import MAX_BYTES, Scan, may_be_pickle, scan
from hooks.gates.pickle_verdicts import Verdict
from hooks.gates.problem import Problem
from hooks.gates.view import GateView
from hooks.trees import Tree, TreeFile

_REMEDY: Final = (
    "save the weights as safetensors (`safetensors.torch.save_file`), or only a `state_dict` of tensors"
)
_AT_ONCE: Final = 2
_IN_A_ROW: Final = 100
_NAMED: Final = 5


class Pickles:
    """Looks into every new file that loaders would unpickle, in every new commit; nothing is unpickled."""

    code = "pickle"

    async def findings(self, view: GateView) -> list[Problem]:
        """One or two for each file: what it imports, and why it could not be looked at.

        Raises:
            SourceUnreadable: try again.
        """
        problems: list[Problem] = []
        for blob, found in view.brought.scans:
            problems += _problems(blob.path, found, blob.oid, frozenset())
        async with view.trees.brought(view.push, view.brought.pickles) as tree:
            problems += await _scan_all(view, tree, view.brought.pickles, frozenset())
        for tip in view.tips:
            # Those that were moved here, or were there before under a name that no loader knows.
            moved = tip.changed_files(
                lambda path: may_be_pickle(path) and path not in view.brought.pickle_paths
            )
            problems += await _scan_all(view, tip.tree, moved, tip.refs)
        if view.brought.pickles_cut:
            problems.append(Problem("", "there are too many pickles in this push to examine them all"))
        return problems


async def _scan_all(view: GateView, tree: Tree, files: list[TreeFile], refs: frozenset[str]) -> list[Problem]:
    places = asyncio.Semaphore(_AT_ONCE)
    problems: list[Problem] = []
    for start in range(0, len(files), _IN_A_ROW):
        some = files[start : start + _IN_A_ROW]
        for file, found in zip(
            some, await asyncio.gather(*(_scan(view, tree, file, places) for file in some)), strict=True
        ):
            if isinstance(found, SourceUnreadable):
                raise found
            if found is not None:
                problems += _problems(file.path, found, file.blob, refs)
    return problems


async def _scan(
    view: GateView, tree: Tree, file: TreeFile, places: asyncio.Semaphore
) -> Scan | SourceUnreadable | None:
    """None where there is no content, which other policies tell of.

    An error is returned and not raised, so that the other scans end well.
    """
    if not tree.has(file):
        return None
    try:
        async with places, tree.source(file, MAX_BYTES) as source:
            return await asyncio.to_thread(scan, source, view.brought.budget)
    except ContentMissing as error:
        return Scan(unexamined=f"cannot be examined: {error}")
    except SourceUnreadable as error:
        return error
    except ModelyardError as error:
        return SourceUnreadable(error.message)


def _problems(path: str, found: Scan, blob: str, refs: frozenset[str]) -> Iterator[Problem]:
    dangerous = [one.name for one in found.judged if one.verdict is Verdict.DANGEROUS]
    hidden = any(one.verdict is Verdict.HIDDEN for one in found.judged)
    unknown = [one.name for one in found.judged if one.verdict is Verdict.UNKNOWN]
    if dangerous or hidden:
        names = _names(dangerous) if dangerous else "something whose name it hides"
        message = f"is a pickle that imports {names}: it could run code on whoever loads it"
        yield Problem(path, message, _REMEDY, blob, refs)
    elif unknown:
        message = f"is a pickle that imports {_names(unknown)}, of which nobody knows what it does"
        yield Problem(path, message, blob=blob, refs=refs, mild=True)
    if found.unexamined:
        yield Problem(path, found.unexamined, _REMEDY, blob, refs)
    elif found.broken:
        yield Problem(path, found.broken, blob=blob, refs=refs, mild=True)


def _names(names: list[str]) -> str:
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(names[:_NAMED]) + more
