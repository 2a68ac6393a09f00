"""Bodies and batches that no honest client sends. Each gets its status, and nothing is stored."""

import asyncio
import json
from typing import Any
from urllib.parse import urlsplit

import pytest

from tests.support.lfs_raw import DATA, OID, SIZE, RawLfs, nothing_stored, refused
from tests.support.lfs_world import oid_of
from tests.support.raw_http import RawConnection, chunked, connected
from tests.support.yard import Yard


@pytest.fixture
async def place(yard: Yard) -> RawLfs:
    return RawLfs(yard, await yard.new_repository())


# -- bodies ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "body",
    [DATA[:-1], DATA + b"x", b"", b"x" * SIZE, DATA[:-1] + b"\0"],
    ids=["short", "long", "empty", "other", "last byte"],
)
@pytest.mark.parametrize("framing", ["length", "chunks"])
async def test_wrong_bytes(place: RawLfs, body: bytes, framing: str) -> None:
    target = await place.link()
    async with nothing_stored(place.yard):
        if framing == "length":
            reply = await place.at_link("PUT", target, body, {"Content-Length": str(len(body))})
        else:
            sent = chunked(*(body[start : start + 70_000] for start in range(0, len(body), 70_000)))
            reply = await place.at_link("PUT", target, sent, {"Transfer-Encoding": "chunked"})
        refused(reply, 422, "lfs_wrong_bytes")
    entry = json.loads((await place.batch("download", (OID, SIZE))).body)["objects"][0]
    assert entry["error"]["code"] == 404


async def test_a_lie_about_the_length_is_told_before_the_bytes(place: RawLfs) -> None:
    target = await place.link()
    async with nothing_stored(place.yard), connected(place.base) as connection:
        await connection.head("PUT", target, {"Content-Length": str(10**15)})
        refused(await connection.reply(), 422, "lfs_wrong_bytes")


async def test_a_body_without_end_is_stopped(place: RawLfs) -> None:
    """The refusal comes with the first byte too many, and then the connection ends."""
    target = await place.link(oid_of(b"x"), 1)
    async with nothing_stored(place.yard), connected(place.base) as connection:
        await connection.head("PUT", target, {"Transfer-Encoding": "chunked"})
        await connection.send(b"2\r\nxx\r\n")
        reply = await connection.reply()
        refused(reply, 422, "lfs_wrong_bytes")
        assert reply.headers["Connection"] == "close"
        assert await connection.closed()


@pytest.mark.parametrize("framing", ["length", "chunks"])
async def test_a_client_that_hangs_up(place: RawLfs, framing: str) -> None:
    target = await place.link()
    async with nothing_stored(place.yard), connected(place.base) as connection:
        if framing == "length":
            await connection.head("PUT", target, {"Content-Length": str(SIZE)})
            await connection.send(DATA[:200_000])
        else:
            await connection.head("PUT", target, {"Transfer-Encoding": "chunked"})
            await connection.send(chunked(DATA[:200_000])[:-5])
        await _draft_appears(place.yard)


async def _draft_appears(yard: Yard) -> None:
    for _ in range(200):
        if (await asyncio.to_thread(lambda: list((yard.data / "objects" / "tmp").glob("*")))) != []:
            return
        await asyncio.sleep(0.02)
    raise AssertionError("the server did not begin to write")


@pytest.mark.parametrize("garbage", [b"zz\r\n", b"-1\r\n", b"5\r\nabc"])
async def test_broken_chunks(place: RawLfs, garbage: bytes) -> None:
    """Answered where the framework notices at once; else the connection is as good as stalled."""
    target = await place.link()
    async with nothing_stored(place.yard):
        for pause in (0, 0.2):
            async with connected(place.base) as connection:
                await connection.head("PUT", target, {"Transfer-Encoding": "chunked"})
                await asyncio.sleep(pause)
                await connection.send(b"3\r\nabc\r\n" + garbage)
    assert (await place.at_link("PUT", target, DATA)).status == 200


async def test_right_bytes_in_chunks(place: RawLfs) -> None:
    target = await place.link()
    sent = chunked(DATA[:100_000], DATA[100_000:100_001], DATA[100_001:])
    assert (await place.at_link("PUT", target, sent, {"Transfer-Encoding": "chunked"})).status == 200
    assert (await place.at_link("GET", await place.link(operation="download"))).body == DATA


async def test_an_empty_object(place: RawLfs) -> None:
    oid = oid_of(b"")
    target = await place.link(oid, 0)
    async with nothing_stored(place.yard):
        refused(await place.at_link("PUT", target, b"x"), 422, "lfs_wrong_bytes")
    assert (await place.at_link("PUT", target, headers={"Content-Length": "0"})).status == 200
    got = await place.at_link("GET", await place.link(oid, 0, "download"))
    assert (got.status, got.body) == (200, b"")


