"""Large files on a database and real stores, without a face: for every test below HTTP and SSH.

async with open_lfs_world(database, tmp_path) as world:
    oid = await world.upload(b"some bytes")            # by `world.owner` to `world.repository`
    assert (await world.objects.find(world.repository.id, [oid]))[oid].size == 10
"""

import hashlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TypeVar

from sqlalchemy import select

from core.access import Actor
from core.database import Database
from core.models import Base, LfsLink, LfsObject, LfsUpload, StoreKind
from core.opening import RepositoryInfo
from core.settings import LfsSettings, StorageSettings
from lfs.objects import Objects, new_key
from lfs.quotas import Quotas
from lfs.stores import Stores
from lfs.uploads import Uploads
from storage.local import LocalStore
from storage.minio_store import MinioStore
from storage.protocol import ObjectStore
from tests.support.core_services import Core
from tests.support.streams import list_keys, pieces, read_all

Row = TypeVar("Row", bound=Base)


def oid_of(data: bytes) -> str:
    """What large files are called."""
    return hashlib.sha256(data).hexdigest()


class Unread:
    """A stream of which nothing must be read."""

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        raise AssertionError("a byte was read")


class LfsWorld:
    """The records and uploads of one server; `owner` (ann) owns the private `repository` (ann/model)."""

    owner: Actor
    repository: RepositoryInfo

    def __init__(self, database: Database, stores: Stores, settings: LfsSettings) -> None:
        self.database = database
        self.core = Core.on(database)
        self.stores = stores
        self.settings = settings
        self.objects = Objects(database)
        self.quotas = Quotas(database, settings)
        self.uploads = Uploads(database, stores, self.quotas, settings)

    @property
    def store(self) -> ObjectStore:
        """Where new objects go."""
        return self.stores.current

    async def new_repository(self, name: str, *, actor: Actor | None = None) -> RepositoryInfo:
        """Another private repository, of `owner` or of somebody else."""
        actor = actor or self.owner
        return await self.core.repository(f"{actor.name}/{name}", actor=actor)

    async def upload(
        self, data: bytes, *, repository: RepositoryInfo | None = None, actor: Actor | None = None
    ) -> str:
        """Uploads through the server and returns the oid."""
        oid = oid_of(data)
        where = (repository or self.repository).id
        await self.uploads.receive(where, actor or self.owner, oid, len(data), pieces(data))
        return oid

    async def put(self, key: str, data: bytes) -> None:
        """Puts bytes into the store, past everything."""
        await self.store.put(key, pieces(data))

    async def begin(
        self, data: bytes, *, key: str | None = None, store: StoreKind | None = None
    ) -> LfsUpload:
        """The row of an upload of `data` that is under way outside of one request, without any bytes."""
        oid = oid_of(data)
        row = LfsUpload(
            repository_id=self.repository.id,
            oid=oid,
            size=len(data),
            store=store or self.stores.current_kind,
            key=key or new_key(oid),
        )
        async with self.database.transaction() as session:
            session.add(row)
        return row

    async def read(self, oid: str) -> bytes:
        """The bytes of an object, whoever has it."""
        row = await self.object(oid)
        assert row is not None
        return await read_all(self.stores[row.store], row.key)

    async def object(self, oid: str) -> LfsObject | None:
        async with self.database.read() as session:
            return await session.get(LfsObject, oid)

    async def link(self, oid: str, repository: RepositoryInfo | None = None) -> LfsLink | None:
        async with self.database.read() as session:
            return await session.get(LfsLink, ((repository or self.repository).id, oid))

    async def pending(self) -> list[LfsUpload]:
        """Uploads that are under way."""
        return await self.rows(LfsUpload)

    async def rows(self, kind: type[Row]) -> list[Row]:
        async with self.database.read() as session:
            return list(await session.scalars(select(kind)))

    async def keys(self) -> list[str]:
        """Everything below `lfs/` in the current store, once what was dropped is deleted."""
        await self.uploads.settle()
        return await list_keys(self.store, "lfs/")

    async def is_empty(self) -> bool:
        """Neither bytes nor rows of any object."""
        return not await self.keys() and not await self.rows(LfsObject) and not await self.rows(LfsLink)

    async def expect_sound(self) -> None:
        """Fails unless every object's bytes are there and right, and nothing else is."""
        objects = await self.rows(LfsObject)
        assert sorted(row.key for row in objects) == await self.keys()
        for row in objects:
            assert oid_of(await self.read(row.oid)) == row.oid


@asynccontextmanager
async def open_lfs_world(
    database: Database,
    root: Path,
    *,
    settings: LfsSettings | None = None,
    minio: StorageSettings | None = None,
) -> AsyncIterator[LfsWorld]:
    """A world on a local store below `root`, or, where `minio` is given, on both with MinIO as the current.

    The database stays the caller's.
    """
    local = LocalStore(root / "lfs-store", low_bytes=0)
    every: dict[StoreKind, ObjectStore] = {StoreKind.LOCAL: local}
    current = StoreKind.LOCAL
    if minio is not None:
        every[StoreKind.MINIO], current = MinioStore(minio), StoreKind.MINIO
        await every[current].check()
    world = LfsWorld(database, Stores(every, current), settings or LfsSettings())
    world.owner = await world.core.user("ann")
    world.repository = await world.new_repository("model")
    try:
        yield world
    finally:
        await world.uploads.close()
        for store in every.values():
            await store.close()
