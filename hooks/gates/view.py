"""What a push changes, as the gates see it: new blobs, and the trees at its new tips."""

from collections.abc import AsyncIterator, Callable, Collection, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import Final

from core.settings import GatesSettings
from gitserver.policy import ProposedPush
from gitserver.process import GitRunner
from gitserver.updates import RefUpdate
from hooks.formats.registry import format_of
from hooks.gates.brought import Brought, collect
from hooks.gates.pickle_files import may_be_pickle
from hooks.parsing import Parsing
from hooks.trees import Changes, Tree, TreeFile, Trees

_HEADS: Final = "refs/heads/"
# Trees are looked at one after the other. Whoever pushes more branches at once moves a whole repository.
MAX_TIPS: Final = 20
_MODELS: Final = frozenset({"safetensors", "safetensors-index", "pytorch-index", "gguf", "config"})


@dataclass(frozen=True, slots=True)
class Tip:
    """A new commit that refs will name, against what the ref named, or else the default branch.

    Attributes:
        refs: those refs.
        tree: its files that mean something; changes: the paths that differ, deleted ones included.
    """

    refs: frozenset[str]
    tree: Tree
    changes: Changes

    def has_changed(self, path: str) -> bool:
        """Whether the file at this path is new, another one, or gone."""
        return self.changes.cut or path in self.changes.paths

    def changed_files(self, wanted: Callable[[str], bool]) -> list[TreeFile]:
        """The files that are there and were not, or not so, and whose path is wanted."""
        return [file for path, file in self.tree.files.items() if self.has_changed(path) and wanted(path)]


@dataclass(frozen=True, slots=True)
class GateView:
    """Valid inside the block that made it.

    Attributes:
        updates: those of the push that delete nothing.
        tips: commits whose trees changed in what gates look at; tips_cut: not all of them are here.
    """

    push: ProposedPush
    settings: GatesSettings
    updates: Sequence[RefUpdate]
    brought: Brought
    parsing: Parsing
    trees: Trees
    tips: list[Tip] = field(default_factory=list)
    tips_cut: bool = False


@asynccontextmanager
async def open_view(
    push: ProposedPush, settings: GatesSettings, git: GitRunner, trees: Trees, parsing: Parsing
) -> AsyncIterator[GateView]:
    """Looks at the push once for all gates: two or three children of git, and two more where models change.

    Raises:
        Unavailable: it cannot be looked at just now.
    """
    updates = [one for one in push.updates if not one.deletes]
    brought = await collect(git, push, settings)
    by_commit: dict[str, list[RefUpdate]] = {}
    for one in updates if _wants_trees(settings) else ():
        if (one.peeled or one.new) in brought.tips:
            by_commit.setdefault(one.peeled or one.new, []).append(one)
    chosen = sorted(by_commit.items(), key=lambda pair: not _is_default(push, pair[1]))[:MAX_TIPS]
    view = GateView(push, settings, updates, brought, parsing, trees, tips_cut=len(chosen) < len(by_commit))
    async with AsyncExitStack() as stack:
        for commit, named in chosen:
            changes = await trees.proposed_changes(push, _base(push, named[0]), commit)
            if changes.cut or any(_matters(path, brought.pickle_paths) for path in changes.paths):
                tree = await stack.enter_async_context(trees.proposed(push, commit))
                view.tips.append(Tip(frozenset(one.name for one in named), tree, changes))
        yield view


def _wants_trees(settings: GatesSettings) -> bool:
    gates = (settings.missing_shard, settings.safetensors, settings.gguf, settings.config, settings.pickle)
    return any(level != "off" for level in gates)


def _is_default(push: ProposedPush, named: Sequence[RefUpdate]) -> bool:
    return any(one.name == _HEADS + push.repository.default_branch for one in named)


def _base(push: ProposedPush, update: RefUpdate) -> str | None:
    """What to compare with: what the branch is now, or the default branch. The client may say anything."""
    refs = push.quarantine.snapshot.refs
    names = (update.name, _HEADS + push.repository.default_branch)
    return next((refs[name].oid for name in names if name.startswith(_HEADS) and name in refs), None)


def _matters(path: str, pickles: Collection[str]) -> bool:
    """Whether the tree must be read because of this path; not for pickles that are looked at as new blobs."""
    known = format_of(path)
    return (known is not None and known.name in _MODELS) or (path not in pickles and may_be_pickle(path))
