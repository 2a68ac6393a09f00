"""The header of a safetensors file: eight bytes of its length, JSON, and tensors behind it without a gap.

The layout: https://huggingface.co/docs/safetensors (Format). Invalid is what the reference implementation
refuses, and a key that stands twice, of which each reader believes another one.
"""

import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeGuard

from hooks.formats.clean import BadJson, load_json, quoted
from hooks.formats.complaints import Complaints
from hooks.formats.shapes import UINT64, elements
from hooks.formats.source import Source, SourceUnreadable

# The format's own limit for its header, and ours: a model of 100,000 tensors needs 10 MB.
FORMAT_HEADER_BYTES = 100_000_000
MAX_HEADER_BYTES = 16 * 1024**2

# Bits of one element.
DTYPES = {
    "BOOL": 8,
    "F4": 4,
    "F6_E2M3": 6,
    "F6_E3M2": 6,
    "U8": 8,
    "I8": 8,
    "F8_E5M2": 8,
    "F8_E4M3": 8,
    "F8_E5M2FNUZ": 8,
    "F8_E4M3FNUZ": 8,
    "F8_E8M0": 8,
    "I16": 16,
    "U16": 16,
    "F16": 16,
    "BF16": 16,
    "I32": 32,
    "U32": 32,
    "F32": 32,
    "C64": 64,
    "F64": 64,
    "I64": 64,
    "U64": 64,
}

# Far beyond what any library computes with.
MAX_DIMENSIONS = 64

_LENGTH = struct.Struct("<Q")


class Tensor(NamedTuple):
    """One tensor as the header describes it. `begin` and `end` count from the header's end, in bytes."""

    name: str
    dtype: str
    shape: Sequence[int]
    begin: int
    end: int


@dataclass(frozen=True, slots=True)
class Header:
    """What a header says.

    Attributes:
        tensors: those with a name, a dtype that is known, a shape and offsets, in the order of their bytes.
        metadata: of `__metadata__`, as it is in the file.
        header_bytes: of the JSON; data_offset: where in the file the tensors begin.
    """

    tensors: tuple[Tensor, ...]
    metadata: dict[str, str]
    header_bytes: int

    @property
    def data_offset(self) -> int:
        return _LENGTH.size + self.header_bytes


def read_header(source: Source, complaints: Complaints) -> Header | None:
    """The header with all its tensors; None when it cannot be read. What is wrong goes to `complaints`.

    Raises:
        SourceUnreadable, TooMuchRead: see there.
    """
    value = _read_json(source, complaints)
    if value is None:
        return None
    data, header = value
    metadata = _free_metadata(header.pop("__metadata__", None), complaints)
    entries = [_tensor(name, entry, complaints) for name, entry in header.items()]
    tensors = sorted((entry for entry in entries if entry), key=lambda tensor: (tensor.begin, tensor.end))
    end = _check_layout(tensors, complaints)
    if "tensor-invalid" not in complaints:
        _check_size(end, source.size - _LENGTH.size - len(data), complaints)
    known = tuple(tensor for tensor in tensors if tensor.dtype in DTYPES)
    return Header(known, metadata, len(data))


def _read_json(source: Source, complaints: Complaints) -> tuple[bytes, dict[str, Any]] | None:
    size = source.size
    if size < _LENGTH.size:
        complaints.add("header-cut", f"the file is cut: it has {size} bytes, and the first 8 are a length")
        return None
    (length,) = _LENGTH.unpack(_read(source, 0, _LENGTH.size))
    if length > FORMAT_HEADER_BYTES:
        complaints.add(
            "header-too-large",
            f"this is no safetensors file: its first 8 bytes would make a header of {length:,} bytes",
        )
    elif _LENGTH.size + length > size:
        complaints.add(
            "header-cut", f"the header is cut: it has {length:,} bytes, and the file ends after {size - 8:,}"
        )
    elif length > MAX_HEADER_BYTES:
        complaints.warn(
            "header-not-read",
            f"the header is too large to be understood here: {length:,} bytes, over {MAX_HEADER_BYTES:,}",
        )
    else:
        return _decode(_read(source, _LENGTH.size, length), complaints)
    return None


