"""Objects that arrive in parts: what every store must do."""

import asyncio
import contextlib
import hashlib
import os
import random
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from storage.protocol import (
    MAX_PARTS,
    ObjectNotFound,
    ObjectStore,
    PartsNotFound,
    PartsRejected,
    StoredPart,
)
from tests.support.stores import PART_BYTES, World
from tests.support.streams import list_keys, noise, pieces, read_all

MEBIBYTE = 1024**2
WHOLE = noise(2 * PART_BYTES + 1000)


async def upload(store: ObjectStore, key: str = "a/k", data: bytes = WHOLE) -> tuple[str, list[StoredPart]]:
    """The parts of `data`, stored in no order."""
    parts_id = await store.begin_parts(key)
    starts = list(enumerate(range(0, len(data), PART_BYTES), start=1))
    random.shuffle(starts)
    parts = [
        await store.put_part(key, parts_id, number, pieces(data[start : start + PART_BYTES]))
        for number, start in starts
    ]
    return parts_id, sorted(parts, key=lambda part: part.number)


async def assert_nothing(store: ObjectStore, key: str = "a/k") -> None:
    with pytest.raises(ObjectNotFound):
        await store.stat(key)
    assert await list_keys(store) == []


async def test_parts_in_any_order_become_the_object(world: World) -> None:
    store = world.store
    parts_id, parts = await upload(store)
    assert [part.size for part in parts] == [PART_BYTES, PART_BYTES, 1000]
    assert not any('"' in part.etag for part in parts)
    assert list(await store.list_parts("a/k", parts_id)) == parts
    await assert_nothing(store)
    assert await store.complete_parts("a/k", parts_id, parts) == len(WHOLE)
    assert await read_all(store, "a/k") == WHOLE
    assert await list_keys(store) == ["a/k"]
    assert world.leftovers("a/k") == 0


async def test_nothing_is_stored_at_first(store: ObjectStore) -> None:
    parts_id = await store.begin_parts("k")
    assert list(await store.list_parts("k", parts_id)) == []
    assert parts_id != await store.begin_parts("k")
    with pytest.raises(PartsRejected):
        await store.complete_parts("k", parts_id, [])
    await assert_nothing(store, "k")


@pytest.mark.parametrize("data", [b"", b"x", noise(PART_BYTES)])
async def test_one_part_may_be_of_any_size(store: ObjectStore, data: bytes) -> None:
    parts_id = await store.begin_parts("k")
    part = await store.put_part("k", parts_id, MAX_PARTS, pieces(data))
    assert part == StoredPart(MAX_PARTS, len(data), part.etag)
    assert list(await store.list_parts("k", parts_id)) == [part]
    assert await store.complete_parts("k", parts_id, [part]) == len(data)
    assert await read_all(store, "k") == data


async def test_a_part_replaces_the_one_before(store: ObjectStore) -> None:
    parts_id, parts = await upload(store)
    second = await store.put_part("a/k", parts_id, 3, pieces(b"other"))
    assert second.etag != parts[2].etag
    assert list(await store.list_parts("a/k", parts_id)) == [*parts[:2], second]
    with pytest.raises(PartsRejected):
        await store.complete_parts("a/k", parts_id, parts)
    await store.complete_parts("a/k", parts_id, [*parts[:2], second])
    assert await read_all(store, "a/k") == WHOLE[: 2 * PART_BYTES] + b"other"


async def test_only_the_parts_that_are_named_become_the_object(world: World) -> None:
    parts_id, parts = await upload(world.store)
    assert await world.store.complete_parts("a/k", parts_id, parts[1:]) == PART_BYTES + 1000
    assert await read_all(world.store, "a/k") == WHOLE[PART_BYTES:]
    assert world.leftovers("a/k") == 0


async def test_what_is_not_stored_so_is_rejected_and_changes_nothing(store: ObjectStore) -> None:
    parts_id, parts = await upload(store)
    first, second, third = parts
    wrong: list[Sequence[StoredPart]] = [
        [],
        [replace(first, etag="0" * 32), second, third],
        [replace(first, etag="")],
        [replace(first, etag='"><x/>')],
        [first, second, third, replace(third, number=4)],
        [second, first],
        [first, first],
    ]
    for selection in wrong:
        with pytest.raises(PartsRejected):
            await store.complete_parts("a/k", parts_id, selection)
        assert list(await store.list_parts("a/k", parts_id)) == parts
    await assert_nothing(store)
    await store.complete_parts("a/k", parts_id, parts)
    assert await read_all(store, "a/k") == WHOLE


@pytest.mark.parametrize("number", [0, -1, MAX_PARTS + 1])
async def test_no_part_has_another_number(store: ObjectStore, number: int) -> None:
    parts_id = await store.begin_parts("k")
    with pytest.raises(ValueError, match="number of a part"):
        await store.put_part("k", parts_id, number, pieces(b"x"))


@pytest.mark.parametrize("ended", ["completed", "aborted", "never begun", "of another key"])
async def test_ended_parts_are_gone(world: World, ended: str) -> None:
    store = world.store
    parts_id, parts = await upload(store)
    key = "a/k"
    match ended:
        case "completed":
            await store.complete_parts(key, parts_id, parts)
        case "aborted":
            await store.abort_parts(key, parts_id)
        case "never begun":
            await store.abort_parts(key, parts_id)
            parts_id = parts_id[:-1] + ("0" if parts_id[-1] != "0" else "1")
        case _:
            key = "a/other"
    before = await list_keys(store)
    with pytest.raises(PartsNotFound):
        await store.put_part(key, parts_id, 1, pieces(b"late"))
    with pytest.raises(PartsNotFound):
        await store.list_parts(key, parts_id)
    with pytest.raises(PartsNotFound):
        await store.complete_parts(key, parts_id, parts)
    await store.abort_parts(key, parts_id)
    assert await list_keys(store) == before
    assert world.leftovers("a/k") == (ended == "of another key")


