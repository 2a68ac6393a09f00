"""What somebody could do with more patience, more requests or more addresses than an honest client has."""

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, contextmanager
from datetime import timedelta
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from sqlalchemy import update

from core.models import AccessToken, Visibility, now
from tests.support.lfs_raw import DATA, OID, SIZE, RawLfs, refused, target_of
from tests.support.lfs_world import oid_of
from tests.support.raw_http import Reply
from tests.support.server import running_server
from tests.support.streams import noise
from tests.support.yard import USER, Yard

PART = 1024**2
QUOTA = 3 * PART
TERA = 1024**4


@pytest.fixture
async def place(yard: Yard) -> RawLfs:
    return RawLfs(yard, await yard.new_repository())


@pytest.fixture
async def narrow(tmp_path: Path) -> AsyncIterator[RawLfs]:
    """A server with a small quota and few places, and a public repository."""
    env = {
        "MODELYARD_LFS__QUOTA_BYTES": str(QUOTA),
        "MODELYARD_LFS__PART_BYTES": str(PART),
        "MODELYARD_LFS__CONCURRENT_TRANSFERS": "4",
    }
    async with running_server(tmp_path / "server", env=env) as server:
        yard = await Yard.open(server, tmp_path / "clients")
        info = await server.add_repository(USER, "open", visibility=Visibility.PUBLIC)
        yield RawLfs(yard, info.path)


# -- credentials -------------------------------------------------------------------------------------


async def test_a_link_ends_when_its_token_does(place: RawLfs) -> None:
    token = await place.yard.server.add_token(USER, days=1)
    target = await place.link(secret=token)
    async with place.yard.server.services() as services, services.database.transaction() as session:
        expired = update(AccessToken).where(AccessToken.expires_at.is_not(None))
        await session.execute(expired.values(expires_at=now() - timedelta(seconds=1)))
    refused(await place.at_link("PUT", target, DATA, {"Content-Length": str(SIZE)}), 403, "lfs_link_refused")


# -- what one request may cost -----------------------------------------------------------------------


async def test_a_batch_of_huge_objects_is_answered_in_pieces(place: RawLfs) -> None:
    """A thousand objects of five tebibytes have a million parts, and each of them a link."""
    wanted = [(oid_of(b"%d" % number), 5 * TERA) for number in range(1000)]
    reply = await place.batch("upload", *wanted, transfers=["multipart"])
    assert reply.status == 200
    assert len(reply.body) < 32 * 1024**2
    answers = json.loads(reply.body)["objects"]
    assert [answer["oid"] for answer in answers] == [oid for oid, _ in wanted]
    assert "actions" in answers[0]
    assert answers[-1]["error"]["code"] == 413
    # Whoever asks for one of the others alone gets it.
    reply = await place.batch("upload", wanted[-1], transfers=["multipart"])
    assert "actions" in json.loads(reply.body)["objects"][0]


# -- what waits in the store -------------------------------------------------------------------------


async def begin(place: RawLfs, data: bytes) -> Reply:
    return await place.batch("upload", (oid_of(data), len(data)), transfers=["multipart"])


async def test_unfinished_uploads_have_a_quota(narrow: RawLfs) -> None:
    data = b""
    for number in range(3):
        data = noise(PART, f"unfinished {number}")
        (answer,) = json.loads((await begin(narrow, data)).body)["objects"]
        target = target_of(answer["actions"]["upload"]["header"]["00001"])
        assert (await narrow.at_link("PUT", target, data, {"Content-Length": str(PART)})).status == 200
    refused(await begin(narrow, noise(PART, "one more")), 507, "lfs_quota_exceeded")
    # Going on with one of them is not one more, and what is completed makes room.
    (answer,) = json.loads((await begin(narrow, data)).body)["objects"]
    complete = target_of(answer["actions"]["upload"]["href"])
    assert (await narrow.at_link("POST", complete, b"", {"Content-Length": "0"})).status == 200
    assert (await begin(narrow, noise(PART, "one more"))).status == 200


# -- places for transfers ----------------------------------------------------------------------------


@contextmanager
def idle_reader(base: str, target: str, address: str) -> Iterator[None]:
    """Somebody at this address who asks for an object and never reads it."""
    parts = urlsplit(base)
    with socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.bind((address, 0))
        connection.connect((parts.hostname, parts.port))
        connection.sendall(f"GET {target} HTTP/1.1\r\nHost: {parts.netloc}\r\n\r\n".encode())
        yield


async def test_strangers_do_not_keep_users_out(narrow: RawLfs) -> None:
    data = noise(QUOTA - SIZE, "large")
    oid = oid_of(data)
    sent = {"Content-Length": str(len(data))}
    assert (await narrow.at_link("PUT", await narrow.link(oid, len(data)), data, sent)).status == 200
    with ExitStack() as strangers:
        for number in range(2, 14):
            reader = idle_reader(narrow.base, f"{narrow.target}/objects/{oid}", f"127.0.0.{number}")
            await asyncio.to_thread(strangers.enter_context, reader)
        await asyncio.sleep(0.5)
        async with asyncio.timeout(60):
            target = await narrow.link()
            assert (await narrow.at_link("PUT", target, DATA, {"Content-Length": str(SIZE)})).status == 200
    reply = await narrow.at_link("GET", await narrow.link(operation="download"))
    assert (reply.status, oid_of(reply.body)) == (200, OID)
