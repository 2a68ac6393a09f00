"""Parsing files of trees: in threads, and never the same content twice."""

import asyncio
import time
from collections.abc import AsyncGenerator, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing
from dataclasses import dataclass
from itertools import islice

import msgspec
import structlog

from core.database import Database
from core.errors import ModelyardError
from hooks.errors import ContentMissing
from hooks.formats.parsed import Finding, Parsed, Severity
from hooks.formats.registry import FORMATS, Format, format_of
from hooks.formats.source import Source, SourceUnreadable
from hooks.parsed_files import Kept, Key, ParsedFiles
from hooks.trees import Tree, TreeFile

log = structlog.get_logger(__name__)

FAILED = "parser-failed"

# They take turns anyway, except while they wait for bytes; each more makes the event loop wait longer.
_THREADS = 2
# So many are asked for, parsed and stored together.
_AT_ONCE = 32
_CACHE_BYTES = 32 * 1024**2
# What a parser answers is far smaller; more is a parser that went wrong.
_MAX_BYTES = 4 * 1024**2
# A parser promises 2 seconds on a machine that has nothing else to do.
_OWN_SECONDS = 15.0
_READING_SECONDS = 60.0

_VERSIONS = {known.name: known.version for known in FORMATS}

Understood = tuple[Format, Parsed]
Answer = Understood | SourceUnreadable


class Parsing:
    """Parses files. Close it when done.

    Attributes:
        runs: how often a parser ran since the process began.
    """

    def __init__(self, database: Database, *, cache_bytes: int = _CACHE_BYTES) -> None:
        """`cache_bytes` bounds what stays in memory, as JSON."""
        self._files = ParsedFiles(database, cache_bytes)
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="parser")
        self._places = asyncio.Semaphore(_THREADS)
        self.runs = 0

    async def close(self) -> None:
        """Waits for the parsers that run."""
        await asyncio.to_thread(self._threads.shutdown, cancel_futures=True)

    async def parse(self, tree: Tree, file: TreeFile, *, remember: bool) -> Understood | None:
        """What a file says; None when it is of no format that is parsed.

        Whatever is wrong with the file is among the findings, without its path. With `remember` the answer
        is stored for good, which may take a transaction; without, it stays in memory for a while.

        Raises:
            SourceUnreadable: nothing can be said; a `ContentMissing` where that will stay so.
            DatabaseUnavailable: try again.
        """
        async with aclosing(self.parse_each(tree, [file], remember=remember)) as answers:
            async for _, answer in answers:
                if isinstance(answer, SourceUnreadable):
                    raise answer
                return answer
        return None

    async def parse_each(
        self, tree: Tree, files: Iterable[TreeFile], *, remember: bool, lists: bool = True
    ) -> AsyncGenerator[tuple[TreeFile, Answer], None]:
        """The same for many files, in their order, without those of no format.

        Use it with `aclosing`. Without `lists`, what is found lacks `parsed_files.LONG_LISTS`. The database
        is asked once for every few files. Raises `DatabaseUnavailable`.
        """
        rest = ((file, known) for file in files if (known := format_of(file.path)) is not None)
        while some := list(islice(rest, _AT_ONCE)):
            # Before anything that is known of the content: it may be known from another repository.
            wanted = {_key(*one): one for one in some if tree.has(one[0])}
            found = await self._files.find(wanted)
            failed = await self._parse_missing(tree, wanted, found)
            if remember:
                await self._files.store(found)
            for file, known in some:
                key = _key(file, known)
                if not tree.has(file):
                    yield file, ContentMissing("the repository does not have this LFS object")
                elif key in failed:
                    yield file, failed[key]
                else:
                    # Decoded for each: long lists are in memory once, and nobody changes what others read.
                    yield file, (known, await found[key].parsed(lists=lists))
            await asyncio.sleep(0)  # all of it may have been in memory: others have work, too

    async def known(self, contents: Iterable[tuple[str, str]]) -> dict[tuple[str, str], Kept]:
        """What is known of contents, by digest and parser, without reading any.

        For whoever knows that the repository has them. Raises `DatabaseUnavailable`.
        """
        keys = {Key(digest, parser, _VERSIONS[parser]) for digest, parser in contents if parser in _VERSIONS}
        found = await self._files.find(keys)
        return {(key.digest, key.parser): kept for key, kept in found.items()}

    async def _parse_missing(
        self, tree: Tree, wanted: Mapping[Key, tuple[TreeFile, Format]], found: dict[Key, Kept]
    ) -> dict[Key, SourceUnreadable]:
        """Adds what is not there to `found`; returns what cannot be read."""
        missing = [key for key in wanted if key not in found]
        async with asyncio.TaskGroup() as group:
            runs = [group.create_task(self._run(tree, *wanted[key])) for key in missing]
        failed: dict[Key, SourceUnreadable] = {}
        for key, run in zip(missing, runs, strict=True):
            answer = run.result()
            if isinstance(answer, SourceUnreadable):
                failed[key] = answer
            else:
                found[key] = self._files.add(key, answer.data, lasting=answer.lasting)
        return failed

    async def _run(self, tree: Tree, file: TreeFile, known: Format) -> "_Outcome | SourceUnreadable":
        try:
            async with self._places, tree.source(file, known.max_bytes) as source:
                return await self._watched(_Run(known, source, file))
        except SourceUnreadable as error:
            return error
        except ModelyardError as error:
            return SourceUnreadable(error.message)

    async def _watched(self, run: "_Run") -> "_Outcome":
        self.runs += 1
        call = asyncio.get_running_loop().run_in_executor(self._threads, run)
        call.add_done_callback(_noticed)
        asked = time.monotonic()
        while True:
            done, _ = await asyncio.wait({call}, timeout=1)
            if done:
                return call.result()
            if not run.began and time.monotonic() - asked > _READING_SECONDS and call.cancel():
                raise SourceUnreadable("every parser is busy")  # with files that they are stuck in
            # The thread cannot be stopped, but after this its source gives it nothing more.
            if run.own_seconds > _OWN_SECONDS:
                log.error("parser.stuck", parser=run.known.name, digest=run.file.digest)
                return _failed(run.known)
            if run.reading_seconds > _READING_SECONDS:
                raise SourceUnreadable("it cannot be read in good time")


