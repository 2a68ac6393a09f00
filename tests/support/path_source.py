"""A file on disk, as parsers read it."""

from pathlib import Path

from hooks.formats.source import SourceUnreadable, TooMuchRead


class PathSource:
    """A file on this machine; `allowance` in bytes. `bytes_read` says how much was."""

    def __init__(self, path: Path, allowance: int) -> None:
        self._path = path
        self._allowance = allowance
        self.bytes_read = 0

    @property
    def size(self) -> int:
        return self._path.stat().st_size

    def read(self, offset: int, length: int) -> bytes:
        length = max(0, min(length, self.size - offset))
        self.bytes_read += length
        if self.bytes_read > self._allowance:
            raise TooMuchRead
        try:
            with self._path.open("rb") as file:
                file.seek(offset)
                return file.read(length)
        except OSError as error:
            raise SourceUnreadable(str(error)) from error
