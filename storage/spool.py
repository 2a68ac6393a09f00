"""Bytes that have to be whole before they go on, when slow senders may keep many of them waiting."""

import contextlib
import mmap
import tempfile
from collections.abc import Iterable, Iterator
from typing import IO, cast

# With every transfer that is possible at once this stays in memory.
HELD_BYTES = 8 * 1024**2


class Spool:
    """Few bytes are held in memory, many in a file without a name in the system's temporary directory.

    Blocking, each call in a thread; raises plain `OSError`. Close it, whatever happens.
    """

    def __init__(self) -> None:
        self.size = 0
        self._held = bytearray()
        self._file: IO[bytes] | None = None

    def write(self, pieces: Iterable[bytes]) -> None:
        for piece in pieces:
            self.size += len(piece)
            self._held += piece
        if self.size > HELD_BYTES:
            if self._file is None:
                self._file = tempfile.TemporaryFile()  # noqa: SIM115 - closed by `close`
            self._file.write(self._held)
            self._held = bytearray()

    @contextlib.contextmanager
    def whole(self) -> Iterator[bytes]:
        """All bytes, within the block; what can be given to sockets and digests."""
        if self._file is None:
            yield bytes(self._held)
            return
        self._file.flush()
        with (
            mmap.mmap(self._file.fileno(), 0, access=mmap.ACCESS_READ) as mapped,
            memoryview(mapped) as view,
        ):
            yield cast(bytes, view)

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
