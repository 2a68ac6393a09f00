import json
import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
from gguf import GGUFReader, GGUFValueType

from hooks.formats.gguf import parse_gguf
from hooks.formats.gguf_types import FILE_TYPES, TENSOR_TYPES, VALUE_NAMES
from hooks.formats.parsed import Parsed, Severity
from hooks.formats.source import BytesSource
from tests.support.bounds import bounded
from tests.support.model_files import GgufBytes, llama_tensors, write_gguf
from tests.support.path_source import PathSource
from tests.support.real_models import smollm2_gguf

ALLOWANCE = 64 * 1024**2
U8, U32, F32, BOOL, STRING, ARRAY, U64 = 0, 4, 6, 7, 8, 9, 10


def parse(data: bytes) -> Parsed:
    return parse_gguf(BytesSource(data))


def metadata(parsed: Parsed) -> dict[str, Any]:
    assert parsed.metadata is not None
    return dict(parsed.metadata)


def codes(parsed: Parsed) -> set[tuple[str, str]]:
    return {(finding.severity.value, finding.code) for finding in parsed.findings}


def assert_equals_library(path: Path, parsed: Parsed) -> None:
    reader = GGUFReader(path)
    said = metadata(parsed)
    fields = {name: field for name, field in reader.fields.items() if not name.startswith("GGUF.")}
    assert said["key_values"].keys() == fields.keys()
    assert said["key_values_total"] == len(fields)
    for name, field in fields.items():
        value, contents = said["key_values"][name], field.contents()
        assert said["types"][name] == field.types[0].name
        if field.types[0] is GGUFValueType.ARRAY:
            assert value == {
                "array": field.types[-1].name,
                "length": len(contents),
                "first": contents[:16],
            }
        else:
            assert value == contents
            assert type(value) is type(contents)
    assert said["tensors_total"] == len(reader.tensors) == len(said["tensors"])
    for tensor in reader.tensors:
        assert said["tensors"][tensor.name] == {
            "dtype": tensor.tensor_type.name,
            "shape": tensor.shape.tolist(),
            "offset": tensor.data_offset - said["data_offset"],
        }
    assert said["data_offset"] == reader.data_offset
    assert said["parameters_total"] == sum(tensor.n_elements for tensor in reader.tensors)


class TestTables:
    def test_types_of_tensors(self) -> None:
        assert {number: (kind.name, kind.block, kind.bytes) for number, kind in TENSOR_TYPES.items()} == {
            kind.value: (kind.name, *sizes) for kind, sizes in gguf.GGML_QUANT_SIZES.items()
        }

    def test_types_of_files(self) -> None:
        assert {
            kind.value: kind.name.removeprefix("MOSTLY_").removeprefix("ALL_")
            for kind in gguf.LlamaFileType
            if kind is not gguf.LlamaFileType.GUESSED
        } == FILE_TYPES

    def test_types_of_values(self) -> None:
        assert {kind.value: kind.name for kind in GGUFValueType} == VALUE_NAMES


