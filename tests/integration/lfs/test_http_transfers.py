"""The bytes of objects over HTTP, from a directory and from MinIO, through the server and past it."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit
from uuid import uuid4

import pytest
from sqlalchemy import update

from core.models import LfsObject, now
from core.settings import LfsSettings, StorageSettings
from tests.support.database import Databases
from tests.support.lfs_http import LfsCaller, LfsServer, running_lfs, said
from tests.support.lfs_world import oid_of
from tests.support.minio_server import MinioServer
from tests.support.streams import list_keys, noise

DATA = noise(3_000_001)
OID = oid_of(DATA)
SIZE = len(DATA)

Way = Literal["local", "proxy", "redirect"]


def _storage(way: Way, minio: MinioServer) -> StorageSettings:
    return StorageSettings() if way == "local" else minio.settings(bucket="http", prefix=uuid4().hex)


@pytest.fixture(params=["local", "proxy"])
async def server(
    request: pytest.FixtureRequest, tmp_path: Path, databases: Databases, minio: MinioServer
) -> AsyncIterator[LfsServer]:
    """Through the server, from each store."""
    storage = _storage(request.param, minio)
    async with (
        databases.fresh("sqlite") as url,
        running_lfs(tmp_path / "data", url, lfs=LfsSettings(transfer="proxy"), storage=storage) as running,
    ):
        yield running


@pytest.fixture
async def ann(server: LfsServer) -> LfsCaller:
    return await server.at_new_repository("ann")


async def test_the_head_of_an_object(ann: LfsCaller) -> None:
    await ann.upload(DATA)
    href = await ann.href("download", OID, SIZE)
    got = await ann.get(href)
    assert (got.status, got.body) == (200, DATA)
    expected = {
        "Content-Length": str(SIZE),
        "Content-Type": "application/octet-stream",
        "ETag": f'"{OID}"',
        "Accept-Ranges": "bytes",
        "Cache-Control": "private",
        "Content-Disposition": "attachment",
        "X-Content-Type-Options": "nosniff",
    }
    for reply in (got, await ann.get(href, method="HEAD"), await ann("HEAD", f"objects/{OID}")):
        assert {name: reply.headers[name] for name in expected} == expected
        assert "Content-Encoding" not in reply.headers
        assert reply.status == 200
    assert (await ann.get(href, {"Accept-Encoding": "gzip, zstd"})).body == DATA


@pytest.mark.parametrize(
    ("asked", "first", "last"),
    [
        ("bytes=0-0", 0, 0),
        ("bytes=1000000-", 1_000_000, SIZE - 1),
        ("bytes=1000000-1999999", 1_000_000, 1_999_999),
        ("bytes=-1", SIZE - 1, SIZE - 1),
        (f"bytes=0-{SIZE * 2}", 0, SIZE - 1),
    ],
)
async def test_a_part(ann: LfsCaller, asked: str, first: int, last: int) -> None:
    await ann.upload(DATA)
    href = await ann.href("download", OID, SIZE)
    for condition in ({}, {"If-Range": f'"{OID}"'}):
        reply = await ann.get(href, {"Range": asked, **condition})
        assert reply.status == 206
        assert reply.headers["Content-Range"] == f"bytes {first}-{last}/{SIZE}"
        assert reply.body == DATA[first : last + 1]
    for headers in ({"If-Range": '"other"'}, {"Range": "bytes=0-1,5-6"}, {"Range": "lines=1-2"}):
        reply = await ann.get(href, {"Range": asked, **headers})
        assert (reply.status, reply.body) == (200, DATA)
    assert (await ann.get(href, {"Range": asked}, "HEAD")).status == 200


async def test_no_part(ann: LfsCaller) -> None:
    await ann.upload(DATA)
    reply = await ann.get(await ann.href("download", OID, SIZE), {"Range": f"bytes={SIZE}-"})
    assert reply.status == 416
    assert reply.headers["Content-Range"] == f"bytes */{SIZE}"
    said(reply)


async def test_nothing_at_all(ann: LfsCaller) -> None:
    oid = await ann.upload(b"")
    href = await ann.href("download", oid, 0)
    reply = await ann.get(href)
    assert (reply.status, reply.body, reply.headers["Content-Length"]) == (200, b"", "0")
    assert (await ann.get(href, {"Range": "bytes=0-"})).status == 416


async def test_again_and_at_once(server: LfsServer, ann: LfsCaller) -> None:
    href = await ann.href("upload", OID, SIZE)
    replies = await asyncio.gather(*(ann.put(href, DATA) for _ in range(4)))
    replies.append(await ann.put(href, DATA))
    assert [reply.status for reply in replies] == [200] * 5
    await server.services.large_files.uploads.settle()
    assert len(await list_keys(server.services.large_files.stores.current, "lfs/")) == 1
    assert (await ann.download(OID, SIZE)).body == DATA


@pytest.mark.parametrize("data", [DATA[:-1], DATA + b"x", b"", DATA[:-1] + b"!"])
async def test_other_bytes(server: LfsServer, ann: LfsCaller, data: bytes) -> None:
    reply = await ann.put(await ann.href("upload", OID, SIZE), data)
    assert reply.status == 422
    assert said(reply)["code"] == "lfs_wrong_bytes"
    await _stored_nothing(server, ann)


async def test_verification(ann: LfsCaller) -> None:
    assert (await ann("POST", "objects/verify", {"oid": OID, "size": SIZE})).status == 404
    await ann.upload(DATA)
    reply = await ann("POST", "objects/verify", {"oid": OID, "size": SIZE})
    assert (reply.status, reply.json) == (200, {"oid": OID, "size": SIZE})
    for body, status in (
        ({"oid": OID, "size": SIZE + 1}, 422),
        ({"oid": OID, "size": -1}, 422),
        ({"oid": "b" * 64, "size": 1}, 404),
        ({"oid": OID.upper(), "size": SIZE}, 422),
        ({"oid": OID}, 422),
        ([], 422),
    ):
        reply = await ann("POST", "objects/verify", body)
        assert reply.status == status
        said(reply)


async def test_what_is_not_there(ann: LfsCaller) -> None:
    for oid, status in ((OID, 404), (OID.upper(), 422), ("b" * 70, 422), ("..%2f" * 13, 422), ("x", 422)):
        for method in ("GET", "HEAD"):
            assert (await ann(method, f"objects/{oid}")).status == status


async def test_bytes_that_are_gone(server: LfsServer, ann: LfsCaller) -> None:
    await ann.upload(DATA)
    href = await ann.href("download", OID, SIZE)
    store = server.services.large_files.stores.current
    (key,) = await list_keys(store, "lfs/")
    await store.delete(key)
    reply = await ann.get(href)
    assert reply.status == 410
    assert said(reply)["code"] == "lfs_object_damaged"
    async with server.services.database.transaction() as session:
        await session.execute(update(LfsObject).values(damaged_at=now()))
    (entry,) = await ann.objects("download", (OID, SIZE))
    assert entry["error"]["code"] == 410
    await ann.upload(DATA)
    assert (await ann.get(href)).body == DATA


async def test_uploads_without_a_link(ann: LfsCaller) -> None:
    reply = await ann("PUT", f"objects/{OID}", data=DATA)
    assert reply.status == 403
    assert said(reply)["code"] == "lfs_link_refused"


async def test_many_downloads_share_the_places(
    tmp_path: Path, databases: Databases, minio: MinioServer
) -> None:
    few = LfsSettings(concurrent_transfers=2)
    async with (
        databases.fresh("sqlite") as url,
        running_lfs(tmp_path / "data", url, lfs=few) as server,
    ):
        ann = await server.at_new_repository("ann")
        await ann.upload(DATA)
        href = await ann.href("download", OID, SIZE)
        replies = await asyncio.gather(*(ann.get(href) for _ in range(12)))
        assert all(reply.body == DATA for reply in replies)


# -- past the server ---------------------------------------------------------------------------------


@pytest.fixture
async def direct(tmp_path: Path, databases: Databases, minio: MinioServer) -> AsyncIterator[LfsServer]:
    async with (
        databases.fresh("sqlite") as url,
        running_lfs(
            tmp_path / "data",
            url,
            lfs=LfsSettings(transfer="redirect"),
            storage=_storage("redirect", minio),
        ) as running,
    ):
        yield running


async def test_past_the_server(direct: LfsServer, minio: MinioServer) -> None:
    ann = await direct.at_new_repository("ann")
    (entry,) = await ann.objects("upload", (OID, SIZE))
    upload, verify = entry["actions"]["upload"], entry["actions"]["verify"]
    assert urlsplit(upload["href"]).netloc == minio.endpoint
    body = {"oid": OID, "size": SIZE}
    early = await ann.get(verify["href"], method="POST")
    assert early.status == 422
    nobody = direct.api.anonymous
    assert (await nobody("POST", verify["href"], body)).status == 404
    assert (await ann.objects("download", (OID, SIZE)))[0]["error"]["code"] == 404

    other = await ann.put(upload["href"], b"x" * SIZE, headers=upload["header"])
    assert other.status == 400
    assert (await nobody("POST", verify["href"], body)).status == 404
    assert (await ann.put(upload["href"], DATA, headers=upload["header"])).status == 200
    assert (await ann.objects("download", (OID, SIZE)))[0]["error"]["code"] == 404
    assert (await nobody("POST", verify["href"], {"oid": OID, "size": SIZE + 1})).status == 422
    assert (await nobody("POST", verify["href"], body)).status == 200
    assert (await nobody("POST", verify["href"], body)).status == 200

    href = await ann.href("download", OID, SIZE)
    assert urlsplit(href).netloc == minio.endpoint
    assert (await ann.get(href)).body == DATA
    assert (await ann.get(href, {"Range": "bytes=5-9"})).body == DATA[5:10]
    # Whoever asks us all the same gets the bytes from us.
    assert (await ann("GET", f"objects/{OID}")).body == DATA


async def test_who_does_not_send_headers_comes_to_us(direct: LfsServer) -> None:
    ann = await direct.at_new_repository("ann")
    (entry,) = await ann.objects("upload", (OID, SIZE), transfers=["basic", "multipart"])
    upload = entry["actions"]["upload"]
    assert upload["href"].startswith(ann.base)
    assert "header" not in upload
    assert (await ann.put(upload["href"], DATA)).status == 200


async def test_a_verification_is_for_its_object(direct: LfsServer) -> None:
    ann = await direct.at_new_repository("ann")
    (first, second) = await ann.objects("upload", (OID, SIZE), ("b" * 64, SIZE))
    href = first["actions"]["verify"]["href"]
    nobody = direct.api.anonymous
    assert (await nobody("POST", href, {"oid": "b" * 64, "size": SIZE})).status == 403
    assert (await nobody("GET", second["actions"]["verify"]["href"])).status == 422
    assert (await nobody("POST", f"{ann.base}/objects/verify", {"oid": OID, "size": SIZE})).status == 401


async def _stored_nothing(server: LfsServer, ann: LfsCaller) -> None:
    (entry,) = await ann.objects("download", (OID, SIZE))
    assert entry["error"]["code"] == 404
    await server.services.large_files.uploads.settle()
    assert await list_keys(server.services.large_files.stores.current, "lfs/") == []
