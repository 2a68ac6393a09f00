"""Bytes that came into a store another way: parts, and PUTs past this server."""

import asyncio
from pathlib import Path

import pytest
from sqlalchemy import update

from core.access import SYSTEM
from core.database import Database
from core.models import LfsObject, LfsUpload, StoreKind, now
from lfs.errors import ObjectMissing, QuotaExceeded, UploadNotFound, WrongBytes
from lfs.objects import new_key
from lfs.pending import GIVEN_UP
from tests.support.lfs_world import LfsWorld, oid_of, open_lfs_world
from tests.support.minio_server import MinioServer
from tests.support.streams import noise, pieces


async def adopt(world: LfsWorld, key: str, data: bytes, *, attested: bool = False) -> None:
    """`data` is what is claimed to lie under the key."""
    await world.uploads.adopt(
        world.repository.id, world.owner, oid_of(data), len(data), StoreKind.LOCAL, key, attested=attested
    )


async def test_adopted_bytes_become_the_object(world: LfsWorld) -> None:
    for attested in (True, False):
        data = noise(900_000, str(attested))
        upload = await world.begin(data)
        await world.put(upload.key, data)
        await adopt(world, upload.key, data, attested=attested)
        row = await world.object(upload.oid)
        assert row is not None
        assert row.key == upload.key
        await adopt(world, upload.key, data, attested=attested)  # the client did not hear of it
        assert await world.pending() == []
        await world.expect_sound()
    assert len(await world.rows(LfsObject)) == 2


async def test_adopting_what_is_there_already_drops_the_bytes(world: LfsWorld) -> None:
    other = await world.new_repository("other")
    data = noise(300_000)
    await world.upload(data, repository=other)
    upload = await world.begin(data)
    await world.put(upload.key, data)
    found = await asyncio.gather(*(adopt(world, upload.key, data) for _ in range(5)), return_exceptions=True)
    # Who comes late finds the bytes dropped and the object linked, and asks again.
    assert set(map(type, found)) <= {type(None), ObjectMissing}
    assert None in found
    assert await world.link(upload.oid) is not None
    await world.expect_sound()


async def test_completing_an_upload_many_times_at_once(world: LfsWorld) -> None:
    data = noise(300_000)
    upload = await world.begin(data)
    await world.put(upload.key, data)
    await asyncio.gather(*(adopt(world, upload.key, data) for _ in range(6)))
    assert await world.link(upload.oid) is not None
    await world.expect_sound()


async def test_only_bytes_of_an_upload_are_adopted(world: LfsWorld) -> None:
    """Its row went, or has another key: somebody else decides about the bytes."""
    data = noise(5000)
    key = new_key(oid_of(data))
    await world.put(key, data)
    with pytest.raises(UploadNotFound):
        await adopt(world, key, data)
    upload = await world.begin(data)
    with pytest.raises(UploadNotFound):
        await adopt(world, key, data)
    assert await world.rows(LfsObject) == []
    assert [one.key for one in await world.pending()] == [upload.key]


async def test_adopting_wrong_bytes_drops_them(world: LfsWorld) -> None:
    data = noise(300_000)
    for wrong in (data[:-1], data + b"x", bytes(300_000)):
        key = new_key(oid_of(data))
        await world.put(key, wrong)
        with pytest.raises(WrongBytes):
            await adopt(world, key, data)
        assert await world.is_empty()
    with pytest.raises(ObjectMissing):
        await adopt(world, new_key(oid_of(data)), data)


async def test_adopting_spares_what_a_row_names(world: LfsWorld) -> None:
    """The bytes of an object went bad, and its upload is completed once more."""
    oid = await world.upload(b"weights")
    row = await world.object(oid)
    assert row is not None
    await world.put(row.key, b"weighty")
    with pytest.raises(WrongBytes):
        await adopt(world, row.key, b"weights")
    assert await world.keys() == [row.key]


async def test_adopting_ends_the_upload_or_leaves_it_whole(world: LfsWorld) -> None:
    data = noise(5000)
    oid, key = oid_of(data), new_key(oid_of(data))
    async with world.database.transaction() as session:
        session.add(
            LfsUpload(repository_id=world.repository.id, oid=oid, size=5000, store=StoreKind.LOCAL, key=key)
        )
    await world.put(key, data)
    await world.quotas.set(SYSTEM, "ann", 4999)
    with pytest.raises(QuotaExceeded):
        await adopt(world, key, data)
    assert (len(await world.pending()), await world.keys()) == (1, [key])
    await world.quotas.set(SYSTEM, "ann", None)
    async with world.database.transaction() as session:
        await session.execute(update(LfsUpload).values(touched_at=GIVEN_UP))
    with pytest.raises(UploadNotFound):  # a sweeper is at it
        await adopt(world, key, data)
    assert await world.rows(LfsObject) == []
    async with world.database.transaction() as session:
        await session.execute(update(LfsUpload).values(touched_at=now()))
    await adopt(world, key, data)
    assert await world.pending() == []
    await world.expect_sound()


async def test_bytes_in_another_store_are_adopted_there(
    database: Database, tmp_path: Path, minio: MinioServer
) -> None:
    async with open_lfs_world(database, tmp_path, minio=minio.settings(prefix=tmp_path.name)) as world:
        key = (await world.begin(b"local", store=StoreKind.LOCAL)).key
        await world.stores[StoreKind.LOCAL].put(key, pieces(b"local"))
        await adopt(world, key, b"local")
        await world.upload(b"local")
        row = await world.object(oid_of(b"local"))
        assert row is not None
        assert (row.store, row.key) == (StoreKind.LOCAL, key)
        assert await world.keys() == []
