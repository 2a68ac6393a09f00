import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors import safe_open

from hooks.formats.parsed import Parsed, Severity
from hooks.formats.safetensors import parse_safetensors
from hooks.formats.safetensors_header import DTYPES, MAX_HEADER_BYTES
from hooks.formats.source import BytesSource
from tests.support.bounds import bounded
from tests.support.model_files import (
    Tensors,
    entry,
    llama_tensors,
    raw_safetensors,
    write_adapter,
    write_safetensors,
    write_sharded,
)
from tests.support.path_source import PathSource
from tests.support.real_models import write_smollm2

ALLOWANCE = 17 * 1024**2


def parse(data: bytes) -> Parsed:
    return parse_safetensors(BytesSource(data))


def metadata(parsed: Parsed) -> dict[str, Any]:
    assert parsed.metadata is not None
    return dict(parsed.metadata)


def errors(parsed: Parsed) -> set[str]:
    return {finding.code for finding in parsed.findings if finding.severity is Severity.ERROR}


def assert_equals_library(path: Path) -> None:
    parsed = parse_safetensors(PathSource(path, ALLOWANCE))
    assert parsed.findings == ()
    said = metadata(parsed)
    with safe_open(path, "np") as file:
        assert said["metadata"] == (file.metadata() or {})
        assert said["tensors"].keys() == set(file.keys())
        counts: dict[str, int] = {}
        for name in file.keys():  # noqa: SIM118 - it is no mapping
            view = file.get_slice(name)
            tensor = said["tensors"][name]
            assert (tensor["dtype"], tensor["shape"]) == (view.get_dtype(), view.get_shape())
            counts[tensor["dtype"]] = counts.get(tensor["dtype"], 0) + int(np.prod(view.get_shape()))
            begin, end = (said["data_offset"] + offset for offset in tensor["offsets"])
            assert path.read_bytes()[begin:end] == file.get_tensor(name).tobytes()
    assert said["parameters"] == counts
    assert said["parameters_total"] == sum(counts.values())


class TestReal:
    def test_a_model(self, tmp_path: Path) -> None:
        path = write_safetensors(
            tmp_path / "x.safetensors", llama_tensors(), {"format": "pt", "ü": "\0🤗"[1:]}
        )
        assert_equals_library(path)

    def test_shards_and_adapter(self, tmp_path: Path) -> None:
        write_sharded(tmp_path / "model", llama_tensors(), 3)
        shards = sorted((tmp_path / "model").glob("*.safetensors"))
        assert len(shards) == 3
        for path in [*shards, write_adapter(tmp_path / "adapter")]:
            assert_equals_library(path)

    def test_every_dtype_of_numpy(self, tmp_path: Path) -> None:
        kinds = "bool uint8 int8 int16 uint16 float16 int32 uint32 float32 complex64 float64 int64 uint64"
        tensors: Tensors = {kind: np.ones((2, 3), kind) for kind in kinds.split()}
        tensors |= {"scalar": np.array(1, "float32"), "empty": np.zeros((0, 4), "float16")}
        assert_equals_library(write_safetensors(tmp_path / "x.safetensors", tensors))

    def test_smollm2(self, tmp_path: Path) -> None:
        path = write_smollm2(tmp_path, layers=2)
        source = PathSource(path, ALLOWANCE)
        said = metadata(parse_safetensors(source))
        assert said["parameters_total"] == 49152 * 576 + 576 + 2 * 3540096
        assert said["tensors"]["model.embed_tokens.weight"]["shape"] == [49152, 576]
        assert source.bytes_read < 10_000

    def test_20_gb_are_understood_from_the_header(self, tmp_path: Path) -> None:
        tensors = {
            f"model.layers.{number}.weight": entry(
                number * 2**30, (number + 1) * 2**30, "BF16", (2**14, 2**15)
            )
            for number in range(20)
        }
        path = tmp_path / "large.safetensors"
        header = raw_safetensors(tensors)
        path.write_bytes(header)
        os.truncate(path, len(header) + 20 * 2**30)
        source = PathSource(path, ALLOWANCE)
        parsed = parse_safetensors(source)
        assert parsed.findings == ()
        assert metadata(parsed)["parameters_total"] == 20 * 2**29
        assert source.bytes_read == len(header)
        os.truncate(path, len(header) + 20 * 2**30 - 1)
        assert errors(parse_safetensors(PathSource(path, ALLOWANCE))) == {"data-cut"}


