"""Ten thousand files for each parser of weights: whatever it is, what comes back can be stored and shown."""

import io
import json
import struct
import zipfile
from collections.abc import Callable, Sequence
from math import prod
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors import SafetensorError, deserialize

from hooks.formats.gguf import parse_gguf
from hooks.formats.parsed import Parsed, Severity
from hooks.formats.pytorch import parse_pytorch
from hooks.formats.safetensors import parse_safetensors
from hooks.formats.safetensors_header import DTYPES
from hooks.formats.safetensors_index import parse_safetensors_index
from hooks.formats.source import BytesSource, Source
from tests.support.model_files import GgufBytes, entry, raw_safetensors
from tests.support.parsed_checks import escapes_nul

pytestmark = pytest.mark.slow

thousands = settings(
    max_examples=10_000,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much],
)
hundreds = settings(thousands, max_examples=2000)


def parsed_safely(parse: Callable[[Source], Parsed], data: bytes) -> Parsed:
    parsed = parse(BytesSource(data))
    text = json.dumps(parsed.metadata, allow_nan=False, ensure_ascii=False)
    text.encode()
    assert not escapes_nul(text)
    assert len(text) < 2_000_000
    assert not _beyond_64_bits(parsed.metadata)
    for finding in parsed.findings:
        assert finding.message.isprintable(), finding.message
        assert len(finding.message) < 2000
    assert len({finding.code for finding in parsed.findings}) == len(parsed.findings)
    return parsed


def _beyond_64_bits(value: Any) -> bool:
    if isinstance(value, dict):
        return any(map(_beyond_64_bits, value.values()))
    if isinstance(value, list):
        return any(map(_beyond_64_bits, value))
    return isinstance(value, int) and value not in range(-(2**63), 2**63)


def has_error(parsed: Parsed) -> bool:
    return any(finding.severity is Severity.ERROR for finding in parsed.findings)


def library_takes(data: bytes) -> bool:
    try:
        deserialize(data)  # type: ignore[no-untyped-call]
    except SafetensorError:
        return False
    return True


_NUMBERS = st.sampled_from([0, 1, 2, 7, 8, 255, 2**31, 2**32 - 1, 2**63 - 1, 2**63, 2**64 - 1])
_SIZES = st.integers(0, 5) | _NUMBERS | st.sampled_from([-1, 2**64, True, 1.5, None, "1", 2**62])


@st.composite
def mutated(draw: st.DrawFn, files: Sequence[bytes]) -> bytes:
    """One of the files with a few bytes changed, put in, taken out, or made huge; or cut."""
    data = bytearray(draw(st.sampled_from(files)))
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(0, max(0, len(data) - 1)))
        match draw(st.sampled_from(["byte", "number", "insert", "remove", "cut"])):
            case "byte":
                data[at : at + 1] = draw(st.binary(min_size=1, max_size=1))
            case "number":
                data[at : at + 8] = struct.pack("<Q", draw(_NUMBERS))
            case "insert":
                data[at:at] = draw(st.binary(max_size=8))
            case "remove":
                del data[at : at + draw(st.integers(1, 16))]
            case _:
                del data[at:]
    return bytes(data)


_NAMES = st.lists(st.sampled_from(["", "a", "b", "weight", "\0", "é", "🤗"]), max_size=4, unique=True)
_DTYPES = st.sampled_from(list(DTYPES))
_SHAPES = st.sampled_from([(), (0,), (1,), (8,), (2, 4), (3, 1), (4, 0), (2, 3, 4)])
_GAPS = st.sampled_from([0] * 10 + [1, -1])
_METADATA: st.SearchStrategy[dict[str, Any]] = st.sampled_from(
    [{}, {}, {"__metadata__": {}}, {"__metadata__": {"format": "pt", "\0": "é"}}]
)


@st.composite
def headers(draw: st.DrawFn) -> tuple[dict[str, Any], bytes]:
    """A header that is right, or nearly, and the data behind it."""
    names = draw(_NAMES)
    header: dict[str, Any] = {}
    end = 0
    for name in names:
        dtype, shape = draw(_DTYPES), draw(_SHAPES)
        begin = end + draw(_GAPS)
        end = begin + prod(shape) * DTYPES[dtype] // 8
        header[name] = entry(begin, end, dtype, shape)
    header |= draw(_METADATA)
    spoilt: bool = draw(st.booleans())
    if names and spoilt:
        _spoil(draw, header, draw(st.sampled_from(names)))
    extra = draw(st.sampled_from([0, 0, 0, 1, -1]))
    return header, b"\0" * max(0, end + extra)


def _spoil(draw: st.DrawFn, header: dict[str, Any], name: str) -> None:
    tensor = header.get(name)
    match draw(st.integers(0, 6)):
        case 0:
            header[name]["dtype"] = draw(st.sampled_from([*DTYPES, "F33", "", "f32", None, 1]))
        case 1:
            header[name]["shape"] = draw(st.lists(_SIZES, max_size=4) | st.none())
        case 2:
            header[name]["data_offsets"] = draw(st.lists(_SIZES, max_size=3))
        case 3:
            del header[name][draw(st.sampled_from(["dtype", "shape", "data_offsets"]))]
        case 4:
            header[name]["note"] = draw(st.none() | st.text(max_size=2) | st.lists(st.integers(), max_size=2))
        case 5:
            header["__metadata__"] = draw(st.none() | st.lists(st.text()) | st.just({"a": 1}) | st.text())
        case _:
            header[f"{name}+"] = json.loads(json.dumps(tensor))


