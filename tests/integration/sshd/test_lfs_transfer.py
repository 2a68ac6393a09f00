"""`git-lfs-transfer` over the real services and a raw client: what is stored, refused, and left behind."""

import asyncio
import hashlib
import json

import pytest

from core.access import SYSTEM
from core.models import Role
from core.names import parse_address
from gitserver.protocol import DELIM, FLUSH, pkt_line
from tests.support.lfs_ssh_world import MAX_BYTES, MAX_OBJECTS, MODEL, SECRET, LfsSshWorld
from tests.support.lfs_talk import Told, head, request, talk
from tests.support.ssh_server import eventually
from tests.support.streams import noise


def oid_of(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


DATA = noise(300_000)
OID = oid_of(DATA)


async def test_an_object_goes_up_and_comes_down(lfs_world: LfsSshWorld) -> None:
    up = await lfs_world.talk("bob", "upload")
    arguments = ("transfer=ssh", "hash-algo=sha256", "refname=refs/heads/main")
    line = f"{OID} {len(DATA)}"
    assert await up.ask("batch", *arguments, lines=[line]) == Told(
        200, {"hash-algo": "sha256"}, [f"{line} upload\n".encode()]
    )
    assert (await up.ask(f"verify-object {OID}", f"size={len(DATA)}")).status == 404
    assert await up.put(DATA) == Told(200, {}, None)
    assert await up.ask(f"verify-object {OID}", f"size={len(DATA)}") == Told(200, {}, None)
    assert await up.ask(f"verify-object {OID} {len(DATA)}") == Told(200, {}, None)
    assert (await up.ask(f"verify-object {OID}", "size=1")).status == 422
    assert (await up.ask("batch", *arguments, lines=[line])).lines == [f"{line} noop"]
    assert await up.ask("quit") == Told(200, {}, None)
    assert await up.ended() == (0, b"", "")

    down = await lfs_world.talk("reader", "download")
    assert (await down.ask("batch", *arguments, lines=[line])).lines == [f"{line} download"]
    got = await down.ask(f"get-object {OID}", f"size={len(DATA)}")
    assert (got.status, got.arguments) == (200, {"size": str(len(DATA))})
    assert got.data == DATA
    assert all(len(packet) <= 65515 for packet in got.packets or [])


@pytest.mark.parametrize("size", [0, 1, 65515, 65516, 256 * 1024, 3_000_001])
async def test_every_size_comes_back_as_it_was(lfs_world: LfsSshWorld, size: int) -> None:
    data = noise(size, "size")
    assert (await (await lfs_world.talk("ada", "upload")).put(data)).status == 200
    got = await (await lfs_world.talk("ada", "download")).ask(f"get-object {oid_of(data)}")
    assert got.data == data


@pytest.mark.parametrize(
    ("sent", "oid", "size", "status"),
    [
        (DATA, "0" * 64, len(DATA), 422),
        (DATA[:-1], OID, len(DATA), 422),
        (DATA + b"x", OID, len(DATA), 422),
        (DATA, OID, len(DATA) + 1, 422),
        (DATA, OID, 0, 422),
        (b"", OID, len(DATA), 422),
        (DATA, OID.upper(), len(DATA), 422),
        (DATA, OID + "0", len(DATA), 422),
        (DATA, "../../etc/passwd", len(DATA), 422),
        (DATA, OID, MAX_BYTES + 1, 413),
        (DATA, OID, -1, 400),
        (DATA, OID, 10**20, 400),
    ],
)
async def test_wrong_bytes_are_refused_and_the_conversation_goes_on(
    lfs_world: LfsSshWorld, sent: bytes, oid: str, size: int, status: int
) -> None:
    client = await lfs_world.talk("ada", "upload")
    refused = await client.put(sent, oid=oid, size=size)
    assert refused.status == status
    assert refused.message
    assert await lfs_world.stored() == (0, 0, [])
    assert (await client.put(DATA)).status == 200
    assert await client.ask("quit") == Told(200, {}, None)
    objects, links, keys = await lfs_world.stored()
    assert (objects, links, len(keys)) == (1, 1, 1)


async def test_a_put_needs_its_size_once(lfs_world: LfsSshWorld) -> None:
    client = await lfs_world.talk("ada", "upload")
    client.send(head(f"put-object {OID}") + DELIM + pkt_line(DATA[:100]) + FLUSH)
    assert (await client.told()).status == 400
    client.send(head("put-object", "size=100") + DELIM + pkt_line(DATA[:100]) + FLUSH)
    assert (await client.told()).status == 400
    assert (await client.put(DATA, arguments=["size=1"])).status == 400
    assert (await client.put(DATA, arguments=["id=what?", "token=ever"])).status == 200


async def test_a_conversation_is_for_one_operation(lfs_world: LfsSshWorld) -> None:
    assert (await (await lfs_world.talk("ada", "upload")).put(DATA)).status == 200
    down = await lfs_world.talk("ada", "download")
    other = DATA + b"other"
    for refused in (
        await down.put(other),
        await down.ask(f"verify-object {OID}", f"size={len(DATA)}"),
        await down.ask("lock", "path=a"),
        await down.ask(f"unlock {'0' * 32}"),
    ):
        assert (refused.status, refused.message) == (403, "this conversation is for downloads only")
    up = await lfs_world.talk("ada", "upload")
    refused = await up.ask(f"get-object {OID}")
    assert (refused.status, refused.message) == (403, "this conversation is for uploads only")
    assert (await lfs_world.stored())[:2] == (1, 1)
    assert (await down.ask(f"get-object {OID}")).data == DATA


@pytest.mark.parametrize(
    ("who", "line", "reason"),
    [
        ("reader", f"git-lfs-transfer {MODEL} upload", "this deploy key may only read"),
        ("reader", f"git-lfs-authenticate {MODEL} upload", "this deploy key may only read"),
        ("carol", f"git-lfs-transfer {MODEL} download", "no such repository"),
        ("carol", f"git-lfs-transfer {MODEL} upload", "no such repository"),
        ("carol", f"git-lfs-authenticate {MODEL} download", "no such repository"),
        ("carol", "git-lfs-transfer ada/absent download", "no such repository"),
        ("ada", "git-lfs-transfer ada/absent upload", "no such repository"),
    ],
)
async def test_whoever_may_not_is_told_nothing_else(
    lfs_world: LfsSshWorld, who: str, line: str, reason: str
) -> None:
    (await lfs_world.run(who, line)).refused(reason)


async def test_an_object_of_another_repository_is_not_there(lfs_world: LfsSshWorld) -> None:
    assert (await (await lfs_world.talk("carol", "upload", SECRET)).put(DATA)).status == 200
    down = await lfs_world.talk("ada", "download")
    line = f"{OID} {len(DATA)}"
    absent = f"{'0' * 64} {len(DATA)}"
    assert (await down.ask("batch", lines=[line, absent])).lines == [f"{line} noop", f"{absent} noop"]
    hidden, missing = await down.ask(f"get-object {OID}"), await down.ask(f"get-object {'0' * 64}")
    assert hidden == missing
    assert hidden.status == 404
    up = await lfs_world.talk("ada", "upload")
    assert (await up.ask("batch", lines=[line])).lines == [f"{line} upload"]
    assert (await up.ask(f"verify-object {OID}", f"size={len(DATA)}")).status == 404
    assert (await up.put(DATA[:-1], oid=OID, size=len(DATA))).status == 422
    assert (await down.ask(f"get-object {OID}")).status == 404
    assert (await up.put(DATA)).status == 200
    assert (await down.ask(f"get-object {OID}")).data == DATA


@pytest.mark.parametrize("left", ["closes", "eof", "drops"])
async def test_a_client_that_leaves_in_the_middle_leaves_nothing(lfs_world: LfsSshWorld, left: str) -> None:
    client = await lfs_world.talk("ada", "upload")
    client.send(head(f"put-object {OID}", f"size={len(DATA)}") + DELIM)
    for start in range(0, 200_000, 20_000):
        client.send(pkt_line(DATA[start : start + 20_000]))
    drafts = lfs_world.services.settings.store_dir / "tmp"
    await eventually(lambda: drafts.is_dir() and any(drafts.iterdir()))
    if left == "closes":
        client.process.close()
    elif left == "eof":
        client.process.stdin.write_eof()
        status, out, error = await client.ended()
        assert (status, out) == (1, b"")
        assert "in the middle" in error
    else:
        client.process.channel.get_connection().abort()
    await eventually(lambda: not any(drafts.iterdir()))
    assert await lfs_world.stored() == (0, 0, [])


async def test_whoever_hangs_up_between_two_commands_is_no_failure(lfs_world: LfsSshWorld) -> None:
    client = await lfs_world.talk("ada", "upload")
    client.process.stdin.write_eof()
    assert await client.ended() == (0, b"", "")


async def test_a_key_that_is_taken_away_is_good_for_no_further_command(lfs_world: LfsSshWorld) -> None:
    client = await lfs_world.talk("bob", "upload")
    client.send(head(f"put-object {OID}", f"size={len(DATA)}") + DELIM)
    client.send(b"".join(pkt_line(DATA[n : n + 50_000]) for n in range(0, 250_000, 50_000)))
    await asyncio.sleep(0.3)  # it was let in
    (key,) = await lfs_world.services.keyring.keys(SYSTEM, "bob")
    await lfs_world.services.keyring.remove_key(SYSTEM, "bob", key.id)
    client.send(pkt_line(DATA[250_000:]) + FLUSH)
    assert (await client.told()).status == 401
    assert await lfs_world.stored() == (0, 0, [])
    refused = await client.put(DATA)
    assert (refused.status, refused.message) == (401, "this SSH key is not accepted any more")
    assert (await client.ask("list-lock")).status == 401


async def test_a_right_that_is_taken_away_is_asked_for_again(lfs_world: LfsSshWorld) -> None:
    client = await lfs_world.talk("bob", "upload")
    assert (await client.put(DATA)).status == 200
    model = parse_address(MODEL)
    await lfs_world.services.collaboration.set_collaborator(SYSTEM, model, "bob", Role.READ)
    assert (await client.put(DATA + b"2")).status == 403
    await lfs_world.services.collaboration.remove_collaborator(SYSTEM, model, "bob")
    assert (await client.put(DATA + b"2")).status == 404


async def test_batches_that_cannot_be(lfs_world: LfsSshWorld) -> None:
    up, down = await lfs_world.talk("ada", "upload"), await lfs_world.talk("ada", "download")
    good = f"{OID} 5"
    for lines, status in (
        (["x 5"], 422),
        ([f"{OID.upper()} 5"], 422),
        ([f"{OID} 5", f"{OID} 6"], 422),
        ([f"{OID} {MAX_BYTES + 1}"], 413),
        ([f"{OID} -1"], 400),
        ([f"{OID} 5.0"], 400),
        ([f"{OID} \u0665"], 400),
        ([OID], 400),
        ([f"{OID} {10**19}"], 400),
        ([good] * (MAX_OBJECTS + 1), 413),
        (["x" * 2000], 413),
    ):
        answer = await up.ask("batch", lines=lines)
        assert (answer.status, bool(answer.message)) == (status, True), lines
    for client in (up, down):
        answer = await client.ask("batch", "hash-algo=sha512", lines=[good])
        assert (answer.status, "sha256" in answer.message) == (409, True)
    assert (await up.ask("batch", lines=[good] * 2)).lines == [f"{good} upload"] * 2
    assert (await up.ask("batch", lines=[f"{good} key=value"])).lines == [f"{good} upload"]
    assert (await up.ask("batch", "unknown=1", lines=[])) == Told(200, {"hash-algo": "sha256"}, [])
    assert (await up.ask("batch")).lines == []
    assert (await down.ask("batch", lines=[f"{OID} 5"] * MAX_OBJECTS)).lines == [f"{good} noop"] * MAX_OBJECTS
    assert await lfs_world.stored() == (0, 0, [])


async def test_the_version_comes_first(lfs_world: LfsSshWorld) -> None:
    client = await lfs_world.talk("ada", "upload", agree=False)
    assert (await client.ask("batch", lines=[f"{OID} 5"])).status == 400
    assert (await client.put(DATA)).status == 400
    for line in ("version 2", "version", "version 1 1", "version  1"):
        assert (await client.ask(line)).status == 400, line
    assert await client.ask("version 1") == Told(200, {}, None)
    for line in ("", "steal", "get-objects x", "Batch", "get-object", "get-object a b", "verify-object"):
        assert (await client.ask(line)).status in {400, 403}, line
    assert (await client.put(DATA)).status == 200


@pytest.mark.parametrize("garbage", [b"GET / HTTP/1.1\r\n\r\n", b"0003", b"\0\0\0\0", DELIM + DELIM + DELIM])
async def test_what_is_no_packet_ends_the_conversation(lfs_world: LfsSshWorld, garbage: bytes) -> None:
    client = await lfs_world.talk("ada", "upload")
    client.send(garbage)
    status, out, error = await client.ended()
    assert (status, out) == (1, b"")
    assert error.startswith("modelyard: ")
    assert error.count("\n") == 1


async def test_a_deploy_key_moves_objects_but_holds_no_lock(lfs_world: LfsSshWorld) -> None:
    client = await lfs_world.talk("deploy", "upload")
    assert (await client.put(DATA)).status == 200
    refused = await client.ask("lock", "path=a")
    assert refused.status == 403
    assert "a lock belongs to a user" in refused.message


async def test_many_conversations_at_once(lfs_world: LfsSshWorld) -> None:
    connection = await lfs_world.connect("ada")

    async def upload(number: int) -> None:
        async with talk(connection, MODEL, "upload") as client:
            for part in range(3):
                data = noise(100_000 + number, f"{number} {part // 2}")
                assert (await client.put(data)).status == 200

    await asyncio.gather(*(upload(number) for number in range(8)))
    objects, links, keys = await lfs_world.stored()
    assert (objects, links, len(keys)) == (16, 16, 16)


async def test_authenticate_answers_with_one_line_of_json(lfs_world: LfsSshWorld) -> None:
    for who, operation in (("ada", "upload"), ("reader", "download")):
        said = await lfs_world.run(who, f"git-lfs-authenticate '/{MODEL}.git' {operation}")
        assert (said.status, said.err) == (0, "")
        assert said.out.count(b"\n") == 1
        answer = json.loads(said.out)
        assert answer["href"] == f"http://127.0.0.1:8080/{MODEL}.git/info/lfs"
        assert answer["header"]["Authorization"].startswith("Bearer ")
        assert answer["expires_in"] == lfs_world.services.settings.lfs.link_seconds


async def test_a_pushed_request_in_one_piece_is_answered_in_order(lfs_world: LfsSshWorld) -> None:
    """A client that does not wait for answers, and one byte at a time."""
    client = await lfs_world.talk("ada", "upload", agree=False)
    stream = request("version 1") + head(f"put-object {OID}", f"size={len(DATA)}") + DELIM
    stream += b"".join(pkt_line(DATA[n : n + 60_000]) for n in range(0, len(DATA), 60_000)) + FLUSH
    stream += request("batch", lines=[f"{OID} {len(DATA)}"]) + request("quit")
    client.send(stream)
    assert [(await client.told()).status for _ in range(4)] == [200] * 4
    assert (await client.ended())[0] == 0
    slow = await lfs_world.talk("ada", "download", agree=False)
    for byte in request("version 1") + request(f"get-object {OID}"):
        slow.send(bytes([byte]))
        await asyncio.sleep(0)
    assert (await slow.told()).status == 200
    assert (await slow.told()).data == DATA
