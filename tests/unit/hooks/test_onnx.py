from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from hooks.formats.onnx import parse_onnx
from hooks.formats.parsed import Severity
from hooks.formats.source import BytesSource
from tests.support.dataset_files import onnx_model
from tests.support.parsed_checks import parse_soundly
from tests.support.path_source import PathSource


def parse(model: onnx.ModelProto) -> dict[str, Any]:
    parsed = parse_soundly(parse_onnx, model.SerializeToString())
    assert parsed.metadata is not None
    return dict(parsed.metadata)


def as_onnx_says(value: onnx.ValueInfoProto) -> dict[str, Any]:
    tensor = value.type.tensor_type
    shape = None
    if tensor.HasField("shape"):
        shape = [getattr(dim, dim.WhichOneof("value") or "", None) for dim in tensor.shape.dim]
    return {"name": value.name, "dtype": TensorProto.DataType.Name(tensor.elem_type), "shape": shape}


def test_says_what_onnx_says() -> None:
    model = onnx_model(domain="org.example", model_version=7)
    metadata = parse(model)
    assert metadata["ir_version"] == model.ir_version
    assert metadata["producer"] == model.producer_name
    assert metadata["producer_version"] == model.producer_version
    assert metadata["domain"] == model.domain
    assert metadata["model_version"] == model.model_version
    assert metadata["opset"] == {entry.domain or "ai.onnx": entry.version for entry in model.opset_import}
    assert metadata["inputs"] == [as_onnx_says(value) for value in model.graph.input]
    assert metadata["outputs"][0] == as_onnx_says(model.graph.output[0])
    assert metadata["outputs"][1] == {"name": "all", "dtype": "sequence(FLOAT)", "shape": None}
    assert metadata["nodes"] == len(model.graph.node)
    arrays = [numpy_helper.to_array(tensor) for tensor in model.graph.initializer]
    assert metadata["parameters_total"] == sum(array.size for array in arrays)
    assert metadata["parameters"] == {"FLOAT": 32, "FLOAT16": 8}


@pytest.mark.parametrize("number", sorted(set(TensorProto.DataType.values()) - {TensorProto.UNDEFINED}))
def test_names_types_as_onnx_does(number: int) -> None:
    model = onnx_model()
    model.graph.input[0].type.tensor_type.elem_type = number
    assert parse(model)["inputs"][0]["dtype"] == TensorProto.DataType.Name(number)


def test_maps_optionals_and_sparse_tensors() -> None:
    model = onnx_model()
    tensor = helper.make_tensor_type_proto(TensorProto.FLOAT, [3])
    model.graph.output[0].type.CopyFrom(helper.make_map_type_proto(TensorProto.STRING, tensor))
    model.graph.output[1].type.CopyFrom(
        helper.make_optional_type_proto(helper.make_sequence_type_proto(tensor))
    )
    model.graph.input[1].type.CopyFrom(helper.make_sparse_tensor_type_proto(TensorProto.DOUBLE, ["n", 2]))
    metadata = parse(model)
    assert [value["dtype"] for value in metadata["outputs"]] == [
        "map(STRING,FLOAT)",
        "optional(sequence(FLOAT))",
    ]
    assert metadata["inputs"][1] == {"name": "n", "dtype": "sparse(DOUBLE)", "shape": ["n", 2]}


def test_initializers_among_the_inputs_are_no_inputs() -> None:
    model = onnx_model(ir_version=3)
    model.graph.input.append(helper.make_tensor_value_info("w", TensorProto.FLOAT, [4, 8]))
    assert [value["name"] for value in parse(model)["inputs"]] == ["x", "n"]


def test_counts_sparse_initializers_by_their_values() -> None:
    model = onnx_model({})
    values = numpy_helper.from_array(np.ones(5, np.float32), "s")
    indices = numpy_helper.from_array(np.arange(5, dtype=np.int64), "i")
    model.graph.sparse_initializer.append(helper.make_sparse_tensor(values, indices, [100, 100]))
    assert parse(model)["parameters_total"] == 5


def test_never_reads_weights(tmp_path: Path) -> None:
    weights = {f"w{number}": np.zeros((1024, 1024), np.float32) for number in range(4)}
    file = tmp_path / "model.onnx"
    file.write_bytes(onnx_model(weights).SerializeToString())
    source = PathSource(file, 1024**2)
    parsed = parse_onnx(source)
    assert parsed.metadata is not None
    assert parsed.metadata["parameters_total"] == 4 * 1024**2
    assert source.bytes_read < 64 * 1024 < file.stat().st_size


def test_many_small_initializers_and_nodes_are_counted() -> None:
    model = onnx_model({f"w{number}": np.zeros(number % 7, np.float32) for number in range(5000)})
    model.graph.node.extend(helper.make_node("Relu", ["y"], ["z" * 300]) for _ in range(3000))
    metadata = parse(model)
    assert metadata["nodes"] == 3002
    assert metadata["parameters_total"] == sum(number % 7 for number in range(5000))


