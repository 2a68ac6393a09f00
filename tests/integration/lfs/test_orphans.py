"""Bytes that no row names are swept; everything else is not."""

import asyncio
from datetime import timedelta

import pytest
from sqlalchemy import delete

from core.database import DatabaseUnavailable
from core.models import LfsLink, LfsObject, LfsUpload, now
from lfs.objects import new_key
from lfs.orphans import Claim, batches
from tests.support.lfs_keeping import Keeping
from tests.support.lfs_world import oid_of


async def claims(keeping: Keeping) -> dict[str, Claim]:
    found: dict[str, Claim] = {}
    for kind in keeping.world.stores.kinds():
        async for batch in batches(keeping.world.stores[kind]):
            found |= await keeping.files.orphans.claims(kind, batch)
    return found


async def test_only_old_bytes_without_a_row_go(keeping: Keeping) -> None:
    oid = await keeping.world.upload(b"an object")
    old, young, uploading = (new_key(oid_of(text)) for text in (b"old", b"young", b"uploading"))
    odd = "lfs/aa/readme.txt"
    for key in (old, uploading, odd):
        await keeping.world.put(key, b"bytes")
    await keeping.later(days=2)
    await keeping.world.put(young, b"bytes")
    async with keeping.world.database.transaction() as session:
        session.add(
            LfsUpload(
                repository_id=keeping.repository.id,
                oid=oid_of(b"uploading"),
                size=5,
                store=keeping.world.stores.current_kind,
                key=uploading,
            )
        )
    row = await keeping.world.object(oid)
    assert row is not None
    assert await claims(keeping) == {
        row.key: Claim.OBJECT,
        old: Claim.ORPHAN,
        young: Claim.YOUNG,
        uploading: Claim.UPLOAD,
        odd: Claim.FOREIGN,
    }
    swept = await keeping.files.orphans.sweep()
    assert (swept.objects, swept.bytes) == (1, 5)
    assert await keeping.world.keys() == sorted([row.key, young, uploading, odd])
    assert (await keeping.files.orphans.sweep(orphan_seconds=-1)).objects == 1
    assert await keeping.world.keys() == sorted([row.key, uploading, odd])


async def test_where_an_object_was_until_lately_stays_for_the_life_of_a_link(keeping: Keeping) -> None:
    oid = await keeping.world.upload(b"moved")
    row = await keeping.world.object(oid)
    assert row is not None
    elsewhere = new_key(oid)
    await keeping.world.put(elsewhere, b"moved")
    await keeping.later(days=100)
    async with keeping.world.database.transaction() as session:
        switched = await session.get_one(LfsObject, oid)
        switched.key, switched.verified_at = elsewhere, now() - timedelta(days=6)
    assert (await claims(keeping))[row.key] is Claim.REPLACED
    assert (await keeping.files.orphans.sweep(orphan_seconds=-1)).objects == 0
    await keeping.later(days=2)
    assert (await keeping.files.orphans.sweep()).objects == 1
    assert await keeping.world.keys() == [elsewhere]


async def test_without_a_database_nothing_goes(keeping: Keeping, monkeypatch: pytest.MonkeyPatch) -> None:
    oid = await keeping.world.upload(b"an object")
    await keeping.later(days=2)

    def away(*_: object) -> None:
        raise DatabaseUnavailable("the database is not available; try again")

    with monkeypatch.context() as patch:
        patch.setattr(keeping.world.database, "read", away)
        with pytest.raises(DatabaseUnavailable):
            await keeping.files.orphans.sweep(orphan_seconds=-1)
    assert await keeping.world.read(oid) == b"an object"


async def test_sweeps_beside_uploads(keeping: Keeping) -> None:
    """Uploads that end while a sweep looks are safe by their age alone."""

    async def sweep() -> None:
        for _ in range(5):
            await keeping.files.orphans.sweep()

    data = [b"beside %d" % number for number in range(10)]
    await asyncio.gather(sweep(), sweep(), *(keeping.world.upload(one) for one in data))
    oids = [oid_of(one) for one in data]
    assert await keeping.world.objects.missing(keeping.repository.id, oids) == set()
    await keeping.world.expect_sound()


async def test_every_page_of_a_large_store_is_looked_at(keeping: Keeping) -> None:
    for number in range(520):
        await keeping.world.put(new_key(oid_of(b"%d" % number)), b"x")
    kept = await keeping.world.upload(b"kept")
    await keeping.later(days=2)
    assert (await keeping.files.orphans.sweep()).objects == 520
    assert await keeping.world.read(kept) == b"kept"
    async with keeping.world.database.transaction() as session:
        await session.execute(delete(LfsLink))
        await session.execute(delete(LfsObject))
    assert (await keeping.files.orphans.sweep()).objects == 1
