"""The operator's hook programs: where they are, whether they may be run, and running one.

Below `[hooks] directory` lie `pre-receive`, `update` and `post-receive`, each a program, and `pre-receive.d`,
`update.d` and `post-receive.d`, each a directory of programs that run in the order of their names.
"""

import asyncio
import os
import signal
import stat
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from gitserver.children import Child, spawn
from gitserver.process import end, feed

_OUTPUT_LINES = 100
_LINE_BYTES = 4096
_CHUNK_BYTES = 64 * 1024
# After its end: what it left running in the background may hold its output open for ever.
_LAST_OUTPUT_SECONDS = 1.0
# Left by editors and by `git init`.
_REMAINS = (".sample", "~", ".bak", ".orig", ".rpmsave", ".dpkg-old")


class UnsafeProgram(Exception):
    """A program cannot be run as it is; the message says what to do. Internal: it has paths of the server."""


class Moment(StrEnum):
    """When a program runs; the names of Git's hooks."""

    PRE_RECEIVE = "pre-receive"
    UPDATE = "update"
    POST_RECEIVE = "post-receive"


@dataclass(frozen=True, slots=True)
class Program:
    """A program that may be run; `name` is its place, as in `pre-receive.d/10-check`."""

    name: str
    path: Path

    async def run(
        self,
        arguments: Sequence[str] = (),
        *,
        data: bytes,
        environment: Mapping[str, str],
        cwd: Path,
        seconds: float,
        say: Callable[[str], None],
    ) -> str | None:
        """Runs it to its end; returns None when it succeeds, else how it ended, as in "exited with 1".

        What it prints goes to `say`, line by line, 100 lines at most. It is killed with all that it started
        when it takes longer than `seconds` or the caller is cancelled; what it leaves behind in the
        background when it ends by itself is left alone.
        """
        try:
            child = await spawn([self.path, *arguments], cwd=cwd, env=environment, limit=_CHUNK_BYTES)
        except (OSError, ValueError) as error:  # no interpreter, too long a list of arguments, a NUL
            return f"cannot be started: {getattr(error, 'strerror', None) or error}"
        said = _Output(say)
        try:
            async with asyncio.timeout(seconds):
                status = await _attend(child, data, said)
        except TimeoutError:
            return f"took longer than {seconds:g} seconds"
        finally:
            await end(child)
            said.close(self.name)
        if status < 0:
            return f"was killed by signal {-status} ({signal.strsignal(-status)})"
        return f"exited with {status}" if status else None


def find_programs(directory: Path, moment: Moment) -> list[Program]:
    """The programs of one moment, in their order. Blocking.

    Raises:
        UnsafeProgram: one of them, or a directory, is not safe to use.
    """
    found = []
    for path in _candidates(directory, moment):
        if problem := _problem(path):
            raise UnsafeProgram(problem)
        found.append(Program(str(path.relative_to(directory)), path))
    return found


def problems(directory: Path) -> list[str]:
    """Everything that is wrong with the directory and its programs. Blocking."""
    if not directory.is_dir():
        return [f"{directory} is no directory"]
    found: dict[str, None] = {}
    for moment in Moment:
        try:
            paths = list(_candidates(directory, moment))
        except UnsafeProgram as error:
            found[str(error)] = None
        else:
            found |= {problem: None for path in paths if (problem := _problem(path))}
    return list(found)


def _candidates(directory: Path, moment: Moment) -> Iterator[Path]:
    _check_directory(directory)
    single, several = directory / moment, directory / f"{moment}.d"
    if os.path.lexists(single):
        yield single
    if not os.path.lexists(several):
        return
    _check_directory(several)
    try:
        names = sorted(path.name for path in several.iterdir())
    except OSError as error:
        raise UnsafeProgram(f"{several} cannot be read: {error.strerror}") from error
    for name in names:
        if not name.startswith(".") and not name.endswith(_REMAINS):
            yield several / name


def _check_directory(path: Path) -> None:
    """Whoever can write there could put a program there."""
    try:
        status = path.stat()
    except OSError as error:
        raise UnsafeProgram(f"{path} cannot be read: {error.strerror}") from error
    if not stat.S_ISDIR(status.st_mode):
        raise UnsafeProgram(f"{path} is no directory")
    if problem := _exposed(path, status):
        raise UnsafeProgram(problem)


def _problem(path: Path) -> str | None:
    try:
        status = path.stat()
    except OSError as error:
        return f"{path} cannot be read: {error.strerror}"
    if not stat.S_ISREG(status.st_mode):
        return f"{path} is no file; take it away"
    if problem := _exposed(path, status):
        return problem
    if not os.access(path, os.X_OK):
        return f"{path} is not executable; chmod +x it, or take it away"
    return None


def _exposed(path: Path, status: os.stat_result) -> str | None:
    if status.st_mode & stat.S_IWOTH:
        return f"{path} can be written by everybody; chmod o-w it"
    if status.st_uid not in (0, os.geteuid()):
        return (
            f"{path} belongs to the user id {status.st_uid}; it must belong to root or to the server's user"
        )
    return None


async def _attend(child: Child, data: bytes, said: "_Output") -> int:
    assert child.stdin is not None
    assert child.stdout is not None
    assert child.stderr is not None
    async with asyncio.TaskGroup() as group:
        feeding = group.create_task(_feed(child.stdin, data))
        reading = [group.create_task(said.read(pipe)) for pipe in (child.stdout, child.stderr)]
        status = await child.wait()
        await asyncio.wait(reading, timeout=_LAST_OUTPUT_SECONDS)
        for task in (feeding, *reading):
            task.cancel()
    return status


async def _feed(stdin: asyncio.StreamWriter, data: bytes) -> None:
    await feed(stdin, data)
    stdin.close()


class _Output:
    """What a program prints, as lines; what is too much is read and dropped."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say
        self._lines = 0

    async def read(self, pipe: asyncio.StreamReader) -> None:
        """Reads to the end, keeping the beginning of each line."""
        kept = b""
        try:
            while chunk := await pipe.read(_CHUNK_BYTES):
                first, *others = chunk.split(b"\n")
                kept = (kept + first)[:_LINE_BYTES]
                for line in others:
                    self._add(kept)
                    kept = line[:_LINE_BYTES]
        finally:
            if kept:
                self._add(kept)

    def close(self, name: str) -> None:
        """Says how much was left out."""
        if self._lines > _OUTPUT_LINES:
            self._say(f"... and {self._lines - _OUTPUT_LINES} more lines of {name}")

    def _add(self, line: bytes) -> None:
        self._lines += 1
        if self._lines <= _OUTPUT_LINES:
            self._say(line.decode(errors="replace").rstrip("\r"))
