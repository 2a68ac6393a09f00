"""Answers to clones, made once and replayed from disk (design section 5).

A clone is a version 2 `fetch` without haves: its answer depends on the state of the repository and on the
request, and on nothing else. Git writes it straight into a file in the cache; whoever asks for the same
meanwhile follows that file as it grows, whoever asks later gets it whole. The maker goes at its own speed
and not at that of the slowest reader, so a bad line holds no git process.

    <cache>/clones/<repository id>/<state>.<digest of the request>

An entry belongs to one state of one repository: it is never shared between repositories, and no longer
found once a push, a pruning or another default branch has made a new state.
"""

import asyncio
import contextlib
import hashlib
import os
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Protocol, runtime_checkable

import structlog

from core.errors import ModelyardError
from gitserver.leases import claimed, entries, temporary_name
from gitserver.process import PIPE_BYTES
from gitserver.protocol import ByteWriter

log = structlog.get_logger(__name__)

# An answer is sent in turns of at most this size.
_TURN_BYTES = 8 * 1024**2
_SHORTEST_WAIT, _LONGEST_WAIT = 0.002, 0.05
# When the power fails, a file may keep its name and lose its bytes. So answers are found until the machine
# starts anew, and none has to be forced to disk.
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
# Clients repeat themselves in what says who they are; the answer does not depend on it.
_IRRELEVANT = (b"agent=", b"session-id=")

# Writes an answer to the descriptor; False when it is complete and not worth keeping, as an error message is.
Maker = Callable[[int], Awaitable[bool]]


@runtime_checkable
class FileWriter(Protocol):
    """A way back to the client on which a file can go without passing through this process."""

    async def write_file(self, descriptor: int, offset: int, count: int) -> None:
        """As `ByteWriter.write` of these bytes of the file."""
        ...


@dataclass(frozen=True, slots=True)
class CloneKey:
    """One answer: of this repository, in this state, to requests with this digest."""

    repository_id: str
    state: str
    digest: str

    @property
    def file_name(self) -> str:
        return f"{self.state}.{self.digest}"


def is_clone(arguments: Sequence[bytes]) -> bool:
    """Whether the arguments of a `fetch` come from a client that has nothing yet and knows what it wants."""
    kinds = [line.partition(b" ")[0] for line in arguments]
    return b"done" in kinds and b"want" in kinds and not {b"have", b"want-ref", b"shallow"} & set(kinds)


def wanted(arguments: Sequence[bytes]) -> set[str]:
    """The oids that the client wants."""
    return {line[5:].decode("ascii", "replace") for line in arguments if line.startswith(b"want ")}


def digest_of(capabilities: Sequence[bytes], arguments: Sequence[bytes]) -> str:
    """The same for requests that have the same answer, until the machine starts anew."""
    relevant = [line for line in capabilities if not line.startswith(_IRRELEVANT)]
    lines = [this_boot(), *sorted(relevant), b"", *sorted(set(arguments))]
    return hashlib.sha256(b"\n".join(b"%d:%s" % (len(line), line) for line in lines)).hexdigest()


@cache
def this_boot() -> bytes:
    """Names the time since this machine started."""
    try:
        return _BOOT_ID.read_bytes()
    except OSError:  # another system: each process has its own answers
        return os.urandom(16)


class _Entry:
    """An answer that is being made."""

    def __init__(self) -> None:
        self.readers = 0
        self.descriptor = -1
        self.opened = asyncio.Event()
        self.ended = asyncio.Event()
        self.error: Exception | None = None
        self.task: asyncio.Task[None] | None = None


