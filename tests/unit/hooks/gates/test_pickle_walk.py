"""The walk over a pickle finds whatever Python's unpickler would import, and stays small and quick."""

import collections
import io
import pickle
import resource
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hooks.formats.source import BytesSource
from hooks.gates.pickle_files import MAX_OPERATIONS, scan
from hooks.gates.pickle_verdicts import Verdict, judge
from hooks.gates.pickle_walk import Budget, End, Import, Walk
from tests.support.costs import costs_at_most


class Anything:
    """What an import gives while the test looks on."""

    def __new__(cls, *arguments: Any, **named: Any) -> "Anything":
        return super().__new__(cls)

    def __init__(self, *arguments: Any, **named: Any) -> None:
        pass

    def __call__(self, *arguments: Any, **named: Any) -> "Anything":
        return self

    def __setstate__(self, state: Any) -> None:
        pass

    def append(self, value: Any) -> None:
        pass


class Watched(pickle._Unpickler):
    """The unpickler itself, which notes what it imports and gets nothing of it."""

    def __init__(self, data: bytes) -> None:
        super().__init__(io.BytesIO(data))
        self.found: list[tuple[str, str]] = []

    def find_class(self, module: str, name: str) -> type:
        if module and name:  # nothing is called by no name
            self.found.append((module, name))
        return Anything

    def persistent_load(self, pid: Any) -> Any:
        return None


def imported(data: bytes) -> list[tuple[str, str]]:
    watched = Watched(data)
    try:
        watched.load()
    except Exception:  # noqa: BLE001 - whatever it fails of, it has imported what it has imported
        return watched.found
    return watched.found


def walked(data: bytes) -> tuple[End, list[Import]]:
    walk = Walk(io.BytesIO(data), Budget(100_000))
    return walk.run(), list(walk.imports)


class Reduced:
    def __reduce__(self) -> tuple[Any, ...]:
        return collections.OrderedDict, ([("a", 1)],)


SAMPLES = [
    pickle.dumps(value, protocol=protocol)
    for protocol in range(6)
    for value in (
        {"a": [1, 2.5, None, True, b"bytes", "text", 2**70], "b": ((), (1,), (1, 2), (1, 2, 3, 4))},
        [Reduced(), Reduced(), {1, 2}, frozenset({3}), bytearray(b"x"), collections.Counter("abca")],
        [int, str, collections.deque([1])],
        "x" * 1000,
    )
]
PIECES = [
    b"cos\nsystem\n",
    b"\x8c\x02os",
    b"\x8c\x06system",
    b"\x93",
    b"\x94",
    b"h\x00",
    b"q\x00",
    b"0",
    b"(",
    b")",
    b"t",
    b"R",
    b"S'\xc3\xa9'\n",
    b"I1\n",
    b"V\xe9\n",
    b"(ios\nsystem\n",
    b"\x95\x05\0\0\0\0\0\0\0",
    b"N",
    b".",
    b"\x80\x04",
    b"1",
    b"2",
    b"L5L\n",
    b"p0\n",
    b"g0\n",
    b"U\x02os",
    b"X\x02\0\0\0os",
    b"e",
    b"]",
    b"a",
    b"K\x01",
]
FUZZ = settings(max_examples=10_000, deadline=None, database=None, suppress_health_check=list(HealthCheck))


def finds_all(data: bytes) -> None:
    _, found = walked(data)
    for module, name in imported(data):
        assert any(one.module in {module, None} and one.name in {name, None} for one in found), (
            module,
            name,
            found,
        )


@pytest.mark.slow
@FUZZ
@given(st.lists(st.sampled_from(PIECES), max_size=14).map(b"".join))
def test_finds_what_the_unpickler_imports(data: bytes) -> None:
    finds_all(data)


@pytest.mark.slow
@FUZZ
@given(
    st.sampled_from(SAMPLES),
    st.lists(st.tuples(st.integers(0, 10**6), st.sampled_from(PIECES) | st.binary(max_size=3)), max_size=4),
)
def test_finds_it_in_mangled_pickles(sample: bytes, changes: list[tuple[int, bytes]]) -> None:
    data = sample
    for place, piece in changes:
        at = place % (len(data) + 1)
        data = data[:at] + piece + data[at + place % 3 :]
    finds_all(data)


@pytest.mark.slow
@FUZZ
@given(
    st.binary(max_size=300),
    st.sampled_from([b"", b"\x80\x04", b"PK\x03\x04", b"\x93NUMPY\1\0", b"x\x9c", b"\x1f\x8b"]),
)
def test_a_scan_never_fails(data: bytes, head: bytes) -> None:
    scan(BytesSource(head + data), Budget(10_000))


