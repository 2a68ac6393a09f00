"""Understanding commits, and storing what they are."""

import asyncio
from collections.abc import AsyncGenerator, Iterable
from contextlib import aclosing
from dataclasses import replace
from itertools import islice
from weakref import WeakValueDictionary

import msgspec
from sqlalchemy import select
from sqlalchemy.dialects.postgresql import insert as postgresql_insert
from sqlalchemy.dialects.sqlite import insert as sqlite_insert
from sqlalchemy.ext.asyncio import AsyncSession

from core.database import Database
from core.errors import RepositoryNotFound
from core.models import ModelVersion, Repository, RepositoryType, now
from gitserver.publish import lock_repository
from hooks.errors import ContentMissing, ContentUnavailable
from hooks.formats.parsed import Finding, Parsed
from hooks.formats.source import SourceUnreadable
from hooks.parsing import Parsing
from hooks.summary import Summary
from hooks.trees import Tree, Trees
from hooks.version import VERSION, Making, Version, VersionFile

__all__ = ["Version", "VersionFile", "Versions", "store"]

_AT_ONCE = 4
_FILES_AT_ONCE = 32


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

    async def understand(self, repository_id: str, commit: str) -> Version:
        """The same, stored for good: for commits that branches and tags name. Raises as `look`."""
        version = await self.look(repository_id, commit)
        if not version.stored:
            async with self._database.transaction() as session:
                await lock_repository(session, repository_id)
                await store(session, version)
        return replace(version, stored=True)

    async def parsed(
        self, version: Version, files: Iterable[VersionFile]
    ) -> AsyncGenerator[tuple[VersionFile, Parsed], None]:
        """What parsers found in some files of a version, but for those that nobody could read.

        Use it with `aclosing`. Raises as `look`.
        """
        rest = iter(files)
        while some := list(islice(rest, _FILES_AT_ONCE)):
            contents = {file.path: (file.digest, file.parser) for file in some if file.parser is not None}
            known = await self._parsing.known(contents.values())
            missing = [file for file in some if file.parser and contents[file.path] not in known]
            again = await self._parsed_again(version, missing) if missing else {}
            for file in some:
                kept = known.get(contents[file.path]) if file.parser else None
                parsed = again.get(file.path) if kept is None else kept.parsed
                if parsed is not None:
                    yield file, parsed

    async def _parsed_again(self, version: Version, files: Iterable[VersionFile]) -> dict[str, Parsed]:
        """Where another version of a parser was at work, or somebody emptied the table."""
        async with self._trees.open(version.repository_id, version.commit) as tree:
            there = [tree.files[file.path] for file in files if file.path in tree.files]
            async with aclosing(self._parsing.parse_each(tree, there, remember=True)) as answers:
                return {
                    file.path: answer[1]
                    async for file, answer in answers
                    if not isinstance(answer, SourceUnreadable)
                }

    async def _stored(self, repository_id: str, commit: str) -> tuple[Version | None, RepositoryType]:
        async with self._database.read() as session:
            found = await session.scalar(select(Repository.type).where(Repository.id == repository_id))
            if found is None:
                raise RepositoryNotFound("no such repository")
            kind = RepositoryType(found)
            row = await session.get(ModelVersion, (repository_id, commit))
            if row is None or row.version != VERSION:
                return None, kind
        version = Version(
            repository_id,
            kind,
            commit,
            tuple(msgspec.convert(row.files, list[VersionFile])),
            msgspec.convert(row.summary, Summary),
            tuple(msgspec.convert(row.findings, list[Finding])),
            stored=True,
        )
        return version, kind

    async def _made(self, tree: Tree, kind: RepositoryType) -> Version:
        making = Making(tree, kind)
        async with aclosing(self._parsing.parse_each(tree, making.wanted, remember=True)) as answers:
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
    insert = postgresql_insert if session.get_bind().dialect.name == "postgresql" else sqlite_insert
    values = {
        "version": VERSION,
        "files": msgspec.to_builtins(version.files),
        "summary": msgspec.to_builtins(version.summary),
        "findings": msgspec.to_builtins(version.findings),
    }
    row = {"repository_id": version.repository_id, "commit": version.commit, "created_at": now()}
    await session.execute(
        insert(ModelVersion)
        .values(**row, **values, announced=False)
        .on_conflict_do_update(index_elements=[ModelVersion.repository_id, ModelVersion.commit], set_=values)
    )
