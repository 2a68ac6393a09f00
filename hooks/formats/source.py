"""What parsers read from: bytes at an offset, wherever they lie, and never more of them than allowed."""

import io
from typing import Protocol


class SourceUnreadable(Exception):
    """The bytes are not to be had just now: no fault of the file, so nothing may be concluded from it."""


class TooMuchRead(Exception):
    """A parser wants more bytes than it is allowed; what makes it so is a fault of the file."""


class Source(Protocol):
    """A file's content. Blocking: parsers run in threads."""

    @property
    def size(self) -> int:
        """In bytes."""
        ...

    def read(self, offset: int, length: int) -> bytes:
        """The bytes from `offset` on: `length` of them, or fewer at the end of the file.

        Raises:
            SourceUnreadable: see there.
            TooMuchRead: all reads together are over the allowance.
        """
        ...


class BytesSource:
    """Bytes in memory. A small blob, for one."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    @property
    def size(self) -> int:
        return len(self._data)

    def read(self, offset: int, length: int) -> bytes:
        return self._data[offset : offset + length]


class SourceFile(io.RawIOBase):
    """A source as a file, for libraries that want one (`zipfile`). Wrap it in `io.BufferedReader`."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._source.size}[whence]
        if start + offset < 0:
            raise OSError("a position before the start")
        self._position = start + offset
        return self._position

    def tell(self) -> int:
        return self._position

    def readinto(self, buffer: "memoryview[int] | bytearray") -> int:  # type: ignore[override]
        data = self._source.read(self._position, len(buffer))
        buffer[: len(data)] = data
        self._position += len(data)
        return len(data)