class Clones:
    """The answers of one node. Processes that share a cache directory share finished answers."""

    def __init__(self, cache_dir: Path, max_bytes: int) -> None:
        """`max_bytes` of answers are kept, the least recently used go first; 0 turns the cache off."""
        self._root = cache_dir / "clones"
        self._max_bytes = max_bytes
        self._making: dict[CloneKey, _Entry] = {}
        self._tasks: set[asyncio.Task[None]] = set()  # also those that nobody may join any more
        self.hits = 0
        self.misses = 0

    async def takes(self, expected_bytes: int) -> bool:
        """Whether an answer of about that size is worth keeping, and finds room on the disk."""
        if expected_bytes * 4 > self._max_bytes:
            return False
        free = await asyncio.to_thread(_free_bytes, self._root)
        return free >= 2 * expected_bytes

    @property
    def enabled(self) -> bool:
        return self._max_bytes > 0

    async def close(self) -> None:
        """Ends what is being made, and returns when no draft is left of it."""
        for task in self._tasks:
            _end(task)
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def replay(self, key: CloneKey, writer: ByteWriter) -> bool:
        """Sends the answer if it is there or being made; False when it must be made.

        Raises as `make`.
        """
        entry = self._making.get(key)
        if entry is not None:
            self.hits += 1
            await self._follow(key, entry, writer)
            return True
        descriptor = await claimed(_open_used, self._root / key.repository_id / key.file_name)
        if descriptor is None:
            return False
        self.hits += 1
        try:
            await _send(descriptor, 0, os.fstat(descriptor).st_size, writer)
        finally:
            os.close(descriptor)
        return True

    async def make(self, key: CloneKey, maker: Maker, writer: ByteWriter) -> None:
        """Has the answer written by `maker(descriptor)`, unless somebody else does, and sends it meanwhile.

        Raises:
            ConnectionError: the client is gone; the answer is made to its end if others want it.
            ModelyardError: of the maker. Bytes may have been sent before.
        """
        entry = self._making.get(key)
        if entry is None:
            self.misses += 1
            entry = self._making[key] = _Entry()
            entry.task = asyncio.ensure_future(self._make(key, entry, maker))
            self._tasks.add(entry.task)
            entry.task.add_done_callback(self._tasks.discard)
        else:
            self.hits += 1
        await self._follow(key, entry, writer)

    async def _make(self, key: CloneKey, entry: _Entry, maker: Maker) -> None:
        try:
            async with self._draft(key, entry) as draft:
                entry.opened.set()
                if await maker(entry.descriptor):
                    await self._keep(key, draft)
        except ModelyardError as error:
            entry.error = error
        except OSError as error:
            log.warning("clones.failed", error=str(error))
            entry.error = ConnectionAbortedError("the answer could not be made")
        except asyncio.CancelledError:
            entry.error = ConnectionAbortedError("the answer is not made any more")
            raise
        except Exception:
            # Nobody awaits this task, and its readers must not take what there is for the whole.
            log.exception("clones.fault")
            entry.error = ConnectionAbortedError("the answer could not be made")
        finally:
            self._forget(key, entry)
            entry.ended.set()
            entry.opened.set()
            if not entry.readers:
                _close(entry)

    def _forget(self, key: CloneKey, entry: _Entry) -> None:
        if self._making.get(key) is entry:
            del self._making[key]

    @asynccontextmanager
    async def _draft(self, key: CloneKey, entry: _Entry) -> AsyncIterator[Path]:
        draft = self._root / key.repository_id / temporary_name(key.file_name)
        creating = asyncio.ensure_future(asyncio.to_thread(_create, draft))
        try:
            entry.descriptor = await asyncio.shield(creating)
            yield draft
        finally:
            await asyncio.wait([creating])  # cancelled or not, the thread makes its file
            if creating.exception() is None:
                entry.descriptor = creating.result()
            await asyncio.shield(asyncio.to_thread(draft.unlink, missing_ok=True))

    async def _keep(self, key: CloneKey, draft: Path) -> None:
        """Lets later clients find the answer. Those who read it now have it whole, whatever comes of this."""
        try:
            await asyncio.to_thread(draft.replace, draft.with_name(key.file_name))
            await asyncio.to_thread(self._evict, key)
        except OSError as error:  # the cache was emptied meanwhile, for one
            log.warning("clones.not_kept", error=str(error))

    async def _follow(self, key: CloneKey, entry: _Entry, writer: ByteWriter) -> None:
        entry.readers += 1
        try:
            await entry.opened.wait()
            if entry.descriptor < 0:
                raise entry.error or ConnectionAbortedError("the answer could not be made")
            sent, wait = 0, _SHORTEST_WAIT
            while True:
                ended = entry.ended.is_set()  # looked at before the size: what is there at the end is all
                size = os.fstat(entry.descriptor).st_size
                if size > sent:
                    await _send(entry.descriptor, sent, size, writer)
                    sent, wait = size, _SHORTEST_WAIT
                elif ended:
                    break
                if not ended:
                    # Also behind a turn: one for each write of git was a fifth of what a clone costs.
                    with contextlib.suppress(TimeoutError):
                        async with asyncio.timeout(wait):
                            await entry.ended.wait()
                    wait = min(2 * wait, _LONGEST_WAIT)
            if entry.error is not None:
                raise entry.error
        finally:
            entry.readers -= 1
            if not entry.readers:
                if entry.ended.is_set():
                    _close(entry)
                elif entry.task is not None:
                    _end(entry.task)  # nobody is there for whom to go on
                    self._forget(key, entry)

    def _evict(self, kept: CloneKey) -> None:
        """Deletes answers of former states of that repository, then the least recently used of all."""
        found = []
        for folder in entries(self._root):
            for path in entries(folder):
                if path.name.startswith("."):
                    continue
                stale = folder.name == kept.repository_id and not path.name.startswith(f"{kept.state}.")
                with contextlib.suppress(FileNotFoundError):
                    if stale:
                        path.unlink()
                    else:
                        status = path.stat()
                        found.append((status.st_mtime, status.st_size, path))
        total = sum(size for _, size, _ in found)
        for _, size, path in sorted(found):
            if total <= self._max_bytes:
                break
            path.unlink(missing_ok=True)
            total -= size


