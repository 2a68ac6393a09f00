"""What only the MinIO store promises: settings, long streams, and manners when the server is gone."""

import asyncio
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any
from uuid import uuid4

import msgspec
import pytest

from core.errors import SettingsError
from core.settings import Settings, StorageSettings
from storage import minio_http, minio_transfer
from storage.build import build_store
from storage.minio_store import MinioStore
from storage.minio_transfer import part_bytes
from storage.protocol import (
    MAX_PARTS,
    MIN_PART_BYTES,
    ObjectNotFound,
    ObjectStore,
    StoredPart,
    StoreUnavailable,
)
from tests.support.minio_server import MinioServer, running_minio
from tests.support.stores import MinioWorld, names
from tests.support.streams import list_keys, noise, pieces, read_all

# It takes a second, with a second try; who waits for an answer that does not come waits for forty.
SOON = 30.0
Operation = Callable[[ObjectStore, Path], Coroutine[Any, Any, object]]


async def put_file(store: ObjectStore, directory: Path) -> int:
    (directory / "source").write_bytes(b"x")
    return await store.put_file("k", directory / "source")


OPERATIONS: dict[str, Operation] = {
    "put": lambda store, _: store.put("k", pieces(b"x")),
    "put of parts": lambda store, _: store.put("k", pieces(noise(6 * 1024**2))),
    "put_file": put_file,
    "open": lambda store, _: read_all(store, "k"),
    "open of nothing": lambda store, _: read_all(store, "k", length=0),
    "get_file": lambda store, directory: store.get_file("k", directory / "out"),
    "stat": lambda store, _: store.stat("k"),
    "delete": lambda store, _: store.delete("k"),
    "list": lambda store, _: list_keys(store),
    "begin_parts": lambda store, _: store.begin_parts("k"),
    "put_part": lambda store, _: store.put_part("k", "x", 1, pieces(b"x")),
    "list_parts": lambda store, _: store.list_parts("k", "x"),
    "complete_parts": lambda store, _: store.complete_parts("k", "x", [StoredPart(1, 1, "x")]),
    "abort_parts": lambda store, _: store.abort_parts("k", "x"),
    "signed_put": lambda store, _: store.signed_put(
        "k", seconds=1, sha256="0" * 64, size=1, content_type="a/b"
    ),
    "finish_put": lambda store, _: store.finish_put("k", sha256="0" * 64),
    "check": lambda store, _: store.check(),
}


async def test_prefixes_separate_stores_in_one_bucket(minio: MinioWorld) -> None:
    await minio.store.put("k", pieces(b"x"))
    outer = MinioStore(msgspec.structs.replace(minio.settings, prefix="tests/"))
    other = MinioStore(msgspec.structs.replace(minio.settings, prefix=minio.prefix + "-2"))
    inner_key = minio.prefix.removeprefix("tests/") + "/k"
    assert await read_all(outer, inner_key) == b"x"
    assert inner_key in await list_keys(outer)
    assert await list_keys(other) == []
    await outer.close()
    await other.close()


async def test_check_creates_the_bucket_also_when_two_do(minio_server: MinioServer) -> None:
    bucket = f"new-{uuid4().hex}"
    stores = [build_store(Settings(storage=minio_server.settings(bucket=bucket))) for _ in range(4)]
    with pytest.raises(StoreUnavailable, match="NoSuchBucket"):
        await stores[0].put("k", pieces(b"x"))
    with pytest.raises(StoreUnavailable, match="NoSuchBucket"):
        await stores[0].stat("k")
    async with asyncio.TaskGroup() as group:
        for store in stores:
            group.create_task(store.check())
    await stores[0].put("k", pieces(b"x"))
    assert await read_all(stores[1], "k") == b"x"
    for store in stores:
        await store.close()


async def test_wrong_credentials_are_unavailable_with_the_reason(minio: MinioWorld) -> None:
    store = MinioStore(msgspec.structs.replace(minio.settings, secret_key="wrong-secret"))
    with pytest.raises(StoreUnavailable, match=r"SignatureDoesNotMatch|AccessDenied"):
        await store.put("k", pieces(b"x"))
    with pytest.raises(StoreUnavailable):
        await store.check()
    with pytest.raises(StoreUnavailable):
        await store.stat("k")
    await store.close()


@pytest.mark.parametrize(
    "wrong",
    [
        {"endpoint": ""},
        {"endpoint": "http://127.0.0.1:9000"},
        {"endpoint": "127.0.0.1:9000/path"},
        {"endpoint": "no host"},
        {"endpoint": "host:99999"},
        {"access_key": ""},
        {"secret_key": ""},
        {"bucket": "Upper"},
        {"bucket": "a/b"},
        {"part_bytes": 1024},
        {"prefix": "../up"},
        {"prefix": "/"},
        {"public_endpoint": "https://host/path"},
        {"public_endpoint": "ftp://host"},
        {"public_endpoint": "host:99999"},
    ],
    ids=str,
)
async def test_settings_that_cannot_work_are_refused(minio: MinioWorld, wrong: dict[str, object]) -> None:
    with pytest.raises(SettingsError, match=rf"\[storage\] .*{next(iter(wrong))}"):
        MinioStore(msgspec.structs.replace(minio.settings, **wrong))


