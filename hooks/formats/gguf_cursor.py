"""Walks through the header of a GGUF file, with a window of it in memory."""

import struct
from typing import Any

from hooks.formats.source import Source, SourceUnreadable

# A vocabulary of 260,000 tokens with its merges takes 16 MB.
MAX_HEADER_BYTES = 48 * 1024**2
_FIRST_WINDOW = 128 * 1024
_LARGEST_WINDOW = 2 * 1024**2


class EndOfFile(Exception):
    """The header goes on where the file does not."""


class HeaderTooLarge(Exception):
    """More than anybody's header needs, and than is read here."""


class Cursor:
    """A position in a file from which numbers and strings are read.

    Every method raises `EndOfFile`, `HeaderTooLarge`, and what sources raise.
    """

    def __init__(self, source: Source, order: str, length_code: str, position: int) -> None:
        """`order` ("<" or ">") and `length_code` ("I" or "Q") are as in `struct`."""
        self._source = source
        self._size = source.size
        self._order = order
        self._length = struct.Struct(order + length_code)
        self._window = b""
        self._start = position
        self._at = 0
        self._next_window = _FIRST_WINDOW
        self._bytes_read = 0

    @property
    def position(self) -> int:
        """In the file, in bytes."""
        return self._start + self._at

    @property
    def remaining(self) -> int:
        """How many bytes the file has from here on; negative behind its end."""
        return self._size - self.position

    def number(self, code: str) -> Any:
        """The number here; `code` is that of `struct`."""
        return self.numbers(code, 1)[0]

    def numbers(self, code: str, count: int) -> tuple[Any, ...]:
        layout = struct.Struct(f"{self._order}{count}{code}")
        return layout.unpack(self._take(layout.size))

    def length(self) -> int:
        """A count or a size: of 32 bits in version 1, of 64 since."""
        value: int = self._length.unpack(self._take(self._length.size))[0]
        return value

    def string(self, limit: int) -> str:
        """The string here, or the first `limit` bytes of it. What is not UTF-8 in it becomes U+FFFD."""
        length = self.length()
        if length > self.remaining:
            raise EndOfFile
        text = self._take(min(length, limit)).decode(errors="replace")
        self.skip(max(0, length - limit))
        return text

    def skip(self, length: int) -> None:
        self._at += length
        if self.remaining < 0:
            raise EndOfFile

    def skip_strings(self, count: int) -> None:
        """Goes on behind so many strings."""
        unpack, size = self._length.unpack_from, self._length.size
        if count * size > self.remaining:
            raise EndOfFile
        while count:
            self._fill(size)
            window, at = self._window, self._at
            last = len(window) - size
            while count and at <= last:
                at += size + unpack(window, at)[0]
                count -= 1
            self.skip(at - self._at)

    def _take(self, length: int) -> bytes:
        self._fill(length)
        start = self._at
        self._at += length
        return self._window[start : self._at]

    def _fill(self, length: int) -> None:
        """Has `length` bytes from here on in the window."""
        if len(self._window) - self._at >= length:
            return
        if length > self.remaining:
            raise EndOfFile
        wanted = min(max(length, self._next_window), self.remaining)
        self._bytes_read += wanted
        if self._bytes_read > MAX_HEADER_BYTES:
            raise HeaderTooLarge
        self._start, self._at = self.position, 0
        self._window = self._source.read(self._start, wanted)
        if len(self._window) != wanted:
            raise SourceUnreadable(f"{len(self._window)} bytes at {self._start}, not {wanted}")
        self._next_window = min(2 * self._next_window, _LARGEST_WINDOW)