class TestSafetensors:
    @given(headers())
    @thousands
    def test_agrees_with_the_library(self, made: tuple[dict[str, Any], bytes]) -> None:
        data = raw_safetensors(*made)
        takes = library_takes(data)
        assert has_error(parsed_safely(parse_safetensors, data)) == (not takes)

    @given(
        mutated(
            [
                raw_safetensors(
                    {"a": entry(), "__metadata__": {"format": "pt"}, "b": entry(4, 8)}, b"12345678"
                ),
                raw_safetensors({"weight\0": entry(0, 6, "F6_E2M3", (2, 4))}, b"123456"),
                raw_safetensors({}),
            ]
        )
    )
    @thousands
    def test_what_the_library_refuses_has_an_error(self, data: bytes) -> None:
        parsed = parsed_safely(parse_safetensors, data)
        if not library_takes(data):
            assert has_error(parsed)

    @given(st.binary(max_size=200))
    @hundreds
    def test_any_header(self, header: bytes) -> None:
        assert has_error(parsed_safely(parse_safetensors, header))
        parsed_safely(parse_safetensors, raw_safetensors(header))


_JSON = st.recursive(
    st.none() | st.booleans() | _SIZES | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=4,
)


class TestIndex:
    @given(
        st.fixed_dictionaries(
            {"weight_map": st.dictionaries(st.text(max_size=8), _JSON, max_size=4) | _JSON},
            optional={"metadata": st.fixed_dictionaries({"total_size": _JSON}) | _JSON},
        )
        | _JSON
    )
    @hundreds
    def test_any_json(self, value: object) -> None:
        parsed_safely(parse_safetensors_index, json.dumps(value).encode())

    @given(mutated([b'{"metadata": {"total_size": 12}, "weight_map": {"a": "x.safetensors", "b": "y"}}']))
    @thousands
    def test_any_bytes(self, data: bytes) -> None:
        parsed_safely(parse_safetensors_index, data)


def _gguf(version: int, *, big_endian: bool = False) -> bytes:
    made = GgufBytes(version, big_endian=big_endian)
    made.text("general.architecture", "llama").text("general.name", "x")
    made.key("llama.context_length", 4, made.pack("I", 2048)).key("general.file_type", 4, made.pack("I", 15))
    made.key("general.alignment", 4, made.pack("I", 32)).key("f", 12, made.pack("d", 0.5))
    made.key("tokens", 9, made.array(8, 20, made.string("ab") * 20))
    made.key("nested", 9, made.array(9, 2, made.array(0, 1, b"\1") * 2))
    made.key("scores", 9, made.array(6, 20, b"\0" * 80))
    return made.tensor("a", (8, 2), 0, 0).tensor("b", (32,), 2, 64).file(b"\0" * 96)


_GGUF = [_gguf(1), _gguf(2), _gguf(3), _gguf(3, big_endian=True)]


class TestGguf:
    @given(mutated(_GGUF))
    @thousands
    def test_any_file(self, data: bytes) -> None:
        parsed_safely(parse_gguf, data)

    @given(st.sampled_from([1, 2, 3]), st.booleans(), _NUMBERS, _NUMBERS, st.binary(max_size=200))
    @hundreds
    def test_any_counts(self, version: int, big_endian: bool, keys: int, tensors: int, rest: bytes) -> None:
        limit = 2**32 if version == 1 else 2**64
        made = GgufBytes(version, big_endian=big_endian)
        parsed = parsed_safely(parse_gguf, made.file(rest, keys=keys % limit, tensors=tensors % limit))
        assert keys == tensors == 0 or parsed.metadata is not None

    def test_the_files_are_sound_before(self) -> None:
        for data in _GGUF:
            assert not has_error(parsed_safely(parse_gguf, data))


def _zip(method: int, *, zip64: bool = False) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", method) as made:
        for name in ("archive/data.pkl", "archive/data/0", "archive/é"):
            with made.open(name, "w", force_zip64=zip64) as member:
                member.write(b"x" * 20)
    return file.getvalue()


def _zip64() -> bytes:
    """With the records of the end that more than 65,535 files need."""
    data = _zip(zipfile.ZIP_STORED)
    at = data.rindex(b"PK\5\6")
    _, _, _, _, entries, length, start, _ = struct.unpack("<4s4H2LH", data[at:])
    end64 = struct.pack("<4sQ2H2L4Q", b"PK\6\6", 44, 45, 45, 0, 0, entries, entries, length, start)
    return data[:at] + end64 + struct.pack("<4sLQL", b"PK\6\7", 0, at, 1) + data[at:]


class TestPytorch:
    @given(mutated([_zip(zipfile.ZIP_STORED), _zip(zipfile.ZIP_DEFLATED, zip64=True), _zip64()]))
    @thousands
    def test_any_archive(self, data: bytes) -> None:
        parsed_safely(parse_pytorch, data)

    @given(
        st.sampled_from([b"", b"\x80\x02", b"PK\3\4", b"PK\5\6"]),
        st.binary(max_size=300),
        st.sampled_from([b"", b"PK\5\6"]),
    )
    @hundreds
    def test_any_bytes(self, start: bytes, middle: bytes, end: bytes) -> None:
        parsed_safely(parse_pytorch, start + middle + end + b"\0" * 18)

    def test_the_files_are_sound_before(self) -> None:
        for data in (_zip(zipfile.ZIP_STORED), _zip64()):
            assert parsed_safely(parse_pytorch, data).findings == ()