def sweep_clones(folder: Path, keep: str | None, older_than: float) -> int:
    """Deletes what is kept for one repository but for the state `keep`, and drafts from before `older_than`.

    Returns how many went. Blocking: call it in a thread.
    """
    gone = 0
    for path in entries(folder):
        with contextlib.suppress(FileNotFoundError):
            draft = path.name.startswith(".")
            if (draft and path.stat().st_mtime < older_than) or (
                not draft and (keep is None or not path.name.startswith(f"{keep}."))
            ):
                path.unlink()
                gone += 1
    with contextlib.suppress(OSError):  # unless something is left
        folder.rmdir()
    return gone


async def _send(descriptor: int, start: int, end: int, writer: ByteWriter) -> None:
    while start < end:
        count = min(_TURN_BYTES, end - start)
        if isinstance(writer, FileWriter):
            await writer.write_file(descriptor, start, count)
        else:
            await _copy(descriptor, start, count, writer)
        start += count


async def _copy(descriptor: int, start: int, count: int, writer: ByteWriter) -> None:
    end = start + count
    while start < end:
        data = await asyncio.to_thread(os.pread, descriptor, min(4 * PIPE_BYTES, end - start), start)
        if not data:
            raise ConnectionAbortedError("an answer was cut while it was sent")
        await writer.write(data)
        start += len(data)


def _free_bytes(folder: Path) -> int:
    """How much the disk takes on which the folder is, or will be."""
    while not folder.exists():
        folder = folder.parent
    return shutil.disk_usage(folder).free


def _create(path: Path) -> int:
    while True:
        path.parent.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(FileNotFoundError):  # a sweeper found the folder empty
            return os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)


def _open_used(path: Path) -> int | None:
    """Opens an answer and notes that it was used; None when there is none."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError):
        return None
    with contextlib.suppress(OSError):  # deleted a moment ago: the bytes are still there
        os.utime(path)
    return descriptor


def _end(task: asyncio.Task[None]) -> None:
    """Cancels it once: a second time would interrupt it while it tidies up."""
    if not task.cancelling():
        task.cancel()


def _close(entry: _Entry) -> None:
    if entry.descriptor >= 0:
        os.close(entry.descriptor)
        entry.descriptor = -1