# Each stands for a thing that is wrong, and `safetensors` refuses it too.
BROKEN: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "header-cut"),
    "seven bytes": (b"\0" * 7, "header-cut"),
    "cut header": (raw_safetensors({"a": entry()})[:20], "header-cut"),
    "length one too long": (raw_safetensors(b"{}", length=3), "header-cut"),
    "length of 2^63": (raw_safetensors(b"{}", length=2**63), "header-too-large"),
    "length of 2^64 - 1": (raw_safetensors(b"{}", length=2**64 - 1), "header-too-large"),
    "no safetensors": (b"PK\x03\x04 and something else", "header-too-large"),
    "not JSON": (raw_safetensors(b'{"a"}'), "header-invalid"),
    "not UTF-8": (raw_safetensors(b'{"\xff": 1}'), "header-invalid"),
    "empty header": (raw_safetensors(b""), "header-invalid"),
    "a list": (raw_safetensors([]), "header-invalid"),
    "NaN": (raw_safetensors(b'{"__metadata__": NaN}'), "header-invalid"),
    "bytes behind the object": (raw_safetensors(b"{}\0"), "header-invalid"),
    "a field twice": (
        raw_safetensors(b'{"a":{"dtype":"U8","dtype":"U8","shape":[1],"data_offsets":[0,1]}}', b"1"),
        "header-invalid",
    ),
    "metadata of numbers": (raw_safetensors({"__metadata__": {"a": 1}}), "metadata-invalid"),
    "metadata in a list": (raw_safetensors({"__metadata__": ["a"]}), "metadata-invalid"),
    "tensor null": (raw_safetensors({"a": None}), "tensor-invalid"),
    "no dtype": (raw_safetensors({"a": {"shape": [1], "data_offsets": [0, 4]}}, b"1234"), "tensor-invalid"),
    "no shape": (raw_safetensors({"a": {"dtype": "F32", "data_offsets": [0, 4]}}, b"1234"), "tensor-invalid"),
    "no offsets": (raw_safetensors({"a": {"dtype": "F32", "shape": [1]}}), "tensor-invalid"),
    "three offsets": (
        raw_safetensors({"a": entry() | {"data_offsets": [0, 4, 4]}}, b"1234"),
        "tensor-invalid",
    ),
    "offsets backwards": (raw_safetensors({"a": entry(4, 0)}, b"1234"), "tensor-invalid"),
    "negative shape": (raw_safetensors({"a": entry(shape=(-1, -1))}, b"1234"), "tensor-invalid"),
    "shape of a float": (raw_safetensors({"a": entry() | {"shape": [1.0]}}, b"1234"), "tensor-invalid"),
    "shape of true": (raw_safetensors({"a": entry() | {"shape": [True]}}, b"1234"), "tensor-invalid"),
    "offsets beyond 64 bits": (raw_safetensors({"a": entry(0, 2**64)}), "tensor-invalid"),
    "unknown dtype": (raw_safetensors({"a": entry(dtype="F33")}, b"1234"), "dtype-unknown"),
    "dtype in lower case": (raw_safetensors({"a": entry(dtype="f32")}, b"1234"), "dtype-unknown"),
    "shape too large": (raw_safetensors({"a": entry(shape=(2,))}, b"1234"), "size-mismatch"),
    "shape too small": (raw_safetensors({"a": entry(shape=(0,))}, b"1234"), "size-mismatch"),
    "shape overflows": (raw_safetensors({"a": entry(0, 0, shape=(2**63, 2, 0))}), "size-mismatch"),
    "bits overflow": (raw_safetensors({"a": entry(0, 2**62, shape=(2**60,))}), "size-mismatch"),
    "half a byte": (raw_safetensors({"a": entry(0, 1, "F4", (3,))}, b"1"), "size-mismatch"),
    "overlap": (raw_safetensors({"a": entry(), "b": entry(3, 7)}, b"1234567"), "offsets-overlap"),
    "the same bytes": (raw_safetensors({"a": entry(), "b": entry()}, b"1234"), "offsets-overlap"),
    "nothing amid something": (
        raw_safetensors({"a": entry(), "b": entry(2, 2, shape=(0,))}, b"1234"),
        "offsets-overlap",
    ),
    "hole": (raw_safetensors({"a": entry(), "b": entry(5, 9)}, b"123456789"), "offsets-hole"),
    "hole at the start": (raw_safetensors({"a": entry(1, 5)}, b"12345"), "offsets-hole"),
    "data cut": (raw_safetensors({"a": entry()}, b"123"), "data-cut"),
    "data too long": (raw_safetensors({"a": entry()}, b"12345"), "data-trailing"),
    "data of no tensor": (raw_safetensors({}, b"1"), "data-trailing"),
}

