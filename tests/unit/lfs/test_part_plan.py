"""How objects are cut, and what clients are told about it."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.models import StoreKind
from lfs import multipart_actions
from lfs.errors import WrongParts
from lfs.part_plan import PartPlan, bare, choose_part_bytes, compare
from storage.protocol import StoredPart

MIB = 1024**2
TIB = 1024**4


def plan(size: int = 250, part_bytes: int = 100, done: tuple[int, ...] = ()) -> PartPlan:
    empty = PartPlan("u" * 32, "r" * 32, "0" * 64, size, part_bytes, StoreKind.LOCAL, "key", "parts")
    return empty.holding([StoredPart(number, empty.size_of(number), f"e{number}") for number in done])


@given(st.integers(0, 5 * TIB), st.integers(1, 512 * MIB), st.sampled_from(StoreKind), st.booleans())
def test_no_size_makes_parts_that_s3_refuses(size: int, wanted: int, store: StoreKind, direct: bool) -> None:
    part_bytes = choose_part_bytes(size, wanted, store, direct=direct)
    cut = plan(size, part_bytes)
    is_held = store is StoreKind.MINIO and not direct
    assert cut.count <= (10_000 if is_held else 1025)
    assert part_bytes <= (max(wanted, 525 * MIB) if is_held else 5 * 1024 * MIB)
    assert part_bytes >= 5 * MIB or store is StoreKind.LOCAL
    assert (cut.count - 1) * part_bytes + cut.size_of(cut.count) == size or not size
    assert all(cut.size_of(number) > 0 for number in (1, cut.count) if cut.count)


@pytest.mark.parametrize(
    ("size", "part_mib"), [(0, 32), (1, 32), (32_000 * MIB, 32), (32_001 * MIB, 33), (5 * TIB, 5120)]
)
def test_parts_grow_with_the_object(size: int, part_mib: int) -> None:
    assert choose_part_bytes(size, 32 * MIB, StoreKind.MINIO, direct=True) == part_mib * MIB
    assert choose_part_bytes(size, 32 * MIB, StoreKind.LOCAL, direct=False) == part_mib * MIB


@pytest.mark.parametrize("direct", [True, False])
def test_parts_that_are_few_have_the_size_that_is_set(direct: bool) -> None:
    assert choose_part_bytes(250_000, 100_000, StoreKind.LOCAL, direct=direct) == 100_000
    assert choose_part_bytes(250_000, 100_000, StoreKind.MINIO, direct=direct) == 5 * MIB


@pytest.mark.parametrize(
    ("size", "part_mib"),
    [
        (0, 32),
        (32_000 * MIB, 32),
        (32_001 * MIB, 33),
        (100_000 * MIB, 100),
        (1_000_000 * MIB, 100),
        (TIB, 105),
        (5 * TIB, 525),
    ],
)
def test_parts_that_are_held_in_memory_grow_less(size: int, part_mib: int) -> None:
    assert choose_part_bytes(size, 32 * MIB, StoreKind.MINIO, direct=False) == part_mib * MIB


def test_only_parts_of_the_right_size_count() -> None:
    held = plan().holding(
        [StoredPart(0, 100, "a"), StoredPart(1, 100, "b"), StoredPart(2, 99, "c"), StoredPart(4, 0, "d")]
    )
    assert (list(held.done), held.missing) == ([1], [2, 3])


def test_missing_parts_are_named_in_ranges() -> None:
    with pytest.raises(WrongParts, match=r": 1-3, 5, 7-8$") as caught:
        compare(plan(800, done=(4, 6)), None)
    assert caught.value.fields["parts"] == [1, 2, 3, 5, 7, 8]
    with pytest.raises(WrongParts) as many:
        compare(plan(100_000, done=tuple(range(1, 1001, 2))), None)
    assert len(many.value.message) < 300


@pytest.mark.parametrize("text", ['"e1"', "e1", ' W/"e1" '])
def test_etags_come_with_and_without_quotes(text: str) -> None:
    assert bare(text) == "e1"
    assert compare(plan(100, done=(1,)), [(1, text)]) == [StoredPart(1, 100, "e1")]


def test_what_hugging_face_clients_need() -> None:
    """Every part has a URL; agents take all values but one for URLs, in the order of the names as texts."""
    cut = plan(1150, done=(2,))
    action: Any = multipart_actions.hf(
        cut, part=lambda n: f"here/{n}?link=x", complete="end", signed={3: "store/3"}, expires_in=60
    )["upload"]
    header: dict[str, str] = action["header"]
    assert header.pop("chunk_size") == "100"
    assert [name for name in sorted(header) if name.isdigit()] == list(header)
    urls = [f"here/{n}?link=x" for n in range(1, 13)]
    urls[1] += "&stored=1"
    urls[2] = "store/3"
    assert [header[name] for name in sorted(header)] == urls
    assert (action["href"], action["expires_in"]) == ("end", 60)
    assert action["missing_parts"] == [1, *range(3, 13)]


def test_what_giftless_clients_need() -> None:
    actions: Any = multipart_actions.giftless(
        plan(done=(2,)),
        part=lambda n: f"here/{n}",
        complete="end",
        abort="drop",
        verify="proof",
        signed={1: "store/1"},
        expires_in=60,
    )
    assert actions["parts"] == [
        {"href": "store/1", "method": "PUT", "pos": 0, "size": 100, "expires_in": 60},
        {"href": "here/3", "method": "PUT", "pos": 200, "size": 50, "expires_in": 60},
    ]
    assert {name: actions[name]["href"] for name in ("commit", "abort", "verify")} == {
        "commit": "end",
        "abort": "drop",
        "verify": "proof",
    }
