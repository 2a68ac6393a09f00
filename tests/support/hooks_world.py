"""Understanding pushes, below the faces: a real Git engine, real object stores, and what reads them.

async with open_hooks_world(database, tmp_path) as world:          # or the fixture `world`
    commit = await world.commit({"config.json": b"{}"}, lfs={"model.safetensors": weights})
    async with world.trees.open(world.repository.id, commit) as tree: ...
"""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import delete, select

from core.access import SYSTEM
from core.database import Database
from core.models import (
    LfsLink,
    LfsObject,
    ModelVersion,
    OutboxEvent,
    ParsedFile,
    PostReceiveTask,
    Push,
    Repository,
    RepositoryFacet,
    RepositoryHead,
    RepositoryType,
    StoreKind,
    Transport,
)
from core.opening import RepositoryInfo
from core.settings import StorageSettings
from gitserver.commits import Operation, Put
from gitserver.publish import lock_repository
from gitserver.updates import RefUpdate
from hooks.heads import Heads
from hooks.parsing import Parsing
from hooks.received import PostReceiveStep, ReceivedPush, Report
from hooks.trees import Trees
from hooks.version_step import UnderstandVersions
from hooks.versions import Version, Versions, store
from lfs.objects import new_key
from lfs.pointer import Pointer, write_pointer
from lfs.stores import Stores
from storage.local import LocalStore
from storage.protocol import ObjectStore
from tests.support.lfs_keeping import Keeping, open_keeping
from tests.support.lfs_world import oid_of


