"""Moving between stores: nothing is ever unreadable or lost, and it can be stopped and begun again."""

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import select

from core.access import SYSTEM
from core.database import Database
from core.models import AuditEntry, LfsObject, StoreKind
from core.settings import MaintenanceSettings
from lfs.fsck import LfsFsck
from lfs.orphans import Orphans
from lfs.relocation import Moved, Relocation
from lfs.stores import Stores
from storage.protocol import StoreUnavailable
from tests.support.lfs_world import LfsWorld, oid_of, open_lfs_world
from tests.support.minio_server import MinioServer
from tests.support.streams import list_keys, noise


@pytest.fixture
async def both(database: Database, tmp_path: Path, minio: MinioServer) -> AsyncIterator[LfsWorld]:
    """Both stores; new objects go to the local one."""
    settings = minio.settings(bucket="relocation", prefix=tmp_path.name.replace("_", "-").strip("-."))
    async with open_lfs_world(database, tmp_path, minio=settings) as world:
        world.stores.current_kind = StoreKind.LOCAL
        world.stores.current = world.stores[StoreKind.LOCAL]
        yield world


async def places(world: LfsWorld) -> set[StoreKind]:
    return {StoreKind(row.store) for row in await world.rows(LfsObject)}


async def test_there_and_back(both: LfsWorld) -> None:
    contents = [noise(number * 300_000, str(number)) for number in range(8)]
    oids = [await both.upload(data) for data in contents]
    relocation = Relocation(both.database, both.stores)
    steps: list[int] = []
    moved = await relocation.run(SYSTEM, StoreKind.MINIO, progress=lambda moved: steps.append(moved.objects))
    assert moved == Moved(objects=8, bytes=sum(map(len, contents)))
    assert (await places(both), steps[-1]) == ({StoreKind.MINIO}, 8)
    assert [await both.read(oid) for oid in oids] == contents
    assert len(await list_keys(both.stores[StoreKind.LOCAL], "lfs/")) == 8, "links to them may still be used"
    assert await relocation.run(SYSTEM, StoreKind.MINIO) == Moved()
    assert (await LfsFsck(both.database, both.stores).check()).findings == []
    assert (await relocation.run(SYSTEM, StoreKind.LOCAL)).objects == 8
    assert [await both.read(oid) for oid in oids] == contents
    async with both.database.read() as session:
        entries = await session.scalars(select(AuditEntry).where(AuditEntry.action == "lfs:migrate"))
        assert [entry.details["objects"] for entry in entries] == [8, 0, 8]


async def test_the_old_bytes_go_when_no_link_can_name_them(both: LfsWorld) -> None:
    oid = await both.upload(b"moving")
    await Relocation(both.database, both.stores).run(SYSTEM, StoreKind.MINIO)
    orphans = Orphans(both.database, both.stores, MaintenanceSettings())
    assert (await orphans.sweep(orphan_seconds=-1)).objects == 0
    async with both.database.transaction() as session:
        (await session.get_one(LfsObject, oid)).verified_at -= timedelta(days=8)
    assert (await orphans.sweep(orphan_seconds=-1)).objects == 1
    assert await list_keys(both.stores[StoreKind.LOCAL], "lfs/") == []
    assert await both.read(oid) == b"moving"


async def test_it_serves_meanwhile(both: LfsWorld) -> None:
    contents = {oid_of(data): data for data in (noise(200_000, str(number)) for number in range(12))}
    for data in contents.values():
        await both.upload(data)
    relocation = Relocation(both.database, both.stores)
    moving = asyncio.ensure_future(relocation.run(SYSTEM, StoreKind.MINIO))
    reads = uploads = 0
    while not moving.done():
        for oid, data in contents.items():
            assert await both.read(oid) == data
            reads += 1
        await both.upload(b"beside it %d" % uploads)
        uploads += 1
    moved = await moving
    assert reads
    assert moved.objects >= 12
    # What came meanwhile went to the old store, as the settings still say.
    assert (await relocation.run(SYSTEM, StoreKind.MINIO)).left == 0
    assert await places(both) == {StoreKind.MINIO}
    assert (await LfsFsck(both.database, both.stores).check()).findings == []


async def test_two_at_once(both: LfsWorld) -> None:
    contents = [noise(100_000, str(number)) for number in range(10)]
    oids = [await both.upload(data) for data in contents]
    relocation = Relocation(both.database, both.stores)
    done = await asyncio.gather(
        relocation.run(SYSTEM, StoreKind.MINIO), relocation.run(SYSTEM, StoreKind.MINIO)
    )
    assert sum(moved.objects for moved in done) == 10
    rows = {row.key for row in await both.rows(LfsObject)}
    assert set(await list_keys(both.stores[StoreKind.MINIO], "lfs/")) == rows, "the loser drops its copies"
    assert [await both.read(oid) for oid in oids] == contents


async def test_damaged_objects_stay_and_are_named(both: LfsWorld) -> None:
    oids = [await both.upload(data) for data in (b"whole", b"changed", b"missing")]
    rows = [await both.object(oid) for oid in oids]
    assert rows[1] is not None
    assert rows[2] is not None
    await both.put(rows[1].key, b"CHANGED")
    await both.store.delete(rows[2].key)
    moved = await Relocation(both.database, both.stores).run(SYSTEM, StoreKind.MINIO)
    assert (moved.objects, set(moved.failed), moved.left) == (1, set(oids[1:]), 2)
    assert len(await list_keys(both.stores[StoreKind.MINIO], "lfs/")) == 1


async def test_a_store_that_stops_is_an_error_and_then_the_rest_follows(
    database: Database, tmp_path: Path
) -> None:
    server = MinioServer(tmp_path / "minio")
    try:
        await asyncio.to_thread(server.start)
        async with open_lfs_world(database, tmp_path, minio=server.settings(bucket="moving")) as world:
            contents = [noise(1_000_000, str(number)) for number in range(10)]
            oids = [await world.upload(data) for data in contents]
            relocation = Relocation(world.database, world.stores)

            def stop(moved: Moved) -> None:
                if moved.objects == 3:
                    server.stop()

            with pytest.raises(StoreUnavailable):
                await relocation.run(SYSTEM, StoreKind.LOCAL, progress=stop)
            assert await places(world) == {StoreKind.LOCAL, StoreKind.MINIO}
            await asyncio.to_thread(server.start)
            moved = await relocation.run(SYSTEM, StoreKind.LOCAL)
            assert (0 < moved.objects < 10, moved.left) == (True, 0)
            assert [await world.read(oid) for oid in oids] == contents
            assert (await LfsFsck(world.database, world.stores).check()).findings == []
    finally:
        server.stop()


async def test_a_store_that_is_not_described(world: LfsWorld) -> None:
    await world.upload(b"stays")
    with pytest.raises(StoreUnavailable, match="does not describe"):
        await Relocation(world.database, world.stores).run(SYSTEM, StoreKind.MINIO)
    alone = Stores({StoreKind.LOCAL: world.store}, StoreKind.LOCAL)
    assert (await Relocation(world.database, alone).run(SYSTEM, StoreKind.LOCAL)).objects == 0