class TestReal:
    def test_smollm2(self) -> None:
        source = PathSource(smollm2_gguf(), ALLOWANCE)
        parsed = parse_gguf(source)
        assert parsed.findings == ()
        assert source.bytes_read < 4_000_000
        assert_equals_library(smollm2_gguf(), parsed)
        said = metadata(parsed)
        assert (said["architecture"], said["quantisation"], said["context_length"]) == ("llama", "Q4_1", 8192)
        assert said["parameters_total"] == 134_515_008
        assert said["key_values"]["general.license"] == "apache-2.0"

    @pytest.mark.parametrize("big_endian", [False, True])
    def test_every_type_of_value(self, big_endian: bool, tmp_path: Path) -> None:
        values: list[tuple[str, Any, GGUFValueType, GGUFValueType | None]] = [
            ("u8", 255, GGUFValueType.UINT8, None),
            ("i8", -128, GGUFValueType.INT8, None),
            ("u16", 65535, GGUFValueType.UINT16, None),
            ("i16", -32768, GGUFValueType.INT16, None),
            ("u32", 2**32 - 1, GGUFValueType.UINT32, None),
            ("i32", -(2**31), GGUFValueType.INT32, None),
            ("f32", 0.1, GGUFValueType.FLOAT32, None),
            ("f64", 0.1, GGUFValueType.FLOAT64, None),
            ("u64", 2**63 - 1, GGUFValueType.UINT64, None),
            ("i64", -(2**63), GGUFValueType.INT64, None),
            ("yes", True, GGUFValueType.BOOL, None),
            ("no", False, GGUFValueType.BOOL, None),
            ("text", "Grüße\n🤗", GGUFValueType.STRING, None),
            ("none", "", GGUFValueType.STRING, None),
            ("texts", [f"token {number}" for number in range(1000)], GGUFValueType.ARRAY, None),
            ("floats", [0.5] * 20, GGUFValueType.ARRAY, GGUFValueType.FLOAT32),
            ("bytes", [1, 2], GGUFValueType.ARRAY, GGUFValueType.UINT8),
            ("bools", [True, False], GGUFValueType.ARRAY, GGUFValueType.BOOL),
        ]
        path = write_gguf(
            tmp_path / "x.gguf", None, values, big_endian=big_endian, file_type=15, alignment=64
        )
        parsed = parse_gguf(PathSource(path, ALLOWANCE))
        assert codes(parsed) == ({("info", "big-endian")} if big_endian else set())
        assert_equals_library(path, parsed)
        said = metadata(parsed)
        assert (said["quantisation"], said["context_length"], said["name"]) == ("Q4_K_M", 128, "Tiny")
        assert (said["alignment"], said["byte_order"]) == (64, "big" if big_endian else "little")

    @pytest.mark.parametrize("kind", ["Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "BF16", "TQ1_0", "TQ2_0"])
    def test_quantised_tensors(self, kind: str, tmp_path: Path) -> None:
        type_ = gguf.GGMLQuantizationType[kind]
        writer = gguf.GGUFWriter(tmp_path / "x.gguf", "llama")
        data = gguf.quants.quantize(np.ones((3, 256), np.float32), type_)
        writer.add_tensor("a", data, raw_dtype=type_)
        writer.add_tensor("b", np.ones((5,), np.float16))
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        parsed = parse_gguf(PathSource(tmp_path / "x.gguf", ALLOWANCE))
        assert parsed.findings == ()
        assert_equals_library(tmp_path / "x.gguf", parsed)
        assert metadata(parsed)["parameters"] == {kind: 768, "F16": 5}

    def test_cut_anywhere(self, tmp_path: Path) -> None:
        path = write_gguf(tmp_path / "x.gguf", {"a": np.ones((8,), np.float32)})
        whole = path.read_bytes()
        assert parse(whole).findings == ()
        for size in range(len(whole)):
            found = {finding.code for finding in parse(whole[:size]).findings}
            assert found & {"not-gguf", "header-cut", "data-cut", "counts-lie"}, size

    def test_a_cut_file_is_understood_all_the_same(self, tmp_path: Path) -> None:
        path = write_gguf(tmp_path / "x.gguf")
        os.truncate(path, path.stat().st_size - 4096)
        parsed = parse_gguf(PathSource(path, ALLOWANCE))
        assert codes(parsed) == {("error", "data-cut")}
        expected = sum(tensor.size for tensor in llama_tensors().values())
        assert metadata(parsed)["parameters_total"] == expected

    def test_20_gb_are_understood_from_the_header(self, tmp_path: Path) -> None:
        made = GgufBytes().text("general.architecture", "llama")
        for number in range(20):
            made.tensor(f"blk.{number}", (2**14, 2**15), 30, number * 2**30)
        path = tmp_path / "x.gguf"
        path.write_bytes(made.file())
        os.truncate(path, len(made.file()) + 20 * 2**30)
        source = PathSource(path, ALLOWANCE)
        parsed = parse_gguf(source)
        assert parsed.findings == ()
        assert metadata(parsed)["parameters_total"] == 20 * 2**29
        assert source.bytes_read < 200_000


class TestVersions:
    @pytest.mark.parametrize(("version", "big_endian"), [(1, False), (2, False), (3, False), (3, True)])
    def test_all_are_read(self, version: int, big_endian: bool, tmp_path: Path) -> None:
        made = GgufBytes(version, big_endian=big_endian)
        made.text("general.architecture", "gptneox")
        made.key("gptneox.context_length", U32, made.pack("I", 2048))
        made.key("list", ARRAY, made.array(STRING, 2, made.string("a") + made.string("b")))
        made.tensor("a", (4, 2), 1, 0).tensor("b", (8,), 0, 32)
        data = made.file(b"\0" * 64)
        parsed = parse(data)
        said = metadata(parsed)
        assert not [finding for finding in parsed.findings if finding.severity is not Severity.INFO]
        assert (said["version"], said["context_length"], said["parameters_total"]) == (version, 2048, 16)
        assert said["key_values"]["list"] == {"array": "STRING", "length": 2, "first": ["a", "b"]}
        assert said["tensors"]["a"] == {"dtype": "F16", "shape": [4, 2], "offset": 0}
        if version > 1:
            (tmp_path / "x").write_bytes(data)
            assert_equals_library(tmp_path / "x", parsed)

    def test_an_unknown_version_is_a_warning(self) -> None:
        assert codes(parse(GgufBytes(4).file())) == {("warning", "version-unknown")}

    @pytest.mark.parametrize("data", [b"", b"GI", b"GGML" + b"\0" * 40, b"\0" * 100])
    def test_other_files_are_no_gguf(self, data: bytes) -> None:
        parsed = parse(data)
        assert parsed.metadata is None
        assert codes(parsed) == {("error", "not-gguf")}


def sound() -> GgufBytes:
    return GgufBytes().text("general.architecture", "llama")


def two(second: tuple[str, tuple[int, ...], int, int]) -> bytes:
    return sound().tensor("a", (8,), 0, 0).tensor(*second).file(b"\0" * 1024)


MADE = GgufBytes()


def with_value(kind: int, value: bytes) -> bytes:
    return sound().key("a", kind, value).file()


def with_array(kind: int, length: int, items: bytes = b"") -> bytes:
    return with_value(ARRAY, MADE.array(kind, length, items))


def with_alignment(alignment: int) -> bytes:
    return sound().key("general.alignment", U32, MADE.pack("I", alignment)).file()


BROKEN: dict[str, tuple[bytes, str]] = {
    "too many keys": (sound().file(keys=2**63), "counts-lie"),
    "too many tensors": (sound().file(tensors=2**63), "counts-lie"),
    "array of 2^63 bytes": (with_array(U8, 2**63), "header-cut"),
    "array of 2^63 texts": (with_array(STRING, 2**63), "header-cut"),
    "array that is cut": (with_array(F32, 100, b"\0" * 99), "header-cut"),
    "text of 2^64 - 1": (with_value(STRING, MADE.length(2**64 - 1)), "header-cut"),
    "texts of 2^63": (with_array(STRING, 20, MADE.length(2**63) * 20), "header-cut"),
    "last text of 2^63": (with_array(STRING, 20, MADE.length(0) * 19 + MADE.length(2**63)), "header-cut"),
    "unknown value": (with_value(13, b"\0" * 64), "value-type-unknown"),
    "array of the unknown": (with_array(99, 1), "value-type-unknown"),
    "arrays too deep": (with_array(ARRAY, 1, MADE.array(ARRAY, 1, b"") * 9), "value-type-unknown"),
    "a key twice": (sound().text("general.architecture", "x").file(), "key-twice"),
    "alignment of 0": (with_alignment(0), "alignment-invalid"),
    "alignment of 24": (with_alignment(24), "alignment-invalid"),
    "alignment in text": (sound().text("general.alignment", "32").file(), "alignment-invalid"),
    "five dimensions": (sound().tensor("a", (1,) * 5, 0, 0).file(b"\0" * 32), "dimensions"),
    "a tensor twice": (two(("a", (8,), 0, 32)), "tensor-twice"),
    "rows of half blocks": (sound().tensor("a", (48,), 2, 0).file(b"\0" * 64), "shape-invalid"),
    "not aligned": (two(("b", (8,), 0, 33)), "offset-unaligned"),
    "overlap": (two(("b", (8,), 0, 0)), "offsets-overlap"),
    "behind the end": (two(("b", (8,), 0, 2**40)), "data-cut"),
    "offset of 2^64 - 32": (two(("b", (8,), 0, 2**64 - 32)), "data-cut"),
    "shape overflows": (two(("b", (2**63, 2**63), 0, 32)), "data-cut"),
}
UNUSUAL: dict[str, tuple[bytes, str]] = {
    "hole": (two(("b", (8,), 0, 64)), "offsets-hole"),
    "unknown type": (two(("b", (8,), 4, 32)), "tensor-type-unknown"),
    "a long name": (two(("b" * 64, (8,), 0, 32)), "name-too-long"),
    "no architecture": (GgufBytes().tensor("a", (8,), 0, 0).file(b"\0" * 32), "architecture-missing"),
}


class TestBroken:
    @pytest.mark.parametrize("name", BROKEN)
    def test_is_found(self, name: str) -> None:
        data, code = BROKEN[name]
        assert ("error", code) in codes(parse(data))

    @pytest.mark.parametrize("name", UNUSUAL)
    def test_what_others_may_load_is_a_warning(self, name: str) -> None:
        data, code = UNUSUAL[name]
        assert codes(parse(data)) == {("warning", code)}

    def test_nested_arrays_are_read(self) -> None:
        inner = MADE.array(U8, 2, b"\1\2")
        said = metadata(
            parse(sound().key("a", ARRAY, MADE.array(ARRAY, 20, inner * 20)).key("b", U8, b"\7").file())
        )
        nested = said["key_values"]["a"]
        assert (nested["array"], nested["length"], len(nested["first"])) == ("ARRAY", 20, 16)
        assert nested["first"][15] == {"array": "UINT8", "length": 2, "first": [1, 2]}
        assert said["key_values"]["b"] == 7

    def test_what_comes_before_the_end_is_said(self) -> None:
        data = sound().text("general.name", "Tiny").key("x", STRING, MADE.length(99)).file()
        parsed = parse(data)
        assert metadata(parsed)["name"] == "Tiny"
        assert metadata(parsed)["parameters_total"] is None
        assert 'in the value of "x"' in parsed.findings[0].message

    def test_values_that_json_cannot_hold(self) -> None:
        made = sound().key("nan", F32, MADE.pack("f", math.nan)).key("inf", 12, MADE.pack("d", math.inf))
        made.key("big", U64, MADE.pack("Q", 2**64 - 1)).key("t\0", STRING, MADE.string(b"\xff\0"))
        said = metadata(parse(made.file()))
        values = said["key_values"]
        assert (values["nan"], values["inf"], values["big"]) == ("nan", "inf", str(2**64 - 1))
        assert values["t\ufffd"] == "\ufffd\ufffd"
        json.dumps(said, allow_nan=False)


def many_keys() -> bytes:
    made = GgufBytes()
    for number in range(10_000):
        made.key(f"{number}", ARRAY, made.array(STRING, 16, made.string("xy") * 16))
    return made.file()


def many_tensors() -> bytes:
    made = sound()
    for number in range(65_536):
        made.tensor(f"blk.{number}.ffn_gate_exps.weight", (2**62, 2**62, 3, 3), 14, 1)
    return made.file()


def long_texts() -> bytes:
    made = sound()
    for number in range(600):
        made.key(f"{number}", STRING, made.string("🤗".encode() + b"\xff" * 70_000))
    return made.file()


HOSTILE: dict[str, Callable[[], bytes]] = {
    "texts": lambda: with_array(STRING, 7_000_000, b"\0" * 56_000_000),
    "arrays": lambda: with_array(ARRAY, 3_000_000, MADE.array(U8, 0, b"") * 3_000_000),
    "fewer arrays": lambda: with_array(ARRAY, 10_000, MADE.array(U8, 0, b"") * 10_000),
    "text": lambda: with_value(STRING, MADE.string("🤗".encode() + b"\xff" * 60_000_000)),
    "keys": many_keys,
    "tensors": many_tensors,
    "long texts": long_texts,
    "empty keys": lambda: sound().file(b"\0" * 30_000_000, keys=2_000_000),
    "empty tensors": lambda: sound().file(b"\0" * 60_000_000, tensors=2_000_000),
}


@pytest.mark.slow
class TestBounds:
    @pytest.mark.parametrize("name", HOSTILE)
    def test_hostile_headers(self, name: str) -> None:
        data = HOSTILE[name]()
        parsed = bounded(lambda: parse(data))
        assert len(json.dumps(parsed.metadata)) < 2_000_000
        assert sum(len(finding.message) for finding in parsed.findings) < 10_000

    def test_no_more_than_the_header_is_read(self, tmp_path: Path) -> None:
        path = tmp_path / "x"
        path.write_bytes(sound().key("a", ARRAY, MADE.array(STRING, 2**30, b"")).file())
        os.truncate(path, 20 * 2**30)
        source = PathSource(path, ALLOWANCE)
        assert codes(parse_gguf(source)) == {("warning", "header-not-read")}
        assert source.bytes_read < 50 * 1024**2

    def test_an_allowance_that_is_too_small_is_a_warning(self, tmp_path: Path) -> None:
        path = write_gguf(tmp_path / "x.gguf")
        assert codes(parse_gguf(PathSource(path, 100))) == {("warning", "header-not-read")}
