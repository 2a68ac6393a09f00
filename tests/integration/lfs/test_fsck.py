"""Reading everything again: what is wrong is found, and nothing is called wrong that only cannot be seen."""

import asyncio
import shutil
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest

from core.database import Database
from core.models import LfsObject, StoreKind
from lfs.fsck import FsckReport, LfsFsck, Problem
from lfs.objects import new_key
from lfs.stores import Stores
from storage.local import LocalStore
from storage.protocol import ObjectStore
from tests.support.database import Databases
from tests.support.lfs_world import LfsWorld, open_lfs_world
from tests.support.minio_server import MinioServer
from tests.support.streams import noise


def problems(report: FsckReport) -> dict[str, Problem]:
    return {finding.oid: finding.problem for finding in report.findings}


async def key_of(world: LfsWorld, oid: str) -> str:
    row = await world.object(oid)
    assert row is not None
    return row.key


async def damaged(world: LfsWorld) -> set[str]:
    return {row.oid for row in await world.rows(LfsObject) if row.damaged_at is not None}


async def test_what_is_whole_is_found_whole(world: LfsWorld) -> None:
    for number in range(20):
        await world.upload(noise(number * 50_000, str(number)))
    seen: list[int] = []
    report = await LfsFsck(world.database, world.stores).check(
        progress=lambda report: seen.append(report.objects)
    )
    assert report == FsckReport(objects=20, bytes=50_000 * 190)
    assert seen == list(range(1, 21))


async def test_damage_is_found_noted_and_healed_by_an_upload(world: LfsWorld) -> None:
    contents = [b"whole", b"changed", b"longer", b"shorter", b"missing"]
    whole, *bad = [await world.upload(one) for one in contents]
    for oid, data in zip(bad[:3], (b"CHANGED", b"longer than it was", b"short"), strict=True):
        await world.put(await key_of(world, oid), data)
    await world.store.delete(await key_of(world, bad[3]))
    fsck = LfsFsck(world.database, world.stores)
    report = await fsck.check()
    wrong = Problem.WRONG_BYTES
    assert problems(report) == dict(zip(bad, [wrong, wrong, wrong, Problem.MISSING], strict=True))
    assert await damaged(world) == set(bad)
    assert await world.objects.missing(world.repository.id, [whole, *bad]) == set(bad)
    assert len((await fsck.check()).findings) == 4, "it says so again"
    for data in contents:
        await world.upload(data)
    assert (await fsck.check()).findings == []
    assert await damaged(world) == set()


async def test_what_is_whole_after_all_is_damaged_no_more(world: LfsWorld) -> None:
    oid = await world.upload(b"back from the backup")
    other = await world.upload(b"something else")
    key = await key_of(world, oid)
    await world.store.delete(key)
    fsck = LfsFsck(world.database, world.stores)
    assert problems(await fsck.check()) == {oid: Problem.MISSING}
    await world.put(key, b"back from the backup")
    report = await fsck.check()
    assert (report.findings, report.healed) == ([], 1)
    assert await world.objects.missing(world.repository.id, [oid, other]) == set()


async def test_one_repository_or_some_objects(world: LfsWorld) -> None:
    other = await world.new_repository("other")
    mine, second = await world.upload(b"mine"), await world.upload(b"second")
    theirs = await world.upload(b"theirs", repository=other)
    for oid in (mine, second, theirs):
        await world.put(await key_of(world, oid), b"x")
    fsck = LfsFsck(world.database, world.stores)
    assert set(problems(await fsck.check(repository_id=other.id))) == {theirs}
    assert await damaged(world) == {theirs}
    assert set(problems(await fsck.check(repository_id=world.repository.id, oids=[mine, theirs]))) == {mine}


async def test_an_unmounted_directory_damages_nothing(world: LfsWorld, tmp_path: Path) -> None:
    oids = {await world.upload(b"%d" % number) for number in range(5)}
    shutil.move(tmp_path / "lfs-store", tmp_path / "elsewhere")
    fsck = LfsFsck(world.database, world.stores)
    report = await fsck.check()
    assert set(problems(report).values()) == {Problem.UNREACHABLE}
    assert set(problems(report)) == oids
    assert "mounted" in report.findings[0].detail
    assert await damaged(world) == set()
    shutil.move(tmp_path / "elsewhere", tmp_path / "lfs-store")
    assert (await fsck.check()).findings == []


async def test_a_store_that_the_settings_have_lost(world: LfsWorld, tmp_path: Path) -> None:
    oid = await world.upload(b"somewhere")
    elsewhere = LocalStore(tmp_path / "new", low_bytes=0)
    stores: dict[StoreKind, ObjectStore] = {StoreKind.MINIO: elsewhere}
    report = await LfsFsck(world.database, Stores(stores, StoreKind.MINIO)).check()
    assert problems(report) == {oid: Problem.UNREACHABLE}
    assert await damaged(world) == set()
    await elsewhere.close()


async def test_minio_stopped_in_the_middle(database: Database, tmp_path: Path) -> None:
    server = MinioServer(tmp_path / "minio")
    try:
        await asyncio.to_thread(server.start)
        async with open_lfs_world(database, tmp_path, minio=server.settings(bucket="fsck")) as world:
            fsck = LfsFsck(world.database, world.stores)
            oids = {await world.upload(noise(500_000, str(number))) for number in range(12)}
            assert (await fsck.check()).findings == []

            def stop(report: FsckReport) -> None:
                server.stop()

            report = await fsck.check(progress=stop)
            assert set(problems(report)) < oids
            assert set(problems(report).values()) == {Problem.UNREACHABLE}
            assert await damaged(world) == set()
            await asyncio.to_thread(server.start)
            assert (await fsck.check()).findings == []
    finally:
        server.stop()


async def test_an_object_that_moves_while_it_is_read(
    world: LfsWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its old bytes are gone before they are read; the row says where it is now."""
    oid = await world.upload(b"moving")
    await world.upload(b"another")
    old, new = await key_of(world, oid), new_key(oid)
    opened = world.store.open

    @asynccontextmanager
    async def moved_first(key: str) -> AsyncIterator[AsyncIterator[bytes]]:
        if key == old:
            await world.put(new, b"moving")
            async with world.database.transaction() as session:
                (await session.get_one(LfsObject, oid)).key = new
            await world.store.delete(old)
        async with opened(key) as chunks:
            yield chunks

    with monkeypatch.context() as patch:
        patch.setattr(world.store, "open", moved_first)
        report = await LfsFsck(world.database, world.stores).check()
    assert report == FsckReport(objects=2, bytes=13)
    assert await damaged(world) == set()
    assert await key_of(world, oid) == new


async def test_a_link_without_an_object(databases: Databases, tmp_path: Path) -> None:
    """Somebody restored the database by half, which only SQLite lets them do."""
    async with AsyncExitStack() as stack:
        database = Database(await stack.enter_async_context(databases.fresh("sqlite")))
        stack.push_async_callback(database.close)
        world = await stack.enter_async_context(open_lfs_world(database, tmp_path))
        oid = await world.upload(b"lost row")
        async with database.engine.connect() as connection:
            for statement in (
                "ROLLBACK",
                "PRAGMA foreign_keys=OFF",
                f"DELETE FROM lfs_object WHERE oid = '{oid}'",
                "PRAGMA foreign_keys=ON",
                "BEGIN",
            ):
                await connection.exec_driver_sql(statement)
        report = await LfsFsck(database, world.stores).check(repository_id=world.repository.id)
        assert problems(report) == {oid: Problem.NO_OBJECT}
