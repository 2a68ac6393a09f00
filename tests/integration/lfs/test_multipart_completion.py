"""Uploads in parts end once, on both stores, and nothing unverified is ever visible."""

import asyncio
import threading

import pytest

from core.models import now
from lfs.errors import UploadNotFound, WrongBytes, WrongParts
from storage.local_files import Draft
from storage.protocol import PartsNotFound
from tests.support.lfs_world import oid_of
from tests.support.part_uploads import PartUploads
from tests.support.streams import noise, pieces

MIB = 1024**2


async def test_completion_without_all_parts_names_the_missing(bench: PartUploads) -> None:
    parts, data = bench.process(), bench.data()
    plan = await bench.begin(parts, data)
    await bench.put(parts, plan, 2, data)
    with pytest.raises(WrongParts, match="missing or have the wrong size: 1, 3"):
        await bench.complete(parts, plan)
    assert (await bench.begin(parts, data)).missing == [1, 3]
    for number in (1, 3):
        await bench.put(parts, plan, number, data)
    await bench.complete(parts, plan)
    await bench.expect_whole(data)


async def test_a_list_of_parts_that_does_not_match_is_refused(bench: PartUploads) -> None:
    parts, data = bench.process(), bench.data()
    plan = await bench.begin(parts, data)
    right = await bench.put_all(parts, plan, data)
    for wrong in (
        [],
        right[:2],
        [*right, (4, '"4"')],
        [*right, right[0]],
        [right[0], right[1], (0, right[2][1])],
    ):
        with pytest.raises(WrongParts, match="each of 1 to 3 once"):
            await bench.complete(parts, plan, wrong)
    with pytest.raises(WrongParts, match="than claimed for these parts: 1-2"):
        await bench.complete(parts, plan, [(1, right[1][1]), (2, right[0][1]), right[2]])
    await bench.expect_nothing(data)
    await bench.complete(parts, plan, right[::-1])
    await bench.expect_whole(data)


async def test_other_bytes_are_dropped_with_all_that_belongs_to_them(bench: PartUploads) -> None:
    parts, data = bench.process(), bench.data()
    plan = await bench.begin(parts, data)
    claimed = await bench.put_all(parts, plan, noise(len(data), "other"))
    with pytest.raises(WrongBytes):
        await bench.complete(parts, plan, claimed)
    await bench.expect_nothing(data)
    assert await bench.world.pending() == []
    assert await bench.world.keys() == []
    with pytest.raises(UploadNotFound):
        await bench.complete(parts, plan, claimed)
    again = await bench.begin(parts, data)
    assert (again.upload_id != plan.upload_id, again.missing) == (True, [1, 2, 3])
    await bench.put_all(parts, again, data)
    await bench.complete(parts, again)
    await bench.expect_whole(data)


async def test_a_part_sent_after_the_completion_changes_nothing(bench: PartUploads) -> None:
    parts, data = bench.process(), bench.data()
    plan = await bench.begin(parts, data)
    claimed = await bench.put_all(parts, plan, data)
    await bench.complete(parts, plan, claimed)
    with pytest.raises(UploadNotFound):
        await bench.put(parts, plan, 1, data, noise(bench.part_bytes, "other"))
    store = bench.world.store
    with pytest.raises(PartsNotFound):  # nor past us, as by a URL that was signed before
        await store.put_part(plan.key, plan.multipart_id, 1, pieces(noise(bench.part_bytes, "other")))
    await bench.expect_whole(data)


async def test_completed_again_is_completed_still(bench: PartUploads) -> None:
    parts, data = bench.process(), bench.data()
    plan = await bench.begin(parts, data)
    claimed = await bench.put_all(parts, plan, data)
    for process in (parts, parts, bench.process()):
        await bench.complete(process, plan, claimed)
    await bench.expect_whole(data)


