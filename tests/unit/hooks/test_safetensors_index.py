import json
from pathlib import Path
from typing import Any

import pytest

from hooks.formats.parsed import Parsed, Severity
from hooks.formats.safetensors_index import MAX_BYTES, parse_safetensors_index
from hooks.formats.source import BytesSource
from tests.support.bounds import bounded
from tests.support.model_files import llama_tensors, write_sharded
from tests.support.path_source import PathSource


def parse(value: object) -> Parsed:
    return parse_safetensors_index(
        BytesSource(value if isinstance(value, bytes) else json.dumps(value).encode())
    )


def metadata(parsed: Parsed) -> dict[str, Any]:
    assert parsed.metadata is not None
    return dict(parsed.metadata)


def test_a_sharded_model(tmp_path: Path) -> None:
    tensors = llama_tensors()
    path = write_sharded(tmp_path, tensors, 3)
    parsed = parse_safetensors_index(PathSource(path, 10_000))
    said = metadata(parsed)
    assert parsed.findings == ()
    assert said["shards"] == [f"model-0000{number}-of-00003.safetensors" for number in (1, 2, 3)]
    assert said["weight_map"] == json.loads(path.read_text())["weight_map"]
    assert said["total_size"] == sum(tensor.nbytes for tensor in tensors.values())
    assert (said["tensors_total"], said["shards_total"]) == (len(tensors), 3)


def test_total_size_can_be_a_float_or_missing() -> None:
    assert metadata(parse({"metadata": {"total_size": 16.0}, "weight_map": {}}))["total_size"] == 16
    assert metadata(parse({"weight_map": {}}))["total_size"] is None


@pytest.mark.parametrize(
    ("value", "severity", "code"),
    [
        (b'{"weight_map": {"a": "x"', Severity.ERROR, "json-invalid"),
        (b'{"weight_map": {"a": "x", "a": "y"}}', Severity.ERROR, "json-invalid"),
        ([], Severity.ERROR, "index-invalid"),
        ({"metadata": {}}, Severity.ERROR, "index-invalid"),
        ({"weight_map": ["a"]}, Severity.ERROR, "index-invalid"),
        ({"weight_map": {"a": 1}}, Severity.ERROR, "index-invalid"),
        ({"weight_map": {}, "metadata": 1}, Severity.WARNING, "index-metadata"),
        ({"weight_map": {}, "metadata": {"total_size": "1"}}, Severity.WARNING, "total-size"),
        ({"weight_map": {}, "metadata": {"total_size": 2**64}}, Severity.WARNING, "total-size"),
        ({"weight_map": {}, "metadata": {"total_size": -1}}, Severity.WARNING, "total-size"),
    ],
)
def test_what_is_wrong_is_found(value: object, severity: Severity, code: str) -> None:
    assert [(finding.severity, finding.code) for finding in parse(value).findings] == [(severity, code)]


@pytest.mark.parametrize(
    "name", ["../x", "/x", "a/../x", "a//x", "./x", ".", "", "a\\x", "a\0", "x/", "x" * 2000], ids=repr
)
def test_a_shard_lies_beside_the_index(name: str) -> None:
    parsed = parse({"weight_map": {"a": name, "b": "sub/x.safetensors"}})
    assert [finding.code for finding in parsed.findings] == ["shard-name"]
    assert metadata(parsed)["shards"] == ["sub/x.safetensors"]
    assert metadata(parsed)["weight_map"] == {"b": "sub/x.safetensors"}


def test_the_line_of_an_error() -> None:
    finding = parse(b'{\n"weight_map": {"a" "b"}}').findings[0]
    assert (finding.line, finding.message) == (
        2,
        "the index cannot be read: not JSON: expecting ':' delimiter (column 20)",
    )


def test_a_hundred_thousand_tensors() -> None:
    value = {
        "weight_map": {
            f"model.layers.{n // 1000}.mlp.experts.{n % 1000}.weight": f"model-{n % 200:05}.safetensors"
            for n in range(100_000)
        }
    }
    data = json.dumps(value).encode()
    said = metadata(bounded(lambda: parse(data)))
    assert (said["tensors_total"], said["shards_total"]) == (100_000, 200)
    assert len(json.dumps(said)) < 2_000_000


@pytest.mark.slow
def test_shards_by_the_hundred_thousand() -> None:
    data = json.dumps({"weight_map": {f"{n}": f"{n}" for n in range(500_000)}}).encode()
    parsed = bounded(lambda: parse(data))
    assert metadata(parsed)["shards_total"] == 500_000
    assert len(json.dumps(parsed.metadata)) < 2_000_000


def test_an_index_over_the_limit_is_not_read() -> None:
    parsed = parse(b" " * (MAX_BYTES + 1))
    assert [(f.severity, f.code) for f in parsed.findings] == [(Severity.WARNING, "index-not-read")]
