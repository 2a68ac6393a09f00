"""Reads the header of a GGUF file: key-values and tensors.

The layout: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md; versions 1 to 3, in either byte order.
"""

import struct
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from hooks.formats.clean import quoted
from hooks.formats.complaints import Complaints
from hooks.formats.gguf_cursor import Cursor, EndOfFile, HeaderTooLarge
from hooks.formats.gguf_types import ARRAY, SCALARS, STRING, VALUE_NAMES
from hooks.formats.source import Source

MAGIC = b"GGUF"
DEFAULT_ALIGNMENT = 32
VERSIONS = (1, 2, 3)

# Far more than any file has. What llama.cpp takes of names and dimensions: GGML_MAX_NAME, GGML_MAX_DIMS.
_MOST_KEYS = 10_000
_MOST_TENSORS = 65_536
_MOST_NESTED_ARRAYS = 10_000
_DEEPEST_ARRAY = 4
_LONGEST_NAME = 63
_MOST_DIMENSIONS = 4

_KEY_BYTES = 1000
_TEXT_BYTES = 64 * 1024
_ALL_TEXT_BYTES = 4 * 1024**2
_ITEM_BYTES = 400
_ITEMS_KEPT = 16


class Corrupt(Exception):
    """Nothing behind this point can be understood; it is among the complaints already."""


class TensorInfo(NamedTuple):
    """One tensor; its type is a number that may be unknown, its offset counts from `Header.data_offset`."""

    name: str
    type: int
    shape: tuple[int, ...]
    offset: int


@dataclass(slots=True)
class Header:
    """What a header says, as far as it could be read; `complete` when all of it could.

    Attributes:
        order: of bytes, as in `struct`.
        values: by key; an array is `{"array": type, "length": n, "first": [...]}`. Texts can be cut.
        types: of the values, by key.
        data_offset: where in the file the tensors begin, once it is complete.
    """

    version: int
    order: str
    key_count: int = 0
    tensor_count: int = 0
    values: dict[str, Any] = field(default_factory=dict)
    types: dict[str, str] = field(default_factory=dict)
    tensors: list[TensorInfo] = field(default_factory=list)
    alignment: int = DEFAULT_ALIGNMENT
    data_offset: int = 0
    complete: bool = False


def read_header(source: Source, complaints: Complaints) -> Header | None:
    """The header; None when the file is not GGUF of a known version. What is wrong goes to `complaints`.

    Raises:
        SourceUnreadable, TooMuchRead: see there.
    """
    start = source.read(0, 8)
    if start[:4] != MAGIC[: len(start)] or not start:
        complaints.add("not-gguf", "this is no GGUF file: it does not begin with `GGUF`")
        return None
    if len(start) < 8:
        complaints.add("header-cut", f"the file is cut: it has {len(start)} bytes")
        return None
    order = "<" if int.from_bytes(start[4:8], "little") & 0xFFFF else ">"
    (version,) = struct.unpack(order + "I", start[4:])
    if version not in VERSIONS:
        complaints.warn("version-unknown", f"GGUF of version {version} is not known here")
        return None
    header = Header(version, order)
    cursor = Cursor(source, order, "I" if version == 1 else "Q", len(start))
    _read(header, cursor, complaints)
    return header


def _read(header: Header, cursor: Cursor, complaints: Complaints) -> None:
    reading = _Reading(header, cursor, complaints)
    try:
        reading.read()
    except Corrupt:
        return
    except EndOfFile:
        complaints.add("header-cut", f"the file is cut: it ends in its header, in {reading.place}")
    except HeaderTooLarge:
        complaints.warn(
            "header-not-read", f"the header is too large to be understood here, in {reading.place}"
        )


