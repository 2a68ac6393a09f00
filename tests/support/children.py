"""Child processes of the test process, and which of them may outlive a test."""

import os
import signal
import time
from pathlib import Path

_kept: set[int] = set()


def keep(pid: int) -> None:
    """Says that this child belongs to a fixture that stops it itself."""
    _kept.add(pid)


def release(pid: int) -> None:
    """Takes `keep` back, because the child is being stopped."""
    _kept.discard(pid)


def running() -> dict[int, str]:
    """Living children of this process (pid to command line), without the kept ones and zombies."""
    found = {}
    for folder in Path("/proc").iterdir():
        if not folder.name.isdigit() or int(folder.name) in _kept:
            continue
        try:
            # Behind the program's name, which may contain anything: state, parent, ...
            state, parent = (folder / "stat").read_text().rpartition(")")[2].split()[:2]
            if int(parent) == os.getpid() and state not in "ZX":
                command = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                found[int(folder.name)] = command.strip()
        except (FileNotFoundError, ProcessLookupError):
            continue  # it ended meanwhile
    return found


def left_behind(before: dict[int, str], *, grace_seconds: float = 30.0) -> list[str]:
    """Command lines of children that are new since `before` and do not end by themselves; kills them."""
    deadline = time.monotonic() + grace_seconds
    while left := {pid: command for pid, command in running().items() if pid not in before}:
        if time.monotonic() > deadline:
            for pid in left:
                os.kill(pid, signal.SIGKILL)
            return sorted(left.values())
        time.sleep(0.02)
    return []
