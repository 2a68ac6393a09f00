"""Directories in the cache that belong to somebody for as long as he holds a `flock` on their `lease` file.

The lock dies with its process, whatever kills that, and is seen by every process and container that shares
the disk; a process number would be neither. Everything but `claimed` blocks: call it in a thread.
"""

import asyncio
import contextlib
import fcntl
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from secrets import token_hex
from typing import TypeVar, TypeVarTuple

T = TypeVar("T", int, int | None)
Ts = TypeVarTuple("Ts")

_LEASE = "lease"
# A directory without a lease is being made or being deleted, unless that takes so long.
_UNFINISHED_SECONDS = 60


async def claimed(function: Callable[[*Ts], T], *args: *Ts) -> T:
    """Calls what returns a lease in a thread; a caller who is cancelled meanwhile leaves no lease behind."""
    work = asyncio.ensure_future(asyncio.to_thread(function, *args))
    try:
        return await asyncio.shield(work)
    except asyncio.CancelledError:
        work.add_done_callback(_let_go)
        raise


def _let_go(work: "asyncio.Future[int] | asyncio.Future[int | None]") -> None:
    if not work.cancelled() and work.exception() is None and (descriptor := work.result()) is not None:
        os.close(descriptor)


def make(path: Path) -> int:
    """Makes a directory and holds it; returns the descriptor whose closing lets it go."""
    while True:
        path.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(FileNotFoundError):
            descriptor = os.open(path / _LEASE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            fcntl.flock(descriptor, fcntl.LOCK_SH)
            if os.fstat(descriptor).st_nlink:
                return descriptor
            os.close(descriptor)  # a sweeper found it before it was locked


def share(path: Path) -> int | None:
    """Holds a directory beside others; None when there is none, or it is being deleted."""
    try:
        descriptor = os.open(path / _LEASE, os.O_RDONLY | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError):
        return None
    with contextlib.suppress(BlockingIOError):
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        if os.fstat(descriptor).st_nlink:  # else it was deleted between open and flock
            return descriptor
    os.close(descriptor)
    return None


def is_abandoned(path: Path) -> bool:
    """Whether nobody holds the directory."""
    try:
        descriptor = os.open(path / _LEASE, os.O_RDONLY | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError):
        with contextlib.suppress(FileNotFoundError):
            return time.time() - path.stat().st_mtime > _UNFINISHED_SECONDS
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    finally:
        os.close(descriptor)
    return True


def delete_unheld(path: Path) -> bool:
    """Deletes a directory that nobody holds; False when somebody does, or it is gone."""
    try:
        descriptor = os.open(path / _LEASE, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return is_abandoned(path) and discard(path)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return discard(path)
    except BlockingIOError:
        return False
    finally:
        os.close(descriptor)


def discard(path: Path) -> bool:
    """Deletes a directory whoever holds it; False when it is gone."""
    # Renamed first: half of it under its own name would pass for the whole.
    trash = path.with_name(temporary_name(path.name))
    try:
        path.rename(trash)
    except FileNotFoundError:
        return False
    (trash / _LEASE).unlink(missing_ok=True)
    shutil.rmtree(trash, ignore_errors=True)
    return True


def temporary_name(name: str) -> str:
    """A hidden name, for what is not there yet or not any more."""
    return f".{name}.{token_hex(8)}"


def entries(folder: Path) -> list[Path]:
    """What is in a directory, in order; nothing when it is not there."""
    try:
        return sorted(folder.iterdir())
    except FileNotFoundError:
        return []
