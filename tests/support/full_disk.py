"""A disk that is full: a small tmpfs where mounting is allowed, otherwise a limit on the size of files."""

import resource
import subprocess
from pathlib import Path
from typing import Protocol

_MIB = 1024**2


class FullDisk(Protocol):
    """`folder` takes `mebibytes` from `fill` on, until `make_room`."""

    folder: Path

    def fill(self, pid: int, mebibytes: int) -> None: ...

    def make_room(self, pid: int) -> None: ...

    def close(self) -> None: ...


class SmallDisk:
    """A file system of its own. `pid` does not matter."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()
        _mount("-t", "tmpfs", "-o", "size=1g,mode=700", "tmpfs", folder)

    def fill(self, pid: int, mebibytes: int) -> None:
        self._resize(mebibytes)

    def make_room(self, pid: int) -> None:
        self._resize(1024)

    def close(self) -> None:
        subprocess.run(["umount", self.folder], check=True)

    def _resize(self, mebibytes: int) -> None:
        _mount("-o", f"remount,size={mebibytes}m", self.folder)


class ShortFiles:
    """No file of the process may grow beyond the limit, which the system words in another way."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def fill(self, pid: int, mebibytes: int) -> None:
        self._limit(pid, mebibytes * _MIB)

    def make_room(self, pid: int) -> None:
        self._limit(pid, resource.RLIM_INFINITY)

    def close(self) -> None:
        """There is nothing to take back."""

    def _limit(self, pid: int, size: int) -> None:
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))


def full_disk(folder: Path) -> FullDisk:
    """The best that this machine allows, for a folder that does not exist yet. Close it in the end."""
    try:
        return SmallDisk(folder)
    except (subprocess.CalledProcessError, FileNotFoundError):
        return ShortFiles(folder)


def _mount(*arguments: str | Path) -> None:
    subprocess.run(["mount", *arguments], check=True, capture_output=True)
