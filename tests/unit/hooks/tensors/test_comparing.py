"""Comparing tensors, against a model that is slow and plain."""

from collections import Counter
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hooks.tensors.checkpoints import checkpoints
from hooks.tensors.comparing import Change, Difference, TensorChange, compare
from hooks.tensors.diff import CheckpointComparison
from hooks.tensors.step import describe, size
from hooks.tensors.weights import Tensor
from hooks.version import VersionFile


def tensor(
    name: str, content: str | None = "c", dtype: str = "F32", shape: tuple[int, ...] = (2, 3)
) -> Tensor:
    count = 1
    for length in shape:
        count *= length
    return Tensor(name, dtype, shape, 4 * count, content)


_NAMES = st.sampled_from([f"layer.{number}" for number in range(6)])
_DIGESTS = st.sampled_from("xyz")
_SHAPES = st.sampled_from([(2, 3), (3, 2), (0,), ()])


def _files(digests: st.SearchStrategy[str | None]) -> st.SearchStrategy[list[Tensor]]:
    made = st.builds(tensor, _NAMES, digests, st.sampled_from(["F32", "I32"]), _SHAPES)
    return st.lists(made, unique_by=lambda one: one.name)


KNOWN = _files(_DIGESTS)
PARTLY = _files(_DIGESTS | st.none())


def same(before: Tensor, after: Tensor) -> bool:
    return before[1:4] == after[1:4] and (before.bytes == 0 or before.digest == after.digest)


def swapped(change: TensorChange) -> TensorChange:
    other = {Change.ADDED: Change.REMOVED, Change.REMOVED: Change.ADDED}
    return TensorChange(change.after, change.before, tuple(other.get(kind, kind) for kind in change.kinds))


@given(KNOWN, KNOWN)
def test_as_plain_dicts_say(before: Sequence[Tensor], after: Sequence[Tensor]) -> None:
    found = compare(before, after)
    old, new = {one.name: one for one in before}, {one.name: one for one in after}
    common = old.keys() & new.keys()
    assert found.unchanged == sum(same(old[name], new[name]) for name in common)
    assert found.undecided == 0
    assert not found.needs_contents
    stayed = {change.name: change for change in found.changes if change.name in common}
    assert stayed.keys() == {name for name in common if not same(old[name], new[name])}
    for name, change in stayed.items():
        expected = {
            Change.RESHAPED: old[name].shape != new[name].shape,
            Change.RETYPED: old[name].dtype != new[name].dtype,
        }
        kinds = {kind for kind, is_so in expected.items() if is_so} or {Change.CHANGED}
        assert (set(change.kinds), change.before, change.after) == (kinds, old[name], new[name])
    # Renamed: as many of each content as both sides have.
    gone = Counter(old[name][1:] for name in old.keys() - new.keys() if old[name].bytes)
    come = Counter(new[name][1:] for name in new.keys() - old.keys() if new[name].bytes)
    renamed = [one for one in found.changes if one.kinds == (Change.RENAMED,)]
    assert Counter(one.after[1:] for one in renamed if one.after) == gone & come
    for one in renamed:
        assert one.before
        assert one.after
        assert one.before[1:] == one.after[1:]
        assert one.before.name not in new
        assert one.after.name not in old


@given(PARTLY, PARTLY)
def test_each_is_counted_once(before: Sequence[Tensor], after: Sequence[Tensor]) -> None:
    found = compare(before, after)
    for side, all_of_it in (("before", before), ("after", after)):
        listed = [one for change in found.changes if (one := getattr(change, side)) is not None]
        assert len(set(listed)) == len(listed)
        assert set(listed) <= set(all_of_it)
        assert len(listed) + found.unchanged + found.undecided == len(all_of_it) == getattr(found, side)
    assert [one.name for one in found.changes] == sorted(one.name for one in found.changes)
    for one in found.changes:
        assert one.kinds
        assert (one.before is None) == (one.kinds == (Change.ADDED,))
        assert (one.after is None) == (one.kinds == (Change.REMOVED,))
    assert sum(found.counts.values()) >= len(found.changes)


