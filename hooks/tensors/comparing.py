"""How the tensors of a checkpoint differ from those of another one: pure, from names, types and digests."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from hooks.tensors.weights import Tensor


class Change(StrEnum):
    """What happened to a tensor. One that has another shape or type may have other content, too."""

    ADDED = "added"
    REMOVED = "removed"
    RENAMED = "renamed"
    RESHAPED = "reshaped"
    RETYPED = "retyped"
    CHANGED = "changed"


@dataclass(frozen=True, slots=True)
class TensorChange:
    """One tensor that is not as it was; `before` or `after` is None for one that was added or removed.

    Attributes:
        kinds: at least one; several as for a tensor with another shape and another type.
    """

    before: Tensor | None
    after: Tensor | None
    kinds: tuple[Change, ...]

    @property
    def name(self) -> str:
        tensor = self.after or self.before
        assert tensor is not None
        return tensor.name


@dataclass(frozen=True, slots=True)
class Difference:
    """The tensors that differ, in the order of their names.

    Attributes:
        unchanged: how many are the same.
        undecided: how many have the same name, shape and type, and content that nobody has compared yet.
        before, after: how many tensors there are on each side.
        needs_contents: digests that are not there would tell more: of those, or of what was renamed.
    """

    changes: tuple[TensorChange, ...] = ()
    unchanged: int = 0
    undecided: int = 0
    before: int = 0
    after: int = 0
    needs_contents: bool = False

    @property
    def counts(self) -> Mapping[Change, int]:
        """How many tensors each kind of change happened to."""
        found: dict[Change, int] = dict.fromkeys(Change, 0)
        for change in self.changes:
            for kind in change.kinds:
                found[kind] += 1
        return found


NOTHING = Difference()


@dataclass(slots=True)
class _Lost:
    """Tensors without a namesake that have the same content, shape and type; there may be several."""

    removed: list[Tensor] = field(default_factory=list)
    added: list[Tensor] = field(default_factory=list)


def compare(before: Sequence[Tensor], after: Sequence[Tensor]) -> Difference:
    """Every tensor of both sides is counted once.

    Renamed is what has the same content, shape and type under a name that was not there. Without digests
    nothing is renamed: it was removed, and something was added.
    """
    old = {tensor.name: tensor for tensor in before}
    new = {tensor.name: tensor for tensor in after}
    changes: list[TensorChange] = []
    unchanged = undecided = 0
    for name in old.keys() & new.keys():
        kinds = _kinds(old[name], new[name])
        if kinds is None:
            undecided += 1
        elif kinds:
            changes.append(TensorChange(old[name], new[name], kinds))
        else:
            unchanged += 1
    removed = [old[name] for name in sorted(old.keys() - new.keys())]
    added = [new[name] for name in sorted(new.keys() - old.keys())]
    changes += _moved(removed, added)
    changes.sort(key=lambda change: change.name)
    needs_contents = undecided > 0 or _may_be_renamed(removed, added)
    return Difference(tuple(changes), unchanged, undecided, len(old), len(new), needs_contents)


def _kinds(before: Tensor, after: Tensor) -> tuple[Change, ...] | None:
    """What makes them differ; None where that takes digests that are not there."""
    kinds = []
    if before.shape != after.shape:
        kinds.append(Change.RESHAPED)
    if before.dtype != after.dtype:
        kinds.append(Change.RETYPED)
    if kinds:
        return tuple(kinds)
    if before.bytes == 0:
        return ()
    if before.digest is None or after.digest is None:
        return None
    return () if before.digest == after.digest else (Change.CHANGED,)


def _moved(removed: Sequence[Tensor], added: Sequence[Tensor]) -> list[TensorChange]:
    lost: defaultdict[tuple[object, ...], _Lost] = defaultdict(_Lost)
    for tensor in removed:
        lost[_identity(tensor)].removed.append(tensor)
    for tensor in added:
        lost[_identity(tensor)].added.append(tensor)
    changes = []
    for alike in lost.values():
        # Several alike, as biases of zeros: in the order of their names, which numbers of layers keep.
        for old, new in zip(alike.removed, alike.added, strict=False):
            changes.append(TensorChange(old, new, (Change.RENAMED,)))
        common = min(len(alike.removed), len(alike.added))
        changes += [TensorChange(old, None, (Change.REMOVED,)) for old in alike.removed[common:]]
        changes += [TensorChange(None, new, (Change.ADDED,)) for new in alike.added[common:]]
    return changes


def _may_be_renamed(removed: Sequence[Tensor], added: Sequence[Tensor]) -> bool:
    """Whether digests could tell so that are not there."""
    gone = {(one.shape, one.dtype) for one in removed if one.bytes}
    unread = {(one.shape, one.dtype) for one in removed if one.bytes and one.digest is None}
    like = [(one.shape, one.dtype) for one in added if one.bytes]
    new = {(one.shape, one.dtype) for one in added if one.bytes and one.digest is None}
    return not (unread.isdisjoint(like) and new.isdisjoint(gone))


def _identity(tensor: Tensor) -> tuple[object, ...]:
    """The same for tensors that may be one under two names."""
    if tensor.digest is None or tensor.bytes == 0:
        return (tensor.name, id(tensor))
    return (tensor.digest, tensor.shape, tensor.dtype)
