"""Questions to git about a snapshot: short answers, and outputs that stream.

Arguments are built here and in the modules that call this from full oids and fixed words; a client's path
comes behind `--` and is taken literally.
"""

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from core.errors import EntryNotFound, Unavailable
from gitserver.children import DEVNULL, Child
from gitserver.process import GitFailed, GitRunner, collect_stderr
from gitserver.snapshots import Snapshot

CHUNK_BYTES = 256 * 1024

# An answer that needs more than this would hold a core for too long; archives are exempt.
CPU_SECONDS = 60

# A delta of a few bytes may make an object of gigabytes, which git builds in memory; whole ones stream.
_ALLOCATION_BYTES = 256 * 1024**2

_CONFIG = {
    # Larger blobs are streamed, not loaded, and their differences are "binary".
    "core.bigFileThreshold": "8m",
    "core.quotePath": "false",
}


class TooExpensive(Unavailable):
    """Git used up the time that one question may cost."""

    code = "too_expensive"


class Output:
    """What a git child prints."""

    def __init__(self, process: Child, arguments: Sequence[str], said: asyncio.Future[str]) -> None:
        self._process = process
        self._said = said
        self._arguments = arguments

    async def read(self, n: int) -> bytes:
        """Up to `n` bytes, `b""` once git has ended well.

        Raises:
            GitFailed: git ended with an error.
            TooExpensive: git used up its time.
        """
        assert self._process.stdout is not None
        data = await self._process.stdout.read(n)
        if not data:
            await self._check()
        return data

    async def chunks(self) -> AsyncIterator[bytes]:
        """Everything up to the end. Raises as `read` does."""
        while data := await self.read(CHUNK_BYTES):
            yield data

    async def tokens(self) -> AsyncIterator[bytes]:
        """The parts that end with a NUL. Raises as `read` does."""
        rest = b""
        while data := await self.read(CHUNK_BYTES):
            *parts, rest = (rest + data).split(b"\0")
            for part in parts:
                yield part

    async def _check(self) -> None:
        stderr = await self._said
        status = await self._process.wait()
        if status in {-signal.SIGXCPU, -signal.SIGKILL}:
            raise TooExpensive("this takes too long to compute")
        if status != 0:
            raise GitFailed(self._arguments, status, stderr)


@asynccontextmanager
async def stream(
    git: GitRunner, snapshot: Snapshot, arguments: Sequence[str], *, cpu_seconds: int | None = CPU_SECONDS
) -> AsyncIterator[Output]:
    """Starts git in a snapshot; leaving the block ends it."""
    environment = git.environment(
        _CONFIG,
        {
            "GIT_DIR": str(snapshot.path),
            "GIT_LITERAL_PATHSPECS": "1",
            "GIT_ALLOC_LIMIT": str(_ALLOCATION_BYTES),
        },
    )
    async with git.start(
        arguments,
        environment=environment,
        stdin=DEVNULL,
        cpu_seconds=cpu_seconds,
    ) as process:
        # Read all along: a child that has much to complain about would block on a full pipe for ever.
        said = asyncio.ensure_future(collect_stderr(process))
        try:
            yield Output(process, arguments, said)
        finally:
            said.cancel()
            await asyncio.gather(said, return_exceptions=True)


async def ask(git: GitRunner, snapshot: Snapshot, arguments: Sequence[str]) -> bytes:
    """Runs git in a snapshot and returns what it prints; for answers known to be short."""
    async with stream(git, snapshot, arguments) as output:
        return b"".join([data async for data in output.chunks()])


def path_arguments(raw: bytes) -> list[str]:
    """The end of a command line that limits it to a path. Raises `EntryNotFound` for what is no path."""
    if b"\0" in raw:
        raise EntryNotFound("no file or directory has a NUL in its name")
    return ["--", os.fsdecode(raw)] if raw else ["--"]
