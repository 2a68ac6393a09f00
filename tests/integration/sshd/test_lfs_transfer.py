"""`git-lfs-transfer` over the real services and a raw client: what is stored, refused, and left behind."""

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

import asyncssh
import pytest
from sqlalchemy import func, select

from core.access import SYSTEM
from core.models import LfsLink, LfsObject, Role
from core.names import parse_address
from core.settings import load_settings
from gitserver.protocol import DELIM, FLUSH, pkt_line
from modelyard.services import Services, open_services
from sshd.large_files import LfsCommands
from sshd.lfs_authenticate import HttpFace
from sshd.server import SshServer
from tests.support.lfs_talk import Talk, Told, head, request, talk
from tests.support.ssh import ClientKey, make_key
from tests.support.ssh_client import Said, SshClient
from tests.support.ssh_server import eventually
from tests.support.streams import list_keys, noise

MODEL, SECRET = "ada/model", "carol/secret"
MAX_OBJECTS = 20
# The largest object, so that refusing more can be tried.
MAX_BYTES = 8 * 1024 * 1024


@pytest.fixture(scope="session")
def people(tmp_path_factory: pytest.TempPathFactory) -> dict[str, ClientKey]:
    directory = tmp_path_factory.mktemp("people")
    names = ("ada", "bob", "carol", "deploy", "reader")
    return {name: make_key(directory, name) for name in names}


@dataclass
class World:
    """ada owns `ada/model`, bob may write there, `reader` and `deploy` are keys of it; carol is elsewhere."""

    services: Services
    server: SshServer
    people: dict[str, ClientKey]
    stack: AsyncExitStack

    async def connect(self, who: str) -> asyncssh.SSHClientConnection:
        connection = asyncssh.connect(
            "127.0.0.1",
            self.server.port,
            username="git",
            client_keys=[str(self.people[who].file)],
            agent_path=None,
            known_hosts=None,
            config=None,
        )
        return await self.stack.enter_async_context(connection)

    async def talk(self, who: str, operation: str, path: str = MODEL, *, agree: bool = True) -> Talk:
        connection = await self.connect(who)
        return await self.stack.enter_async_context(talk(connection, path, operation, agree=agree))

    async def run(self, who: str, line: str) -> Said:
        return await SshClient(await self.connect(who)).run(line)

    async def stored(self) -> tuple[int, int, list[str]]:
        """How many objects, links and keys there are."""
        async with self.services.database.read() as session:
            objects = await session.scalar(select(func.count()).select_from(LfsObject))
            links = await session.scalar(select(func.count()).select_from(LfsLink))
        await self.services.large_files.uploads.settle()
        return objects or 0, links or 0, await list_keys(self.services.store, "lfs/")


@pytest.fixture
async def world(database_url: str, people: dict[str, ClientKey], tmp_path: Path) -> AsyncIterator[World]:
    settings = load_settings(
        environ={},
        overrides={
            "server": {"data": str(tmp_path / "data")},
            "database": {"url": database_url},
            "lfs": {"max_batch_objects": MAX_OBJECTS, "max_object_bytes": MAX_BYTES},
            "ssh": {"listen": "127.0.0.1:0"},
        },
    )
    async with open_services(settings) as services:
        for name in ("ada", "bob", "carol"):
            await services.accounts.create_user(SYSTEM, name)
            await services.keyring.add_key(SYSTEM, name, people[name].public)
        for path in (MODEL, SECRET):
            await services.repositories.create(SYSTEM, parse_address(path))
        sharing, model = services.collaboration, parse_address(MODEL)
        await sharing.set_collaborator(SYSTEM, model, "bob", Role.WRITE)
        await sharing.add_deploy_key(SYSTEM, model, people["deploy"].public, read_only=False)
        await sharing.add_deploy_key(SYSTEM, model, people["reader"].public)
        server = SshServer(
            settings.ssh,
            services.repositories,
            services.credentials,
            services.git,
            LfsCommands(
                services.large_files.service, HttpFace("", "http", 8080), max_batch_objects=MAX_OBJECTS
            ),
            tmp_path / "host_key",
        )
        await server.start()
        async with AsyncExitStack() as stack:
            yield World(services, server, people, stack)
        await server.close()


