"""Uploads that nobody goes on with: their bytes go, then their rows, and never those of an object."""

import asyncio
import os
import time
from collections.abc import Awaitable
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import update

from core import failpoints
from core.models import LfsUpload, StoreKind, now
from lfs import abandoned
from lfs.abandoned import AbandonedUploads
from lfs.errors import UploadNotFound
from lfs.pending import GIVEN_UP, take_up
from storage.protocol import PartsNotFound, StoreUnavailable
from tests.support.lfs_world import LfsWorld, oid_of
from tests.support.streams import noise, pieces


class Died(BaseException):
    """The process was killed here."""


def sweeper(world: LfsWorld) -> AbandonedUploads:
    return AbandonedUploads(world.database, world.stores, world.settings)


async def age(world: LfsWorld, upload: LfsUpload, **time: float) -> None:
    async with world.database.transaction() as session:
        change = update(LfsUpload).where(LfsUpload.id == upload.id)
        await session.execute(change.values(touched_at=now() - timedelta(**time)))


async def test_only_what_is_old_goes(world: LfsWorld) -> None:
    old, young = await world.begin(b"old"), await world.begin(b"young")
    empty = await world.begin(b"never came")
    for upload, data in ((old, b"old"), (young, b"young")):
        await world.put(upload.key, data)
    await age(world, old, days=7, minutes=1)
    await age(world, empty, days=30)
    await age(world, young, days=6, hours=23)
    assert await sweeper(world).sweep() == 2
    assert [row.id for row in await world.pending()] == [young.id]
    assert await world.keys() == [young.key]
    assert await sweeper(world).sweep() == 0


async def test_parts_go(world: LfsWorld) -> None:
    upload = await world.begin(noise(300_000))
    parts_id = await world.store.begin_parts(upload.key)
    await world.store.put_part(upload.key, parts_id, 1, pieces(noise(100_000)))
    async with world.database.transaction() as session:
        await session.execute(update(LfsUpload).values(multipart_id=parts_id, part_bytes=100_000))
    await age(world, upload, days=8)
    assert await sweeper(world).sweep() == 1
    with pytest.raises(PartsNotFound):
        await world.store.list_parts(upload.key, parts_id)
    assert await world.pending() == []


async def test_parts_that_no_row_names_go_a_day_later(world: LfsWorld, tmp_path: Path) -> None:
    def make_old(parts_id: str, days: float) -> None:
        moment = time.time() - days * 24 * 3600
        [directory] = tmp_path.rglob(f"*{parts_id}*")
        os.utime(directory, (moment, moment))

    younger, older = [await world.store.begin_parts("lfs/lost") for _ in range(2)]
    make_old(younger, 7.9)
    make_old(older, 8.1)
    assert await sweeper(world).sweep() == 0
    assert await world.store.list_parts("lfs/lost", younger) == []
    with pytest.raises(PartsNotFound):
        await world.store.list_parts("lfs/lost", older)