# -- batches -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("operation", ["upload", "download"])
@pytest.mark.parametrize(
    ("oid", "size", "more", "code"),
    [
        ("a" * 70, 1, {}, 422),
        ("a" * 63, 1, {}, 422),
        ("A" * 64, 1, {}, 422),
        ("", 1, {}, 422),
        ("../" * 21 + "a", 1, {}, 422),
        ("..%2f" * 12 + "aaaa", 1, {}, 422),
        ("a\r\n" * 21 + "a", 1, {}, 422),
        (OID, -1, {}, 422),
        (OID, -(2**63), {}, 422),
        (OID, SIZE, {"hash_algo": "sha512"}, 409),
        (OID, SIZE, {"hash_algo": "\0"}, 409),
    ],
)
async def test_objects_that_cannot_be(
    place: RawLfs, operation: str, oid: str, size: int, more: dict[str, str], code: int
) -> None:
    async with nothing_stored(place.yard):
        reply = await place.batch(operation, (oid, size), **more)
        assert reply.status == 200
        (entry,) = json.loads(reply.body)["objects"]
        assert (entry["oid"], entry["size"], entry["error"]["code"]) == (oid, size, code)
        assert "actions" not in entry


@pytest.mark.parametrize(
    "more",
    [
        {"ref": {}},
        {"ref": None},
        {"hash_algo": None},
        {"transfers": None},
        {"transfers": []},
        {"transfers": ["lfs-standalone-file", "tus", "basic", "ssh"]},
    ],
)
async def test_what_is_left_out_or_unknown(place: RawLfs, more: dict[str, Any]) -> None:
    async with nothing_stored(place.yard):
        reply = await place.batch("upload", (OID, SIZE), **more)
        assert reply.status == 200
        answer = json.loads(reply.body)
        assert answer["transfer"] == "basic"
        assert answer["objects"][0]["actions"]["upload"]["href"]


@pytest.mark.parametrize(
    ("change", "status", "code"),
    [
        ({"transfers": ["tus"]}, 422, "lfs_invalid_request"),
        ({"operation": "delete"}, 422, "lfs_invalid_request"),
        ({"operation": None}, 422, "lfs_invalid_request"),
        ({"objects": None}, 422, "lfs_invalid_request"),
        ({"objects": [{"oid": OID, "size": "1"}]}, 422, "lfs_invalid_request"),
        ({"objects": [{"oid": OID, "size": 2**64}]}, 422, "lfs_invalid_request"),
        ({"objects": [{"oid": OID}]}, 422, "lfs_invalid_request"),
        (
            {"objects": [{"oid": f"{number:064x}", "size": 1} for number in range(10_000)]},
            413,
            "lfs_too_many_objects",
        ),
    ],
)
async def test_batches_that_cannot_be(place: RawLfs, change: dict[str, Any], status: int, code: str) -> None:
    body = {"operation": "upload", "objects": [{"oid": OID, "size": SIZE}], **change}
    async with nothing_stored(place.yard):
        refused(await place.send("POST", "objects/batch", json.dumps(body).encode()), status, code)


async def test_a_body_that_is_too_large(place: RawLfs) -> None:
    async with nothing_stored(place.yard):
        reply = await place.send("POST", "objects/batch", b"[" + b" " * 5_000_000)
        refused(reply, 413, "payload_too_large")


async def test_one_object_in_two_sizes(place: RawLfs) -> None:
    reply = await place.batch("upload", (OID, SIZE), (OID, SIZE + 1), (OID, SIZE))
    first, second, third = json.loads(reply.body)["objects"]
    assert first["actions"]
    assert third["actions"]
    assert second["error"]["code"] == 422


# -- slow and many -----------------------------------------------------------------------------------


async def test_many_that_begin_and_do_nothing(place: RawLfs) -> None:
    """They hold no place that others need for long: whoever comes later is still served."""
    target = await place.link()
    connections: list[RawConnection] = []
    async with nothing_stored(place.yard):
        async with asyncio.timeout(30):
            for _ in range(8):
                reader, writer = await asyncio.open_connection(*_endpoint(place))
                connection = RawConnection(reader, writer, urlsplit(place.base).netloc)
                connections.append(connection)
                await connection.head("PUT", target, {"Content-Length": str(SIZE)})
                await connection.send(DATA[:10])
            assert (await place.send("GET", f"objects/{OID}")).status == 404
        for connection in connections:
            await connection.close()


def _endpoint(place: RawLfs) -> tuple[str, int]:
    parts = urlsplit(place.base)
    assert parts.hostname is not None
    assert parts.port is not None
    return parts.hostname, parts.port