def oid_of(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


DATA = noise(300_000)
OID = oid_of(DATA)


async def test_an_object_goes_up_and_comes_down(world: World) -> None:
    up = await world.talk("bob", "upload")
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

    down = await world.talk("reader", "download")
    assert (await down.ask("batch", *arguments, lines=[line])).lines == [f"{line} download"]
    got = await down.ask(f"get-object {OID}", f"size={len(DATA)}")
    assert (got.status, got.arguments) == (200, {"size": str(len(DATA))})
    assert got.data == DATA
    assert all(len(packet) <= 65515 for packet in got.packets or [])


@pytest.mark.parametrize("size", [0, 1, 65515, 65516, 256 * 1024, 3_000_001])
async def test_every_size_comes_back_as_it_was(world: World, size: int) -> None:
    data = noise(size, "size")
    assert (await (await world.talk("ada", "upload")).put(data)).status == 200
    got = await (await world.talk("ada", "download")).ask(f"get-object {oid_of(data)}")
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
    world: World, sent: bytes, oid: str, size: int, status: int
) -> None:
    client = await world.talk("ada", "upload")
    refused = await client.put(sent, oid=oid, size=size)
    assert refused.status == status
    assert refused.message
    assert await world.stored() == (0, 0, [])
    assert (await client.put(DATA)).status == 200
    assert await client.ask("quit") == Told(200, {}, None)
    objects, links, keys = await world.stored()
    assert (objects, links, len(keys)) == (1, 1, 1)


async def test_a_put_needs_its_size_once(world: World) -> None:
    client = await world.talk("ada", "upload")
    client.send(head(f"put-object {OID}") + DELIM + pkt_line(DATA[:100]) + FLUSH)
    assert (await client.told()).status == 400
    client.send(head("put-object", "size=100") + DELIM + pkt_line(DATA[:100]) + FLUSH)
    assert (await client.told()).status == 400
    assert (await client.put(DATA, arguments=["size=1"])).status == 400
    assert (await client.put(DATA, arguments=["id=what?", "token=ever"])).status == 200


async def test_a_conversation_is_for_one_operation(world: World) -> None:
    assert (await (await world.talk("ada", "upload")).put(DATA)).status == 200
    down = await world.talk("ada", "download")
    other = DATA + b"other"
    for refused in (
        await down.put(other),
        await down.ask(f"verify-object {OID}", f"size={len(DATA)}"),
        await down.ask("lock", "path=a"),
        await down.ask(f"unlock {'0' * 32}"),
    ):
        assert (refused.status, refused.message) == (403, "this conversation is for downloads only")
    up = await world.talk("ada", "upload")
    refused = await up.ask(f"get-object {OID}")
    assert (refused.status, refused.message) == (403, "this conversation is for uploads only")
    assert (await world.stored())[:2] == (1, 1)
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
async def test_whoever_may_not_is_told_nothing_else(world: World, who: str, line: str, reason: str) -> None:
    (await world.run(who, line)).refused(reason)


async def test_an_object_of_another_repository_is_not_there(world: World) -> None:
    assert (await (await world.talk("carol", "upload", SECRET)).put(DATA)).status == 200
    down = await world.talk("ada", "download")
    line = f"{OID} {len(DATA)}"
    absent = f"{'0' * 64} {len(DATA)}"
    assert (await down.ask("batch", lines=[line, absent])).lines == [f"{line} noop", f"{absent} noop"]
    hidden, missing = await down.ask(f"get-object {OID}"), await down.ask(f"get-object {'0' * 64}")
    assert hidden == missing
    assert hidden.status == 404
    up = await world.talk("ada", "upload")
    assert (await up.ask("batch", lines=[line])).lines == [f"{line} upload"]
    assert (await up.ask(f"verify-object {OID}", f"size={len(DATA)}")).status == 404
    assert (await up.put(DATA[:-1], oid=OID, size=len(DATA))).status == 422
    assert (await down.ask(f"get-object {OID}")).status == 404
    assert (await up.put(DATA)).status == 200
    assert (await down.ask(f"get-object {OID}")).data == DATA


@pytest.mark.parametrize("left", ["closes", "eof", "drops"])
async def test_a_client_that_leaves_in_the_middle_leaves_nothing(world: World, left: str) -> None:
    client = await world.talk("ada", "upload")
    client.send(head(f"put-object {OID}", f"size={len(DATA)}") + DELIM)
    for start in range(0, 200_000, 20_000):
        client.send(pkt_line(DATA[start : start + 20_000]))
    drafts = world.services.settings.store_dir / "tmp"
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
    assert await world.stored() == (0, 0, [])


