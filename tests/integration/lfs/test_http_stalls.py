"""Clients and stores that stop in the middle of the bytes."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit
from uuid import uuid4

import pytest
from aiohttp import web

from core.access import ANONYMOUS
from core.settings import LfsSettings, StorageSettings
from lfs.http import LfsHttp
from lfs.http_face import Face
from modelyard.http import make_runner
from tests.support.database import Databases
from tests.support.lfs_http import LfsCaller, LfsServer, running_lfs
from tests.support.lfs_world import oid_of
from tests.support.minio_server import MinioServer, running_minio
from tests.support.raw_http import connected
from tests.support.streams import list_keys, noise

# More than all buffers between two sockets hold.
DATA = noise(40_000_000)
OID = oid_of(DATA)
SIZE = len(DATA)
PROXY = LfsSettings(transfer="proxy", concurrent_transfers=4)

Way = Literal["local", "minio"]


@pytest.fixture(params=["local", "minio"])
async def server(
    request: pytest.FixtureRequest, tmp_path: Path, databases: Databases, minio: MinioServer
) -> AsyncIterator[LfsServer]:
    way: Way = request.param
    storage = minio.settings(bucket="stalls", prefix=uuid4().hex) if way == "minio" else StorageSettings()
    async with (
        databases.fresh("sqlite") as url,
        running_lfs(tmp_path / "data", url, lfs=PROXY, storage=storage) as running,
    ):
        yield running


@pytest.fixture
async def ann(server: LfsServer) -> LfsCaller:
    return await server.at_new_repository("ann")


@pytest.fixture
async def hasty(server: LfsServer) -> AsyncIterator[web.AppRunner]:
    """Another face of the same service, which gives up on a client after half a second."""

    async def nobody(_: web.Request) -> object:
        return replace(ANONYMOUS, address="127.0.0.1")

    face = Face(
        server.services.large_files.service,
        nobody,  # type: ignore[arg-type]
        base_url=lambda _: "",
        request_id=lambda _: "",
        limit=lambda _: None,
        stall_seconds=0.5,
    )
    app = web.Application()
    app.router.add_routes(LfsHttp(face, max_batch_objects=10).routes())
    runner = make_runner(app, idle_seconds=30)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    yield runner
    await runner.cleanup()


def base_of(runner: web.AppRunner) -> str:
    return f"http://127.0.0.1:{runner.addresses[0][1]}"


def target_of(href: str) -> str:
    parts = urlsplit(href)
    return f"{parts.path}?{parts.query}"


async def test_a_client_that_stops_sending(server: LfsServer, ann: LfsCaller, hasty: web.AppRunner) -> None:
    target = target_of(await ann.href("upload", OID, SIZE))
    # More than there are places for one client: each must be given back.
    for _ in range(3):
        async with connected(base_of(hasty)) as connection:
            await connection.head("PUT", target, {"Content-Length": str(SIZE)})
            await connection.send(DATA[:1_000_000])
            reply = await connection.reply()
            assert (reply.status, reply.headers["Connection"]) == (408, "close")
    await server.services.large_files.uploads.settle()
    assert await list_keys(server.services.large_files.stores.current, "lfs/") == []
    assert await ann.upload(DATA) == OID


async def test_a_client_that_stops_reading(ann: LfsCaller, hasty: web.AppRunner) -> None:
    await ann.upload(DATA)
    target = target_of(await ann.href("download", OID, SIZE))
    for _ in range(3):
        async with connected(base_of(hasty)) as connection:
            await connection.head("GET", target)
            assert hasty.server is not None
            async with asyncio.timeout(60):
                while not hasty.server.connections:  # noqa: ASYNC110 - it tells nobody
                    await asyncio.sleep(0.02)
                while hasty.server.connections:  # noqa: ASYNC110 - nor that it gave up
                    await asyncio.sleep(0.02)
            with pytest.raises((asyncio.IncompleteReadError, ConnectionError)):
                await connection.reply()
    assert (await ann.download(OID, SIZE)).body == DATA


async def test_clients_that_leave(ann: LfsCaller) -> None:
    await ann.upload(DATA)
    href = await ann.href("download", OID, SIZE)
    for _ in range(6):
        async with connected(ann.caller.base) as connection:
            await connection.head("GET", target_of(href))
            await asyncio.sleep(0.1)
    assert (await ann.get(href)).body == DATA


async def test_a_store_that_goes_away(tmp_path: Path, databases: Databases) -> None:
    """What had begun breaks off visibly; what had not gets a clear answer; later all is well again."""
    async with (
        running_minio(tmp_path / "minio") as minio,
        databases.fresh("sqlite") as url,
        running_lfs(tmp_path / "data", url, lfs=PROXY, storage=minio.settings(bucket="away")) as server,
    ):
        ann = await server.at_new_repository("ann")
        await ann.upload(DATA)
        down, up = await ann.href("download", OID, SIZE), await ann.href("upload", oid_of(b"x"), 1)
        async with connected(ann.caller.base) as connection:
            await connection.head("GET", target_of(down))
            await asyncio.sleep(0.3)
            await asyncio.to_thread(minio.stop)
            with pytest.raises((asyncio.IncompleteReadError, ConnectionError)):
                await connection.reply()
        for reply in (await ann.get(down), await ann.put(up, b"x")):
            assert reply.status == 503
            assert reply.json["code"] == "store_unavailable"
        await asyncio.to_thread(minio.start)
        assert (await ann.get(down)).body == DATA
        assert (await ann.put(up, b"x")).status == 200
