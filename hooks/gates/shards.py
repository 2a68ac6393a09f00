"""The gate `missing_shard`: an index that names files which are not there."""

import posixpath
from typing import Final

from hooks.formats.registry import format_of
from hooks.gates.problem import Problem
from hooks.gates.view import GateView, Tip
from hooks.trees import TreeFile

_INDEXES: Final = frozenset({"safetensors-index", "pytorch-index"})
_REMEDY: Final = (
    "add it (`git add -f`), or write the model again with `save_pretrained`, so that the index fits"
)
_NAMED: Final = 5


class MissingShards:
    """Looks at the tips where an index or a file that it names has changed, or has gone."""

    code = "missing_shard"

    async def findings(self, view: GateView) -> list[Problem]:
        """One for each index. Raises `SourceUnreadable`, `DatabaseUnavailable`: try again."""
        problems = []
        for tip in view.tips:
            for file in tip.tree.files.values():
                if _is_index(file.path) and _could_have_changed(tip, file):
                    missing = await _missing(view, tip, file)
                    if missing:
                        problems.append(Problem(file.path, _message(missing), _REMEDY, refs=tip.refs))
        return problems


async def _missing(view: GateView, tip: Tip, index: TreeFile) -> list[str]:
    understood = await view.parsing.parse(tip.tree, index, remember=False)
    if understood is None or understood[1].metadata is None:
        return []
    folder = posixpath.dirname(index.path)
    named = {posixpath.join(folder, name): name for name in understood[1].metadata["shards"]}
    # Of other kinds of files a tree does not say whether they are there.
    missing = {
        path: name
        for path, name in named.items()
        if path not in tip.tree.files and format_of(path) is not None and not tip.tree.cut
    }
    if not tip.has_changed(index.path) and not any(tip.has_changed(path) for path in missing):
        return []  # it was so before
    return sorted(missing.values())


def _is_index(path: str) -> bool:
    known = format_of(path)
    return known is not None and known.name in _INDEXES


def _could_have_changed(tip: Tip, index: TreeFile) -> bool:
    folder = posixpath.dirname(index.path)
    return tip.changes.cut or any(
        path == index.path or posixpath.dirname(path).startswith(folder) for path in tip.changes.paths
    )


def _message(missing: list[str]) -> str:
    names = ", ".join(missing[:_NAMED])
    more = f" and {len(missing) - _NAMED} more" if len(missing) > _NAMED else ""
    return f"names {names}{more}, which {'is' if len(missing) == 1 else 'are'} not there"