async def test_whoever_hangs_up_between_two_commands_is_no_failure(world: World) -> None:
    client = await world.talk("ada", "upload")
    client.process.stdin.write_eof()
    assert await client.ended() == (0, b"", "")


async def test_a_key_that_is_taken_away_is_good_for_no_further_command(world: World) -> None:
    client = await world.talk("bob", "upload")
    client.send(head(f"put-object {OID}", f"size={len(DATA)}") + DELIM)
    client.send(b"".join(pkt_line(DATA[n : n + 50_000]) for n in range(0, 250_000, 50_000)))
    await asyncio.sleep(0.3)  # it was let in
    (key,) = await world.services.keyring.keys(SYSTEM, "bob")
    await world.services.keyring.remove_key(SYSTEM, "bob", key.id)
    client.send(pkt_line(DATA[250_000:]) + FLUSH)
    assert (await client.told()).status == 401
    assert await world.stored() == (0, 0, [])
    refused = await client.put(DATA)
    assert (refused.status, refused.message) == (401, "this SSH key is not accepted any more")
    assert (await client.ask("list-lock")).status == 401


async def test_a_right_that_is_taken_away_is_asked_for_again(world: World) -> None:
    client = await world.talk("bob", "upload")
    assert (await client.put(DATA)).status == 200
    model = parse_address(MODEL)
    await world.services.collaboration.set_collaborator(SYSTEM, model, "bob", Role.READ)
    assert (await client.put(DATA + b"2")).status == 403
    await world.services.collaboration.remove_collaborator(SYSTEM, model, "bob")
    assert (await client.put(DATA + b"2")).status == 404


async def test_batches_that_cannot_be(world: World) -> None:
    up, down = await world.talk("ada", "upload"), await world.talk("ada", "download")
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
    assert await world.stored() == (0, 0, [])


async def test_the_version_comes_first(world: World) -> None:
    client = await world.talk("ada", "upload", agree=False)
    assert (await client.ask("batch", lines=[f"{OID} 5"])).status == 400
    assert (await client.put(DATA)).status == 400
    for line in ("version 2", "version", "version 1 1", "version  1"):
        assert (await client.ask(line)).status == 400, line
    assert await client.ask("version 1") == Told(200, {}, None)
    for line in ("", "steal", "get-objects x", "Batch", "get-object", "get-object a b", "verify-object"):
        assert (await client.ask(line)).status in {400, 403}, line
    assert (await client.put(DATA)).status == 200


@pytest.mark.parametrize("garbage", [b"GET / HTTP/1.1\r\n\r\n", b"0003", b"\0\0\0\0", DELIM + DELIM + DELIM])
async def test_what_is_no_packet_ends_the_conversation(world: World, garbage: bytes) -> None:
    client = await world.talk("ada", "upload")
    client.send(garbage)
    status, out, error = await client.ended()
    assert (status, out) == (1, b"")
    assert error.startswith("modelyard: ")
    assert error.count("\n") == 1


async def test_locks(world: World) -> None:
    ada, bob = await world.talk("ada", "upload"), await world.talk("bob", "upload")
    made = await ada.ask("lock", "path=weights/a model.bin", "refname=refs/heads/main")
    assert (made.status, made.packets) == (201, None)
    assert made.arguments["path"] == "weights/a model.bin"
    assert made.arguments["ownername"] == "ada"
    assert made.arguments["locked-at"].endswith("Z")
    taken = await bob.ask("lock", "path=weights/a model.bin")
    assert (taken.status, taken.arguments) == (409, made.arguments)
    assert taken.message == "weights/a model.bin is locked by ada already"
    his = (await bob.ask("lock", "path=b.bin")).arguments

    def shown(lock: dict[str, str], side: str) -> list[str]:
        name = lock["id"]
        return [
            f"lock {name}",
            f"path {name} {lock['path']}",
            f"locked-at {name} {lock['locked-at']}",
            f"ownername {name} {lock['ownername']}",
            f"owner {name} {side}",
        ]

    hers = dict(made.arguments)
    everything = [*shown(dict(his), "theirs"), *shown(hers, "ours")]
    assert (await ada.ask("list-lock")).lines == everything
    assert (await ada.ask("list-locks", "refname=refs/heads/dev")).lines == everything
    assert (await ada.ask("list-lock", "refspec=refs/heads/dev")).lines == shown(dict(his), "theirs")
    assert (await ada.ask("list-lock", "path=b.bin")).lines == shown(dict(his), "theirs")
    assert (await ada.ask("list-lock", f"id={hers['id']}")).lines == shown(hers, "ours")
    page = await ada.ask("list-lock", "limit=1")
    assert page.lines == shown(dict(his), "theirs")
    rest = await ada.ask("list-lock", "limit=1", f"cursor={page.arguments['next-cursor']}")
    assert (rest.lines, rest.arguments) == (shown(hers, "ours"), {})
    reader = await world.talk("reader", "download")
    assert [line for line in (await reader.ask("list-lock")).lines if line.endswith(" ours")] == []
    for bad in ("limit=x", "cursor=!"):
        assert (await ada.ask("list-lock", bad)).status == 400

    refused = await bob.ask(f"unlock {hers['id']}", "force=true")
    assert (refused.status, "administrator" in refused.message) == (403, True)
    assert (await ada.ask(f"unlock {his['id']}")).status == 403
    assert await ada.ask(f"unlock {his['id']}", "force=true", "refname=refs/heads/main") == Told(
        200, his, None
    )
    assert await ada.ask(f"unlock {hers['id']}") == Told(200, hers, None)
    assert (await ada.ask(f"unlock {hers['id']}")).status == 404
    assert (await ada.ask("list-lock")).lines == []
    for bad in ("path=../x", "path=/x", "path="):
        assert (await ada.ask("lock", bad)).status == 422
    assert (await ada.ask("lock")).status == 422
    assert (await ada.ask("lock", "path=x", "refname=main")).status == 422


