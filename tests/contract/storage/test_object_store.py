"""What every object store must do, run against each of them."""

import os
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from storage.protocol import CHUNK_BYTES, ObjectNotFound, ObjectStore, StoreUnavailable
from tests.support.stores import PART_BYTES, World, names
from tests.support.streams import list_keys, noise, pieces, read_all

MEBIBYTE = 1024**2


@pytest.mark.parametrize(
    "size",
    [0, 1, CHUNK_BYTES, CHUNK_BYTES + 1, PART_BYTES - 1, PART_BYTES, PART_BYTES + 1, 2 * PART_BYTES + 7],
)
async def test_returns_the_bytes_it_was_given(world: World, size: int) -> None:
    data = noise(size)
    assert await world.store.put("a/b/object", pieces(data)) == size
    assert await read_all(world.store, "a/b/object") == data
    assert (await world.store.stat("a/b/object")).size == size
    assert world.leftovers("a/b/object") == 0


async def test_takes_pieces_of_any_size(store: ObjectStore) -> None:
    data = noise(2 * PART_BYTES + 5)

    async def odd() -> AsyncIterator[bytes]:
        yield b""
        yield data[:1]
        yield data[1 : PART_BYTES + 3]
        yield b""
        yield data[PART_BYTES + 3 :]
        yield b""

    assert await store.put("odd", odd()) == len(data)
    assert await read_all(store, "odd") == data


async def test_streams_in_bounded_chunks(store: ObjectStore) -> None:
    await store.put("k", pieces(noise(3 * CHUNK_BYTES + 1)))
    async with store.open("k") as chunks:
        sizes = [len(chunk) async for chunk in chunks]
    assert sum(sizes) == 3 * CHUNK_BYTES + 1
    assert max(sizes) <= CHUNK_BYTES
    assert min(sizes) > 0


@pytest.mark.parametrize(
    ("offset", "length"),
    [
        (0, None),
        (0, 0),
        (0, 1),
        (5, 0),
        (5, 10),
        (CHUNK_BYTES - 1, CHUNK_BYTES + 2),
        (999_999, 1),
        (999_999, 500),
        (999_999, None),
        (1_000_000, None),
        (1_000_000, 0),
        (1_000_000, 1),
        (5_000_000, None),
        (5_000_000, 7),
    ],
)
async def test_reads_ranges(store: ObjectStore, offset: int, length: int | None) -> None:
    data = noise(1_000_000)
    await store.put("ranged", pieces(data))
    end = None if length is None else offset + length
    assert await read_all(store, "ranged", offset=offset, length=length) == data[offset:end]


@pytest.mark.parametrize(("offset", "length"), [(0, None), (0, 0), (0, 5), (3, None)])
async def test_reads_ranges_of_an_empty_object(store: ObjectStore, offset: int, length: int | None) -> None:
    await store.put("empty", pieces(b""))
    assert await read_all(store, "empty", offset=offset, length=length) == b""


@pytest.mark.parametrize(("offset", "length"), [(-1, None), (0, -1)])
async def test_refuses_negative_ranges(store: ObjectStore, offset: int, length: int | None) -> None:
    await store.put("k", pieces(b"data"))
    with pytest.raises(ValueError, match="byte range"):
        await read_all(store, "k", offset=offset, length=length)


@pytest.mark.parametrize("length", [None, 0, 5])
async def test_says_on_entry_that_an_object_is_missing(store: ObjectStore, length: int | None) -> None:
    with pytest.raises(ObjectNotFound):
        async with store.open("no/such", length=length):
            pytest.fail("entered")


async def test_a_missing_object_is_missing_everywhere(store: ObjectStore, tmp_path: Path) -> None:
    await store.put("dir/k", pieces(b"x"))
    for key in ("nothing", "dir", "dir/k/below", "dir/other"):
        with pytest.raises(ObjectNotFound):
            await store.stat(key)
        with pytest.raises(ObjectNotFound):
            await store.get_file(key, tmp_path / "out")
        await store.delete(key)
    assert not (tmp_path / "out").exists()
    assert await list_keys(store) == ["dir/k"]


async def test_putting_again_replaces(store: ObjectStore) -> None:
    await store.put("k", pieces(noise(PART_BYTES + 1)))
    await store.put("k", pieces(b"short"))
    assert await read_all(store, "k") == b"short"
    assert (await store.stat("k")).size == 5
    assert await list_keys(store) == ["k"]


async def test_a_reader_keeps_what_it_opened_or_fails(store: ObjectStore) -> None:
    """Never a mixture of two versions."""
    old = noise(4 * MEBIBYTE, "old")
    await store.put("k", pieces(old))
    async with store.open("k") as chunks:
        read = [await anext(chunks)]
        await store.put("k", pieces(noise(4 * MEBIBYTE, "new")))
        await store.delete("k")
        try:
            read += [chunk async for chunk in chunks]
        except StoreUnavailable:
            return
    assert b"".join(read) == old


