"""Uploads in parts on both stores: they resume, and what stands in their way costs nothing."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from datetime import timedelta
from io import BytesIO
from pathlib import Path

import pytest
from aiohttp import ClientSession
from sqlalchemy import update

from core.errors import Conflict, RepositoryNotFound, Unavailable
from core.models import LfsUpload, StoreKind, now
from lfs.errors import UploadNotFound, WrongBytes, WrongParts
from lfs.pending import GIVEN_UP
from tests.support.lfs_world import oid_of
from tests.support.part_uploads import PartUploads
from tests.support.streams import noise, pieces

MIB = 1024**2


async def test_parts_out_of_order_and_at_once(bench: PartUploads) -> None:
    parts, data = bench.process(), bench.data()
    plan = await bench.begin(parts, data)
    assert (plan.count, plan.missing, plan.part_bytes) == (3, [1, 2, 3], bench.part_bytes)
    stored = await asyncio.gather(*(bench.put(parts, plan, number, data) for number in (3, 1, 2)))
    await bench.expect_nothing(data)
    claimed = [(part.number, f'"{part.etag}"') for part in stored]
    await bench.complete(parts, plan, claimed)
    await bench.expect_whole(data)
    assert await bench.gone(plan)


async def test_a_new_batch_asks_for_missing_parts_alone(bench: PartUploads) -> None:
    data = bench.data()
    first = bench.process()
    plan = await bench.begin(first, data)
    part = await bench.put(first, plan, 2, data)
    second = bench.process()  # another process, or the same one started again
    again = await bench.begin(second, data)
    assert (again.upload_id, again.missing, again.done) == (plan.upload_id, [1, 3], {2: part})
    repository_id = bench.world.repository.id
    assert await second.stored_part(repository_id, plan.upload_id, 2) == part
    assert await second.stored_part(repository_id, plan.upload_id, 1) is None
    for number in again.missing:
        await bench.put(second, again, number, data)
    await bench.complete(second, again)
    await bench.expect_whole(data)


async def test_a_part_of_another_size_is_not_stored(bench: PartUploads) -> None:
    parts, data = bench.process(), bench.data()
    plan = await bench.begin(parts, data)
    await bench.put(parts, plan, 1, data)
    for number, size in ((1, bench.part_bytes - 1), (1, bench.part_bytes + 1), (3, 12_346), (2, 0)):
        with pytest.raises(WrongBytes, match=f"part {number} has"):
            await bench.put(parts, plan, number, data, noise(size))
    assert await bench.stored(plan) == {1: bench.part_bytes}
    assert (await bench.begin(parts, data)).missing == [2, 3]


async def test_a_length_that_is_wrong_is_refused_before_the_first_byte(bench: PartUploads) -> None:
    parts, data = bench.process(), bench.data()
    plan = await bench.begin(parts, data)

    async def unread() -> AsyncIterator[bytes]:
        yield data[: pytest.fail("the body was read")]

    with pytest.raises(WrongBytes):
        await parts.put_part(bench.world.repository.id, plan.upload_id, 1, unread(), length=1)


@pytest.mark.parametrize("number", [-1, 0, 4, 10_001])
async def test_a_part_that_the_upload_does_not_have(bench: PartUploads, number: int) -> None:
    parts, data = bench.process(), bench.data()
    plan = await bench.begin(parts, data)
    with pytest.raises(WrongParts, match="the parts 1 to 3"):
        await bench.put(parts, plan, number, data, b"x")
    assert await bench.stored(plan) == {}


async def test_a_part_may_be_sent_again(bench: PartUploads) -> None:
    parts, data = bench.process(), bench.data()
    plan = await bench.begin(parts, data)
    wrong = await bench.put(parts, plan, 1, data, noise(bench.part_bytes, "wrong"))
    claimed = await bench.put_all(parts, plan, data)
    assert claimed[0][1] != f'"{wrong.etag}"'
    await bench.complete(parts, plan, claimed)
    await bench.expect_whole(data)


async def test_parts_that_the_store_dropped_are_asked_for_again(bench: PartUploads) -> None:
    parts, data = bench.process(), bench.data()
    plan = await bench.begin(parts, data)
    await bench.put(parts, plan, 1, data)
    await bench.world.store.abort_parts(plan.key, plan.multipart_id)
    with pytest.raises(UploadNotFound):
        await bench.put(parts, plan, 2, data)
    again = await bench.begin(parts, data)
    assert (again.upload_id != plan.upload_id, again.missing) == (True, [1, 2, 3])
    with pytest.raises(UploadNotFound):
        await bench.complete(parts, plan)
    await bench.put_all(parts, again, data)
    await bench.complete(parts, again)
    await bench.expect_whole(data)


async def test_completing_what_the_store_dropped_says_so(bench: PartUploads) -> None:
    parts, data = bench.process(), bench.data()
    plan = await bench.begin(parts, data)
    await bench.put_all(parts, plan, data)
    await bench.world.store.abort_parts(plan.key, plan.multipart_id)
    with pytest.raises(UploadNotFound, match="new batch"):
        await bench.complete(parts, plan)
    assert await bench.world.pending() == []


async def test_what_another_upload_brought_meanwhile_is_enough(bench: PartUploads) -> None:
    parts, data = bench.process(), bench.data()
    plan = await bench.begin(parts, data)
    await bench.put(parts, plan, 1, data)
    await bench.world.upload(data)
    await bench.complete(parts, plan)
    await bench.expect_whole(data)
    assert await bench.gone(plan)


async def test_another_size_is_another_upload(bench: PartUploads) -> None:
    parts, data = bench.process(), bench.data()
    wrong = await parts.begin(bench.world.repository.id, oid_of(data), len(data) + 1)
    await bench.put(parts, wrong, 1, data)
    plan = await bench.begin(parts, data)
    assert (plan.upload_id != wrong.upload_id, plan.missing) == (True, [1, 2, 3])
    assert await bench.gone(wrong)
    assert [row.id for row in await bench.world.pending()] == [plan.upload_id]
    with pytest.raises(UploadNotFound):
        await bench.put(parts, wrong, 1, data)


async def test_an_upload_that_a_sweeper_gave_up_is_begun_anew(bench: PartUploads) -> None:
    parts, data = bench.process(), bench.data()
    plan = await bench.begin(parts, data)
    await bench.put(parts, plan, 1, data)
    async with bench.world.database.transaction() as session:
        await session.execute(update(LfsUpload).values(touched_at=GIVEN_UP))
    with pytest.raises(UploadNotFound):
        await bench.put(parts, plan, 2, data)
    with pytest.raises(UploadNotFound):
        await bench.complete(parts, plan)
    assert (await bench.begin(parts, data)).upload_id != plan.upload_id


async def test_uploads_begun_at_once_are_one(bench: PartUploads) -> None:
    data = bench.data()
    processes = [bench.process() for _ in range(4)]
    plans = await asyncio.gather(*(bench.begin(process, data) for process in processes))
    assert len({plan.upload_id for plan in plans}) == 1
    assert len(await bench.world.pending()) == 1
    await asyncio.gather(*(bench.put(processes[n], plans[n], n, data) for n in (1, 2, 3)))
    await bench.complete(processes[0], plans[0])
    await bench.expect_whole(data)


async def test_each_repository_has_an_upload_of_its_own(bench: PartUploads) -> None:
    parts, data = bench.process(), bench.data()
    other = await bench.world.new_repository("other")
    plan = await bench.begin(parts, data)
    await bench.put(parts, plan, 1, data)
    theirs = await parts.begin(other.id, oid_of(data), len(data))
    assert (theirs.upload_id != plan.upload_id, theirs.missing) == (True, [1, 2, 3])
    with pytest.raises(UploadNotFound):
        await parts.put_part(other.id, plan.upload_id, 2, pieces(data[: bench.part_bytes]))
    with pytest.raises(UploadNotFound):
        await parts.stored_part(other.id, plan.upload_id, 1)
    with pytest.raises(UploadNotFound):
        await parts.complete(other.id, bench.world.owner, plan.oid, plan.upload_id, None)
    await parts.abort(other.id, plan.upload_id)
    assert (await bench.begin(parts, data)).missing == [2, 3]


async def test_who_may_not_write_any_more_completes_nothing(bench: PartUploads) -> None:
    parts, data = bench.process(), bench.data()
    plan = await bench.begin(parts, data)
    await bench.put_all(parts, plan, data)
    stranger = await bench.world.core.user("eve")
    with pytest.raises(RepositoryNotFound):
        await bench.complete(parts, plan, actor=stranger)
    await bench.expect_nothing(data)


async def test_given_up_by_its_client(bench: PartUploads) -> None:
    parts, data = bench.process(), bench.data()
    plan = await bench.begin(parts, data)
    await bench.put(parts, plan, 1, data)
    for _ in range(2):
        await parts.abort(bench.world.repository.id, plan.upload_id)
    assert await bench.world.pending() == []
    assert await bench.gone(plan)
    again = await bench.begin(parts, data)
    await bench.put_all(parts, again, data)
    await bench.complete(parts, again)
    await parts.abort(bench.world.repository.id, again.upload_id)  # too late, and harmless
    await bench.expect_whole(data)


async def test_a_client_that_leaves_in_a_part_leaves_nothing(bench: PartUploads, tmp_path: Path) -> None:
    parts, data = bench.process(), bench.data()
    plan = await bench.begin(parts, data)
    sent = asyncio.Event()

    async def stuck() -> AsyncIterator[bytes]:
        yield data[:50_000]
        sent.set()
        await asyncio.sleep(60)

    async def broken() -> AsyncIterator[bytes]:
        yield data[:50_000]
        raise ConnectionResetError("gone")

    repository_id = bench.world.repository.id
    put = asyncio.create_task(parts.put_part(repository_id, plan.upload_id, 1, stuck()))
    await sent.wait()
    put.cancel()
    with suppress(asyncio.CancelledError):
        await put
    with pytest.raises(ConnectionResetError):
        await parts.put_part(repository_id, plan.upload_id, 1, broken())
    assert await bench.stored(plan) == {}
    if plan.store is StoreKind.LOCAL:
        drafts = tmp_path / "lfs-store" / "tmp"
        assert await asyncio.to_thread(lambda: list(drafts.iterdir())) == []


async def test_parts_past_this_server(bench: PartUploads) -> None:
    """Each missing part has a URL of its own; what is stored has none, and what does not fit is no part."""
    parts, data = bench.process(direct=True), bench.data()
    plan = await bench.begin(parts, data)
    signed = await parts.signed_parts(plan, 60)
    if plan.store is StoreKind.LOCAL:
        assert signed == {}
        return
    assert list(signed) == [1, 2, 3]
    assert await bench.process(direct=False).signed_parts(plan, 60) == {}
    async with ClientSession() as session:
        for number, sent, status in ((1, data[: bench.part_bytes], 200), (2, data[:100], 403)):
            async with session.put(signed[number], data=BytesIO(sent)) as response:
                assert response.status == status
        again = await bench.begin(parts, data)
        assert (list(again.done), list(await parts.signed_parts(again, 60))) == ([1], [2, 3])
        await bench.put(parts, plan, 3, data)
        with pytest.raises(WrongParts, match="missing"):
            await bench.complete(parts, plan)
        async with session.put(
            signed[2], data=BytesIO(data[bench.part_bytes : 2 * bench.part_bytes])
        ) as response:
            etag = response.headers["ETag"]
        claimed = [(1, again.done[1].etag), (2, etag), (3, (await bench.begin(parts, data)).done[3].etag)]
        await bench.complete(parts, plan, claimed)
        async with session.put(signed[1], data=BytesIO(noise(bench.part_bytes, "other"))) as response:
            assert response.status == 404
    await bench.expect_whole(data)


async def test_an_empty_object_has_no_parts(bench: PartUploads) -> None:
    parts = bench.process()
    plan = await bench.begin(parts, b"")
    assert (plan.count, plan.missing) == (0, [])
    with pytest.raises(WrongParts):
        await bench.put(parts, plan, 1, b"", b"x")
    await bench.complete(parts, plan, [])
    await bench.expect_whole(b"")


async def test_each_part_keeps_the_upload_from_being_swept(bench: PartUploads) -> None:
    parts, data = bench.process(), bench.data()
    plan = await bench.begin(parts, data)
    async with bench.world.database.transaction() as session:
        await session.execute(update(LfsUpload).values(touched_at=now() - timedelta(days=6)))
    before = (await bench.world.pending())[0].touched_at
    await bench.put(parts, plan, 1, data)
    (row,) = await bench.world.pending()
    assert row.touched_at > before


async def test_a_completion_goes_on_without_its_client(bench: PartUploads) -> None:
    parts, data = bench.process(), bench.data()
    plan = await bench.begin(parts, data)
    await bench.put_all(parts, plan, data)
    waiting = asyncio.create_task(bench.complete(parts, plan))
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    await bench.complete(parts, plan)
    await bench.expect_whole(data)


async def test_a_server_that_stops_says_so_and_completes_when_asked_again(bench: PartUploads) -> None:
    parts, data = bench.process(), bench.data()
    plan = await bench.begin(parts, data)
    await bench.put_all(parts, plan, data)
    waiting = asyncio.create_task(bench.complete(parts, plan))
    await asyncio.sleep(0)
    with pytest.raises(Conflict):
        await parts.abort(bench.world.repository.id, plan.upload_id)
    await parts.close()
    with pytest.raises(Unavailable, match="stopping"):
        await waiting
    await bench.complete(bench.process(), plan)
    await bench.expect_whole(data)
