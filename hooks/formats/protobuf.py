"""The wire format of protocol buffers, read where it lies: tags and lengths, and only the payloads asked for.

https://protobuf.dev/programming-guides/encoding/
"""

from collections.abc import Iterator
from typing import Final, NamedTuple

from hooks.formats.source import Source

_VARINT: Final = 0
_FIXED64: Final = 1
_LENGTH: Final = 2
_FIXED32: Final = 5
_LONGEST_VARINT: Final = 10
_TAG_ROOM: Final = 2 * _LONGEST_VARINT
# After a jump over a payload little is wanted; where reading goes on, ever more.
_FIRST_BLOCK: Final = 2048
_LARGEST_BLOCK: Final = 256 * 1024


class Malformed(Exception):
    """It is not what it says; the message tells where and why."""


class TooManyFields(Exception):
    """Reading all of it would take too long."""


class Field(NamedTuple):
    """One field of a message.

    Attributes:
        number: of the field; value: of a varint, without sign, 0 for others.
        start, end: where the payload lies in the file, for fields that have a length or are fixed.
    """

    number: int
    value: int
    start: int
    end: int

    @property
    def is_varint(self) -> bool:
        return self.start < 0

    @property
    def signed(self) -> int:
        """The value as an int64."""
        return self.value - 2**64 if self.value >= 2**63 else self.value


class Wire:
    """Reads messages of one file.

    Args:
        source: the file; most_fields: how many fields are read before `TooManyFields`; most_blocks: how often
            the source is read before that.
    """

    def __init__(self, source: Source, most_fields: int, most_blocks: int) -> None:
        self._source = source
        self._size = source.size
        self._fields_left = most_fields
        self._blocks_left = most_blocks
        self._block = b""
        self._block_start = 0
        self._block_length = _FIRST_BLOCK

    def fields(self, start: int, end: int) -> Iterator[Field]:
        """The fields of the message between two places of the file.

        Raises:
            Malformed: see there. TooManyFields: see there.
            SourceUnreadable, TooMuchRead: by the source.
        """
        position = start
        while position < end:
            self._fields_left -= 1
            if self._fields_left < 0:
                raise TooManyFields
            tag, position = self.varint(position, end)
            number, kind = tag >> 3, tag & 7
            if not 0 < number < 2**29:
                raise Malformed(f"byte {position:,}: no field has the number {number:,}")
            if kind == _VARINT:
                value, position = self.varint(position, end)
                yield Field(number, value, -1, -1)
                continue
            if kind == _LENGTH:
                length, position = self.varint(position, end)
            elif kind in {_FIXED32, _FIXED64}:
                length = 4 if kind == _FIXED32 else 8
            else:
                raise Malformed(f"byte {position:,}: there is no wire type {kind}")
            if length > end - position:
                raise Malformed(
                    f"byte {position:,}: a field of {length:,} bytes where {end - position:,} are left"
                )
            yield Field(number, 0, position, position + length)
            position += length

    def varint(self, position: int, end: int) -> tuple[int, int]:
        """The number at `position`, of at most 64 bits, and where it ends, which is not past `end`."""
        index = position - self._block_start
        if index < 0 or index + _LONGEST_VARINT > len(self._block):
            index = self._load(position)
        value = shift = 0
        for byte in self._block[index : index + min(_LONGEST_VARINT, end - position)]:
            position += 1
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value & 0xFFFF_FFFF_FFFF_FFFF, position
            shift += 7
        if shift >= 7 * _LONGEST_VARINT:
            raise Malformed(f"byte {position:,}: a number of more than 64 bits")
        raise Malformed(f"byte {position:,}: a number that does not end")

    def data(self, field: Field, limit: int) -> bytes:
        """The first bytes of a field with a length: `limit`, which is at most 2,048."""
        if field.is_varint:
            raise Malformed(f"field {field.number} is a number and should be a text")
        length = min(limit, field.end - field.start, _FIRST_BLOCK)
        index = field.start - self._block_start
        if index < 0 or index + length > len(self._block):
            index = self._load(field.start)
        return self._block[index : index + length]

    def numbers(self, field: Field) -> Iterator[int]:
        """Of a repeated int64 field: packed into one payload, or one of many fields."""
        if field.is_varint:
            yield field.signed
            return
        position = field.start
        while position < field.end:
            self._fields_left -= 1
            if self._fields_left < 0:
                raise TooManyFields
            value, position = self.varint(position, field.end)
            yield value - 2**64 if value >= 2**63 else value

    def _load(self, position: int) -> int:
        """Bring what lies at `position` into the block; its index there."""
        self._blocks_left -= 1
        if self._blocks_left < 0:
            raise TooManyFields
        near_end = self._block_start + len(self._block) - _TAG_ROOM <= position
        goes_on = near_end and position <= self._block_start + len(self._block)
        self._block_length = min(self._block_length * 2, _LARGEST_BLOCK) if goes_on else _FIRST_BLOCK
        self._block = self._source.read(position, self._block_length)
        self._block_start = position
        return 0