@given(PARTLY, PARTLY)
def test_the_same_either_way_round(before: Sequence[Tensor], after: Sequence[Tensor]) -> None:
    there, back = compare(before, after), compare(after, before)
    assert set(map(swapped, back.changes)) == set(there.changes)
    assert (back.unchanged, back.undecided, back.needs_contents) == (
        there.unchanged,
        there.undecided,
        there.needs_contents,
    )


@given(PARTLY, PARTLY, st.data())
def test_more_is_only_known_where_it_was_said(
    before: Sequence[Tensor], after: Sequence[Tensor], data: st.DataObject
) -> None:
    """Whatever the missing digests are: nothing changes unless they were asked for."""

    def read(some: Sequence[Tensor]) -> list[Tensor]:
        return [one._replace(digest=one.digest or data.draw(_DIGESTS)) for one in some]

    def told(found: Difference) -> list[tuple[str, tuple[Change, ...]]]:
        return [(one.name, one.kinds) for one in found.changes]

    found = compare(before, after)
    if not found.needs_contents:
        assert told(compare(read(before), read(after))) == told(found)


@given(KNOWN)
def test_nothing_differs_from_itself(some: Sequence[Tensor]) -> None:
    found = compare(some, some[::-1])
    assert (found.changes, found.unchanged) == ((), len(some))


def comparison(before: Sequence[Tensor], after: Sequence[Tensor], pending: int = 0) -> CheckpointComparison:
    [old] = checkpoints([VersionFile("model.safetensors", "1", 1_100_000_000, "safetensors")])
    [new] = checkpoints([VersionFile("model.safetensors", "2", 1_100_000_123, "safetensors")])
    return CheckpointComparison(old, new, compare(before, after), pending_bytes=pending)


def test_one_line_for_people() -> None:
    base = [tensor(f"t{number}") for number in range(1000)]
    head = [*base[:995], *(tensor(one.name, "new") for one in base[995:])]
    assert describe(comparison(base, head)) == (
        "model.safetensors: 5 of 1,000 tensors changed (t995, t996, t997, …), 1.1 GB → 1.1 GB"
    )
    head = [tensor("a\nb" + 200 * "x", "new"), *base[2:], tensor("t1", dtype="BF16")]
    told = describe(comparison(base, head))
    assert "1 of 1,000 tensors added (a\nbxx" in told
    assert "1 of 1,000 tensors removed (t0), 1 of 1,000 tensors retyped (t1), 1.1 GB" in told
    assert len(told) < 400
    assert describe(comparison([tensor("a")], [tensor("b")])) == (
        "model.safetensors: 1 of 1 tensors renamed (a → b), 1.1 GB → 1.1 GB"
    )
    unread = [one._replace(digest=None) for one in base]
    assert describe(comparison(unread, unread, pending=5)) == (
        "model.safetensors: 1,000 tensors are being compared, 1.1 GB → 1.1 GB"
    )
    assert describe(comparison(unread, unread)) == (
        "model.safetensors: 1,000 tensors are too large to be compared here, 1.1 GB → 1.1 GB"
    )
    assert describe(comparison(base, base)) == "model.safetensors: 1,000 tensors unchanged, 1.1 GB → 1.1 GB"
    one = comparison(base, base)
    assert describe(CheckpointComparison(one.before, one.after, problem="it is broken")) == (
        "model.safetensors: its tensors cannot be compared: it is broken, 1.1 GB → 1.1 GB"
    )
    assert describe(CheckpointComparison(None, one.after, compare([], base))) == (
        "model.safetensors: new, 1,000 tensors, 1.1 GB"
    )
    assert describe(CheckpointComparison(one.before, None, problem="it is broken")) == (
        "model.safetensors: removed, it is broken, 1.1 GB"
    )


@pytest.mark.parametrize(
    ("count", "shown"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1.0 kB"),
        (99_949, "99.9 kB"),
        (99_950, "100 kB"),
        (999_499, "999 kB"),
        (999_500, "1.0 MB"),
        (1_100_048, "1.1 MB"),
        (10**15, "1000 TB"),
    ],
)
def test_sizes_for_people(count: int, shown: str) -> None:
    assert size(count) == shown
