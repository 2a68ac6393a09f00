"""Reading what is compressed, or lies in a zip archive, without giving a bomb any room."""

import io
import zlib
from typing import IO, Final

from hooks.formats.source import Source, SourceFile, TooMuchRead

_INPUT_BYTES: Final = 16 * 1024
_SKIP_BYTES: Final = 256 * 1024
# Says that a zlib or a gzip header comes.
_ANY_HEADER: Final = 32 + zlib.MAX_WBITS


class Inflating(io.RawIOBase):
    """What was packed by zlib or gzip. Seeks forwards only.

    Raises `TooMuchRead` after `max_bytes`, `zlib.error` where it cannot be unpacked.
    """

    def __init__(self, packed: IO[bytes], max_bytes: int) -> None:
        self._packed = packed
        self._left = max_bytes
        self._position = 0
        self._input = b""
        self._inflater = zlib.decompressobj(_ANY_HEADER)

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        if whence == io.SEEK_END:
            raise io.UnsupportedOperation("the end is not known")
        ahead = offset - (self._position if whence == io.SEEK_SET else 0)
        if ahead < 0:
            raise io.UnsupportedOperation("it only goes forwards")
        while ahead and (data := self.read(min(ahead, _SKIP_BYTES))):
            ahead -= len(data)
        return self._position

    def readinto(self, buffer: "memoryview[int] | bytearray") -> int:  # type: ignore[override]
        data = self._some(len(buffer))
        self._left -= len(data)
        if self._left < 0:
            raise TooMuchRead
        buffer[: len(data)] = data
        self._position += len(data)
        return len(data)

    def _some(self, length: int) -> bytes:
        while True:
            if self._inflater.eof:
                # gzip files may be several, one behind the other.
                self._input = self._inflater.unused_data
                self._inflater = zlib.decompressobj(_ANY_HEADER)
            self._input = self._input or self._packed.read(_INPUT_BYTES)
            if not self._input:
                return b""
            data = self._inflater.decompress(self._input, length)
            self._input = self._inflater.unconsumed_tail
            if data:
                return data


class Limited:
    """A source of which only `allowance` bytes more may be read; the allowance can be raised."""

    def __init__(self, source: Source, allowance: int) -> None:
        self._source = source
        self.allowance = allowance

    @property
    def size(self) -> int:
        return self._source.size

    def read(self, offset: int, length: int) -> bytes:
        """As `Source.read`."""
        length = max(0, min(length, self.size - offset))
        self.allowance -= length
        if self.allowance < 0:
            raise TooMuchRead
        return self._source.read(offset, length)


class Unbuffered(SourceFile):
    """A source as a file whose `read` asks before it takes memory for what it is told to read."""

    def read(self, size: int | None = -1) -> bytes:
        start = self.tell()
        data = self._source.read(start, self._source.size - start if size is None or size < 0 else size)
        self.seek(len(data), io.SEEK_CUR)
        return data