async def test_a_store_whose_parts_cannot_be_swept_keeps_nothing_else(
    world: LfsWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def away(older_than_seconds: float) -> int:
        raise StoreUnavailable("the object store cannot be reached")

    monkeypatch.setattr(world.store, "sweep_parts", away)
    await age(world, await world.begin(b"old"), days=8)
    assert await sweeper(world).sweep() == 1


async def test_hundreds_go_in_one_sweep(world: LfsWorld) -> None:
    async with world.database.transaction() as session:
        session.add_all(
            LfsUpload(
                repository_id=world.repository.id,
                oid=oid_of(b"%d" % number),
                size=1,
                store=StoreKind.LOCAL,
                key=f"lfs/{number}",
                touched_at=now() - timedelta(days=8),
            )
            for number in range(1203)
        )
    assert await sweeper(world).sweep() == 1203
    assert await world.pending() == []


async def test_what_is_taken_up_again_stays(world: LfsWorld) -> None:
    upload = await world.begin(b"weights")
    await age(world, upload, days=8)
    async with world.database.transaction() as session:
        assert await take_up(session, world.repository.id, upload.oid) is not None
    assert await sweeper(world).sweep() == 0


async def test_the_bytes_of_an_object_stay(world: LfsWorld) -> None:
    """No upload names them, unless something went wrong; then the object matters more."""
    oid = await world.upload(b"weights")
    row = await world.object(oid)
    assert row is not None
    upload = await world.begin(b"weights", key=row.key)
    await age(world, upload, days=8)
    assert await sweeper(world).sweep() == 1
    assert await world.pending() == []
    await world.expect_sound()


@pytest.mark.parametrize("point", [abandoned.AFTER_MARK, abandoned.AFTER_BYTES])
async def test_a_sweep_that_died_is_done_again(
    world: LfsWorld, monkeypatch: pytest.MonkeyPatch, point: str
) -> None:
    data = noise(1000)
    upload = await world.begin(data)
    await world.put(upload.key, data)
    await age(world, upload, days=8)

    def die(name: str) -> None:
        if name == point:
            raise Died

    with monkeypatch.context() as patched:
        patched.setattr(failpoints, "reach", die)
        with pytest.raises(Died):
            await sweeper(world).sweep()
    [left] = await world.pending()
    assert left.touched_at == GIVEN_UP
    # Whoever wants to complete it now comes too late, whether the bytes are still there or not.
    async with world.database.transaction() as session:
        assert await take_up(session, world.repository.id, upload.oid) is None
    with pytest.raises(UploadNotFound):
        await world.uploads.adopt(
            world.repository.id,
            world.owner,
            upload.oid,
            len(data),
            upload.store,
            upload.key,
            attested=True,
        )
    assert await sweeper(world).sweep() == 1
    assert (await world.pending(), await world.keys()) == ([], [])


async def test_sweeping_and_completing_at_once(world: LfsWorld) -> None:
    """Either it is an object with all its bytes, or there is nothing."""
    for number in range(12):
        data = noise(1000, str(number))
        upload = await world.begin(data)
        await world.put(upload.key, data)
        await age(world, upload, days=8)
        completing = world.uploads.adopt(
            world.repository.id, world.owner, upload.oid, 1000, upload.store, upload.key, attested=True
        )
        swept, completed = await asyncio.gather(
            sweeper(world).sweep(), _after(number * 0.001, completing), return_exceptions=True
        )
        assert swept in {0, 1}
        assert completed is None or isinstance(completed, UploadNotFound)
        assert (await world.link(upload.oid) is not None) is (completed is None)
        assert await world.pending() == []
        await world.expect_sound()


async def test_two_sweepers_at_once(world: LfsWorld) -> None:
    for number in range(5):
        upload = await world.begin(noise(100, str(number)))
        await world.put(upload.key, b"x")
        await age(world, upload, days=8)
    await asyncio.gather(sweeper(world).sweep(), sweeper(world).sweep())
    assert (await world.pending(), await world.keys()) == ([], [])


async def test_a_store_that_is_away_keeps_only_its_own(
    world: LfsWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, elsewhere = await world.begin(b"here"), await world.begin(b"elsewhere", store=StoreKind.MINIO)
    failing = await world.begin(b"failing")
    for upload in (here, elsewhere, failing):
        await age(world, upload, days=8)
    delete = world.store.delete

    async def moody(key: str) -> None:
        if key == failing.key:
            raise StoreUnavailable("the object store cannot be reached")
        await delete(key)

    with monkeypatch.context() as patched:
        patched.setattr(world.store, "delete", moody)
        assert await sweeper(world).sweep() == 1
    assert {row.id for row in await world.pending()} == {elsewhere.id, failing.id}
    assert await sweeper(world).sweep() == 1


async def _after(seconds: float, work: Awaitable[None]) -> None:
    await asyncio.sleep(seconds)
    await work
