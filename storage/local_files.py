"""Blocking file operations of the local store; each runs in a thread.

They raise plain `OSError`, which the store translates in one place.
"""

import contextlib
import errno
import os
import shutil
import stat
import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from io import FileIO
from pathlib import Path
from uuid import uuid4

from storage.local_writes import WRITEBACK_BYTES, begin_writeback, write_all
from storage.protocol import CHUNK_BYTES, ObjectInfo, ObjectNotFound

# A delete prunes empty directories; a put that loses one between mkdir and rename makes it again.
_PUBLISH_ATTEMPTS = 10


class Draft:
    """A file that nobody looks at yet, in `directory`, on its way to a final name."""

    def __init__(self, directory: Path) -> None:
        self.path = directory / f".draft-{uuid4().hex}"
        self.size = 0
        self._file: FileIO | None = None
        self._begun = 0  # so much is on its way to the disk

    def create(self) -> None:
        # Objects are immutable and hard-linked into caches: no write bit from the start.
        descriptor = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o444)
        self._file = FileIO(descriptor, "wb")

    def write(self, pieces: Sequence[bytes]) -> None:
        assert self._file is not None
        self._grow(write_all(self._file.fileno(), pieces))

    def link(self, source: Path) -> None:
        """Becomes another name of `source`, or a copy of it where the file system has no such link."""
        # Before linking: a sweeper must not take the age of the source for the age of the draft, and
        # `modified` says when the object was stored.
        with contextlib.suppress(PermissionError):
            os.utime(source)
        try:
            self.path.hardlink_to(source.resolve())
        except OSError:
            self.copy(source)

    def copy(self, source: Path) -> None:
        self.create()
        with source.open("rb") as readable:
            self.append(readable.fileno(), 0, os.fstat(readable.fileno()).st_size)

    def append(self, descriptor: int, offset: int, count: int) -> None:
        """Copies exactly `count` bytes from there to the end, inside the file system where it can."""
        assert self._file is not None
        target = self._file.fileno()
        end = offset + count
        while offset < end:
            copied = _copy_range(descriptor, target, offset, end - offset)
            if not copied:
                raise OSError(errno.EIO, "a file ended too early")
            offset += copied
            self._grow(copied)

    def finish(self) -> None:
        """Makes the bytes durable; only the name is missing then."""
        if self._file is None:
            sync(self.path)
            return
        with self._file as file:
            os.fsync(file.fileno())

    def discard(self) -> None:
        if self._file is not None:
            with contextlib.suppress(OSError):  # what matters is the unlink
                self._file.close()
        self.path.unlink(missing_ok=True)

    def _grow(self, count: int) -> None:
        assert self._file is not None
        self.size += count
        if (waiting := self.size - self._begun) >= WRITEBACK_BYTES:
            begin_writeback(self._file.fileno(), self._begun, waiting)
            self._begun += waiting


class Reader:
    """Reads a range of an object chunk by chunk."""

    def __init__(self, path: Path, offset: int, length: int | None) -> None:
        self._path = path
        self._position = offset
        self._left = length
        self._descriptor: int | None = None

    def open(self) -> None:
        """Raises `ObjectNotFound`."""
        self._descriptor = _open_object(self._path)

    def read(self) -> bytes:
        """The next chunk; empty at the end."""
        if self._descriptor is None:
            raise ValueError("the stream is closed")
        amount = CHUNK_BYTES if self._left is None else min(CHUNK_BYTES, self._left)
        chunk = os.pread(self._descriptor, amount, self._position)
        self._position += len(chunk)
        if self._left is not None:
            self._left -= len(chunk)
        return chunk

    def close(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


def publish(draft: Path, target: Path, root: Path) -> None:
    """Gives a finished draft its final name below `root`, durably."""
    for attempt in range(1, _PUBLISH_ATTEMPTS + 1):
        last = attempt == _PUBLISH_ATTEMPTS
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            draft.replace(target)
            break
        except (FileExistsError, IsADirectoryError, NotADirectoryError) as error:
            if last:
                raise ValueError("a key cannot be an object and a directory of others") from error
        except FileNotFoundError:
            if last:
                raise
    # rename() between two links to one file does nothing and leaves both.
    draft.unlink(missing_ok=True)
    # Up to the root, not only the directories made here: another process may have made one of them a
    # moment ago and not synced its name yet.
    for directory in (target.parent, *target.parent.parents):
        with contextlib.suppress(FileNotFoundError):  # deleted meanwhile, and pruned
            sync(directory)
        if directory == root:
            break


def fetch(source: Path, target: Path) -> None:
    """Makes `target` a link to an object, or a durable copy; raises `ObjectNotFound`."""
    os.close(_open_object(source))
    try:
        target.hardlink_to(source)
        return
    except OSError:
        draft = Draft(target.parent)
    try:
        draft.copy(source)
        draft.finish()
        draft.path.replace(target)
    finally:
        draft.discard()


def remove(path: Path, data: Path) -> None:
    """Removes an object, if it is there, and the directories below `data` that this leaves empty."""
    with contextlib.suppress(FileNotFoundError, NotADirectoryError, IsADirectoryError):
        path.unlink()
    for directory in path.parents:
        if directory == data:
            break
        try:
            directory.rmdir()
        except FileNotFoundError:
            continue
        except OSError:  # still in use: so are all above it
            break


def describe(path: Path, key: str) -> ObjectInfo:
    """Raises `ObjectNotFound`."""
    try:
        status = path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        status = None
    if status is None or not stat.S_ISREG(status.st_mode):
        raise ObjectNotFound(f"there is no object {key}")
    return ObjectInfo(key, status.st_size, datetime.fromtimestamp(status.st_mtime, UTC))


def walk(directory: Path, prefix: str) -> Iterator[ObjectInfo]:
    """The objects below `directory` in key order, holding one listing per level of depth."""
    try:
        with os.scandir(directory) as entries:
            # With its slash a directory sorts where its keys belong: "a-b" comes before "a/b".
            names = sorted(
                entry.name + ("/" if entry.is_dir(follow_symlinks=False) else "") for entry in entries
            )
    except (FileNotFoundError, NotADirectoryError):
        return
    for name in names:
        if name.endswith("/"):
            yield from walk(directory / name, prefix + name)
        else:
            with contextlib.suppress(ObjectNotFound):  # deleted since it was listed
                yield describe(directory / name, prefix + name)


def sweep(directory: Path, older_than_seconds: float) -> int:
    """Removes the drafts, or sets of parts, that nobody has written to for so long; returns how many."""
    if not directory.exists():
        return 0
    limit = time.time() - older_than_seconds
    removed = 0
    for left in directory.iterdir():
        with contextlib.suppress(FileNotFoundError):  # published or swept by somebody else
            status = left.lstat()
            if status.st_mtime > limit:
                continue
            if stat.S_ISDIR(status.st_mode):
                shutil.rmtree(left)
            else:
                left.unlink()
            removed += 1
    return removed


def _copy_range(source: int, target: int, offset: int, count: int) -> int:
    """Copies up to `count` bytes; 0 at the end of the source."""
    with contextlib.suppress(OSError):
        # Some file systems cannot, and some older kernels answer 0 where there is more.
        if copied := os.copy_file_range(source, target, count, offset_src=offset):
            return copied
    return write_all(target, [os.pread(source, min(count, CHUNK_BYTES), offset)])


def _open_object(path: Path) -> int:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise ObjectNotFound("there is no such object") from error
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise ObjectNotFound("there is no such object")
    return descriptor


def sync(path: Path) -> None:
    """Makes a file, or the names in a directory, durable."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