def external(location: str) -> onnx.ModelProto:
    model = onnx_model()
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in {"location": location, "offset": "0"}.items():
        entry = tensor.external_data.add()
        entry.key, entry.value = key, value
    return model


def test_mentions_external_data() -> None:
    parsed = parse_onnx(BytesSource(external("weights.bin").SerializeToString()))
    assert parsed.metadata is not None
    assert parsed.metadata["external_data"] == ["weights.bin"]
    assert parsed.metadata["parameters_total"] == 40
    assert [finding.code for finding in parsed.findings] == ["onnx-external-data"]


@pytest.mark.parametrize("location", ["../../etc/passwd", "/etc/passwd", "a/../../b"])
def test_external_data_outside_of_the_repository_is_an_error(location: str) -> None:
    parsed = parse_onnx(BytesSource(external(location).SerializeToString()))
    assert [(finding.severity, finding.code) for finding in parsed.findings] == [
        (Severity.ERROR, "onnx-external-outside")
    ]


@pytest.mark.parametrize("left", [30, 100, -1])
def test_a_cut_file_is_found_out(left: int) -> None:
    parsed = parse_soundly(parse_onnx, onnx_model().SerializeToString()[:left])
    assert [finding.code for finding in parsed.findings] == ["onnx-damaged"]
    assert parsed.metadata is not None
    assert parsed.metadata["ir_version"] == 10
    assert parsed.metadata["parameters_total"] is None


HEADER = b"\x08\x0a"  # ir_version


def in_graph(content: bytes) -> bytes:
    return HEADER + b"\x3a" + varint(len(content)) + content


def varint(value: int) -> bytes:
    return bytes([value & 0x7F | 0x80]) + varint(value >> 7) if value > 0x7F else bytes([value])


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (HEADER + b"\x3a" + b"\xff" * 9 + b"\x01", "a field of 18,446,744,073,709,551,615 bytes"),
        (HEADER + b"\x3a" + b"\xff" * 20, "more than 64 bits"),
        (HEADER + b"\x3a" + b"\x80" * 5, "does not end"),
        (HEADER + b"\x3b", "no wire type 3"),
        (HEADER + b"\x00", "no field has the number 0"),
        (in_graph(b"\x28\x01"), "should be a message"),
        (in_graph(b"\x5a\x02\x08\x01"), "should be a text"),
        (in_graph(b"\x2a\x0b\x08" + b"\xff" * 9 + b"\x01"), "negative dimension"),
        (in_graph(b"\x2a\x14" + (b"\x08" + b"\xff" * 8 + b"\x7f") * 2), "more parameters than 64 bits"),
        (in_graph(b"\x2a" + varint(4000) + b"\x08\x01" * 2000), "more than 1,000 dimensions"),
    ],
)
def test_lies_are_told(data: bytes, message: str) -> None:
    (finding,) = parse_soundly(parse_onnx, data).findings
    assert finding.code == "onnx-damaged"
    assert message in finding.message


def test_types_nested_without_end_are_refused() -> None:
    kind = b""
    for _ in range(1000):
        kind = b"\x22" + varint(len(inner := b"\x0a" + varint(len(kind)) + kind)) + inner
    value = b"\x12" + varint(len(kind)) + kind
    (finding,) = parse_soundly(parse_onnx, in_graph(b"\x5a" + varint(len(value)) + value)).findings
    assert "without end" in finding.message


@pytest.mark.parametrize("data", [b"", b"version https://git-lfs.github.com/spec/v1\n", b"{}", b"\x12\x01a"])
def test_what_is_no_model_is_called_so(data: bytes) -> None:
    parsed = parse_soundly(parse_onnx, data)
    assert parsed.metadata is None
    assert [(finding.severity, finding.code) for finding in parsed.findings] == [
        (Severity.ERROR, "onnx-invalid")
    ]


def test_a_graph_without_end_keeps_what_is_known() -> None:
    parsed = parse_soundly(parse_onnx, in_graph(b"\x0a\x00" * 2**20) + b"\x42\x02\x10\x15")
    assert [finding.code for finding in parsed.findings] == ["onnx-too-large"]
    assert parsed.metadata is not None
    assert parsed.metadata["opset"] == {"ai.onnx": 21}
    assert parsed.metadata["nodes"] is None


def test_reading_more_than_allowed_keeps_what_is_known(tmp_path: Path) -> None:
    file = tmp_path / "model.onnx"
    weights = {f"w{number}": np.zeros(5000, np.float32) for number in range(50)}
    file.write_bytes(onnx_model(weights).SerializeToString())
    parsed = parse_onnx(PathSource(file, 10_000))
    assert [finding.code for finding in parsed.findings] == ["onnx-too-large"]
    assert parsed.metadata is not None
    assert parsed.metadata["ir_version"] == 10


def test_names_of_strangers_are_made_clean() -> None:
    model = onnx_model(producer_name="a\0b" + "x" * 5000)
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_param = "\0" + "d" * 5000
    metadata = parse(model)
    assert metadata["producer"].startswith("a\ufffdb")
    assert len(metadata["producer"]) == 300
    assert len(metadata["inputs"][0]["shape"][0]) == 100
