"""Process trees, as /proc shows them."""

import os
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Seen:
    """A living process, as it was when it was looked at."""

    pid: int
    parent: int
    command: str


def processes() -> dict[int, Seen]:
    """Every living process of the machine, without zombies."""
    found = {}
    for folder in Path("/proc").iterdir():
        if not folder.name.isdigit():
            continue
        try:
            # Behind the program's name, which may contain anything: state, parent, ...
            state, parent = (folder / "stat").read_text().rpartition(")")[2].split()[:2]
            command = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
        except (FileNotFoundError, ProcessLookupError):
            continue  # it ended meanwhile
        if state not in "ZX":
            found[int(folder.name)] = Seen(int(folder.name), int(parent), command)
    return found


def descendants(pid: int) -> list[Seen]:
    """Living children of a process, their children and so on; parents come before children."""
    seen = processes()
    found: list[Seen] = []
    wanted = {pid}
    while new := [one for one in seen.values() if one.parent in wanted and one not in found]:
        found += new
        wanted = {one.pid for one in new}
    return found


def kill_tree(pid: int) -> None:
    """SIGKILL for a process and everything below it, at the same moment as far as that is possible."""
    family = [pid, *(one.pid for one in descendants(pid))]
    for number in (signal.SIGSTOP, signal.SIGKILL):
        for member in family:
            try:
                os.kill(member, number)
            except ProcessLookupError:
                continue  # it ended meanwhile


def memory(pid: int, field: str) -> int:
    """One field of `smaps_rollup` in bytes: `Rss`, `Pss`, `Anonymous`; 0 for a process that ended."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{field}:"))


def wait_until(condition: Callable[[], object], what: str, *, seconds: float = 60) -> None:
    """Polls a condition; an AssertionError that names `what` when it does not come true in time."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {seconds} seconds: {what}")
        time.sleep(0.02)