SOUND: dict[str, bytes] = {
    "no tensors": raw_safetensors({}),
    "spaces behind": raw_safetensors(b"{}    "),
    "metadata null": raw_safetensors({"__metadata__": None}),
    "only metadata": raw_safetensors({"__metadata__": {"": "\0"}}),
    "a field of its own": raw_safetensors({"a": entry() | {"note": {"x": [1]}}}, b"1234"),
    "no name": raw_safetensors({"": entry()}, b"1234"),
    "any order": raw_safetensors({"b": entry(4, 8), "a": entry()}, b"12345678"),
    "empty tensors between": raw_safetensors(
        {"a": entry(), "b": entry(4, 4, shape=(0, 7)), "c": entry(0, 0, shape=(0,)), "d": entry(4, 8)},
        b"12345678",
    ),
    "zero before an overflow": raw_safetensors({"a": entry(0, 0, shape=(0, 2**63, 2))}),
}


def library_takes(path: Path) -> bool:
    try:
        with safe_open(path, "np"):
            return True
    except Exception:  # noqa: BLE001 - whatever it raises, it refuses
        return False


class TestBroken:
    @pytest.mark.parametrize("name", BROKEN)
    def test_is_found_and_the_library_refuses_it_too(self, name: str, tmp_path: Path) -> None:
        data, code = BROKEN[name]
        (tmp_path / "x").write_bytes(data)
        assert not library_takes(tmp_path / "x")
        parsed = parse(data)
        assert code in errors(parsed), parsed.findings

    @pytest.mark.parametrize("name", SOUND)
    def test_what_the_library_takes_has_no_findings(self, name: str, tmp_path: Path) -> None:
        (tmp_path / "x").write_bytes(SOUND[name])
        assert library_takes(tmp_path / "x")
        assert parse(SOUND[name]).findings == ()

    @pytest.mark.parametrize(
        "dtype", [*DTYPES, "F2", "U4", "I4", "F128", "C128", "F8_E3M4", "F8_E4M3B11FNUZ", "F6", "F8", ""]
    )
    def test_dtypes_have_the_size_that_they_have_in_the_library(self, dtype: str, tmp_path: Path) -> None:
        takes = []
        for size in range(80):
            data = raw_safetensors({"a": entry(0, size, dtype, (8,))}, b"\0" * size)
            (tmp_path / "x").write_bytes(data)
            takes.append(library_takes(tmp_path / "x"))
            assert (not errors(parse(data))) == takes[-1]
        assert any(takes) == (dtype in DTYPES)

    def test_a_tensor_that_stands_there_twice_is_an_error_though_the_library_takes_the_last(self) -> None:
        one = json.dumps(entry())
        parsed = parse(raw_safetensors(f'{{"a":{one},"a":{one}}}'.encode(), b"1234"))
        assert "twice" in parsed.findings[0].message
        assert errors(parsed) == {"header-invalid"}

    def test_one_finding_for_a_thousand_tensors(self) -> None:
        parsed = parse(
            raw_safetensors({f"t{n:04}": entry(4 * n, 4 * n + 3) for n in range(1000)}, b"0" * 3999)
        )
        mismatch = next(finding for finding in parsed.findings if finding.code == "size-mismatch")
        assert '"t0000" has 3 bytes, and its shape and dtype need 4' in mismatch.message
        assert "and 997 more like this" in mismatch.message
        assert len(parsed.findings) == 2

    def test_a_cut_file_is_understood_all_the_same(self) -> None:
        assert metadata(parse(raw_safetensors({"a": entry()}, b"1")))["parameters_total"] == 1

    def test_names_are_made_clean(self) -> None:
        parsed = parse(raw_safetensors({"a\0\x1b[2J": entry(dtype="\0X\n")}, b"1234"))
        assert "\n" not in parsed.findings[0].message
        assert "\x1b" not in parsed.findings[0].message
        said = metadata(parse(raw_safetensors({"a\0": entry()}, b"1234")))
        assert list(said["tensors"]) == ["a\ufffd"]


