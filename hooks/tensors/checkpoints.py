"""Files of weights that are one model: the shards of a checkpoint count as one, however many they are."""

import re
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

from hooks.tensors.weights import FORMATS
from hooks.version import VersionFile

# As in `model-00001-of-00004.safetensors`, and of variants: `model.fp16-00001-of-00002.safetensors`.
_SHARD = re.compile(r"-\d{5,}-of-(\d{5,})(?=[.][^./]*$)")


@dataclass(frozen=True)
class Checkpoint:
    """The files of one model, in the order of their paths.

    Attributes:
        name: the path of its file, or that of its shards with a star for their numbers.
        family: the path without any numbers: the same however many shards the model is cut into.
        kind: its format, one of `weights.FORMATS`.
    """

    name: str
    family: str
    kind: str
    files: tuple[VersionFile, ...]

    @cached_property
    def bytes(self) -> int:
        return sum(file.size for file in self.files)

    @cached_property
    def content(self) -> tuple[str, ...]:
        """The same for the same bytes in the same files."""
        return tuple(file.digest for file in self.files)


Pair = tuple[Checkpoint | None, Checkpoint | None]


def checkpoints(files: Iterable[VersionFile]) -> list[Checkpoint]:
    """In the order of their names.

    Shards of one checkpoint agree on how many they are, so that a whole file beside them, or what is left of
    another cut, is a checkpoint of its own.
    """
    found: defaultdict[tuple[str, str, str], list[VersionFile]] = defaultdict(list)
    for file in files:
        if file.parser in FORMATS:
            name, family = _SHARD.sub(r"-*-of-\1", file.path), _SHARD.sub("", file.path)
            found[name, family, file.parser].append(file)
    return [
        Checkpoint(name, family, kind, tuple(sorted(some, key=lambda file: file.path)))
        for (name, family, kind), some in sorted(found.items())
    ]


def pairs(base: Iterable[Checkpoint], head: Iterable[Checkpoint]) -> list[Pair]:
    """What is compared with what, by name; those of the same bytes are left out.

    What the other side has under another name is what has the same bytes, or is another cut of the same
    model, or is the only one left of its format.
    """
    gone, new = list(base), list(head)
    both: list[tuple[Checkpoint, Checkpoint]] = []
    _match(gone, new, both, lambda one: (one.name, one.content), unique=False)
    _match(gone, new, both, lambda one: one.name, unique=False)
    _match(gone, new, both, lambda one: (one.kind, one.content), unique=False)
    _match(gone, new, both, lambda one: one.family, unique=True)
    _match(gone, new, both, lambda one: one.kind, unique=True)
    changed: list[Pair] = [(before, after) for before, after in both if before.content != after.content]
    changed += [(one, None) for one in gone]
    changed += [(None, one) for one in new]
    return sorted(changed, key=_name)


def _match(
    gone: list[Checkpoint],
    new: list[Checkpoint],
    both: list[tuple[Checkpoint, Checkpoint]],
    key: Callable[[Checkpoint], Hashable],
    *,
    unique: bool,
) -> None:
    """Moves those of the same key to `both`; with `unique`, only where there is no choice."""
    theirs = _by(gone, key)
    ours = _by(new, key)
    for one in theirs.keys() & ours.keys():
        if unique and not len(theirs[one]) == len(ours[one]) == 1:
            continue
        for before, after in zip(theirs[one], ours[one], strict=False):
            gone.remove(before)
            new.remove(after)
            both.append((before, after))


def _by(
    some: Sequence[Checkpoint], key: Callable[[Checkpoint], Hashable]
) -> dict[Hashable, list[Checkpoint]]:
    found: defaultdict[Hashable, list[Checkpoint]] = defaultdict(list)
    for one in some:
        found[key(one)].append(one)
    return found


def _name(pair: Pair) -> tuple[str, str]:
    before, after = pair
    there = after or before
    assert there is not None
    return there.name, before.name if before else ""
