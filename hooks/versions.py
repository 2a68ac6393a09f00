"""Understanding commits, and storing what they are."""

import asyncio
from collections.abc import AsyncGenerator, Iterable
from contextlib import aclosing
from dataclasses import replace
from itertools import islice
from weakref import WeakValueDictionary

import msgspec
from sqlalchemy import Text, bindparam, cast, select
from sqlalchemy.ext.asyncio import AsyncSession

from core.database import Database
from core.errors import RepositoryNotFound
from core.models import ModelVersion, Repository, RepositoryType, now
from core.upsert import insert_into
from hooks.errors import ContentMissing, ContentUnavailable
from hooks.formats.parsed import Finding, Parsed
from hooks.formats.source import SourceUnreadable
from hooks.parsing import Parsing
from hooks.summary import Summary
from hooks.trees import Tree, Trees
from hooks.version import VERSION, Making, Version, VersionFile

__all__ = ["Version", "VersionFile", "Versions", "store"]

_AT_ONCE = 4
# Each may weigh megabytes, and this many are in memory for everybody who asks.
_FILES_AT_ONCE = 8

# One statement, and the long values as text, which is decoded straight into what it is.
_STORED = (
    select(
        Repository.type,
        cast(ModelVersion.files, Text),
        cast(ModelVersion.summary, Text),
        cast(ModelVersion.findings, Text),
    )
    .outerjoin(
        ModelVersion,
        (ModelVersion.repository_id == Repository.id)
        & (ModelVersion.commit == bindparam("commit"))
        & (ModelVersion.version == VERSION),
    )
    .where(Repository.id == bindparam("repository_id"))
)
_files = msgspec.json.Decoder(tuple[VersionFile, ...])
_summary = msgspec.json.Decoder(Summary)
_findings = msgspec.json.Decoder(tuple[Finding, ...])


class Versions:
    """Understands commits."""

    def __init__(self, database: Database, trees: Trees, parsing: Parsing) -> None:
        self._database = database
        self._trees = trees
        self._parsing = parsing
        self._places = asyncio.Semaphore(_AT_ONCE)
        self._locks: WeakValueDictionary[tuple[str, str], asyncio.Lock] = WeakValueDictionary()

    async def look(self, repository_id: str, commit: str) -> Version:
        """What a commit is, by its full oid. Of what had to be found out, only parsed files are stored.

        Raises:
            RepositoryNotFound, RevisionNotFound: there is no such commit there.
            TooExpensive: it cannot be listed.
            Unavailable: some file or the database cannot be read just now; try again.
        """
        stored, kind = await self._stored(repository_id, commit)
        if stored is not None and stored.is_whole:
            return stored
        # One at a time for each commit: the others find in memory what the first one parsed.
        lock = self._locks.setdefault((repository_id, commit), asyncio.Lock())
        async with lock, self._places, self._trees.open(repository_id, commit) as tree:
            made = await self._made(tree, kind)
        return stored if stored is not None and stored == replace(made, stored=True) else made

    async def parsed(
        self, version: Version, files: Iterable[VersionFile], *, lists: bool = False
    ) -> AsyncGenerator[tuple[VersionFile, Parsed], None]:
        """What parsers found in some files of a version, but for those that nobody could read.

        Use it with `aclosing`. It has `parsed_files.LONG_LISTS` only with `lists`. Raises as `look`.
        """
        rest = iter(files)
        while some := list(islice(rest, _FILES_AT_ONCE)):
            contents = {file.path: (file.digest, file.parser) for file in some if file.parser is not None}
            known = await self._parsing.known(contents.values())
            missing = [file for file in some if file.parser and contents[file.path] not in known]
            again = await self._parsed_again(version, missing, lists) if missing else {}
            for file in some:
                kept = known.get(contents[file.path]) if file.parser else None
                parsed = again.get(file.path) if kept is None else await kept.parsed(lists=lists)
                if parsed is not None:
                    yield file, parsed

    async def _parsed_again(
        self, version: Version, files: Iterable[VersionFile], lists: bool
    ) -> dict[str, Parsed]:
        """Where another version of a parser was at work, or somebody emptied the table."""
        async with self._trees.open(version.repository_id, version.commit) as tree:
            there = [tree.files[file.path] for file in files if file.path in tree.files]
            answers = self._parsing.parse_each(tree, there, remember=True, lists=lists)
            async with aclosing(answers):
                return {
                    file.path: answer[1]
                    async for file, answer in answers
                    if not isinstance(answer, SourceUnreadable)
                }

    async def _stored(self, repository_id: str, commit: str) -> tuple[Version | None, RepositoryType]:
        rows = await self._database.rows(_STORED, {"repository_id": repository_id, "commit": commit})
        if not rows:
            raise RepositoryNotFound("no such repository")
        kind, files, summary, findings = rows[0]
        if not files:  # JSON is never empty: there is no such version
            return None, RepositoryType(kind)
        version = Version(
            repository_id,
            RepositoryType(kind),
            commit,
            _files.decode(files),
            _summary.decode(summary),
            _findings.decode(findings),
            stored=True,
        )
        return version, version.type

    async def _made(self, tree: Tree, kind: RepositoryType) -> Version:
        making = await asyncio.to_thread(Making, tree, kind)
        answers = self._parsing.parse_each(tree, making.wanted, remember=True, lists=False)
        async with aclosing(answers):
            async for file, answer in answers:
                if isinstance(answer, ContentMissing):
                    making.miss(file, answer)
                elif isinstance(answer, SourceUnreadable):
                    raise ContentUnavailable(f"a file cannot be read just now: {answer}", path=file.path)
                else:
                    making.take(file, answer[0].name, answer[1])
        return await asyncio.to_thread(making.finish)


async def store(session: AsyncSession, version: Version) -> None:
    """Writes a version in the caller's transaction, which holds the lock on the repository's row."""
    values = {
        "version": VERSION,
        "files": msgspec.Raw(msgspec.json.encode(version.files)),
        "summary": msgspec.Raw(msgspec.json.encode(version.summary)),
        "findings": msgspec.Raw(msgspec.json.encode(version.findings)),
    }
    row = {"repository_id": version.repository_id, "commit": version.commit, "created_at": now()}
    await session.execute(
        insert_into(session, ModelVersion)
        .values(**row, **values, announced=False)
        .on_conflict_do_update(index_elements=[ModelVersion.repository_id, ModelVersion.commit], set_=values)
    )