async def test_no_lock_of_another_repository_is_seen(world: World) -> None:
    carol = await world.talk("carol", "upload", SECRET)
    secret = (await carol.ask("lock", "path=plan.bin")).arguments
    ada = await world.talk("ada", "upload")
    assert (await ada.ask("list-lock", f"id={secret['id']}")).lines == []
    assert (await ada.ask("list-lock", "path=plan.bin")).lines == []
    absent = await ada.ask(f"unlock {'0' * 32}", "force=true")
    assert await ada.ask(f"unlock {secret['id']}", "force=true") == absent
    assert absent.status == 404
    assert len((await carol.ask("list-lock")).lines) == 5


async def test_a_deploy_key_moves_objects_but_holds_no_lock(world: World) -> None:
    client = await world.talk("deploy", "upload")
    assert (await client.put(DATA)).status == 200
    refused = await client.ask("lock", "path=a")
    assert refused.status == 403
    assert "a lock belongs to a user" in refused.message


async def test_many_conversations_at_once(world: World) -> None:
    connection = await world.connect("ada")

    async def upload(number: int) -> None:
        async with talk(connection, MODEL, "upload") as client:
            for part in range(3):
                data = noise(100_000 + number, f"{number} {part // 2}")
                assert (await client.put(data)).status == 200

    await asyncio.gather(*(upload(number) for number in range(8)))
    objects, links, keys = await world.stored()
    assert (objects, links, len(keys)) == (16, 16, 16)


async def test_authenticate_answers_with_one_line_of_json(world: World) -> None:
    for who, operation in (("ada", "upload"), ("reader", "download")):
        said = await world.run(who, f"git-lfs-authenticate '/{MODEL}.git' {operation}")
        assert (said.status, said.err) == (0, "")
        assert said.out.count(b"\n") == 1
        answer = json.loads(said.out)
        assert answer["href"] == f"http://127.0.0.1:8080/{MODEL}.git/info/lfs"
        assert answer["header"]["Authorization"].startswith("Bearer ")
        assert answer["expires_in"] == world.services.settings.lfs.link_seconds


async def test_a_pushed_request_in_one_piece_is_answered_in_order(world: World) -> None:
    """A client that does not wait for answers, and one byte at a time."""
    client = await world.talk("ada", "upload", agree=False)
    stream = request("version 1") + head(f"put-object {OID}", f"size={len(DATA)}") + DELIM
    stream += b"".join(pkt_line(DATA[n : n + 60_000]) for n in range(0, len(DATA), 60_000)) + FLUSH
    stream += request("batch", lines=[f"{OID} {len(DATA)}"]) + request("quit")
    client.send(stream)
    assert [(await client.told()).status for _ in range(4)] == [200] * 4
    assert (await client.ended())[0] == 0
    slow = await world.talk("ada", "download", agree=False)
    for byte in request("version 1") + request(f"get-object {OID}"):
        slow.send(bytes([byte]))
        await asyncio.sleep(0)
    assert (await slow.told()).status == 200
    assert (await slow.told()).data == DATA
