"""Thrift's compact protocol, as far as reading takes, from bytes in memory.

https://github.com/apache/thrift/blob/master/doc/specs/thrift-compact-protocol.md
"""

from collections.abc import Iterator
from typing import Final

TRUE: Final = 1
FALSE: Final = 2
_BYTE: Final = 3
_I16: Final = 4
_I64: Final = 6
_DOUBLE: Final = 7
_BINARY: Final = 8
_LIST: Final = 9
_SET: Final = 10
_MAP: Final = 11
_STRUCT: Final = 12
_UUID: Final = 13
_MORE: Final = 0x80
_LONG_SIZE: Final = 15
_LONGEST_VARINT: Final = 10
_DEEPEST: Final = 32
_FIXED_SIZES: Final = {TRUE: 1, FALSE: 1, _BYTE: 1, _DOUBLE: 8, _UUID: 16}


class Malformed(Exception):
    """It is not Thrift, or not of the kind that is asked for."""


class Ended(Malformed):
    """The bytes end before the value does."""


class TooManyValues(Exception):
    """Reading all of it would take too long."""


class Thrift:
    """Reads values one after the other. Each method raises `Malformed`, and `TooManyValues` at some time."""

    def __init__(self, data: bytes, most_values: int) -> None:
        self._data = data
        self._position = 0
        self._values_left = most_values

    def fields(self) -> Iterator[tuple[int, int]]:
        """Number and type of each field of a struct. Whoever iterates reads or skips each before the next."""
        number = 0
        while True:
            header = self._byte()
            if header == 0:
                return
            self._values_left -= 1
            if self._values_left < 0:
                raise TooManyValues
            delta = header >> 4
            number = number + delta if delta else self._zigzag()
            yield number, header & 0x0F

    def integer(self, kind: int) -> int:
        """A number that fits into 64 bits."""
        if kind == _BYTE:
            value = self._byte()
            return value - 256 if value >= _MORE else value
        if not _I16 <= kind <= _I64:
            raise Malformed(f"byte {self._position:,}: a number is expected, not type {kind}")
        value = self._zigzag()
        if not -(2**63) <= value < 2**63:
            raise Malformed(f"byte {self._position:,}: a number of more than 64 bits")
        return value

    def text(self, kind: int, limit: int) -> str:
        """A text; of a long one the first `limit` bytes, as far as they are UTF-8."""
        if kind != _BINARY:
            raise Malformed(f"byte {self._position:,}: a text is expected, not type {kind}")
        length = self._varint()
        start = self._advance(length)
        return self._data[start : start + min(length, limit)].decode("utf-8", "replace")

    def items(self, kind: int, of: int = _STRUCT) -> int:
        """How many items follow, each of the type `of`: so many are there to be read or skipped."""
        if kind != _LIST:
            raise Malformed(f"byte {self._position:,}: a list is expected, not type {kind}")
        size, found = self._list_header()
        if size and found != of:
            raise Malformed(f"byte {self._position:,}: a list of type {found} where {of} is expected")
        self._spend(size)
        return size

    def structs(self, kind: int) -> Iterator[None]:
        """Once for each struct of a list, which whoever iterates then reads or skips."""
        for _ in range(self.items(kind)):
            yield

    def skip(self, kind: int, depth: int = _DEEPEST) -> None:
        """Pass over the value of a field."""
        if kind in {TRUE, FALSE}:
            return  # the type is the value
        self._skip(kind, depth)

    def _skip(self, kind: int, depth: int) -> None:
        if depth == 0:
            raise Malformed(f"byte {self._position:,}: nested too deeply")
        if kind in _FIXED_SIZES:
            self._advance(_FIXED_SIZES[kind])
        elif _I16 <= kind <= _I64:
            self._varint()
        elif kind == _BINARY:
            self._advance(self._varint())
        elif kind == _STRUCT:
            for _, inner in self.fields():
                self.skip(inner, depth - 1)
        elif kind in {_LIST, _SET}:
            self._skip_items(*self._list_header(), depth)
        elif kind == _MAP:
            self._skip_map(depth)
        else:
            raise Malformed(f"byte {self._position:,}: there is no type {kind}")

    def _skip_items(self, size: int, kind: int, depth: int) -> None:
        if kind in _FIXED_SIZES:
            self._advance(size * _FIXED_SIZES[kind])
            return
        self._spend(size)
        for _ in range(size):
            self._skip(kind, depth - 1)

    def _skip_map(self, depth: int) -> None:
        size = self._size(self._varint())
        if size == 0:
            return
        kinds = self._byte()
        self._spend(size)
        for _ in range(size):
            self._skip(kinds >> 4, depth - 1)
            self._skip(kinds & 0x0F, depth - 1)

    def _list_header(self) -> tuple[int, int]:
        header = self._byte()
        size = header >> 4
        return self._size(self._varint() if size == _LONG_SIZE else size), header & 0x0F

    def _size(self, size: int) -> int:
        left = len(self._data) - self._position
        if size > left:  # each takes a byte at least
            raise Ended(f"byte {self._position:,}: {size:,} values where {left:,} bytes are left")
        return size

    def _spend(self, values: int) -> None:
        self._values_left -= values
        if self._values_left < 0:
            raise TooManyValues

    def _byte(self) -> int:
        return self._data[self._advance(1)]

    def _advance(self, length: int) -> int:
        start = self._position
        if length > len(self._data) - start:
            left = len(self._data) - start
            raise Ended(f"byte {start:,}: a value of {length:,} bytes where {left:,} are left")
        self._position = start + length
        return start

    def _varint(self) -> int:
        value = shift = 0
        for byte in self._data[self._position : self._position + _LONGEST_VARINT]:
            self._position += 1
            value |= (byte & 0x7F) << shift
            if byte < _MORE:
                return value
            shift += 7
        if shift < 7 * _LONGEST_VARINT:
            raise Ended(f"byte {self._position:,}: a number that does not end")
        raise Malformed(f"byte {self._position:,}: a number of more than 64 bits")

    def _zigzag(self) -> int:
        value = self._varint()
        return (value >> 1) ^ -(value & 1)
