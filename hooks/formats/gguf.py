"""GGUF: what the header says of a model, and whether the tensors that it promises are there."""

import json
from typing import Any

from hooks.formats.clean import clean_number, clean_object, clean_text, quoted
from hooks.formats.complaints import Complaints
from hooks.formats.gguf_header import Header, TensorInfo, read_header
from hooks.formats.gguf_types import FILE_TYPES, TENSOR_TYPES
from hooks.formats.parsed import Parsed, Severity
from hooks.formats.shapes import UINT64, elements, parameters
from hooks.formats.source import Source, TooMuchRead

_TENSORS_LISTED = 20_000
_LISTED_BYTES = 1_200_000


def parse_gguf(source: Source) -> Parsed:
    """Key-values, tensors, quantisation and context length.

    A header that cannot be read to its end is answered as far as it goes: `parameters_total` is None then.
    """
    complaints = Complaints("convert it again, or upload it again")
    try:
        header = read_header(source, complaints)
    except TooMuchRead:
        complaints.warn("header-not-read", "the header is too large to be understood here")
        header = None
    if header is None:
        return Parsed(None, complaints.findings())
    if header.order == ">":
        complaints.add("big-endian", "the file is big-endian: most machines cannot load it", Severity.INFO)
    if header.complete:
        _check_tensors(header, source.size, complaints)
    return Parsed(_metadata(header), complaints.findings())


def _check_tensors(header: Header, size: int, complaints: Complaints) -> None:
    """That every tensor has whole blocks, lies where the one before ends, and is there."""
    if header.tensors and not isinstance(header.values.get("general.architecture"), str):
        complaints.warn("architecture-missing", "`general.architecture` is missing: nothing can load it")
    expected: int | None = 0
    end = 0
    for tensor in header.tensors:
        _check_offset(tensor, expected, header.alignment, complaints)
        length = _bytes_of(tensor, complaints)
        if length is None:
            expected = None
            continue
        end = max(end, tensor.offset + length)
        expected = -(-(tensor.offset + length) // header.alignment) * header.alignment
    there = max(0, size - header.data_offset)
    if end > there:
        complaints.add(
            "data-cut", f"the file is cut: its tensors need {_counted(end)}, and {there:,} bytes are there"
        )


def _check_offset(tensor: TensorInfo, expected: int | None, alignment: int, complaints: Complaints) -> None:
    if tensor.offset % alignment:
        complaints.add(
            "offset-unaligned",
            f"the tensor {quoted(tensor.name)} is at {tensor.offset:,}, no multiple of {alignment:,}",
        )
    elif expected is not None and tensor.offset < expected:
        complaints.add(
            "offsets-overlap",
            f"the tensor {quoted(tensor.name)} is at {tensor.offset:,}, before the end of the one before it",
        )
    elif expected is not None and tensor.offset > expected:
        complaints.warn(
            "offsets-hole",
            f"the tensor {quoted(tensor.name)} is at {tensor.offset:,}, not at {expected:,} where llama.cpp "
            "wants it",
        )


def _bytes_of(tensor: TensorInfo, complaints: Complaints) -> int | None:
    """How many bytes the tensor takes; None when its type is not known."""
    kind = TENSOR_TYPES.get(tensor.type)
    if kind is None:
        complaints.warn(
            "tensor-type-unknown", f"the tensor {quoted(tensor.name)} is of the unknown type {tensor.type}"
        )
        return None
    if tensor.shape and tensor.shape[0] % kind.block:
        complaints.add(
            "shape-invalid",
            f"the tensor {quoted(tensor.name)} has rows of {tensor.shape[0]:,} elements, and {kind.name} has "
            f"blocks of {kind.block}",
        )
    return -(-elements(tensor.shape) // kind.block) * kind.bytes


def _counted(size: int) -> str:
    return f"{size:,} bytes" if size in UINT64 else "more bytes than can be counted"


def _metadata(header: Header) -> dict[str, Any]:
    values = header.values
    architecture = values.get("general.architecture")
    context = values.get(f"{architecture}.context_length")
    name = values.get("general.name")
    counts = parameters((_type_name(tensor), tensor.shape) for tensor in header.tensors)
    return {
        "version": header.version,
        "byte_order": "little" if header.order == "<" else "big",
        "architecture": clean_text(architecture, 100) if isinstance(architecture, str) else None,
        "name": clean_text(name, 400) if isinstance(name, str) else None,
        "quantisation": _file_type(values.get("general.file_type")),
        "context_length": clean_number(context) if type(context) is int else None,
        "parameters": counts,
        "parameters_total": sum(counts.values()) if header.complete else None,
        "tensors": _listed(header.tensors),
        "tensors_total": clean_number(header.tensor_count),
        "key_values": clean_object(values, length=2000, text=20_000),
        "key_values_total": clean_number(header.key_count),
        "types": clean_object(header.types, length=2000, text=1000),
        "alignment": header.alignment,
        "data_offset": header.data_offset if header.complete else None,
    }


def _file_type(value: Any) -> str | None:
    return FILE_TYPES.get(value) if type(value) is int else None


def _type_name(tensor: TensorInfo) -> str:
    kind = TENSOR_TYPES.get(tensor.type)
    return kind.name if kind else f"type {tensor.type}"


def _listed(tensors: list[TensorInfo]) -> dict[str, Any]:
    listed: dict[str, Any] = {}
    left = _LISTED_BYTES
    for tensor in tensors[:_TENSORS_LISTED]:
        name = clean_text(tensor.name, 1000)
        shape = [clean_number(size) for size in tensor.shape]
        offset = clean_number(tensor.offset)
        left -= len(json.dumps([name, shape, offset])) + 40
        if left < 0:
            break
        listed[name] = {"dtype": _type_name(tensor), "shape": shape, "offset": offset}
    return listed