async def test_deletes(store: ObjectStore) -> None:
    await store.put("a/b/c", pieces(b"1"))
    await store.put("a/d", pieces(b"2"))
    await store.delete("a/b/c")
    await store.delete("a/b/c")
    with pytest.raises(ObjectNotFound):
        await store.stat("a/b/c")
    assert await list_keys(store) == ["a/d"]
    await store.put("a/b/c", pieces(b"3"))
    assert await read_all(store, "a/b/c") == b"3"


async def test_times_are_aware_and_now(store: ObjectStore, tmp_path: Path) -> None:
    """Also for a file that was written long ago: sweepers judge an orphan by its time in the store."""
    ancient = tmp_path / "ancient"
    ancient.write_bytes(b"x")
    os.utime(ancient, (1_000_000_000, 1_000_000_000))
    await store.put("fresh", pieces(b"x"))
    await store.put_file("linked", ancient)
    for item in [
        await store.stat("fresh"),
        await store.stat("linked"),
        *[item async for item in store.list("")],
    ]:
        assert item.modified.tzinfo is UTC
        assert abs(datetime.now(UTC) - item.modified) < timedelta(seconds=10)


async def test_puts_and_gets_files(world: World, tmp_path: Path) -> None:
    store = world.store
    source, out, again = tmp_path / "source", tmp_path / "out", tmp_path / "again"
    data = noise(PART_BYTES + 12345)
    source.write_bytes(data)
    assert await store.put_file("packs/p", source) == len(data)
    assert await store.put_file("packs/p", source) == len(data)
    assert await read_all(store, "packs/p") == data
    await store.get_file("packs/p", out)
    source.unlink()
    await store.get_file("packs/p", again)
    assert out.read_bytes() == again.read_bytes() == data
    await store.delete("packs/p")
    assert out.read_bytes() == data
    assert world.leftovers("packs/p") == 0
    assert [name for name in names(tmp_path) if name != "store"] == ["again", "out"]


async def test_a_symlink_is_stored_as_the_file_behind_it(store: ObjectStore, tmp_path: Path) -> None:
    (tmp_path / "real").write_bytes(b"real")
    (tmp_path / "link").symlink_to("real")
    assert await store.put_file("k", tmp_path / "link") == 4
    (tmp_path / "real").unlink()
    assert await read_all(store, "k") == b"real"


async def test_a_missing_source_is_the_callers_error(store: ObjectStore, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        await store.put_file("k", tmp_path / "missing")
    assert await list_keys(store) == []


async def test_get_file_into_a_missing_directory_says_so(store: ObjectStore, tmp_path: Path) -> None:
    await store.put("k", pieces(b"x"))
    with pytest.raises(StoreUnavailable):
        await store.get_file("k", tmp_path / "none" / "out")


async def test_memory_stays_flat(store: ObjectStore, tmp_path: Path) -> None:
    size = 200 * MEBIBYTE
    piece = noise(MEBIBYTE)
    start = _resident_bytes()
    peak = start

    async def counted() -> AsyncIterator[bytes]:
        nonlocal peak
        for _ in range(size // len(piece)):
            peak = max(peak, _resident_bytes())
            yield piece

    assert await store.put("big", counted()) == size
    received = 0
    async with store.open("big") as chunks:
        async for chunk in chunks:
            received += len(chunk)
            peak = max(peak, _resident_bytes())
    assert received == size
    await store.get_file("big", tmp_path / "big")
    assert await store.put_file("copy", tmp_path / "big") == size
    peak = max(peak, _resident_bytes())
    assert peak - start < 60 * MEBIBYTE


async def test_check_proves_and_leaves_nothing(world: World) -> None:
    await world.store.check()
    await world.store.check()
    assert await list_keys(world.store) == []


@pytest.mark.parametrize(
    "operation",
    [
        lambda store: store.stat("k"),
        lambda store: store.put("k", pieces(b"x")),
        lambda store: read_all(store, "k"),
        lambda store: store.check(),
        list_keys,
    ],
    ids=["stat", "put", "open", "check", "list"],
)
async def test_a_closed_store_says_so(store: ObjectStore, operation: Callable[[ObjectStore], object]) -> None:
    await store.put("k", pieces(b"x"))
    await store.close()
    with pytest.raises(StoreUnavailable, match="closed"):
        await operation(store)  # type: ignore[misc]


async def test_open_streams_of_a_closed_store_end_with_an_error(store: ObjectStore) -> None:
    await store.put("k", pieces(noise(4 * MEBIBYTE)))
    async with store.open("k") as chunks:
        await anext(chunks)
        await store.close()
        with pytest.raises(StoreUnavailable):
            [chunk async for chunk in chunks]


def _resident_bytes() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")
