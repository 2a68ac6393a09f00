"""The batch API, links and sessions over HTTP."""

import gzip
from datetime import UTC, datetime
from pathlib import Path

import pytest
from sqlalchemy import select, update

from core.access import SYSTEM
from core.models import LfsLink, Role, Scope, Visibility
from core.names import parse_address
from core.settings import LfsSettings
from lfs.links import MAX_LINK_SECONDS
from tests.support.api import Reply
from tests.support.lfs_http import MEDIA, LfsCaller, LfsServer, running_lfs, said
from tests.support.lfs_world import oid_of

DATA = b"the weights of a model" * 1000
OID = oid_of(DATA)
SIZE = len(DATA)


# -- answers -----------------------------------------------------------------------------------------


async def test_the_life_of_an_object(ann: LfsCaller) -> None:
    reply = await ann.batch("upload", (OID, SIZE))
    assert reply.status == 200
    assert reply.headers["Content-Type"].startswith(MEDIA)
    assert reply.json["transfer"] == "basic"
    assert reply.json["hash_algo"] == "sha256"
    (entry,) = reply.json["objects"]
    assert entry["authenticated"] is True
    upload = entry["actions"]["upload"]
    assert upload["href"].startswith(f"{ann.base}/objects/{OID}?link=")
    assert upload["expires_in"] == 3600
    assert (await ann.put(upload["href"], DATA)).status == 200

    (entry,) = await ann.objects("upload", (OID, SIZE))
    assert "actions" not in entry
    assert "error" not in entry
    (entry,) = await ann.objects("download", (OID, SIZE))
    got = await ann.get(entry["actions"]["download"]["href"])
    assert (got.status, got.body) == (200, DATA)


async def test_every_object_has_its_own_answer(ann: LfsCaller) -> None:
    await ann.upload(DATA)
    entries = await ann.objects(
        "download", (OID, SIZE), ("b" * 64, 1), ("B" * 64, 1), ("b" * 70, 1), (OID, -1), (OID, SIZE + 1)
    )
    assert [entry.get("error", {}).get("code") for entry in entries] == [None, 404, 422, 422, 422, 422]
    assert all(("actions" in entry) is ("error" not in entry) for entry in entries)


@pytest.mark.parametrize("more", [{"ref": {}}, {"ref": None}, {"hash_algo": None}, {"transfers": ...}])
async def test_what_clients_leave_out(ann: LfsCaller, more: dict[str, object]) -> None:
    (entry,) = await ann.objects("upload", (OID, SIZE), **more)
    assert "upload" in entry["actions"]


async def test_another_hash(ann: LfsCaller) -> None:
    (entry,) = await ann.objects("upload", (OID, SIZE), hash_algo="sha512")
    assert entry["error"]["code"] == 409


async def test_an_empty_batch(ann: LfsCaller) -> None:
    assert await ann.objects("upload") == []


async def test_links_live_as_long_as_the_bytes_take(tmp_path: Path, database_url: str) -> None:
    slow = LfsSettings(link_seconds=100, slowest_bytes_per_second=1000)
    async with running_lfs(tmp_path / "data", database_url, lfs=slow) as server:
        ann = await server.at_new_repository("ann")
        for sizes, seconds in (((0,), 100), ((5000, 5000), 110), ((10**12,), MAX_LINK_SECONDS)):
            wanted = [(f"{number:064x}", size) for number, size in enumerate(sizes)]
            for entry in await ann.objects("upload", *wanted):
                assert entry["actions"]["upload"]["expires_in"] == seconds


async def test_addresses_are_the_ones_that_the_client_uses(tmp_path: Path, database_url: str) -> None:
    async with running_lfs(
        tmp_path / "data", database_url, public_url="https://models.example/here/"
    ) as server:
        ann = await server.at_new_repository("ann")
        href = await ann.href("upload", OID, SIZE)
        assert href.startswith("https://models.example/here/ann/model.git/info/lfs/objects/")