@pytest.mark.parametrize("parts_id", ["", ".", "..", "../data", "a/b", "x" * 32, "0" * 32, "\0", "a\nb", "ü"])
async def test_hostile_ids_name_nothing(store: ObjectStore, parts_id: str) -> None:
    await store.put("a/k", pieces(b"x"))
    with pytest.raises(PartsNotFound):
        await store.put_part("a/k", parts_id, 1, pieces(b"late"))
    with pytest.raises(PartsNotFound):
        await store.list_parts("a/k", parts_id)
    with pytest.raises(PartsNotFound):
        await store.complete_parts("a/k", parts_id, [StoredPart(1, 1, "0" * 32)])
    await store.abort_parts("a/k", parts_id)
    assert await read_all(store, "a/k") == b"x"


async def test_a_part_that_arrives_during_completion_changes_nothing(store: ObjectStore) -> None:
    parts_id, parts = await upload(store)
    go_on = asyncio.Event()

    async def slow() -> AsyncIterator[bytes]:
        yield b"late"
        await go_on.wait()

    late = asyncio.ensure_future(store.put_part("a/k", parts_id, 1, slow()))
    await asyncio.sleep(0.05)
    await store.complete_parts("a/k", parts_id, parts)
    go_on.set()
    with pytest.raises(PartsNotFound):
        await late
    assert await read_all(store, "a/k") == WHOLE


async def test_a_failing_source_keeps_the_part_before(world: World) -> None:
    parts_id, parts = await upload(world.store)

    async def failing() -> AsyncIterator[bytes]:
        yield b"x" * MEBIBYTE
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await world.store.put_part("a/k", parts_id, 1, failing())
    assert list(await world.store.list_parts("a/k", parts_id)) == parts


async def test_two_completions_at_once_make_one_object(world: World) -> None:
    parts_id, parts = await upload(world.store)
    calls = [world.store.complete_parts("a/k", parts_id, parts) for _ in range(3)]
    results = await asyncio.gather(*calls, return_exceptions=True)
    assert len(WHOLE) in results
    assert all(result == len(WHOLE) or isinstance(result, PartsNotFound) for result in results)
    assert await read_all(world.store, "a/k") == WHOLE
    assert world.leftovers("a/k") == 0


@pytest.mark.parametrize("delay", [0.0, 0.001, 0.003, 0.006, 0.012, 0.025, 0.05])
async def test_a_cancelled_completion_is_all_or_nothing(world: World, delay: float) -> None:
    store = world.store
    parts_id, parts = await upload(store)
    task = asyncio.ensure_future(store.complete_parts("a/k", parts_id, parts))
    await asyncio.sleep(delay)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    if await list_keys(store):
        assert await read_all(store, "a/k") == WHOLE
    with contextlib.suppress(PartsNotFound):
        await store.complete_parts("a/k", parts_id, parts)
    assert await read_all(store, "a/k") == WHOLE
    assert world.leftovers("a/k") == 0


async def test_completing_replaces_what_the_key_held(store: ObjectStore) -> None:
    await store.put("a/k", pieces(b"before"))
    parts_id, parts = await upload(store)
    assert await read_all(store, "a/k") == b"before"
    await store.complete_parts("a/k", parts_id, parts)
    assert await read_all(store, "a/k") == WHOLE


async def test_lists_and_completes_more_parts_than_one_answer_of_s3(local: World, minio: World) -> None:
    """S3 answers with a thousand. MinIO takes no small parts, so there only the list is long."""
    for world in (local, minio):
        store = world.store
        parts_id = await store.begin_parts("many")
        sent: list[StoredPart] = []
        for start in range(1, 1101, 50):
            sent += await asyncio.gather(
                *(
                    store.put_part("many", parts_id, number, pieces(str(number).encode()))
                    for number in range(start, start + 50)
                )
            )
        assert list(await store.list_parts("many", parts_id)) == sent
        if world is local:
            await store.complete_parts("many", parts_id, sent)
            assert await read_all(store, "many") == b"".join(b"%d" % number for number in range(1, 1101))
        else:
            with pytest.raises(PartsRejected, match="5 MiB"):
                await store.complete_parts("many", parts_id, sent)
            await store.abort_parts("many", parts_id)


async def test_memory_stays_at_a_few_parts(store: ObjectStore) -> None:
    part = noise(16 * MEBIBYTE)
    parts_id = await store.begin_parts("big")
    start = _resident_bytes()
    peak = start
    parts = []
    for number in range(1, 13):
        parts.append(await store.put_part("big", parts_id, number, pieces(part)))
        peak = max(peak, _resident_bytes())
    await store.complete_parts("big", parts_id, parts)
    peak = max(peak, _resident_bytes())
    digest = hashlib.sha256()
    async with store.open("big") as chunks:
        async for chunk in chunks:
            digest.update(chunk)
    expected = hashlib.sha256()
    for _ in range(12):
        expected.update(part)
    assert digest.digest() == expected.digest()
    assert peak - start < 80 * MEBIBYTE


def _resident_bytes() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")
