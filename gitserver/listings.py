"""Lists of objects, written to a file once and read as often as somebody wants to know.

A listing has a line `<oid> <path>` for each object, as `git rev-list --objects` prints it: commits without a
path, everything else once and under one of its paths. Git ends a path at a line feed there.
"""

import asyncio
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from core.errors import Unavailable
from gitserver.children import PIPE, Child
from gitserver.process import PIPE_BYTES, GitFailed, GitRunner, collect_stderr, feed
from gitserver.quarantine import Quarantine
from gitserver.updates import RefUpdate

_ALL = ["rev-list", "--objects", "--stdin"]
_NEW = [*_ALL, "--not", "--all"]


class ObjectsUnreadable(Unavailable):
    """Git cannot read objects that must be there, or not within its limits. Nothing follows from that."""

    code = "objects_unreadable"


async def list_all(git: GitRunner, target: Path, tips: Iterable[str], environment: Mapping[str, str]) -> None:
    """Lists all that `tips` reach, in a new file.

    Raises:
        ObjectsUnreadable: not all of it could be listed.
    """
    oids = list(tips)
    try:
        if oids:
            await _list(git, target, _ALL, oids, environment)
        else:
            await asyncio.to_thread(target.touch)
    except GitFailed as error:
        raise ObjectsUnreadable(f"the objects cannot be listed: {error.reason}") from error
    except OSError as error:
        raise ObjectsUnreadable(f"the objects cannot be listed: {error.strerror}") from error


async def list_new(git: GitRunner, quarantine: Quarantine, updates: Sequence[RefUpdate]) -> bool:
    """Lists what these updates add to what refs reach, in `quarantine.listing`; False: some of it is missing.

    Raises:
        ObjectsUnreadable: the server could not tell.
    """
    tips = [one.new for one in updates if not one.deletes]
    try:
        await _list(git, quarantine.listing, _NEW, tips, git.environment(extra=quarantine.environment()))
    except OSError as error:
        raise ObjectsUnreadable(f"the objects cannot be checked: {error.strerror}") from error
    except GitFailed as error:
        # Killed, or no room for the list: that says nothing about the client's objects.
        if error.status < 0 or "write failure" in error.stderr or "write error" in error.stderr:
            raise ObjectsUnreadable("the objects could not be checked") from error
        return False
    return True


async def adds(git: GitRunner, quarantine: Quarantine, update: RefUpdate, oids: frozenset[bytes]) -> bool:
    """Whether an update adds one of these objects. Raises `ObjectsUnreadable`."""
    environment = git.environment(extra=quarantine.environment())
    async with watched(git, _NEW, environment) as process:
        assert process.stdin is not None
        await feed(process.stdin, f"{update.new}\n".encode())
        process.stdin.close()
        lines = Lines(process)
        while some := await lines.some():
            if any(line.partition(b" ")[0] in oids for line in some):
                return True
        return False


@asynccontextmanager
async def watched(
    git: GitRunner,
    arguments: Sequence[str],
    environment: Mapping[str, str],
    *,
    stdin: int = PIPE,
    cpu_seconds: int | None = None,
) -> AsyncIterator[Child]:
    """A child whose complaints are read all along, because one with many would block on a full pipe."""
    async with git.start(arguments, environment=environment, stdin=stdin, cpu_seconds=cpu_seconds) as process:
        said = asyncio.ensure_future(collect_stderr(process))
        try:
            yield process
        finally:
            said.cancel()
            await asyncio.gather(said, return_exceptions=True)


class Lines:
    """The lines that a child prints, many at a time."""

    def __init__(self, process: Child) -> None:
        self._process = process
        self._lines: list[bytes] = []
        self._rest = b""

    async def some(self) -> list[bytes]:
        """At least one line, without its LF; nothing once the child has ended well.

        Raises:
            ObjectsUnreadable: it ended with an error.
        """
        assert self._process.stdout is not None
        while not self._lines:
            chunk = await self._process.stdout.read(PIPE_BYTES)
            if not chunk:
                if await self._process.wait() != 0 or self._rest:
                    raise ObjectsUnreadable("git could not read all objects")
                return []
            *self._lines, self._rest = (self._rest + chunk).split(b"\n")
        lines, self._lines = self._lines, []
        return lines

    async def exactly(self, count: int) -> list[bytes]:
        """So many lines.

        Raises:
            ObjectsUnreadable: there are no more.
        """
        lines: list[bytes] = []
        while len(lines) < count:
            some = await self.some()
            if not some:
                raise ObjectsUnreadable("git could not read all objects")
            lines += some
        self._lines = lines[count:]
        return lines[:count]


async def _list(
    git: GitRunner,
    target: Path,
    arguments: Sequence[str],
    tips: Sequence[str],
    environment: Mapping[str, str],
) -> None:
    # Opening costs nothing worth a thread: the directory was made a moment ago.
    with target.open("wb") as file:
        if tips:
            data = "".join(f"{oid}\n" for oid in tips).encode()
            await git.run_into(file.fileno(), arguments, data=data, environment=environment)
