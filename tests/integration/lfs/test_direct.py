"""Uploads past this server, into a real MinIO: signed for one object, and visible when the store has it."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import urllib3
from sqlalchemy import update

from core.access import SYSTEM
from core.database import Database
from core.errors import RepositoryNotFound
from core.models import LfsObject, LfsUpload, StoreKind
from lfs.direct import DirectUploads
from lfs.errors import ObjectMissing, QuotaExceeded, UploadNotFound, WrongBytes
from lfs.multipart import MultipartUploads
from lfs.pending import GIVEN_UP
from storage.protocol import MAX_PUT_BYTES, SignedPut
from tests.support.lfs_world import LfsWorld, oid_of, open_lfs_world
from tests.support.minio_server import MinioServer
from tests.support.streams import noise

DATA = noise(300_000)
OID = oid_of(DATA)


@pytest.fixture
async def world(database: Database, tmp_path: Path, minio: MinioServer) -> AsyncIterator[LfsWorld]:
    """With MinIO as the current store."""
    settings = minio.settings(prefix=tmp_path.name)
    async with open_lfs_world(database, tmp_path, minio=settings) as opened:
        yield opened


@pytest.fixture
def direct(world: LfsWorld) -> DirectUploads:
    return DirectUploads(world.database, world.stores, world.uploads)


async def begin(world: LfsWorld, direct: DirectUploads, data: bytes = DATA) -> SignedPut:
    oid = oid_of(data)
    return (await direct.begin_many(world.repository.id, [(oid, len(data))], 60))[oid]


async def finish(world: LfsWorld, direct: DirectUploads, oid: str = OID, size: int = len(DATA)) -> bool:
    return await direct.finish(world.repository.id, world.owner, oid, size)


async def send(signed: SignedPut, data: bytes, **headers: str) -> int:
    """The status that the store answers to a client."""

    def put() -> int:
        with urllib3.PoolManager(retries=False) as pool:
            return pool.request(
                "PUT", signed.url, body=data, headers={**signed.headers, **headers}, timeout=30
            ).status

    return await asyncio.to_thread(put)


async def test_put_and_finish(world: LfsWorld, direct: DirectUploads) -> None:
    signed = await begin(world, direct)
    assert signed.headers["content-type"] == "application/octet-stream"
    assert await send(signed, DATA) == 200
    assert await world.rows(LfsObject) == []
    assert await finish(world, direct)
    row = await world.object(OID)
    assert row is not None
    assert (row.store, row.size) == (StoreKind.MINIO, len(DATA))
    assert await world.link(OID) is not None
    assert await world.pending() == []
    await world.expect_sound()
    assert await finish(world, direct) is False  # nothing under way any more; the link confirms it


async def test_an_empty_object(world: LfsWorld, direct: DirectUploads) -> None:
    assert await send(await begin(world, direct, b""), b"") == 200
    assert await finish(world, direct, oid_of(b""), 0)
    assert await world.read(oid_of(b"")) == b""
    await world.expect_sound()


async def test_the_store_refuses_other_bytes(world: LfsWorld, direct: DirectUploads) -> None:
    signed = await begin(world, direct)
    for wrong in (DATA[:-1], DATA + b"x", bytes(len(DATA)), b""):
        assert await send(signed, wrong) >= 400
    assert await send(signed, bytes(len(DATA)), **{"x-amz-checksum-sha256": "AAAA"}) >= 400
    with pytest.raises(ObjectMissing):
        await finish(world, direct)
    assert (await world.rows(LfsObject), await world.keys()) == ([], [])
    assert await send(signed, DATA) == 200
    assert await finish(world, direct)
    await world.expect_sound()


async def test_the_url_is_dead_once_the_object_is_visible(world: LfsWorld, direct: DirectUploads) -> None:
    signed = await begin(world, direct)
    assert await send(signed, DATA) == 200
    assert await finish(world, direct)
    assert await send(signed, DATA) >= 400
    assert await send(signed, bytes(len(DATA))) >= 400
    await world.expect_sound()


async def test_nothing_came(world: LfsWorld, direct: DirectUploads) -> None:
    await begin(world, direct)
    with pytest.raises(ObjectMissing):
        await finish(world, direct)
    assert await world.rows(LfsObject) == []


async def test_naming_an_object_claims_nothing(world: LfsWorld, direct: DirectUploads) -> None:
    """Neither one that somebody else has, nor one that somebody else is uploading."""
    other = await world.new_repository("other")
    await world.upload(DATA, repository=other)
    assert await finish(world, direct) is False
    more = noise(1000, "more")
    signed = (await direct.begin_many(other.id, [(oid_of(more), 1000)], 60))[oid_of(more)]
    assert await send(signed, more) == 200
    assert await finish(world, direct, oid_of(more), 1000) is False
    # Beginning is not having, either.
    await begin(world, direct)
    with pytest.raises(ObjectMissing):
        await finish(world, direct)
    assert await world.link(OID) is None


async def test_another_size_than_announced(world: LfsWorld, direct: DirectUploads) -> None:
    signed = await begin(world, direct)
    assert await send(signed, DATA) == 200
    with pytest.raises(WrongBytes):
        await finish(world, direct, OID, len(DATA) + 1)
    assert await world.rows(LfsObject) == []
    assert await finish(world, direct)


async def test_a_lie_about_the_size(world: LfsWorld, direct: DirectUploads) -> None:
    signed = (await direct.begin_many(world.repository.id, [(OID, 5)], 60))[OID]
    await send(signed, DATA)
    with pytest.raises((WrongBytes, ObjectMissing)):
        await finish(world, direct, OID, 5)
    assert (await world.rows(LfsObject), await world.keys()) == ([], [])
    # With the truth it starts anew.
    assert await send(await begin(world, direct), DATA) == 200
    assert await finish(world, direct)
    await world.expect_sound()


async def test_asking_again_goes_on(world: LfsWorld, direct: DirectUploads) -> None:
    first = await begin(world, direct)
    [before] = await world.pending()
    assert await send(first, DATA) == 200
    second = await begin(world, direct)
    [after] = await world.pending()
    assert (before.id, before.key) == (after.id, after.key)
    assert after.touched_at > before.touched_at
    assert await send(second, DATA) == 200
    assert await finish(world, direct)
    await world.expect_sound()


async def test_an_upload_in_parts_is_left_alone(world: LfsWorld, direct: DirectUploads) -> None:
    upload = await world.begin(DATA)
    async with world.database.transaction() as session:
        await session.execute(update(LfsUpload).values(multipart_id="parts", part_bytes=5))
    small = (oid_of(b"x"), 1)
    found = await direct.begin_many(world.repository.id, [(OID, len(DATA)), small], 60)
    assert set(found) == {small[0]}
    assert await finish(world, direct) is False
    assert upload.key in [row.key for row in await world.pending()]


async def test_what_a_sweeper_has_begun_to_drop_starts_anew(world: LfsWorld, direct: DirectUploads) -> None:
    upload = await world.begin(DATA)
    async with world.database.transaction() as session:
        await session.execute(update(LfsUpload).values(touched_at=GIVEN_UP, multipart_id="parts"))
    assert await finish(world, direct) is False
    signed = await begin(world, direct)
    [row] = await world.pending()
    assert row.key != upload.key
    assert await send(signed, DATA) == 200
    assert await finish(world, direct)
    await world.expect_sound()


async def test_a_completion_of_parts_whose_row_it_took_finds_nothing(
    world: LfsWorld, direct: DirectUploads
) -> None:
    parts = MultipartUploads(
        world.database, world.stores, world.objects, world.uploads, world.settings, direct=lambda: True
    )
    plan = await parts.begin(world.repository.id, OID, len(DATA))
    async with world.database.transaction() as session:
        await session.execute(update(LfsUpload).values(touched_at=GIVEN_UP))
    signed = await begin(world, direct)
    with pytest.raises(UploadNotFound):
        await parts.complete(world.repository.id, world.owner, OID, plan.upload_id, None)
    assert await send(signed, DATA) == 200
    assert await finish(world, direct)
    await parts.complete(world.repository.id, world.owner, OID, plan.upload_id, None)
    await parts.close()


async def test_many_and_at_once(world: LfsWorld, direct: DirectUploads) -> None:
    files = [noise(100, str(number)) for number in range(120)]
    every = [(oid_of(data), 100) for data in files]
    batches = [every[:80], every[40:][::-1], every[::2]]
    found = await asyncio.gather(*(direct.begin_many(world.repository.id, batch, 60) for batch in batches))
    assert [set(one) for one in found] == [{oid for oid, _ in batch} for batch in batches]
    assert sorted(row.oid for row in await world.pending()) == sorted(oid for oid, _ in every)
    assert await send(found[0][every[50][0]], files[50]) == 200
    assert await finish(world, direct, *every[50])


async def test_finishing_many_times_at_once(world: LfsWorld, direct: DirectUploads) -> None:
    assert await send(await begin(world, direct), DATA) == 200
    found = await asyncio.gather(*(finish(world, direct) for _ in range(5)))
    assert True in found
    await world.expect_sound()
    assert await world.link(OID) is not None


async def test_somebody_has_it_already(world: LfsWorld, direct: DirectUploads) -> None:
    await world.upload(DATA, repository=await world.new_repository("other"))
    assert await send(await begin(world, direct), DATA) == 200
    assert await finish(world, direct)
    assert await world.link(OID) is not None
    assert len(await world.rows(LfsObject)) == 1
    await world.expect_sound()


async def test_a_full_quota_can_be_raised(world: LfsWorld, direct: DirectUploads) -> None:
    assert await send(await begin(world, direct), DATA) == 200
    await world.quotas.set(SYSTEM, "ann", len(DATA) - 1)
    with pytest.raises(QuotaExceeded):
        await finish(world, direct)
    assert await world.rows(LfsObject) == []
    await world.quotas.set(SYSTEM, "ann", len(DATA))
    assert await finish(world, direct)
    await world.expect_sound()


async def test_what_has_to_come_through_this_server(world: LfsWorld, direct: DirectUploads) -> None:
    huge = [(oid_of(b"huge"), MAX_PUT_BYTES + 1)]
    assert await direct.begin_many(world.repository.id, huge, 60) == {}
    assert await direct.begin_many(world.repository.id, [], 60) == {}
    assert await world.pending() == []
    with pytest.raises(RepositoryNotFound):
        await direct.begin_many("0" * 32, [(OID, 1)], 60)


async def test_a_local_store_signs_nothing(database: Database, tmp_path: Path) -> None:
    async with open_lfs_world(database, tmp_path) as local:
        direct = DirectUploads(local.database, local.stores, local.uploads)
        assert await direct.begin_many(local.repository.id, [(OID, len(DATA))], 60) == {}
        assert await local.pending() == []