def _decode(data: bytes, complaints: Complaints) -> tuple[bytes, dict[str, Any]] | None:
    try:
        value = load_json(data)
    except BadJson as error:
        if error.too_large:
            complaints.warn(
                "header-not-read", f"the header is too large to be understood here: {error.message}"
            )
        else:
            place = f" (byte {8 + error.column:,})" if error.column and error.line == 1 else ""
            complaints.add("header-invalid", f"the header cannot be read: {error.message}{place}")
        return None
    if not isinstance(value, dict):
        complaints.add("header-invalid", "the header is JSON, but no object")
        return None
    return data, value


def _read(source: Source, offset: int, length: int) -> bytes:
    data = source.read(offset, length)
    if len(data) != length:
        raise SourceUnreadable(f"{len(data)} bytes at {offset} of a file of {source.size}, not {length}")
    return data


def _free_metadata(value: Any, complaints: Complaints) -> dict[str, str]:
    if value is None:
        return {}
    if not isinstance(value, dict):
        complaints.add("metadata-invalid", "`__metadata__` is no object")
        return {}
    for key, text in value.items():
        if not isinstance(text, str):
            complaints.add("metadata-invalid", f"`__metadata__` has {quoted(key)}, whose value is no string")
    return {key: text for key, text in value.items() if isinstance(text, str)}


def _tensor(name: str, entry: Any, complaints: Complaints) -> Tensor | None:
    """The tensor where it has offsets at all; its dtype may be unknown."""
    if not isinstance(entry, dict):
        complaints.add("tensor-invalid", f"tensor {quoted(name)} is no object")
        return None
    dtype, shape, offsets = entry.get("dtype"), entry.get("shape"), entry.get("data_offsets")
    if not isinstance(dtype, str):
        complaints.add("tensor-invalid", f"tensor {quoted(name)} has no dtype")
    elif not _are_sizes(shape):
        complaints.add("tensor-invalid", f"tensor {quoted(name)} has no shape of whole numbers from 0 on")
    elif not _are_sizes(offsets) or len(offsets) != 2 or offsets[0] > offsets[1]:
        complaints.add("tensor-invalid", f"tensor {quoted(name)} has no `data_offsets` of a begin and an end")
    else:
        tensor = Tensor(name, dtype, shape, *offsets)
        _check_tensor(tensor, complaints)
        return tensor
    return None


def _are_sizes(value: Any) -> TypeGuard[list[int]]:
    return isinstance(value, list) and all(type(number) is int and number in UINT64 for number in value)


def _check_tensor(tensor: Tensor, complaints: Complaints) -> None:
    bits = DTYPES.get(tensor.dtype)
    if bits is None:
        complaints.add(
            "dtype-unknown", f"tensor {quoted(tensor.name)} has the unknown dtype {quoted(tensor.dtype)}"
        )
        return
    needed, rest = divmod(elements(tensor.shape) * bits, 8)
    if rest:
        complaints.add("size-mismatch", f"tensor {quoted(tensor.name)} ends within a byte")
    elif needed != tensor.end - tensor.begin or needed * 8 not in UINT64:
        complaints.add(
            "size-mismatch",
            f"tensor {quoted(tensor.name)} has {tensor.end - tensor.begin:,} bytes, and its shape and dtype "
            f"need {_shown(needed)}",
        )
    if len(tensor.shape) > MAX_DIMENSIONS:
        complaints.warn(
            "dimensions",
            f"tensor {quoted(tensor.name)} has {len(tensor.shape):,} dimensions: it is not listed",
        )


def _shown(number: int) -> str:
    return f"{number:,}" if number * 8 in UINT64 else "more than can be counted"


def _check_layout(tensors: Iterable[Tensor], complaints: Complaints) -> int:
    """That each begins where the one before ends. Returns the end of all, in bytes from the header's end."""
    end = 0
    before = ""
    for tensor in tensors:
        if tensor.begin < end:
            complaints.add("offsets-overlap", f"tensor {quoted(tensor.name)} begins within {quoted(before)}")
        elif tensor.begin > end and "tensor-invalid" not in complaints:
            complaints.add(
                "offsets-hole",
                f"{tensor.begin - end:,} bytes before tensor {quoted(tensor.name)} belong to none",
            )
        if tensor.end >= end:
            end, before = tensor.end, tensor.name
    return end


def _check_size(needed: int, there: int, complaints: Complaints) -> None:
    if there < needed:
        complaints.add(
            "data-cut", f"the file is cut: its tensors need {needed:,} bytes, and {there:,} are there"
        )
    elif there > needed:
        complaints.add(
            "data-trailing", f"the last {there - needed:,} of {there:,} bytes of data belong to no tensor"
        )