@dataclass(frozen=True, slots=True)
class _Outcome:
    """The JSON of a `Parsed`; `lasting`: it says something of the file, not of the parser."""

    data: bytes
    lasting: bool = True


class _Run:
    """One call of a parser, in a thread, with a clock."""

    def __init__(self, known: Format, source: Source, file: TreeFile) -> None:
        self.known = known
        self.file = file
        self._source = source
        self._began: float | None = None
        self._reading_since: float | None = None
        self._read = 0.0

    @property
    def began(self) -> bool:
        return self._began is not None

    @property
    def size(self) -> int:
        return self._source.size

    @property
    def reading_seconds(self) -> float:
        since = self._reading_since
        return self._read + (time.monotonic() - since if since is not None else 0.0)

    @property
    def own_seconds(self) -> float:
        """Since it began, without what it waited for bytes."""
        return 0.0 if self._began is None else time.monotonic() - self._began - self.reading_seconds

    def read(self, offset: int, length: int) -> bytes:
        self._reading_since = time.monotonic()
        try:
            return self._source.read(offset, length)
        finally:
            self._read += time.monotonic() - self._reading_since
            self._reading_since = None

    def __call__(self) -> "_Outcome":
        self._began = time.monotonic()
        try:
            data = msgspec.json.encode(self.known.parse(self))
        except SourceUnreadable:
            raise
        except Exception:
            log.exception("parser.failed", parser=self.known.name, digest=self.file.digest)
            return _failed(self.known)
        if len(data) > _MAX_BYTES:
            log.error("parser.verbose", parser=self.known.name, digest=self.file.digest, bytes=len(data))
            return _failed(self.known)
        return _Outcome(data)


def _noticed(call: asyncio.Future[_Outcome]) -> None:
    """Nobody may be left to be told how it ended."""
    if not call.cancelled():
        call.exception()


def _key(file: TreeFile, known: Format) -> Key:
    return Key(file.digest, known.name, known.version)


def _failed(known: Format) -> _Outcome:
    message = f"the {known.name} parser cannot cope with this file, which the server's log explains"
    parsed = Parsed(None, (Finding(Severity.WARNING, FAILED, message),))
    return _Outcome(msgspec.json.encode(parsed), lasting=False)