async def test_a_dataset_and_every_spelling(server: LfsServer) -> None:
    ann = await server.user("ann")
    await server.repository("datasets/ann/model")
    for path in ("datasets/ann/model", "datasets/ann/model.git", "DATASETS/../datasets/ann/model"):
        url = f"{ann.base}/{path}/info/lfs/objects/batch"
        body = {"operation": "upload", "objects": [{"oid": OID, "size": SIZE}]}
        reply = await ann("POST", url, body)
        if ".." in path:
            assert reply.status == 404
        else:
            href = reply.json["objects"][0]["actions"]["upload"]["href"]
            assert href.startswith(f"{ann.base}/datasets/ann/model.git/info/lfs/objects/{OID}?")


# -- refusals ----------------------------------------------------------------------------------------


async def test_who_is_nobody_is_asked(server: LfsServer, ann: LfsCaller) -> None:
    await server.repository("ann/open", Visibility.PUBLIC)
    nobody = server.api.anonymous
    for path, operation in (("ann/model", "download"), ("ann/none", "download"), ("ann/open", "upload")):
        reply = await LfsCaller(nobody, path).batch(operation, (OID, SIZE))
        assert reply.status == 401
        assert reply.headers["LFS-Authenticate"].startswith("Basic ")
        assert reply.headers["WWW-Authenticate"].startswith("Basic ")
        assert said(reply)["code"] == "authentication_required"


async def test_what_is_hidden_does_not_exist(server: LfsServer, ann: LfsCaller) -> None:
    bob = await server.user("bob")
    hidden, none = [await LfsCaller(bob, path).batch("upload", (OID, 1)) for path in ("ann/model", "ann/no")]
    assert hidden.status == none.status == 404
    assert said(hidden) == said(none)


async def test_readers_do_not_upload(server: LfsServer, ann: LfsCaller) -> None:
    bob = LfsCaller(await server.user("bob"), "ann/model")
    address = parse_address("ann/model")
    await server.services.collaboration.set_collaborator(SYSTEM, address, "bob", Role.READ)
    assert (await bob.batch("download", (OID, SIZE))).status == 200
    refusal = await bob.batch("upload", (OID, SIZE))
    assert refusal.status == 403
    assert said(refusal)["code"] == "permission_denied"
    reading = LfsCaller(await server.api.token("ann", Scope.READ), "ann/model")
    assert (await reading.batch("upload", (OID, SIZE))).status == 403


async def test_wrong_credentials(server: LfsServer, ann: LfsCaller) -> None:
    reply = await LfsCaller(server.api.bearer("mylfs_nonsense"), "ann/model").batch("download", (OID, 1))
    assert reply.status == 401
    assert "LFS-Authenticate" in reply.headers
    reply = await LfsCaller(server.api.basic("ann", "wrong"), "ann/model").batch("download", (OID, 1))
    assert reply.status == 401


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"", 422),
        (b"{}", 422),
        (b"[]", 422),
        (b"\xff\xfe", 422),
        (b'{"operation":"remove","objects":[]}', 422),
        (b'{"operation":"upload","objects":[],"transfers":["tus"]}', 422),
        (b'{"operation":"upload","objects":[],"x":' + b"[" * 200_000, 422),
        (b" " * 5_000_000, 413),
    ],
)
async def test_no_batch(ann: LfsCaller, body: bytes, status: int) -> None:
    reply = await ann("POST", "objects/batch", data=body, headers={"Content-Type": MEDIA})
    assert reply.status == status
    said(reply)


async def test_compressed_requests(ann: LfsCaller) -> None:
    headers = {"Content-Type": MEDIA, "Content-Encoding": "gzip"}
    body = b'{"operation":"upload","objects":[{"oid":"%s","size":5}]}' % OID.encode()
    reply = await ann("POST", "objects/batch", data=gzip.compress(body), headers=headers)
    assert reply.status == 200
    assert reply.json["objects"][0]["actions"]["upload"]
    bomb = await ann("POST", "objects/batch", data=gzip.compress(bytes(50_000_000)), headers=headers)
    assert bomb.status == 413
    broken = await ann("POST", "objects/batch", data=b"\x1f\x8bnonsense", headers=headers)
    assert broken.status == 400


