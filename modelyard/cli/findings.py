"""What `modelyard doctor` finds."""

import os
import stat
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path


class Level(StrEnum):
    OK = "ok"
    WARNING = "warning"  # it works, and somebody should look at it
    ERROR = "error"  # something does not work, or is not safe


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was examined.

    Attributes:
        check: what was examined; stable, for programs.
        remedy: what to do about it; empty when there is nothing to do.
        fixed: whether `--fix` has just done it.
    """

    check: str
    level: Level
    message: str
    remedy: str = ""
    fixed: bool = False


def fine(check: str, message: str) -> Finding:
    """Nothing to do."""
    return Finding(check, Level.OK, message)


def warning(check: str, message: str, remedy: str) -> Finding:
    """It works, and somebody should look at it."""
    return Finding(check, Level.WARNING, message, remedy)


def failure(check: str, message: str, remedy: str) -> Finding:
    """Something does not work, or is not safe."""
    return Finding(check, Level.ERROR, message, remedy)


def fixed(check: str, message: str, remedy: str) -> Finding:
    """There was something, and `--fix` has done about it what `remedy` says."""
    return Finding(check, Level.OK, message, remedy, fixed=True)


def private(check: str, paths: Iterable[Path], *, fix: bool) -> list[Finding]:
    """Whether nobody but the owner can reach the paths; those that do not exist are left out."""
    findings = []
    for path in paths:
        if not path.exists():
            continue
        status = path.stat()
        wanted = 0o700 if stat.S_ISDIR(status.st_mode) else 0o600
        mode = stat.S_IMODE(status.st_mode)
        remedy = f"chmod {wanted:o} {path}"
        if not mode & 0o077:
            findings.append(fine(check, f"{path} is closed to others"))
        elif fix and status.st_uid == os.geteuid():
            path.chmod(wanted)
            findings.append(fixed(check, f"{path} had the mode {mode:o}", remedy))
        else:
            findings.append(failure(check, f"{path} has the mode {mode:o}, others can read it", remedy))
    return findings
