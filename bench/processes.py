"""What a tree of processes uses: memory from /proc, processor time from a control group or from /proc.

A control group counts nanoseconds and forgets nobody. Where none can be made, /proc has hundredths of a
second, and not those of children whose parent ignores their end.
"""

import contextlib
import os
import threading
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from types import TracebackType
from typing import Self

_TICKS = os.sysconf("SC_CLK_TCK")
_SAMPLE_SECONDS = 0.05
_numbers = count()


class Group:
    """A control group of its own for one server (cgroups(7), version 1 or 2)."""

    def __init__(self) -> None:
        """Raises `OSError` where this user may make none."""
        name = f"modelyard-bench-{os.getpid()}-{next(_numbers)}"
        old = Path("/sys/fs/cgroup/cpuacct")
        self._path = (old if old.is_dir() else Path("/sys/fs/cgroup")) / name
        self._path.mkdir()
        self.members = self._path / "cgroup.procs"

    def cpu_seconds(self) -> float:
        """User and system time of everybody who is or was in it."""
        old = self._path / "cpuacct.usage"
        if old.exists():
            return int(old.read_text()) / 1e9
        return int((self._path / "cpu.stat").read_text().split()[1]) / 1e6

    def remove(self) -> None:
        """Once nobody is in it any more."""
        with contextlib.suppress(OSError):
            self._path.rmdir()


def tree(root: int) -> list[int]:
    """The process and everything below it that lives now."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError, IndexError):
                children.setdefault(int(_fields(int(entry.name))[1]), []).append(int(entry.name))
    found, queue = [], [root]
    while queue:
        pid = queue.pop()
        found.append(pid)
        queue += children.get(pid, [])
    return found


def cpu_seconds(root: int) -> float:
    """User and system time of the tree, with what its dead and reaped children used."""
    total = 0
    for pid in tree(root):
        with contextlib.suppress(OSError, IndexError):
            total += sum(int(value) for value in _fields(pid)[11:15])
    return total / _TICKS


def memory_bytes(root: int) -> int:
    """Proportional set size of the tree: shared pages count once."""
    total = 0
    for pid in tree(root):
        with contextlib.suppress(OSError):
            for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
                if line.startswith("Pss:"):
                    total += int(line.split()[1]) * 1024
    return total


def _fields(pid: int) -> list[str]:
    # Behind the last parenthesis: a program's name may hold anything.
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()


@dataclass
class Peak:
    """The most memory that a tree used while the block ran, sampled 20 times a second."""

    root: int
    bytes: int = 0
    _stop: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None

    def __enter__(self) -> Self:
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        assert self._thread is not None
        self._thread.join()

    def _watch(self) -> None:
        while not self._stop.wait(_SAMPLE_SECONDS):
            self.bytes = max(self.bytes, memory_bytes(self.root))
