"""Which bytes of an object a GET asks for (RFC 9110, section 14)."""

import re
from dataclasses import dataclass

from core.errors import RangeNotSatisfiable

# A position longer than this lies behind the end of everything.
_SINGLE = re.compile(r"bytes=\s*([0-9]{0,30})-([0-9]{0,30})\s*", re.ASCII)


@dataclass(frozen=True, slots=True)
class Range:
    """`length` bytes from `offset`, of `size` in all; `partial` if the client asked for a part."""

    offset: int
    length: int
    size: int
    partial: bool = False

    @property
    def content_range(self) -> str:
        return f"bytes {self.offset}-{self.offset + self.length - 1}/{self.size}"


def select_range(asked: str | None, if_range: str | None, etag: str, size: int) -> Range:
    """What to send for the headers `Range` and `If-Range` of a GET.

    Several ranges, other units and broken syntax are answered with the whole, as a server may; so is a
    condition that does not hold. `etag` is ours, with its quotes.

    Raises:
        RangeNotSatisfiable: nothing of the range exists; carries the `size`.
    """
    whole = Range(0, size, size)
    if asked is None or (if_range is not None and if_range.strip() != etag):
        return whole
    found = _SINGLE.fullmatch(asked)
    if found is None or found.groups() == ("", ""):
        return whole
    first, last = found.groups()
    if not first:
        length = min(int(last), size)
        offset = size - length
    elif last and int(last) < int(first):
        return whole
    else:
        offset = int(first)
        length = min(int(last) + 1 if last else size, size) - offset
    if length <= 0:
        raise RangeNotSatisfiable(f"the object has {size} bytes", size=size)
    return Range(offset, length, size, partial=True)
