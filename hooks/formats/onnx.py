"""ONNX models: what goes in and out, opsets and sizes. The weights are jumped over.

https://github.com/onnx/onnx/blob/main/onnx/onnx.proto; the numbers of fields are as there.
"""

import math
from itertools import islice
from typing import Any, Final

from hooks.formats.clean import clean_text, named, quoted
from hooks.formats.parsed import Finding, Parsed, Severity
from hooks.formats.protobuf import Field, Malformed, TooManyFields, Wire
from hooks.formats.shapes import MOST_DTYPES, OTHERS
from hooks.formats.source import Source, TooMuchRead

_MOST_FIELDS: Final = 300_000
_MOST_BLOCKS: Final = 4000
_MOST_VALUES: Final = 400  # inputs shown, and outputs; large language models have 300
_MOST_INITIALIZERS_NAMED: Final = 100_000
_MOST_DIMENSIONS: Final = 16  # of a shape shown
_MOST_TENSOR_DIMENSIONS: Final = 1000
_MOST_FILES: Final = 100
_DEEPEST_TYPE: Final = 8
_TEXT: Final = 300
_DIMENSION_TEXT: Final = 100
_MOST_PARAMETERS: Final = 2**63

_DTYPES: Final = (
    "UNDEFINED FLOAT UINT8 INT8 UINT16 INT16 INT32 INT64 STRING BOOL FLOAT16 DOUBLE UINT32 UINT64 COMPLEX64 "
    "COMPLEX128 BFLOAT16 FLOAT8E4M3FN FLOAT8E4M3FNUZ FLOAT8E5M2 FLOAT8E5M2FNUZ UINT4 INT4 FLOAT4E2M1 "
    "FLOAT8E8M0 UINT2 INT2 FLOAT6E2M3 FLOAT6E3M2"
).split()


def parse_onnx(source: Source) -> Parsed:
    """`inputs` are those that a caller gives: initializers that older files list among them are left out.

    `dtype` has the names of `TensorProto.DataType`; a dimension is a number, a name, or None where it is
    open; `shape` is None where even their number is.
    """
    reader = _Reader(Wire(source, _MOST_FIELDS, _MOST_BLOCKS))
    try:
        reader.model(source.size)
        reader.graphs()
    except Malformed as error:
        if not reader.is_model:
            return Parsed(None, (Finding(Severity.ERROR, "onnx-invalid", f"it is no ONNX model: {error}"),))
        message = f"it is cut or damaged: {error}. Export or upload it again"
        reader.give_up(Finding(Severity.ERROR, "onnx-damaged", message))
    except (TooManyFields, TooMuchRead):
        message = "it is too large to be read to its end; parameters are not counted"
        reader.give_up(Finding(Severity.INFO, "onnx-too-large", message))
    if not reader.is_model:
        message = "it is no ONNX model: it has no version and no graph"
        return Parsed(None, (*reader.findings, Finding(Severity.ERROR, "onnx-invalid", message)))
    return Parsed(reader.metadata(), (*reader.findings, *reader.about_files()))


