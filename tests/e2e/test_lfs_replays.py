"""Addresses, headers and links that were made up or are used again, and guesses at what others have."""

import json
import re

import pytest

from core.models import Visibility
from tests.support.lfs_raw import DATA, OID, SIZE, RawLfs, nothing_stored, refused
from tests.support.lfs_world import oid_of
from tests.support.raw_http import Reply, basic, chunked
from tests.support.streams import noise
from tests.support.yard import Yard


@pytest.fixture
async def place(yard: Yard) -> RawLfs:
    return RawLfs(yard, await yard.new_repository())


# -- addresses and headers ---------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT"])
@pytest.mark.parametrize(
    "oid",
    [
        "..%2f..%2f..%2fetc%2fpasswd",
        "%2e%2e",
        f"{OID}%00",
        f"{OID}%0a",
        OID.upper(),
        "a" * 70,
        "a" * 4000,
        "%ff%fe",
        f"{OID[:-1]}%2f",
        f"%20{OID}",
        f"{OID}%2f..%2f{OID}",
    ],
)
async def test_oids_in_addresses(place: RawLfs, method: str, oid: str) -> None:
    async with nothing_stored(place.yard):
        reply = await place.send(method, f"objects/{oid}", DATA if method == "PUT" else b"")
        assert reply.status in (404, 422), reply
        if method != "HEAD":
            assert b"etc" not in reply.body


@pytest.mark.parametrize(
    "target", [f"objects/../../{OID}", f"../../info/lfs/objects/{OID}", f"objects//{OID}"]
)
async def test_ways_around(place: RawLfs, target: str) -> None:
    assert (await place.send("GET", target)).status in (404, 422)


@pytest.mark.parametrize("name", ["Range", "If-Range", "Authorization", "X-Anything"])
async def test_headers_that_are_too_long(place: RawLfs, name: str) -> None:
    target = await place.link()
    async with nothing_stored(place.yard):
        reply = await place.at_link("PUT", target, DATA, {name: "x" * 100_000})
        assert reply.status == 400


async def test_headers_that_are_too_many(place: RawLfs) -> None:
    target = await place.link()
    async with nothing_stored(place.yard):
        reply = await place.at_link("PUT", target, DATA, {f"X-{number}": "x" for number in range(5000)})
        assert reply.status == 400


# -- links -------------------------------------------------------------------------------------------


async def test_replays_of_an_upload_link(place: RawLfs) -> None:
    """The same bytes again are fine; anything else never was."""
    target = await place.link()
    for _ in range(3):
        assert (await place.at_link("PUT", target, DATA)).status == 200
    other = await place.yard.new_repository()
    async with nothing_stored(place.yard):
        elsewhere = [
            target.replace(place.path, other),
            target.replace(f"/{place.path}", f"/datasets/{place.path}"),
            target.replace(OID, oid_of(b"x")),
            target[:-1],
            target + "A",
            target.replace("link=", "link=.") + "." * 9_000,
            target.partition("?")[0],
            target.partition("?")[0] + "?link=",
        ]
        replies = [await place.at_link("PUT", one, DATA) for one in elsewhere]
        for reply in replies:
            refused(reply, 403, "lfs_link_refused")
        assert len({json.loads(reply.body)["message"] for reply in replies}) == 1
        # A link to upload is none to download, nor the other way round.
        refused(await place.at_link("GET", target), 403, "lfs_link_refused")
        down = await place.link(operation="download")
        refused(await place.at_link("PUT", down, DATA), 403, "lfs_link_refused")
        refused(await place.at_link("POST", down.replace(OID, "verify"), b"{}"), 422, "lfs_invalid_request")
        body = json.dumps({"oid": OID, "size": SIZE}).encode()
        refused(await place.at_link("POST", down.replace(OID, "verify"), body), 403, "lfs_link_refused")


async def test_a_login_does_not_mend_a_link(place: RawLfs) -> None:
    target = await place.link()
    reply = await place.at_link("PUT", f"{target[:-1]}", DATA, basic("ann", place.yard.secret))
    refused(reply, 403, "lfs_link_refused")


# -- what others have --------------------------------------------------------------------------------


async def test_an_oid_of_somebody_else_gives_nothing(yard: Yard) -> None:
    """Whether a private repository has an object shows in no answer: not in its bytes, not in its head."""
    ann = RawLfs(yard, await yard.new_repository())
    there = noise(200_000, "there")
    assert (await ann.at_link("PUT", await ann.link(oid_of(there), len(there)), there)).status == 200
    await yard.server.add_user("mallory")
    secret = await yard.server.add_token("mallory")
    info = await yard.server.add_repository("mallory", "model", visibility=Visibility.PUBLIC)
    mallory = RawLfs(yard, info.path)

    async def probe(data: bytes) -> list[str]:
        """Everything that can be asked about an oid, in a form that does not depend on the oid."""
        oid, size = oid_of(data), len(data)
        replies = [
            await mallory.batch("download", (oid, size), secret=secret),
            await mallory.batch("upload", (oid, size), secret=secret),
            await mallory.batch("upload", (oid, size + 1), secret=secret),
            await mallory.batch("upload", (oid, 0), secret=secret),
            await mallory.send("GET", f"objects/{oid}", secret=secret),
            await mallory.send("HEAD", f"objects/{oid}", secret=secret),
            await mallory.send(
                "POST", "objects/verify", json.dumps({"oid": oid, "size": size}).encode(), secret=secret
            ),
            await ann.send("GET", f"objects/{oid}", secret=secret),
            await ann.batch("download", (oid, size), secret=secret),
        ]
        up = await mallory.link(oid, size, secret=secret)
        for body in (data[:-1], b"x" * size, data + b"x"):
            replies.append(await mallory.at_link("PUT", up, body))
            replies.append(await mallory.at_link("PUT", up, chunked(body), {"Transfer-Encoding": "chunked"}))
        replies.append(await mallory.at_link("GET", up))
        replies.append(await mallory.at_link("PUT", up.replace("mallory/model", ann.path), data))
        return [_anonymous(reply, oid) for reply in replies]

    async with nothing_stored(yard):
        known = await probe(there)
        assert known == await probe(noise(200_000, "not there"))
    # Whoever has the bytes gets the object, by sending all of them.
    up = await mallory.link(oid_of(there), len(there), secret=secret)
    assert (await mallory.at_link("PUT", up, there)).status == 200
    down = await mallory.link(oid_of(there), len(there), "download", secret=secret)
    assert (await mallory.at_link("GET", down)).body == there


def _anonymous(reply: Reply, oid: str) -> str:
    headers = {name: value for name, value in reply.headers.items() if name not in ("Date", "X-Request-Id")}
    text = f"{reply.status} {sorted(headers.items())} {reply.text}".replace(oid, "OID")
    text = re.sub(r'"request_id":"[^"]*"', "", text)
    text = re.sub(r"link=[A-Za-z0-9_.-]+", lambda found: f"link of {len(found[0])}", text)
    return re.sub(r"the sha256 of these bytes is [0-9a-f]{64}", "SHA", text)
