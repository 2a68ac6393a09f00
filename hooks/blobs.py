"""Contents of Git's blobs: many small ones through one child of git, large ones each through their own."""

import asyncio
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from itertools import islice
from types import TracebackType
from typing import Protocol, Self, TypeVar

from gitserver.children import DEVNULL, Child
from gitserver.listings import watched
from gitserver.process import GitRunner, feed
from gitserver.queries import CPU_SECONDS
from hooks.errors import ContentMissing

# A delta of a few bytes may make an object of gigabytes, which git builds in memory; whole ones stream.
_CONFIG = {"core.bigFileThreshold": "8m", "core.deltaBaseCacheLimit": "48m"}
_ALLOCATION_BYTES = 256 * 1024**2

_BATCH = ["cat-file", "--batch=%(objectname) %(objecttype) %(objectsize)"]
# So many names fit into a pipe: neither side ever waits for the other to read.
_AT_ONCE = 500


class Named(Protocol):
    """Something that is kept in a blob."""

    @property
    def blob(self) -> str: ...


N = TypeVar("N", bound=Named)


def git_environment(git: GitRunner, where: Mapping[str, str]) -> dict[str, str]:
    """For children that read; `where` makes git find the objects."""
    return git.environment(_CONFIG, {**where, "GIT_ALLOC_LIMIT": str(_ALLOCATION_BYTES)})


class Blobs:
    """Blobs of one repository, while the block runs. A child is only started when somebody reads."""

    def __init__(self, git: GitRunner, where: Mapping[str, str]) -> None:
        self._git = git
        self._environment = git_environment(git, where)
        self._lock = asyncio.Lock()
        self._running = AsyncExitStack()
        self._child: Child | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._stop()

    async def read(self, oid: str) -> bytes:
        """One blob, whole: the caller knows its size.

        Raises:
            ContentMissing: git cannot read it within its limits.
        """
        async with self._lock:
            return (await self._some([oid]))[0]

    async def each(self, files: Iterable[N]) -> AsyncIterator[tuple[N, bytes]]:
        """The blobs of files that are known to be small. Raises as `read` does."""
        rest = iter(files)
        while some := list(islice(rest, _AT_ONCE)):
            async with self._lock:
                contents = await self._some([file.blob for file in some])
            for pair in zip(some, contents, strict=True):
                yield pair

    @asynccontextmanager
    async def stream(self, oid: str) -> AsyncIterator["BlobStream"]:
        """One blob of any size, from its start on, by a child of its own."""
        arguments = ["cat-file", "blob", oid]
        async with watched(
            self._git, arguments, self._environment, stdin=DEVNULL, cpu_seconds=CPU_SECONDS
        ) as child:
            yield BlobStream(child)

    async def _some(self, oids: list[str]) -> list[bytes]:
        try:
            child = await self._started()
            assert child.stdin is not None
            await feed(child.stdin, "".join(f"{oid}\n" for oid in oids).encode())
            return [await _answer(child, oid) for oid in oids]
        except BaseException:
            # What it was asked and did not answer yet would be taken for the next answer.
            await self._stop()
            raise

    async def _started(self) -> Child:
        if self._child is None:
            self._child = await self._running.enter_async_context(
                watched(self._git, _BATCH, self._environment, cpu_seconds=CPU_SECONDS)
            )
        return self._child

    async def _stop(self) -> None:
        self._child = None
        await self._running.aclose()


class BlobStream:
    """What `git cat-file` prints."""

    def __init__(self, child: Child) -> None:
        self._child = child

    async def read(self, n: int) -> bytes:
        """Up to `n` bytes more; `b""` at the end.

        Raises:
            ContentMissing: git cannot read it within its limits.
        """
        assert self._child.stdout is not None
        data = await self._child.stdout.read(n)
        if not data and await self._child.wait() != 0:
            raise ContentMissing("git cannot read this file; put it into LFS")
        return data


async def _answer(child: Child, oid: str) -> bytes:
    assert child.stdout is not None
    try:
        name, kind, size = (await child.stdout.readuntil()).split()
        if (name.decode("ascii", "replace"), kind) != (oid, b"blob"):
            raise ContentMissing(f"git cannot read the blob {oid}")
        return (await child.stdout.readexactly(int(size) + 1))[:-1]
    except (asyncio.IncompleteReadError, ValueError) as error:
        raise ContentMissing(f"git cannot read the blob {oid}") from error
