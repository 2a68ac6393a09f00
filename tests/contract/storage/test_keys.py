"""Which keys every store takes, and in which order it lists them."""

import asyncio
from pathlib import Path

import pytest

from storage.protocol import ObjectInfo, ObjectNotFound, ObjectStore, StoredPart
from tests.support.stores import names
from tests.support.streams import list_keys, pieces, read_all

HOSTILE_KEYS = [
    "",
    "/",
    "/etc/passwd",
    "..",
    ".",
    "../secret",
    "a/../b",
    "a/./b",
    "a/..",
    "a//b",
    "a/",
    "/a",
    "a\\b",
    "a\0b",
    "a\n",
    "a b",
    "ä",
    "a/\uff0e\uff0e/b",
    "a%2e%2e",
    "~root",
    "C:a",
    "x" * 256,
    "/".join(["x" * 100] * 9),
]


@pytest.mark.parametrize("key", HOSTILE_KEYS)
async def test_refuses_hostile_keys(store: ObjectStore, tmp_path: Path, key: str) -> None:
    source = tmp_path / "source"
    source.write_bytes(b"x")
    with pytest.raises(ValueError):
        await store.put(key, pieces(b"x"))
    with pytest.raises(ValueError):
        await store.put_file(key, source)
    with pytest.raises(ValueError):
        await store.get_file(key, tmp_path / "out")
    with pytest.raises(ValueError):
        await store.stat(key)
    with pytest.raises(ValueError):
        await store.delete(key)
    with pytest.raises(ValueError):
        await read_all(store, key)
    with pytest.raises(ValueError):
        await store.signed_get(key, seconds=60)
    with pytest.raises(ValueError):
        await store.signed_put(key, seconds=60, sha256="0" * 64, size=1, content_type="a/b")
    with pytest.raises(ValueError):
        await store.signed_part(key, "0" * 32, 1, seconds=60, size=1)
    with pytest.raises(ValueError):
        await store.finish_put(key, sha256="0" * 64)
    with pytest.raises(ValueError):
        await store.begin_parts(key)
    with pytest.raises(ValueError):
        await store.put_part(key, "0" * 32, 1, pieces(b"x"))
    with pytest.raises(ValueError):
        await store.list_parts(key, "0" * 32)
    with pytest.raises(ValueError):
        await store.complete_parts(key, "0" * 32, [StoredPart(1, 1, "x")])
    with pytest.raises(ValueError):
        await store.abort_parts(key, "0" * 32)
    assert await list_keys(store) == []
    assert [name for name in names(tmp_path) if name != "store"] == ["source"]


@pytest.mark.parametrize("prefix", ["a", "/", "../", "a//", "a/../", "a\0/", "."])
async def test_refuses_hostile_prefixes(store: ObjectStore, prefix: str) -> None:
    with pytest.raises(ValueError):
        await list_keys(store, prefix)


@pytest.mark.parametrize("key", ["a", "A-Z_0.9", ".hidden", "...", "a/.draft-x", "tmp/x", "-", "x" * 255])
async def test_takes_every_other_key(store: ObjectStore, key: str) -> None:
    await store.put(key, pieces(b"x"))
    assert await list_keys(store) == [key]
    assert await read_all(store, key) == b"x"


async def test_a_key_below_another_is_refused_or_stored(store: ObjectStore) -> None:
    for first, second in [("x", "x/y"), ("z/y", "z")]:
        await store.put(first, pieces(b"first"))
        try:
            await store.put(second, pieces(b"second"))
        except ValueError:
            with pytest.raises(ObjectNotFound):
                await store.stat(second)
        else:
            assert await read_all(store, second) == b"second"
        assert await read_all(store, first) == b"first"


async def test_lists_in_key_order(store: ObjectStore) -> None:
    stored = [
        "a-b",
        "a.b",
        "a/b/z",
        "a0",
        "a/b-c/x",
        "a/b.c",
        "a/b0/y",
        "a_b",
        "A",
        "b/1",
        "b/10",
        "b/2",
        "c",
    ]
    for name in stored:
        await store.put(name, pieces(name.encode()))
    assert await list_keys(store) == sorted(stored)
    assert await list_keys(store, "a/") == sorted(name for name in stored if name.startswith("a/"))
    assert await list_keys(store, "a/b/") == ["a/b/z"]
    assert await list_keys(store, "none/") == []
    assert await list_keys(store, "c/") == []
    listed = [item async for item in store.list("b/")]
    assert listed == [ObjectInfo(item.key, len(item.key), item.modified) for item in listed]


async def test_lists_more_than_one_batch(store: ObjectStore) -> None:
    stored = [f"many/{number:05d}" for number in range(1100)]
    for start in range(0, len(stored), 50):
        async with asyncio.TaskGroup() as group:
            for name in stored[start : start + 50]:
                group.create_task(store.put(name, pieces(b"")))
    assert await list_keys(store, "many/") == stored
    async for item in store.list("many/"):
        assert item.key == stored[0]
        break
