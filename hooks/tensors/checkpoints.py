"""Files of weights that are one model: the shards of a checkpoint count as one, however many they are."""

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from hooks.tensors.weights import FORMATS
from hooks.version import VersionFile

# As in `model-00001-of-00004.safetensors`, and of variants: `model.fp16-00001-of-00002.safetensors`.
_SHARD = re.compile(r"-\d{5,}-of-\d{5,}(?=[.]|$)")


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """The files of one model.

    Attributes:
        name: the path of its file, or of its shards without their numbers.
        kind: its format, one of `weights.FORMATS`.
    """

    name: str
    kind: str
    files: tuple[VersionFile, ...]

    @property
    def bytes(self) -> int:
        return sum(file.size for file in self.files)

    @property
    def content(self) -> tuple[str, ...]:
        """The same for the same bytes in the same files."""
        return tuple(file.digest for file in self.files)


def checkpoints(files: Iterable[VersionFile]) -> dict[str, Checkpoint]:
    """By name, in the order of their names."""
    found: defaultdict[str, list[VersionFile]] = defaultdict(list)
    kinds: dict[str, str] = {}
    for file in files:
        if file.parser in FORMATS:
            name = _SHARD.sub("", file.path)
            found[name].append(file)
            kinds[name] = file.parser
    return {
        name: Checkpoint(name, kinds[name], tuple(sorted(found[name], key=lambda file: file.path)))
        for name in sorted(found)
    }


def pairs(
    base: Mapping[str, Checkpoint], head: Mapping[str, Checkpoint]
) -> Sequence[tuple[Checkpoint | None, Checkpoint | None]]:
    """What is compared with what, those of the same bytes left out.

    By name; what is left is one checkpoint that was given another name, where there is only one of its
    format, or one of the same content.
    """
    both = [(base[name], head[name]) for name in base if name in head]
    gone = [base[name] for name in base if name not in head]
    new = [head[name] for name in head if name not in base]
    for before in list(gone):
        after = next((one for one in new if one.content == before.content), None) or _only(before, gone, new)
        if after is not None:
            gone.remove(before)
            new.remove(after)
            both.append((before, after))
    changed = [(before, after) for before, after in both if before.content != after.content]
    return [*changed, *((one, None) for one in gone), *((None, one) for one in new)]


def _only(before: Checkpoint, gone: Sequence[Checkpoint], new: Sequence[Checkpoint]) -> Checkpoint | None:
    candidates = [one for one in new if one.kind == before.kind]
    rivals = [one for one in gone if one.kind == before.kind]
    return candidates[0] if len(candidates) == len(rivals) == 1 else None
