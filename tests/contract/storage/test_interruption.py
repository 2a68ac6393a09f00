"""What every store leaves behind when a transfer fails, is cancelled or meets another one."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from storage.protocol import ObjectNotFound, ObjectStore
from tests.support.stores import PART_BYTES, World, names
from tests.support.streams import list_keys, noise, pieces, read_all

MEBIBYTE = 1024**2


class SourceFailed(Exception):
    """What a failing source raises."""


@pytest.mark.parametrize("size", [0, 1000, PART_BYTES + 1000, 2 * PART_BYTES + 1000])
@pytest.mark.parametrize("error", [SourceFailed(), OSError("of the source"), ObjectNotFound("of the source")])
async def test_a_failing_source_leaves_nothing(world: World, size: int, error: Exception) -> None:
    async def failing() -> AsyncIterator[bytes]:
        async for piece in pieces(noise(size)):
            yield piece
        raise error

    with pytest.raises(type(error)) as caught:
        await world.store.put("k", failing())
    assert caught.value is error
    with pytest.raises(ObjectNotFound):
        await world.store.stat("k")
    assert await list_keys(world.store) == []
    assert world.leftovers("k") == 0


@pytest.mark.parametrize("size", [0, 1000, PART_BYTES + 1000, 2 * PART_BYTES + 1000])
async def test_a_cancelled_put_leaves_what_was_there(world: World, size: int) -> None:
    await world.store.put("k", pieces(b"before"))
    waiting = asyncio.Event()

    async def stuck() -> AsyncIterator[bytes]:
        async for piece in pieces(noise(size)):
            yield piece
        waiting.set()
        await asyncio.Event().wait()

    task = asyncio.ensure_future(world.store.put("k", stuck()))
    await waiting.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await read_all(world.store, "k") == b"before"
    assert await list_keys(world.store) == ["k"]
    assert world.leftovers("k") == 0


@pytest.mark.parametrize("delay", [0.0, 0.002, 0.005, 0.01, 0.02, 0.04])
async def test_a_put_cancelled_at_any_moment_is_all_or_nothing(world: World, delay: float) -> None:
    data = noise(PART_BYTES + 1000)
    task = asyncio.ensure_future(world.store.put("k", pieces(data)))
    await asyncio.sleep(delay)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    if await list_keys(world.store):
        assert await read_all(world.store, "k") == data
    assert world.leftovers("k") == 0


@pytest.mark.parametrize("delay", [0.0, 0.001, 0.003, 0.01])
async def test_a_cancelled_get_file_leaves_all_or_nothing(
    store: ObjectStore, tmp_path: Path, delay: float
) -> None:
    data = noise(4 * MEBIBYTE)
    await store.put("k", pieces(data))
    target = tmp_path / "cache" / "out"
    target.parent.mkdir()
    task = asyncio.ensure_future(store.get_file("k", target))
    await asyncio.sleep(delay)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert names(target.parent) in ([], ["out"])
    if target.exists():
        assert target.read_bytes() == data


async def test_concurrent_puts_of_one_key_have_one_winner(world: World) -> None:
    versions = [noise(PART_BYTES + 100, f"version {number}") for number in range(6)]
    async with asyncio.TaskGroup() as group:
        for version in versions:
            group.create_task(world.store.put("k", pieces(version)))
    assert await read_all(world.store, "k") in versions
    assert await list_keys(world.store) == ["k"]
    assert world.leftovers("k") == 0


async def test_puts_survive_deletes_beside_them(store: ObjectStore) -> None:
    """A delete that empties a directory must not take it from under a put."""

    async def cycle(number: int) -> None:
        for _ in range(25):
            await store.put(f"deep/shared/dir/{number}", pieces(b"x"))
            assert await read_all(store, f"deep/shared/dir/{number}") == b"x"
            await store.delete(f"deep/shared/dir/{number}")

    async with asyncio.TaskGroup() as group:
        for number in range(8):
            group.create_task(cycle(number))
    assert await list_keys(store) == []


async def test_readers_that_stop_early_hold_nothing(store: ObjectStore) -> None:
    await store.put("k", pieces(noise(4 * MEBIBYTE)))
    before = _open_files()
    kept = []  # so that the collector does not close what the store forgot
    for _ in range(30):
        async with store.open("k") as chunks:
            await anext(chunks)
        kept.append(chunks)
    assert _open_files() <= before + 2


async def test_a_cancelled_reader_holds_nothing(store: ObjectStore) -> None:
    await store.put("k", pieces(noise(8 * MEBIBYTE)))
    before = _open_files()
    for step in range(20):
        task = asyncio.ensure_future(read_all(store, "k"))
        await asyncio.sleep(step / 2000)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    assert _open_files() <= before + 2
    assert await read_all(store, "k", length=10) == noise(10)


def _open_files() -> int:
    return len(names(Path("/proc/self/fd")))