async def test_only_what_is_there_is_completed_still(bench: PartUploads) -> None:
    """The link that completes does not bring back what went to the trash since."""
    parts, data = bench.process(), bench.data()
    plan = await bench.begin(parts, data)
    await bench.put_all(parts, plan, data)
    await bench.complete(parts, plan)
    async with bench.world.database.transaction() as session:
        link = await bench.world.link(oid_of(data))
        assert link is not None
        link.trashed_at = now()
        await session.merge(link)
    with pytest.raises(UploadNotFound):
        await bench.complete(parts, plan)


@pytest.mark.parametrize("processes", [1, 2])
async def test_completions_at_once_are_one(bench: PartUploads, processes: int) -> None:
    data = bench.data()
    several = [bench.process() for _ in range(processes)]
    plan = await bench.begin(several[0], data)
    claimed = await bench.put_all(several[0], plan, data)
    await asyncio.gather(*(bench.complete(several[number % processes], plan, claimed) for number in range(6)))
    await bench.expect_whole(data)


async def test_wrong_bytes_completed_at_once_are_dropped_once(bench: PartUploads) -> None:
    data = bench.data()
    first, second = bench.process(), bench.process()
    plan = await bench.begin(first, data)
    await bench.put_all(first, plan, noise(len(data), "other"))
    answers = await asyncio.gather(
        *(bench.complete(process, plan) for process in (first, second)), return_exceptions=True
    )
    assert all(isinstance(one, WrongBytes | UploadNotFound) or "nothing" in str(one) for one in answers)
    assert any(isinstance(one, WrongBytes) for one in answers)
    await bench.expect_nothing(data)
    assert await bench.world.pending() == []
    assert await bench.world.keys() == []


async def test_assembled_and_not_verified_is_found_again(bench: PartUploads) -> None:
    """What a crash between the two leaves: the parts are gone, the key is there, no row names it."""
    parts, data = bench.process(), bench.data()
    plan = await bench.begin(parts, data)
    claimed = await bench.put_all(parts, plan, data)
    store = bench.world.store
    await store.complete_parts(
        plan.key, plan.multipart_id, await store.list_parts(plan.key, plan.multipart_id)
    )
    await bench.expect_nothing(data)
    after = bench.process()
    again = await bench.begin(after, data)
    assert (again.upload_id, again.missing) == (plan.upload_id, [])
    assert await after.stored_part(bench.world.repository.id, plan.upload_id, 2) is not None
    await bench.complete(after, plan, claimed)
    await bench.expect_whole(data)


async def test_assembled_wrong_bytes_are_dropped_all_the_same(bench: PartUploads) -> None:
    parts, data = bench.process(), bench.data()
    plan = await bench.begin(parts, data)
    await bench.put_all(parts, plan, noise(len(data), "other"))
    store = bench.world.store
    await store.complete_parts(
        plan.key, plan.multipart_id, await store.list_parts(plan.key, plan.multipart_id)
    )
    with pytest.raises(WrongBytes):
        await bench.complete(bench.process(), plan)
    await bench.expect_nothing(data)
    assert await bench.world.keys() == []


@pytest.mark.parametrize("bench", ["local"], indirect=True)  # MinIO assembles by itself
async def test_what_was_verified_is_not_replaced(bench: PartUploads, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two processes assemble different parts of one upload, and the one with the wrong ones is slower."""
    data = bench.data()
    first, second = bench.process(), bench.process()
    plan = await bench.begin(first, data)
    await bench.put_all(first, plan, data)
    await bench.put(first, plan, 1, data, noise(plan.size_of(1), "other"))
    is_slow, go_on, finish = threading.Event(), threading.Event(), Draft.finish

    def slowly(draft: Draft) -> None:
        finish(draft)
        if type(draft) is Draft and not is_slow.is_set():
            is_slow.set()
            assert go_on.wait(20)

    monkeypatch.setattr(Draft, "finish", slowly)
    wrong = asyncio.create_task(bench.complete(second, plan))
    assert await asyncio.to_thread(is_slow.wait, 20)
    await bench.put(first, plan, 1, data)
    await bench.complete(first, plan)
    go_on.set()
    await asyncio.gather(wrong, return_exceptions=True)
    await bench.expect_whole(data)