class _Reading:
    def __init__(self, header: Header, cursor: Cursor, complaints: Complaints) -> None:
        self.place = "its counts"
        self._header = header
        self._cursor = cursor
        self._complaints = complaints
        self._nested = 0
        self._text_left = _ALL_TEXT_BYTES

    def read(self) -> None:
        header, cursor = self._header, self._cursor
        header.tensor_count = cursor.length()
        header.key_count = cursor.length()
        # The least that a key-value and a tensor take: empty names, a type, a byte, no dimensions, an offset.
        least = header.key_count * 9 + header.tensor_count * 20
        if least > cursor.remaining:
            raise self._corrupt(
                "counts-lie",
                f"the file promises {header.key_count:,} key-values and {header.tensor_count:,} tensors, and "
                f"ends {cursor.remaining:,} bytes later",
            )
        if header.key_count > _MOST_KEYS or header.tensor_count > _MOST_TENSORS:
            raise HeaderTooLarge
        for index in range(header.key_count):
            self._key_value(index)
        self._alignment()
        self._tensors()
        header.data_offset = -(-cursor.position // header.alignment) * header.alignment
        header.complete = True

    def _corrupt(self, code: str, message: str) -> Corrupt:
        self._complaints.add(code, message)
        return Corrupt()

    def _text(self, limit: int) -> str:
        """The string here; less of it once much text was kept, for that is kept decoded."""
        text = self._cursor.string(min(limit, self._text_left))
        self._text_left -= len(text)
        return text

    def _key_value(self, index: int) -> None:
        self.place = f"the name of key-value {index + 1:,}"
        key = self._cursor.string(_KEY_BYTES)
        self.place = f"the value of {quoted(key)}"
        kind = self._cursor.number("I")
        value = self._value(kind)
        if key in self._header.values:
            self._complaints.add("key-twice", f"the key {quoted(key)} stands there twice")
            return
        self._header.values[key] = value
        self._header.types[key] = VALUE_NAMES[kind]

    def _value(self, kind: int) -> Any:
        if (scalar := SCALARS.get(kind)) is not None:
            return self._cursor.number(scalar.code)
        if kind == STRING:
            return self._text(_TEXT_BYTES)
        if kind == ARRAY:
            return self._array(1)
        raise self._corrupt("value-type-unknown", f"{self.place} is of the unknown type {kind}")

    def _array(self, depth: int) -> dict[str, Any]:
        cursor = self._cursor
        kind, length = cursor.number("I"), cursor.length()
        kept = min(length, _ITEMS_KEPT)
        first: list[Any]
        if (scalar := SCALARS.get(kind)) is not None:
            rest = (length - kept) * struct.calcsize(f"={scalar.code}")
            if rest > cursor.remaining:
                raise EndOfFile
            first = list(cursor.numbers(scalar.code, kept))
            cursor.skip(rest)
        elif kind == STRING:
            first = [self._text(_ITEM_BYTES) for _ in range(kept)]
            cursor.skip_strings(length - kept)
        elif kind == ARRAY and depth < _DEEPEST_ARRAY:
            first = self._arrays(length, depth)
        else:
            what = "arrays too deep in each other" if kind == ARRAY else f"values of the unknown type {kind}"
            raise self._corrupt("value-type-unknown", f"{self.place} has {what}")
        return {"array": VALUE_NAMES[kind], "length": length, "first": first}

    def _arrays(self, length: int, depth: int) -> list[Any]:
        self._nested += length
        if self._nested > _MOST_NESTED_ARRAYS:
            raise HeaderTooLarge
        first = []
        for index in range(length):
            array = self._array(depth + 1)
            if index < _ITEMS_KEPT:
                first.append(array)
        return first

    def _alignment(self) -> None:
        header = self._header
        value = header.values.get("general.alignment", DEFAULT_ALIGNMENT)
        kind = header.types.get("general.alignment", "UINT32")
        if kind == "UINT32" and value.bit_count() == 1:
            header.alignment = value
        else:
            self._complaints.add("alignment-invalid", "`general.alignment` is no UINT32, or no power of two")

    def _tensors(self) -> None:
        names: set[str] = set()
        for index in range(self._header.tensor_count):
            self.place = f"tensor {index + 1:,} of {self._header.tensor_count:,}"
            tensor = self._tensor()
            if tensor.name in names:
                self._complaints.add("tensor-twice", f"the tensor {quoted(tensor.name)} stands there twice")
            names.add(tensor.name)
            self._header.tensors.append(tensor)

    def _tensor(self) -> TensorInfo:
        cursor = self._cursor
        name = cursor.string(_KEY_BYTES)
        if len(name.encode()) > _LONGEST_NAME:
            self._complaints.warn(
                "name-too-long",
                f"the tensor {quoted(name)} has a name over the {_LONGEST_NAME} bytes of llama.cpp",
            )
        dimensions = cursor.number("I")
        if dimensions > _MOST_DIMENSIONS:
            raise self._corrupt(
                "dimensions", f"the tensor {quoted(name)} has {dimensions:,} dimensions, over 4"
            )
        shape = tuple(cursor.length() for _ in range(dimensions))
        return TensorInfo(name, cursor.number("I"), shape, cursor.number("Q"))