async def test_an_outage_is_told_soon_and_passes(tmp_path: Path) -> None:
    async with running_minio(tmp_path / "minio") as server:
        store = MinioStore(server.settings())
        await store.check()
        await store.put("k", pieces(b"before"))

        await asyncio.to_thread(server.stop)
        for name, operation in OPERATIONS.items():
            started = time.monotonic()
            with pytest.raises(StoreUnavailable):
                await operation(store, tmp_path)
            assert time.monotonic() - started < SOON, name
        assert names(tmp_path) == ["minio", "source"]

        await asyncio.to_thread(server.start)
        assert await read_all(store, "k") == b"before"
        await store.check()
        await store.close()


async def test_a_server_that_dies_in_the_middle_yields_an_error_not_a_short_object(tmp_path: Path) -> None:
    async with running_minio(tmp_path / "minio") as server:
        store = MinioStore(server.settings())
        await store.check()
        await store.put("k", pieces(noise(48 * 1024**2)))
        async with store.open("k") as chunks:
            await anext(chunks)
            await asyncio.to_thread(server.stop)
            with pytest.raises(StoreUnavailable):
                [chunk async for chunk in chunks]
        await store.close()


async def test_a_server_that_dies_during_a_put_stores_nothing(tmp_path: Path) -> None:
    async with running_minio(tmp_path / "minio") as server:
        store = MinioStore(server.settings())
        await store.check()

        async def deadly() -> Any:
            async for piece in pieces(noise(12 * 1024**2)):
                yield piece
            await asyncio.to_thread(server.stop)

        started = time.monotonic()
        with pytest.raises(StoreUnavailable):
            await store.put("k", deadly())
        assert time.monotonic() - started < SOON
        await asyncio.to_thread(server.start)
        with pytest.raises(ObjectNotFound):
            await store.stat("k")
        await store.close()


ANSWERS = {
    "unavailable": b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n",
    "proxy page": b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 8\r\n\r\n<p>Login",
    "not HTTP": b"SSH-2.0-OpenSSH_9.2\r\n",
    "not text": b"HTTP/1.1 400 Bad\r\nContent-Length: 2\r\n\r\n\xff\xfe",
    "nothing": b"",
}


@pytest.mark.parametrize("answer", ANSWERS.values(), ids=ANSWERS.keys())
async def test_a_server_that_is_no_object_store_is_unavailable(
    minio: MinioWorld, tmp_path: Path, answer: bytes
) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(65536)
        writer.write(answer)
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        store = MinioStore(_elsewhere(minio, server))
        for name in ("put", "list", "check"):
            started = time.monotonic()
            with pytest.raises(StoreUnavailable):
                await OPERATIONS[name](store, tmp_path)
            assert time.monotonic() - started < SOON, name
        await store.close()


async def test_a_part_may_take_longer_than_a_connection(
    minio: MinioWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(minio_http, "CONNECT_SECONDS", 0.3)
    data = noise(32 * 1024**2)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        await asyncio.sleep(1)
        await reader.readexactly(len(data))
        writer.write(b'HTTP/1.1 200 OK\r\nETag: "x"\r\nContent-Length: 0\r\n\r\n')
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        store = MinioStore(_elsewhere(minio, server, part_bytes=len(data)))
        assert await store.put("k", pieces(data)) == len(data)
        await store.close()


async def test_a_server_that_hangs_is_given_up(minio: MinioWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(minio_http, "READ_SECONDS", 0.3)
    hang = asyncio.Event()

    async def serve(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await hang.wait()
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        store = MinioStore(_elsewhere(minio, server))
        async with asyncio.timeout(SOON):
            with pytest.raises(StoreUnavailable):
                await store.stat("k")
        hang.set()
        await store.close()


def test_parts_grow_so_that_five_tebibytes_fit() -> None:
    for least in (MIN_PART_BYTES, 16 * 1024**2):
        sizes = [part_bytes(number, least) for number in range(1, MAX_PARTS + 1)]
        assert sum(sizes) >= 5 * 1024**4
        assert sizes == sorted(sizes)
        assert (sizes[0], sizes[minio_transfer.GROWTH_PARTS - 1]) == (least, least)
        assert sizes[-1] == 1024**3


async def test_a_stream_of_growing_parts_is_stored(
    minio: MinioWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(minio_transfer, "GROWTH_PARTS", 2)
    monkeypatch.setattr(minio_transfer, "GROWN_BYTES", MIN_PART_BYTES)
    data = noise(2 * 5 * 1024**2 + 2 * 10 * 1024**2 + 1000)
    assert await minio.store.put("k", pieces(data)) == len(data)
    assert await read_all(minio.store, "k") == data
    found = await asyncio.to_thread(minio.client().stat_object, "contract", f"{minio.prefix}/k")
    assert (found.etag or "").endswith("-5")


async def test_slow_uploads_do_not_use_up_the_threads(minio: MinioWorld) -> None:
    go_on = asyncio.Event()

    async def slow() -> Any:
        yield b"slow"
        await go_on.wait()

    async with asyncio.TaskGroup() as group:
        for number in range(100):
            group.create_task(minio.store.put(f"slow/{number}", slow()))
        async with asyncio.timeout(SOON):
            await minio.store.put("quick", pieces(b"quick"))
            assert await read_all(minio.store, "quick") == b"quick"
        go_on.set()
    assert len(await list_keys(minio.store)) == 101


def _elsewhere(minio: MinioWorld, server: asyncio.Server, **changes: object) -> StorageSettings:
    port = server.sockets[0].getsockname()[1]
    return msgspec.structs.replace(minio.settings, endpoint=f"127.0.0.1:{port}", **changes)