class CountingStore:
    """An object store, and what was read from it.

    Attributes:
        bytes: how many; requests: how often it was asked.
        pause: for so many seconds each request hangs.
    """

    def __init__(self, store: ObjectStore) -> None:
        self._store = store
        self.bytes = 0
        self.requests = 0
        self.pause = 0.0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    def open(
        self, key: str, *, offset: int = 0, length: int | None = None
    ) -> AbstractAsyncContextManager[AsyncIterator[bytes]]:
        return self._open(key, offset, length)

    @asynccontextmanager
    async def _open(self, key: str, offset: int, length: int | None) -> AsyncIterator[AsyncIterator[bytes]]:
        self.requests += 1
        await asyncio.sleep(self.pause)
        async with self._store.open(key, offset=offset, length=length) as chunks:
            yield self._counted(chunks)

    async def _counted(self, chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        async for chunk in chunks:
            self.bytes += len(chunk)
            yield chunk


class HooksWorld:
    """One process of a server; `repository` is the model ann/model."""

    def __init__(self, keeping: Keeping) -> None:
        self.keeping = keeping
        self.database = keeping.world.database
        self.git = keeping.git
        self.repository = keeping.repository
        self.lfs = keeping.world
        self.counting = CountingStore(keeping.world.store)
        kind = keeping.world.stores.current_kind
        # Reads are counted, and go where uploads went.
        self.stores = Stores({kind: self.counting}, kind)
        self.trees = Trees(self.git.git, self.git.snapshots, keeping.world.objects, self.stores)
        self.parsing = self.new_parsing()
        self.versions = Versions(self.database, self.trees, self.parsing)
        self.heads = Heads(self.database, self.versions)
        self.metadata = UnderstandVersions(self.database, self.versions, self.git.reader)

    def new_parsing(self, **options: int) -> Parsing:
        """As another process would have it. Whoever asks closes it."""
        return Parsing(self.database, **options)

    async def new_repository(
        self, name: str, *, kind: RepositoryType = RepositoryType.MODEL
    ) -> RepositoryInfo:
        """Another private repository of ann."""
        prefix = "datasets/" if kind is RepositoryType.DATASET else ""
        return await self.lfs.core.repository(f"{prefix}ann/{name}", actor=self.lfs.owner)

    async def commit(
        self,
        files: Mapping[str, bytes] | None = None,
        *,
        lfs: Mapping[str, bytes] | None = None,
        repository: RepositoryInfo | None = None,
        branch: str = "main",
        message: str = "more",
    ) -> str:
        """Commits files, those of `lfs` as uploaded objects with pointers; returns the commit."""
        where = repository or self.repository
        operations: list[Operation] = [Put(path, data) for path, data in (files or {}).items()]
        for path, data in (lfs or {}).items():
            await self.lfs.upload(data, repository=where)
            operations.append(Put(path, pointer_to(data)))
        return (await self.git.committer.commit(where, SYSTEM, branch, operations, message)).oid

    async def received(self, step: PostReceiveStep, push_id: int | None = None) -> tuple[str, ...]:
        """Does a step about a push, the last one if none is named; returns what whoever pushed is told.

        The push is not queued any more, as if this had been all its steps.
        """
        async with self.database.read() as session:
            latest = select(Push).order_by(Push.id.desc()).limit(1)
            row = await session.scalar(latest if push_id is None else latest.where(Push.id == push_id))
            assert row is not None
            repository = await session.get(Repository, row.repository_id)
            assert repository is not None
        push = ReceivedPush(
            id=row.id,
            repository=RepositoryInfo.of(repository, "ann"),
            actor=row.actor,
            actor_id=row.actor_id,
            transport=Transport(row.transport),
            updates=tuple(RefUpdate(one["ref"], one["old"], one["new"]) for one in row.updates),
            options=tuple(row.options),
            by_run=row.by_run,
            created_at=row.created_at,
        )
        report = Report()
        await step.run(push, report)
        async with self.database.transaction() as session:
            await session.execute(delete(PostReceiveTask).where(PostReceiveTask.push_id == row.id))
        return report.lines

    async def adopt_sparse(self, oid: str, size: int, head: bytes) -> None:
        """An LFS object of any size in a local store, of which only the first bytes are there."""
        assert isinstance(self.lfs.store, LocalStore)
        key = new_key(oid)
        path = self.lfs.store.local_path(key)
        path.parent.mkdir(parents=True)
        with path.open("wb") as file:
            file.write(head)
            file.truncate(size)
        async with self.database.transaction() as session:
            session.add(LfsObject(oid=oid, size=size, store=StoreKind.LOCAL, key=key))
            await session.flush()
            session.add(LfsLink(repository_id=self.repository.id, oid=oid))

    async def understand(self, commit: str, *, repository: RepositoryInfo | None = None) -> Version:
        """What a commit is, stored for good, as for one that was pushed and not told of yet."""
        where = repository or self.repository
        version = await self.versions.look(where.id, commit)
        async with self.database.transaction() as session:
            await lock_repository(session, where.id)
            await store(session, version)
        return await self.versions.look(where.id, commit)

    async def point(self, ref: str, oid: str | None, *, repository: RepositoryInfo | None = None) -> None:
        """Makes a ref name an object that is there already, or deletes it."""
        where = repository or self.repository
        state = await self.git.snapshots.state(where.id)
        old = state.refs[ref].oid if ref in state.refs else "0" * 40
        update = RefUpdate(ref, old, oid or "0" * 40)
        published = await self.git.publisher.publish(
            where.id, [update], None, actor=SYSTEM, transport=Transport.LOCAL, epoch=0
        )
        assert published.verdicts[0].error is None

    async def events(self, *names: str) -> list[OutboxEvent]:
        """What was emitted, oldest first; of these kinds, or all."""
        query = select(OutboxEvent).order_by(OutboxEvent.id)
        async with self.database.read() as session:
            return list(await session.scalars(query.where(OutboxEvent.name.in_(names)) if names else query))

    async def facets(self, repository: RepositoryInfo | None = None) -> set[tuple[str, str]]:
        """What a repository is searched by: kinds and values."""
        where = RepositoryFacet.repository_id == (repository or self.repository).id
        async with self.database.read() as session:
            rows = await session.execute(select(RepositoryFacet.kind, RepositoryFacet.value).where(where))
            return {(kind, value) for kind, value in rows}

    async def head(self) -> tuple[str, int | None] | None:
        """The commit that `repository` is searched by, and its parameters."""
        async with self.database.read() as session:
            row = await session.get(RepositoryHead, self.repository.id)
            return None if row is None else (row.commit, row.parameters)

    async def stored_versions(self) -> list[ModelVersion]:
        async with self.database.read() as session:
            return list(await session.scalars(select(ModelVersion).order_by(ModelVersion.created_at)))

    async def parsed_files(self) -> list[ParsedFile]:
        async with self.database.read() as session:
            return list(await session.scalars(select(ParsedFile).order_by(ParsedFile.digest)))


def pointer_to(data: bytes) -> bytes:
    """The pointer file for these bytes."""
    return write_pointer(Pointer(oid_of(data), len(data)))


@asynccontextmanager
async def open_hooks_world(
    database: Database, root: Path, *, minio: StorageSettings | None = None
) -> AsyncIterator[HooksWorld]:
    """A world that is closed after the block; with `minio`, large files are there."""
    async with open_keeping(database, root, minio=minio) as keeping:
        world = HooksWorld(keeping)
        try:
            yield world
        finally:
            await world.parsing.close()
