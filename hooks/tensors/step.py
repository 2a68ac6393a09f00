"""The post-receive step "tensors": tells whoever pushes which tensors changed."""

from collections.abc import Sequence

from core.errors import RevisionNotFound
from gitserver.queries import TooExpensive
from gitserver.updates import RefUpdate
from hooks.received import ReceivedPush, Report
from hooks.tensors.comparing import Change, TensorChange
from hooks.tensors.diff import CheckpointComparison, TensorDiffs
from hooks.tensors.digester import Digester

# So many bytes are read while somebody waits; the rest in the background.
_AT_ONCE_BYTES = 32 * 1024**2
_BRANCHES = 10
_CHECKPOINTS = 10
_NAMES = 3
_NAME_CHARACTERS = 100
_HEADS = "refs/heads/"


class CompareTensors:
    """See `hooks.received.PostReceiveStep`. It writes nothing but what is known of contents."""

    name = "tensors"

    def __init__(self, diffs: TensorDiffs, digester: Digester) -> None:
        self._diffs = diffs
        self._digester = digester

    async def run(self, push: ReceivedPush, report: Report) -> None:
        """Compares each branch that moved with where it was."""
        moved = [one for one in push.updates if _is_moved_branch(one)][:_BRANCHES]
        for one in moved:
            try:
                compared = await self._diffs.compare(
                    push.repository.id, one.old, one.new, at_once=_AT_ONCE_BYTES // len(moved)
                )
            except (RevisionNotFound, TooExpensive):
                continue  # gone meanwhile, or dropped by a force push; or nothing that can be told in time
            label = "" if len(moved) == 1 else f"{one.name.removeprefix(_HEADS)}: "
            for checkpoint in compared.checkpoints[:_CHECKPOINTS]:
                report.say(label + describe(checkpoint))
            if (more := len(compared.checkpoints) + compared.left_out - _CHECKPOINTS) > 0:
                report.say(f"{label}and {more:,} more {'model' if more == 1 else 'models'}")
            if not compared.complete:
                self._digester.hint()


def _is_moved_branch(one: RefUpdate) -> bool:
    return one.name.startswith(_HEADS) and not one.creates and not one.deletes


def describe(one: CheckpointComparison) -> str:
    """One line: `model.safetensors: 2 of 291 tensors changed (lm_head.weight, …), 1.1 GB → 1.1 GB`."""
    difference = one.difference
    if one.before is None or one.after is None:
        word = "new" if one.before is None else "removed"
        told = one.problem or f"{len(difference.changes):,} tensors"
        return f"{one.name}: {word}, {told}, {size(one.there.bytes)}"
    name = one.name if one.after.name == one.before.name else f"{one.before.name} → {one.after.name}"
    parts = [f"its tensors cannot be compared: {one.problem}"] if one.problem else _parts(one)
    return f"{name}: {', '.join(parts)}, {size(one.before.bytes)} → {size(one.after.bytes)}"


def _parts(one: CheckpointComparison) -> list[str]:
    difference = one.difference
    total = max(difference.before, difference.after)
    parts = [
        f"{count:,} of {total:,} tensors {kind.value}{_names(kind, difference.changes)}"
        for kind, count in difference.counts.items()
        if count
    ]
    if one.pending_bytes:
        parts.append(f"{difference.undecided or total:,} tensors are being compared")
    elif difference.undecided:
        parts.append(f"{difference.undecided:,} tensors are too large to be compared here")
    return parts or [f"{total:,} tensors unchanged"]


def _names(kind: Change, changes: Sequence[TensorChange]) -> str:
    named = [change for change in changes if kind in change.kinds]
    more = ", …" if len(named) > _NAMES else ""
    return f" ({', '.join(map(_name, named[:_NAMES]))}{more})"


def _name(change: TensorChange) -> str:
    if change.before and change.after and change.before.name != change.after.name:
        return f"{_short(change.before.name)} → {_short(change.after.name)}"
    return _short(change.name)


def _short(name: str) -> str:
    return name if len(name) <= _NAME_CHARACTERS else f"{name[: _NAME_CHARACTERS - 1]}…"


def size(count: int) -> str:
    """Bytes for people, in powers of a thousand."""
    amount, unit = float(count), "B"
    for larger in ("kB", "MB", "GB", "TB"):
        if amount < 999.5:
            break
        amount, unit = amount / 1000, larger
    return f"{amount:.0f} {unit}" if unit == "B" or amount >= 99.95 else f"{amount:.1f} {unit}"