@pytest.mark.parametrize("sample", SAMPLES)
def test_whole_pickles(sample: bytes) -> None:
    end, found = walked(sample)
    assert end is End.WHOLE
    assert {(one.module, one.name) for one in found} == set(imported(sample))


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"cos\nsystem\n.", Import("os", "system")),
        (b"(ios\nsystem\n.", Import("os", "system")),
        (b"\x8c\x02os\x8c\x06system\x93.", Import("os", "system")),
        (b"\x8c\x02os\x94\x8c\x06system\x94h\x00h\x01\x93.", Import("os", "system")),
        # A frame may begin anywhere.
        (b"\x8c\x02os\x95\x09\0\0\0\0\0\0\0\x8c\x06system\x93.", Import("os", "system")),
        # Only a reader that insists on ASCII stumbles.
        (b"S'\xc3\xa9'\n0cos\nsystem\n.", Import("os", "system")),
        (b"Inonsense\n0cos\nsystem\n.", Import("os", "system")),
        # Names that are made while it runs, and both ways of numbering at once.
        (b"\x8c\x02os(\x8c\x06systemt\x93.", Import("system", None)),
        (b"\x8c\x02osq\x00\x94\x8c\x06system\x94h\x00h\x01\x93.", Import(None, None)),
        (b"X\x02\0\0\0osV\xe9\n\x93.", Import("os", None)),
    ],
)
def test_hidden_imports(data: bytes, expected: Import) -> None:
    assert expected in walked(data)[1]


@pytest.mark.parametrize(
    "data", [b"", b"\0", b"a" * 100, b"R.", b"0.", b"t.", b"X\xff\xff\xff\x7fabc", b"cos\n"]
)
def test_where_the_unpickler_fails_the_walk_ends(data: bytes) -> None:
    assert walked(data)[0] is End.BROKEN


@pytest.mark.parametrize(
    ("found", "verdict"),
    [
        (Import("collections", "OrderedDict"), Verdict.HARMLESS),
        (Import("torch._utils", "_rebuild_tensor_v2"), Verdict.HARMLESS),
        (Import("torch", "BFloat16Storage"), Verdict.HARMLESS),
        (Import("numpy._core.multiarray", "_reconstruct"), Verdict.HARMLESS),
        (Import("somebody.s.module", "Thing"), Verdict.UNKNOWN),
        (Import("with blank", "x\ny"), Verdict.UNKNOWN),
        (Import("größe", "x"), Verdict.UNKNOWN),
        (Import(None, "x"), Verdict.HIDDEN),
        (Import("os", "system"), Verdict.DANGEROUS),
        (Import("posix", "system"), Verdict.DANGEROUS),
        (Import("builtins", "eval"), Verdict.DANGEROUS),
        (Import("__builtin__", "eval"), Verdict.DANGEROUS),
        (Import("subprocess", "Popen"), Verdict.DANGEROUS),
        # Under its name of Python 2, and behind a dotted name.
        (Import("urllib2", "urlopen"), Verdict.DANGEROUS),
        (Import("torch", "serialization.os.system"), Verdict.DANGEROUS),
        (Import("collections", "abc.sys.modules"), Verdict.DANGEROUS),
    ],
)
def test_verdicts(found: Import, verdict: Verdict) -> None:
    assert [one.verdict for one in judge([found])] == [verdict]


@pytest.mark.parametrize(
    "data",
    [
        b"\x80\x04" + b"N0" * MAX_OPERATIONS,
        b"\x80\x04" + b"(" * MAX_OPERATIONS,
        b"\x80\x04" + b"N(" * MAX_OPERATIONS,
        b"\x80\x04" + b"\x8c\x02os\x94" * (MAX_OPERATIONS // 2),
        b"\x80\x04" + b"\x8c\x02os\x8c\x06system\x93" * (MAX_OPERATIONS // 3),
        b"\x80\x04" + b"".join(b"\x8c\x04m%03d\x8c\x04n%03d\x93" % (i % 997, i % 991) for i in range(10**5)),
        b"\x80\x04" + b"N." * MAX_OPERATIONS,
        b"\x80\x04N." * MAX_OPERATIONS,
        b"c" + b"x" * 30_000_000 + b"\n" + b"y" * 30_000_000,
    ],
    ids=["pops", "marks", "values", "memo", "same", "names", "stops", "pickles", "lines"],
)
def test_hostile_pickles_stay_small_and_quick(data: bytes) -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with costs_at_most(15):
        scan(BytesSource(data), Budget(20_000_000))
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000


def test_large_values_are_not_read() -> None:
    class Counting(io.BytesIO):
        asked = 0

        def read(self, size: int | None = -1, /) -> bytes:
            self.asked += size or 0
            return super().read(size)

    data = Counting(pickle.dumps([bytes(5_000_000), "x" * 5_000_000, collections.OrderedDict()]))
    walk = Walk(data, Budget(1000))
    assert walk.run() is End.WHOLE
    assert list(walk.imports) == [Import("collections", "OrderedDict")]
    assert data.asked < 1000


def test_the_budget_is_shared_and_ends() -> None:
    budget = Budget(1000)
    sample = pickle.dumps(list(range(400)))
    assert scan(BytesSource(sample), budget).unexamined is None
    assert budget.operations < 700
    assert scan(BytesSource(sample), budget).unexamined is None
    assert scan(BytesSource(sample), budget).unexamined == "is too long to be examined"
