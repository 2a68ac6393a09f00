"""Parts on a local disk: blocking, each call in a thread, raising plain `OSError` as `storage.local_files`.

    <root>/parts/<parts id>.<digest of the key>/<number>    the bytes of the part, then their MD5 in 16 bytes

A part is written elsewhere and arrives by rename, so its file never changes: whoever has opened it reads one
version, and one that comes too late finds no directory.
"""

import contextlib
import fcntl
import hashlib
import os
import re
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from uuid import uuid4

from storage.local_files import Draft, sync
from storage.parts import other_part, parts_not_found
from storage.protocol import StoredPart

_ETAG_BYTES = 16
_ID = re.compile(r"[0-9a-f]{32}")


class PartDraft(Draft):
    """A part on its way; `etag` is known once it is sealed. `size` is without the etag."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self._digest = hashlib.md5(usedforsecurity=False)
        self.etag = ""

    def write(self, pieces: Sequence[bytes]) -> None:
        for piece in pieces:
            self._digest.update(piece)
        super().write(pieces)

    def seal(self) -> None:
        """Makes the part durable."""
        super().write([self._digest.digest()])
        self.size -= _ETAG_BYTES
        self.etag = self._digest.hexdigest()
        self.finish()


class PartsDirectory:
    """The parts of one object-to-be below `parts`; dead ones are moved to `temp` first."""

    def __init__(self, parts: Path, temp: Path, key: str, parts_id: str) -> None:
        """Raises `PartsNotFound` for what no `begin` ever returned."""
        if not _ID.fullmatch(parts_id):
            raise parts_not_found()
        # The digest binds the parts to their key.
        digest = hashlib.sha256(key.encode()).hexdigest()[:16]
        self._path = parts / f"{parts_id}.{digest}"
        self._temp = temp

    def begin(self) -> None:
        self._path.mkdir()
        sync(self._path.parent)

    def publish(self, draft: PartDraft, number: int) -> StoredPart:
        """Takes a sealed draft in, durably, in place of an earlier part. Raises `PartsNotFound`."""
        try:
            draft.path.replace(self._path / str(number))
            sync(self._path)
        except FileNotFoundError as error:
            raise parts_not_found() from error
        return StoredPart(number, draft.size, draft.etag)

    def list(self) -> Sequence[StoredPart]:
        """By number. Raises `PartsNotFound`."""
        try:
            numbers = sorted(int(path.name) for path in self._path.iterdir())
            return [_describe(self._path / str(number), number) for number in numbers]
        except FileNotFoundError as error:
            raise parts_not_found() from error

    def reader(self, part: StoredPart) -> "PartReader":
        return PartReader(self._path / str(part.number), part)

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """For whoever completes these parts, alone among all processes. Raises `PartsNotFound`.

        Several may have put a whole together, each of other parts. What the first one published was perhaps
        verified by now, and must not be replaced by a second.
        """
        lock = self._temp / f".lock-{self._path.name}"
        with lock.open("ab") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            if not self._path.is_dir():
                raise parts_not_found()
            yield
            # Who waits for it finds no parts, and so does who makes a new one.
            lock.unlink(missing_ok=True)

    def drop(self) -> None:
        """Away at once for everybody, then deleted; missing is fine."""
        dead = self._temp / f".parts-{uuid4().hex}"
        with contextlib.suppress(FileNotFoundError):
            self._path.rename(dead)
            shutil.rmtree(dead)


class PartReader:
    """Copies one part, and no other that takes its place."""

    def __init__(self, path: Path, part: StoredPart) -> None:
        self._path = path
        self._part = part
        self._descriptor: int | None = None
        self.size = 0

    def open(self) -> None:
        """Sets `size`.

        Raises:
            PartsRejected: the part is missing, or has another etag.
            PartsNotFound: all of them are gone.
        """
        try:
            self._descriptor = _open(self._path)
        except FileNotFoundError as error:
            if not self._path.parent.is_dir():
                raise parts_not_found() from error
            raise other_part(self._part.number) from error
        self.size, etag = _measure(self._descriptor)
        if etag != self._part.etag:
            raise other_part(self._part.number)

    def copy(self, draft: Draft, offset: int, amount: int) -> None:
        """Appends up to `amount` bytes from `offset`."""
        assert self._descriptor is not None
        draft.append(self._descriptor, offset, min(amount, self.size - offset))

    def close(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


def new_parts_id() -> str:
    """Nobody can guess it."""
    return uuid4().hex


def _describe(path: Path, number: int) -> StoredPart:
    descriptor = _open(path)
    try:
        return StoredPart(number, *_measure(descriptor))
    finally:
        os.close(descriptor)


def _open(path: Path) -> int:
    return os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)


def _measure(descriptor: int) -> tuple[int, str]:
    """Size and etag."""
    size = os.fstat(descriptor).st_size - _ETAG_BYTES
    return size, os.pread(descriptor, _ETAG_BYTES, size).hex()