async def test_a_page_of_somebody_elses_cannot_ask(ann: LfsCaller) -> None:
    for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x"):
        reply = await ann("POST", "objects/batch", data=b"{}", headers={"Content-Type": kind})
        assert reply.status == 415
        said(reply)


@pytest.mark.parametrize("path", ["objects/batch", "objects/batch?link=x", "objects/verify", "locks"])
async def test_nor_can_one_that_does_not_say_what_it_sends(ann: LfsCaller, path: str) -> None:
    """As with a `Blob` of no type, which browsers send anywhere."""
    async with ann.caller.session.post(
        f"{ann.base}/{path}", data=b"{}", headers=ann.caller.headers, skip_auto_headers=["Content-Type"]
    ) as answer:
        reply = Reply(answer.status, answer.headers, await answer.read())
    assert reply.status == 415
    said(reply)


async def test_too_many_objects(ann: LfsCaller) -> None:
    reply = await ann.batch("upload", *((f"{number:064x}", 1) for number in range(1001)))
    assert reply.status == 413
    assert said(reply)["code"] == "lfs_too_many_objects"
    assert len(await ann.objects("upload", *((f"{number:064x}", 1) for number in range(1000)))) == 1000


async def test_the_rate_is_limited(tmp_path: Path, database_url: str) -> None:
    limited = LfsSettings(requests_per_minute=3)
    async with running_lfs(tmp_path / "data", database_url, lfs=limited) as server:
        ann = await server.at_new_repository("ann")
        href = await ann.href("upload", OID, SIZE)
        assert (await ann("GET", "locks")).status == 200
        replies = [await ann.batch("upload", (OID, SIZE)) for _ in range(3)]
        assert [reply.status for reply in replies] == [200, 429, 429]
        assert said(replies[1])["code"] == "too_many_requests"
        assert 1 <= int(replies[1].headers["Retry-After"]) <= 60
        assert (await ann("GET", "locks")).status == 429
        # Bytes that were agreed on still move, and others are not slowed down.
        assert (await ann.put(href, DATA)).status == 200
        assert (await (await server.at_new_repository("bob")).batch("upload", (OID, 1))).status == 200


async def test_the_quota_is_asked_before_the_bytes(tmp_path: Path, database_url: str) -> None:
    small = LfsSettings(quota_bytes=SIZE + 10)
    async with running_lfs(tmp_path / "data", database_url, lfs=small) as server:
        ann = await server.at_new_repository("ann")
        other = ("b" * 64, 11)
        reply = await ann.batch("upload", (OID, SIZE), other)
        assert reply.status == 507
        assert said(reply)["code"] == "lfs_quota_exceeded"
        href = await ann.href("upload", *other)
        await ann.upload(DATA)
        assert (await ann.batch("upload", other)).status == 507
        assert (await ann.batch("upload", (OID, SIZE))).status == 200
        late = await ann.put(href, b"x" * 11)
        assert late.status == 507
        assert (await ann.batch("upload", (OID, SIZE), ("c" * 64, 10))).status == 200


async def test_too_large(tmp_path: Path, database_url: str) -> None:
    async with running_lfs(tmp_path / "data", database_url, lfs=LfsSettings(max_object_bytes=100)) as server:
        ann = await server.at_new_repository("ann")
        first, second = await ann.objects("upload", (OID, 100), ("b" * 64, 101))
        assert "actions" in first
        assert second["error"]["code"] == 413


# -- links -------------------------------------------------------------------------------------------


async def test_what_a_batch_names_stays(server: LfsServer, ann: LfsCaller) -> None:
    await ann.upload(DATA)
    long_ago = datetime(2020, 1, 1, tzinfo=UTC)
    async with server.services.database.transaction() as session:
        await session.execute(update(LfsLink).values(touched_at=long_ago))
    await ann.objects("download", (OID, SIZE))
    assert await _touched(server) == long_ago
    await ann.objects("upload", (OID, SIZE))
    assert await _touched(server) > long_ago


async def _touched(server: LfsServer) -> datetime:
    async with server.services.database.read() as session:
        return (await session.scalars(select(LfsLink.touched_at))).one()