class TestBounds:
    def test_a_header_over_16_mb_is_a_warning(self, tmp_path: Path) -> None:
        path = tmp_path / "x"
        path.write_bytes(raw_safetensors(b"{}" + b" " * MAX_HEADER_BYTES))
        assert library_takes(path)
        source = PathSource(path, ALLOWANCE)
        parsed = parse_safetensors(source)
        assert [(f.severity, f.code) for f in parsed.findings] == [(Severity.WARNING, "header-not-read")]
        assert source.bytes_read == 8

    def test_an_allowance_that_is_too_small_is_a_warning(self, tmp_path: Path) -> None:
        path = write_safetensors(tmp_path / "x", llama_tensors())
        parsed = parse_safetensors(PathSource(path, 100))
        assert [(f.severity, f.code) for f in parsed.findings] == [(Severity.WARNING, "header-not-read")]

    @pytest.mark.slow
    def test_a_hundred_thousand_tensors(self) -> None:
        header = {
            f"model.layers.{number // 1000}.mlp.experts.{number % 1000}.down_proj.weight": entry(
                4 * number, 4 * number + 4
            )
            for number in range(100_000)
        }
        data = raw_safetensors(header, b"\0" * 400_000)
        parsed = bounded(lambda: parse(data))
        said = metadata(parsed)
        assert parsed.findings == ()
        assert said["parameters_total"] == said["tensors_total"] == 100_000
        assert 10_000 < len(said["tensors"]) <= 20_000
        assert len(json.dumps(said)) < 2_000_000

    @pytest.mark.slow
    @pytest.mark.parametrize(
        "header",
        [
            b"{" + b",".join(b'"%x":0' % number for number in range(650_000)) + b"}",
            b'{"__metadata__":{' + b",".join(b'"%x":"%x"' % (n, n) for n in range(600_000)) + b"}}",
            b'{"__metadata__":{' + b",".join(b'"%x":1' % number for number in range(650_000)) + b"}}",
            b'{"a":{"dtype":"F32","data_offsets":[0,4],"shape":[' + b"9999999999," * 1_000_000 + b"1]}}",
            b"{" + b",".join(b'"%x":{"dtype":1}' % number for number in range(250_000)) + b"}",
            b'{"' + "🤗".encode() + b"x" * 16_000_000 + b'":{}}',
            b'{"a":' + b"[" * 1_000_000,
        ],
        ids=["keys", "metadata", "bad metadata", "shape", "tensors", "name", "depth"],
    )
    def test_hostile_headers(self, header: bytes) -> None:
        data = raw_safetensors(header)
        parsed = bounded(lambda: parse(data))
        assert len(json.dumps(parsed.metadata)) < 2_000_000
        assert sum(len(finding.message) for finding in parsed.findings) < 10_000

    @pytest.mark.slow
    def test_overlaps_by_the_hundred_thousand(self) -> None:
        data = raw_safetensors({f"t{number}": entry(0, 2**60, "U8", (2**60,)) for number in range(100_000)})
        parsed = bounded(lambda: parse(data))
        assert errors(parsed) == {"offsets-overlap", "data-cut"}
        assert metadata(parsed)["parameters_total"] < 2**63