class _Reader:
    def __init__(self, wire: Wire) -> None:
        self._wire = wire
        self.findings: list[Finding] = []
        self._numbers: dict[str, int] = {}
        self._texts: dict[str, str] = {}
        self._opset: dict[str, int] = {}
        self._graphs: list[Field] = []
        self._inputs: dict[bytes, dict[str, Any]] = {}
        self._outputs: dict[bytes, dict[str, Any]] = {}
        self._nodes = 0
        self._initializers: set[bytes] = set()
        self._parameters: dict[str, int] = {}
        self._complete = True
        self._files: dict[str, None] = {}

    @property
    def is_model(self) -> bool:
        return "ir_version" in self._numbers or bool(self._graphs)

    def give_up(self, finding: Finding) -> None:
        self._complete = False
        self.findings.append(finding)

    def metadata(self) -> dict[str, Any]:
        inputs = [value for name, value in self._inputs.items() if name not in self._initializers]
        total = sum(self._parameters.values())
        return {
            "ir_version": self._numbers.get("ir_version"),
            "producer": self._texts.get("producer"),
            "producer_version": self._texts.get("producer_version"),
            "domain": self._texts.get("domain"),
            "model_version": self._numbers.get("model_version"),
            "opset": self._opset,
            "inputs": inputs,
            "outputs": list(self._outputs.values()),
            "nodes": self._nodes if self._complete else None,
            "parameters": self._parameters if self._complete else None,
            "parameters_total": total if self._complete and total < _MOST_PARAMETERS else None,
            "external_data": list(self._files),
        }

    def model(self, size: int) -> None:
        """ModelProto, but for its graph: what follows the graph is known even if the graph is too large."""
        for field in self._wire.fields(0, size):
            match field.number:
                case 1 | 5:
                    name = "ir_version" if field.number == 1 else "model_version"
                    if not field.is_varint:
                        raise Malformed(f"{name} is not a number")
                    self._numbers[name] = field.signed
                case 2 | 3 | 4:
                    name = ("producer", "producer_version", "domain")[field.number - 2]
                    self._texts[name] = self._text(field)
                case 7:
                    self._graphs.append(self._message(field))
                case 8 if len(self._opset) < 200:
                    self._operators(self._message(field))
                case _:
                    pass

    def graphs(self) -> None:
        """GraphProto. Several are one: so the wire format has it."""
        for graph in self._graphs:
            for field in self._wire.fields(graph.start, graph.end):
                match field.number:
                    case 1:
                        self._nodes += 1
                    case 5:
                        self._tensor(self._message(field))
                    case 15:
                        self._sparse_tensor(self._message(field))
                    case 11:
                        self._value(self._message(field), self._inputs)
                    case 12:
                        self._value(self._message(field), self._outputs)
                    case _:
                        pass

    def about_files(self) -> list[Finding]:
        if not self._files:
            return []
        outside = [file for file in self._files if file.startswith(("/", "\\")) or ".." in file.split("/")]
        if outside:
            message = f"its weights lie outside of the repository: {named(outside, len(outside))}"
            return [Finding(Severity.ERROR, "onnx-external-outside", message)]
        message = f"its weights lie in other files: {named(self._files, len(self._files))}"
        return [Finding(Severity.INFO, "onnx-external-data", message)]

    def _operators(self, field: Field) -> None:
        domain, version = "", 0
        for part in self._wire.fields(field.start, field.end):
            if part.number == 1:
                domain = self._text(part)
            elif part.number == 2:
                version = part.signed
        self._opset[domain or "ai.onnx"] = version

    def _value(self, field: Field, values: dict[bytes, dict[str, Any]]) -> None:
        """ValueInfoProto."""
        name = b""
        kind: Field | None = None
        for part in self._wire.fields(field.start, field.end):
            if part.number == 1:
                name = self._wire.data(part, _TEXT)
            elif part.number == 2:
                kind = self._message(part)
        # Initializers usually come before the inputs among which older files list them again.
        if name in self._initializers or len(values) >= _MOST_VALUES:
            return
        dtype, shape = (None, None) if kind is None else self._type(kind, _DEEPEST_TYPE)
        values[name] = {
            "name": clean_text(name.decode("utf-8", "replace"), _TEXT),
            "dtype": dtype,
            "shape": shape,
        }

    def _type(self, field: Field, depth: int) -> tuple[str | None, list[int | str | None] | None]:
        """TypeProto. The type of what a sequence or an optional holds stands in brackets."""
        if depth == 0:
            raise Malformed("a type of types without end")
        for part in self._wire.fields(field.start, field.end):
            match part.number:
                case 1 | 8:
                    dtype, shape = self._tensor_type(self._message(part))
                    return (dtype if part.number == 1 else f"sparse({dtype})"), shape
                case 4 | 9:
                    holder = "sequence" if part.number == 4 else "optional"
                    inner = next((self._type(f, depth - 1) for f in self._inside(part, 1)), (None, None))
                    return f"{holder}({inner[0]})", inner[1]
                case 5:
                    key = next((_dtype(f.value) for f in self._inside(part, 1)), None)
                    inner = next((self._type(f, depth - 1) for f in self._inside(part, 2)), (None, None))
                    return f"map({key},{inner[0]})", None
                case _:
                    pass
        return None, None

    def _inside(self, field: Field, number: int) -> list[Field]:
        message = self._message(field)
        return [part for part in self._wire.fields(message.start, message.end) if part.number == number][-1:]

    def _tensor_type(self, field: Field) -> tuple[str | None, list[int | str | None] | None]:
        dtype: str | None = None
        shape: list[int | str | None] | None = None
        for part in self._wire.fields(field.start, field.end):
            if part.number == 1:
                dtype = _dtype(part.value)
            elif part.number == 2:
                shape = [] if shape is None else shape
                message = self._message(part)
                for dimension in self._wire.fields(message.start, message.end):
                    if dimension.number == 1 and len(shape) < _MOST_DIMENSIONS:
                        shape.append(self._dimension(self._message(dimension)))
        return dtype, shape

    def _dimension(self, field: Field) -> int | str | None:
        found: int | str | None = None
        for part in self._wire.fields(field.start, field.end):
            if part.number == 1:
                found = part.signed
            elif part.number == 2:
                found = self._text(part, _DIMENSION_TEXT)
        return found

    def _tensor(self, field: Field) -> None:
        """TensorProto of an initializer."""
        dims: list[int] = []
        dtype = 0
        name = b""
        for part in self._wire.fields(field.start, field.end):
            match part.number:
                case 1:
                    dims += islice(self._wire.numbers(part), _MOST_TENSOR_DIMENSIONS + 1)
                    if len(dims) > _MOST_TENSOR_DIMENSIONS:
                        raise Malformed(f"a tensor of more than {_MOST_TENSOR_DIMENSIONS:,} dimensions")
                case 2:
                    dtype = part.value
                case 8:
                    name = self._wire.data(part, _TEXT)
                case 13:
                    self._external(self._message(part))
                case _:
                    pass
        if any(dim < 0 for dim in dims):
            raise Malformed(f"the tensor {quoted(name.decode('utf-8', 'replace'))} has a negative dimension")
        if len(self._initializers) < _MOST_INITIALIZERS_NAMED:
            self._initializers.add(name)
        self._count(_dtype(dtype), math.prod(dims))

    def _sparse_tensor(self, field: Field) -> None:
        """SparseTensorProto: its values are the parameters."""
        for part in self._wire.fields(field.start, field.end):
            if part.number == 1:
                self._tensor(self._message(part))

    def _count(self, dtype: str, parameters: int) -> None:
        if dtype not in self._parameters and len(self._parameters) >= MOST_DTYPES:
            dtype = OTHERS
        counted = self._parameters.get(dtype, 0) + parameters
        if counted >= _MOST_PARAMETERS:
            raise Malformed("more parameters than 64 bits count")
        self._parameters[dtype] = counted

    def _external(self, field: Field) -> None:
        """StringStringEntryProto of `external_data`."""
        key = value = ""
        for part in self._wire.fields(field.start, field.end):
            if part.number == 1:
                key = self._text(part)
            elif part.number == 2:
                value = self._text(part)
        if key == "location" and len(self._files) < _MOST_FILES:
            self._files[value] = None

    def _text(self, field: Field, limit: int = _TEXT) -> str:
        return clean_text(self._wire.data(field, 4 * limit).decode("utf-8", "replace"), limit)

    @staticmethod
    def _message(field: Field) -> Field:
        if field.is_varint:
            raise Malformed(f"field {field.number} is a number and should be a message")
        return field


def _dtype(number: int) -> str:
    return _DTYPES[number] if number < len(_DTYPES) else f"type {number}"
