"""Which paths the commits of a push touch.

A merge touches what it has otherwise than each of its parents: what came from one of them was touched there.
"""

from collections.abc import AsyncGenerator, AsyncIterator, Collection, Sequence
from contextlib import aclosing, asynccontextmanager

from gitserver.children import Child
from gitserver.listings import ObjectsUnreadable, watched
from gitserver.process import PIPE_BYTES, GitRunner, feed
from gitserver.quarantine import Quarantine
from gitserver.queries import CPU_SECONDS
from gitserver.updates import RefUpdate

# All parents are followed, because simplification would skip commits whose change was undone.
_LOG = ["log", "-z", "--format=", "--name-only", "--no-renames", "--diff-merges=combined", "--full-history"]


@asynccontextmanager
async def changed_paths(
    git: GitRunner, quarantine: Quarantine, updates: Sequence[RefUpdate], *, among: Collection[str] = ()
) -> AsyncIterator[AsyncIterator[str]]:
    """The paths that the commits touch which these updates add, surrogates standing for what is not UTF-8.

    A path may come more than once. `among` are the paths that matter, if not all: the rest is then not even
    looked at (but what lies below such a path comes, too).

    Reading on raises `ObjectsUnreadable`: git failed, or there are more paths than it can list in a minute,
    as with directories that hold each other many times over.
    """
    environment = git.environment(extra={**quarantine.environment(), "GIT_LITERAL_PATHSPECS": "1"})
    asked = [one.new for one in updates if not one.deletes]
    # All lines of standard input are one path each; one that has a line feed cannot be asked for there.
    if among and not any("\n" in path for path in among):
        asked += ["--", *among]
    arguments = [*_LOG, "--stdin", "--not", "--all"]
    async with (
        watched(git, arguments, environment, cpu_seconds=CPU_SECONDS) as process,
        aclosing(_read(process)) as paths,
    ):
        assert process.stdin is not None
        await feed(process.stdin, "".join(f"{line}\n" for line in asked).encode("utf-8", "surrogateescape"))
        process.stdin.close()
        yield paths


async def _read(process: Child) -> AsyncGenerator[str, None]:
    assert process.stdout is not None
    rest = b""
    while chunk := await process.stdout.read(PIPE_BYTES):
        *found, rest = (rest + chunk).split(b"\0")
        for path in found:
            if path:
                yield path.decode("utf-8", "surrogateescape")
    if await process.wait() != 0:
        raise ObjectsUnreadable("the changed paths cannot be listed")
