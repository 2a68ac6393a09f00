"""Uploads in parts over HTTP, request by request."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

import msgspec
import pytest
from sqlalchemy import delete, select

from core.models import AccessToken, LfsUpload
from core.settings import LfsSettings, StorageSettings
from tests.support.api import Caller, Reply
from tests.support.database import Databases
from tests.support.lfs_http import MEDIA, LfsCaller, LfsServer, running_lfs, said
from tests.support.lfs_world import oid_of
from tests.support.minio_server import MinioServer
from tests.support.raw_http import RawConnection, chunked, connected
from tests.support.streams import list_keys, noise

PART = 5 * 1024**2
DATA = noise(2 * PART + 12_345)
OID = oid_of(DATA)
SIZE = len(DATA)
HUB = ("basic", "multipart")
GIFTLESS = ("basic", "multipart-basic")

Way = Literal["local", "proxy", "redirect"]


def piece(number: int) -> bytes:
    """Part `number` of the object."""
    return DATA[(number - 1) * PART : number * PART]


@dataclass
class Upload:
    """What a batch said about the object, and somebody without credentials who acts on it."""

    nobody: Caller
    actions: dict[str, Any]

    @property
    def header(self) -> dict[str, str]:
        header: dict[str, str] = self.actions["upload"]["header"]
        return header

    @property
    def missing(self) -> list[int]:
        missing: list[int] = self.actions["upload"]["missing_parts"]
        return missing

    def part(self, number: int) -> str:
        return self.header[f"{number:05}"]

    async def put(self, number: int, data: bytes | None = None) -> Reply:
        return await self.nobody("PUT", self.part(number), data=piece(number) if data is None else data)

    async def put_all(self) -> list[dict[str, object]]:
        """Returns the list for the completion, as huggingface_hub writes it."""
        listed: list[dict[str, object]] = []
        for number in (1, 2, 3):
            reply = await self.put(number)
            assert reply.status == 200, reply
            listed.append({"partNumber": number, "etag": reply.headers["ETag"]})
        return listed

    async def complete(self, parts: list[dict[str, object]]) -> Reply:
        return await self.complete_raw(msgspec.json.encode({"oid": OID, "parts": parts}))

    async def complete_raw(self, data: bytes | None, kind: str = MEDIA) -> Reply:
        headers = {"Content-Type": kind} if data is not None else {}
        return await self.nobody("POST", self.actions["upload"]["href"], data=data, headers=headers)


@dataclass
class Bench:
    """A server, and ann at a repository of hers."""

    server: LfsServer
    ann: LfsCaller
    way: Way

    async def begin(self, transfers: tuple[str, ...] = HUB) -> Upload:
        reply = await self.ann.batch("upload", (OID, SIZE), transfers=list(transfers))
        assert (reply.status, reply.json["transfer"]) == (200, transfers[-1]), reply
        (entry,) = reply.json["objects"]
        assert entry["authenticated"] is True
        return Upload(Caller(self.ann.caller.session, self.ann.caller.base), entry["actions"])

    async def uploads(self) -> list[LfsUpload]:
        async with self.server.services.database.read() as session:
            return list(await session.scalars(select(LfsUpload)))

    async def expect_whole(self) -> None:
        reply = await self.ann.download(OID, SIZE)
        assert (reply.status, reply.body == DATA) == (200, True)
        assert await self.uploads() == []

    async def expect_nothing(self) -> None:
        (entry,) = await self.ann.objects("download", (OID, SIZE))
        assert entry["error"]["code"] == 404


@asynccontextmanager
async def opened(way: Way, minio: MinioServer | None, folder: Path, url: str) -> AsyncIterator[Bench]:
    storage = StorageSettings()
    if minio is not None:
        storage = minio.settings(bucket=f"parts-{way}", prefix=folder.name)
    lfs = LfsSettings(
        transfer="redirect" if way == "redirect" else "proxy", multipart_bytes=PART, part_bytes=PART
    )
    async with running_lfs(folder / "data", url, lfs=lfs, storage=storage) as server:
        yield Bench(server, await server.at_new_repository("ann"), way)


@pytest.fixture(params=["local", "proxy", "redirect"])
async def bench(request: pytest.FixtureRequest, tmp_path: Path, databases: Databases) -> AsyncIterator[Bench]:
    """Every way that bytes can take."""
    minio = None if request.param == "local" else request.getfixturevalue("minio")
    async with databases.fresh("sqlite") as url, opened(request.param, minio, tmp_path, url) as made:
        yield made


@pytest.fixture
async def local(tmp_path: Path, databases: Databases) -> AsyncIterator[Bench]:
    """For what does not depend on the store."""
    async with databases.fresh("sqlite") as url, opened("local", None, tmp_path, url) as made:
        yield made


@asynccontextmanager
async def sending(href: str, length: int) -> AsyncIterator[RawConnection]:
    """A connection on which the head of a PUT was sent, and nothing of its body."""
    parts = urlsplit(href)
    async with connected(href) as connection:
        await connection.head("PUT", f"{parts.path}?{parts.query}", {"Content-Length": str(length)})
        yield connection


async def test_as_the_hub_does_it(bench: Bench) -> None:
    upload = await bench.begin()
    assert upload.header["chunk_size"] == str(PART)
    assert [name for name in upload.header if name.isdigit()] == ["00001", "00002", "00003"]
    at_server = [url.startswith(bench.server.api.base) for url in map(upload.part, (1, 2, 3))]
    assert at_server == [bench.way != "redirect"] * 3
    parts = await upload.put_all()
    await bench.expect_nothing()
    for _ in range(2):
        reply = await upload.complete(parts)
        assert (reply.status, reply.json) == (200, {"oid": OID, "size": SIZE})
    await bench.expect_whole()
    (entry,) = await bench.ann.objects("upload", (OID, SIZE), transfers=list(HUB))
    assert "actions" not in entry


async def test_as_giftless_does_it(bench: Bench) -> None:
    first = (await bench.begin(GIFTLESS)).actions
    cut = [(part["pos"], part["size"]) for part in first["parts"]]
    assert cut == [(0, PART), (PART, PART), (2 * PART, SIZE - 2 * PART)]
    nobody = Caller(bench.ann.caller.session, bench.ann.caller.base)
    assert (await nobody("PUT", first["parts"][1]["href"], data=piece(2))).status == 200
    again = (await bench.begin(GIFTLESS)).actions
    assert [part["pos"] for part in again["parts"]] == [0, 2 * PART]
    for part, number in zip(again["parts"], (1, 3), strict=True):
        assert (await nobody(part["method"], part["href"], data=piece(number))).status == 200
    assert (await nobody(again["commit"]["method"], again["commit"]["href"])).status == 200
    verified = await nobody("POST", again["verify"]["href"], {"oid": OID, "size": SIZE})
    assert verified.status == 200, verified
    await bench.expect_whole()


@pytest.mark.parametrize("method", ["POST", "DELETE"])
async def test_an_upload_that_its_client_gives_up(bench: Bench, method: str) -> None:
    upload = (await bench.begin(GIFTLESS)).actions
    nobody = Caller(bench.ann.caller.session, bench.ann.caller.base)
    for _ in range(2):
        assert (await nobody(method, upload["abort"]["href"])).status == 200
    assert await bench.uploads() == []
    assert said(await nobody("POST", upload["commit"]["href"]))["code"] == "lfs_upload_not_found"


async def test_a_stored_part_is_answered_before_it_is_sent(bench: Bench) -> None:
    first = await bench.begin()
    etag = (await first.put(1)).headers["ETag"]
    again = await bench.begin()
    assert again.missing == [2, 3]
    assert again.part(1).startswith(bench.server.api.base), "never presigned: it must not be replaced"
    async with sending(again.part(1), PART) as connection:
        reply = await connection.reply()
        assert (reply.status, reply.headers["ETag"], reply.headers["Connection"]) == (200, etag, "close")
        assert await connection.closed()
    # A client that could not take that comes back, and may send all of it.
    async with sending(again.part(1), PART) as connection:
        await connection.send(bytes(PART - 1))
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.5):
                await connection.reply()
    whole = await again.put(1, bytes(PART))
    assert (whole.status, whole.headers["ETag"]) == (200, etag)
    parts = [{"partNumber": 1, "etag": etag}]
    parts += [{"partNumber": n, "etag": (await again.put(n)).headers["ETag"]} for n in (2, 3)]
    assert (await again.complete(parts)).status == 200
    await bench.expect_whole()


async def test_a_part_is_not_taken_for_stored_because_the_client_says_so(local: Bench) -> None:
    upload = await local.begin()
    href = f"{upload.part(1)}&stored=1"
    assert (await upload.nobody("PUT", href, data=piece(1)[1:])).status == 422
    assert (await upload.nobody("PUT", href.replace("link=", "link=x"), data=piece(1))).status == 403
    assert (await upload.nobody("PUT", href, data=piece(1))).status == 200
    assert (await local.begin()).missing == [2, 3]


async def test_links_are_for_one_part_of_one_upload(local: Bench) -> None:
    upload = await local.begin()
    one, complete = upload.part(1), str(upload.actions["upload"]["href"])
    upload_id = one.split("/uploads/")[1].split("/")[0]
    await local.server.repository("ann/other")
    giftless = (await local.begin(GIFTLESS)).actions
    wrong = [
        one.replace("/parts/1?", "/parts/2?"),
        one.replace("/parts/1?", "/parts/0?"),
        one.replace("/parts/1?", "/parts/99999?"),
        one.replace(upload_id, "0" * 32),
        one.replace("/ann/model.git", "/ann/other.git"),
        one.replace("/ann/model.git", "/ann/none.git"),
        one.partition("?")[0],
        f"{one}&{one.partition('?')[2]}",
        f"{one.partition('?')[0]}?{complete.partition('?')[2]}",
        f"{one.partition('?')[0]}?{giftless['verify']['href'].partition('?')[2]}",
    ]
    for href in wrong:
        reply = await upload.nobody("PUT", href, data=piece(1))
        assert (reply.status, said(reply)["code"]) == (403, "lfs_link_refused"), href
    for href in (f"{complete.partition('?')[0]}?{one.partition('?')[2]}", complete.partition("?")[0]):
        assert (await upload.nobody("POST", href, {"oid": OID})).status == 403
    aborted = giftless["abort"]["href"].partition("?")[0]
    assert (await upload.nobody("POST", f"{aborted}?{one.partition('?')[2]}")).status == 403
    assert (await local.begin()).missing == [1, 2, 3]


async def test_links_are_worth_no_more_than_their_token(local: Bench) -> None:
    upload = await local.begin()
    parts = await upload.put_all()
    async with local.server.services.database.transaction() as session:
        await session.execute(delete(AccessToken))
    assert (await upload.put(1)).status == 403
    assert (await upload.complete(parts)).status == 403
    assert len(await local.uploads()) == 1


async def test_parts_of_the_wrong_size(local: Bench) -> None:
    upload = await local.begin()
    for data in (piece(1)[:-1], piece(1) + b"x", b"x"):
        reply = await upload.put(1, data)
        assert (reply.status, said(reply)["code"]) == (422, "lfs_wrong_bytes")
    target = upload.part(1).removeprefix(local.server.api.base)
    for data, status in ((piece(1)[:-1], 422), (piece(1) + b"x", 422), (piece(1), 200)):
        async with connected(upload.part(1)) as connection:
            await connection.head("PUT", target, {"Transfer-Encoding": "chunked"})
            await connection.send(chunked(data))
            assert (await connection.reply()).status == status
        assert (await local.begin()).missing == ([2, 3] if status == 200 else [1, 2, 3])


async def test_a_client_that_leaves_in_a_part_leaves_nothing(local: Bench, tmp_path: Path) -> None:
    upload = await local.begin()
    async with sending(upload.part(1), PART) as connection:
        await connection.send(piece(1)[: PART // 2])
        await eventually(lambda: drafts(tmp_path), bool)
    await eventually(lambda: drafts(tmp_path), lambda left: not left)
    assert (await local.begin()).missing == [1, 2, 3]


@pytest.mark.parametrize(
    ("body", "kind", "status", "code"),
    [
        (b"[]", MEDIA, 422, "lfs_invalid_request"),
        (b"{", MEDIA, 422, "lfs_invalid_request"),
        (b"\xff", MEDIA, 422, "lfs_invalid_request"),
        (b'{"parts": 1}', MEDIA, 422, "lfs_invalid_request"),
        (b'{"parts": [{"partNumber": "1", "etag": "x"}]}', MEDIA, 422, "lfs_invalid_request"),
        (b'{"parts": [{"partNumber": 1, "etag": null}]}', MEDIA, 422, "lfs_invalid_request"),
        (b'{"oid": "' + b"0" * 64 + b'"}', MEDIA, 422, "lfs_invalid_request"),
        (b'{"parts": []}', MEDIA, 422, "lfs_wrong_parts"),
        (b'{"parts": [{"partNumber": 1, "etag": "x"}]}', MEDIA, 422, "lfs_wrong_parts"),
        (b" " * 5_000_000, MEDIA, 413, "payload_too_large"),
        (b"{}", "text/plain", 415, "unsupported_media_type"),
    ],
)
async def test_completions_that_are_refused(
    local: Bench, body: bytes, kind: str, status: int, code: str
) -> None:
    upload = await local.begin()
    parts = await upload.put_all()
    reply = await upload.complete_raw(body, kind)
    assert (reply.status, said(reply)["code"]) == (status, code)
    await local.expect_nothing()
    assert (await upload.complete(parts)).status == 200
    await local.expect_whole()


@pytest.mark.parametrize("action", ["upload", "verify"])
async def test_links_need_not_say_what_they_come_with(local: Bench, action: str) -> None:
    upload = await local.begin()
    parts = await upload.put_all()
    if action == "verify":
        assert (await upload.complete(parts)).status == 200
    body = msgspec.json.encode({"oid": OID, "size": SIZE, "parts": parts})
    href = upload.actions[action]["href"]
    async with upload.nobody.session.post(href, data=body, skip_auto_headers=["Content-Type"]) as answer:
        assert answer.status == 200
    await local.expect_whole()


async def test_a_completion_without_all_parts_names_them(bench: Bench) -> None:
    upload = await bench.begin()
    await upload.put(2)
    refusal = said(await upload.complete_raw(b"{}"))
    assert (refusal["code"], "1, 3" in refusal["message"]) == ("lfs_wrong_parts", True)
    await bench.expect_nothing()
    assert (await bench.begin()).missing == [1, 3]


async def test_other_bytes_are_refused_and_dropped(bench: Bench) -> None:
    upload = await bench.begin()
    await upload.put_all()
    await upload.put(2, noise(PART, "other"))
    reply = await upload.complete_raw(None)
    assert (reply.status, said(reply)["code"]) == (422, "lfs_wrong_bytes")
    await bench.expect_nothing()
    assert await bench.uploads() == []
    assert await list_keys(bench.server.services.large_files.stores.current, "lfs/") == []
    assert (await upload.complete_raw(None)).status == 404
    assert (await bench.begin()).missing == [1, 2, 3]


async def test_a_part_sent_again_after_the_completion_changes_nothing(bench: Bench) -> None:
    upload = await bench.begin()
    late = await bench.begin()
    await upload.put_all()
    assert (await upload.complete_raw(None)).status == 200
    for one in (upload, late):
        assert (await one.put(1, noise(PART, "other"))).status == 404
    await bench.expect_whole()


async def test_completions_at_once(bench: Bench) -> None:
    upload = await bench.begin()
    parts = await upload.put_all()
    replies = await asyncio.gather(*(upload.complete(parts) for _ in range(5)))
    assert [reply.status for reply in replies] == [200] * 5
    await bench.expect_whole()


async def drafts(folder: Path) -> list[Path]:
    """What the store has begun to write."""
    return await asyncio.to_thread(lambda: list(folder.glob("data/**/tmp/*")))


async def eventually(look: Callable[[], Awaitable[Any]], right: Callable[[Any], object]) -> None:
    for _ in range(1000):
        if right(await look()):
            return
        await asyncio.sleep(0.01)
    pytest.fail("it did not come about")
