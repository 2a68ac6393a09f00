"""Bodies that do harm over HTTP: bombs, broken compression and framing, lengths that lie."""

import asyncio
import gzip
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.git import Git
from tests.support.http_face import LIMITS, LS_REFS, V2, Face, answered, open_face, speaks_v2
from tests.support.raw_http import basic, chunked, connected
from tests.support.server import running_server
from tests.support.wire import ZERO, PackBuilder, pkt, push_request, read_report, simple_commit
from tests.support.yard import Yard


@pytest.fixture(scope="module")
def face(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Face]:
    folder = tmp_path_factory.mktemp("face")
    with running_server(folder / "server", env=LIMITS) as server:
        yard = asyncio.run(Yard.open(server, folder / "clients"))
        yield asyncio.run(open_face(yard))
        asyncio.run(yard.quiet())


async def _lives(face: Face) -> None:
    await speaks_v2(face, await face.ls_refs())
    await face.yard.quiet()


def _forget_peak(face: Face) -> int:
    """Resident bytes now, from where `_peak` counts on."""
    Path(f"/proc/{face.yard.server.pid}/clear_refs").write_text("5")  # proc(5): resets VmHWM
    return _peak(face)


def _peak(face: Face) -> int:
    """The most memory that the server had since, in bytes."""
    status = Path(f"/proc/{face.yard.server.pid}/status").read_text()
    return next(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmHWM:"))


def _stayed_small(face: Face, before: int) -> None:
    grown = _peak(face) - before
    assert grown < 60 << 20, f"{grown >> 20} MiB"


async def test_a_bomb_of_wants(face: Face) -> None:
    """1 MB may be read; 200 KB unfold to 100."""
    before = _forget_peak(face)
    wants = pkt(f"want {'1' * 40}\n") * 2_000_000
    body = pkt("command=fetch") + pkt("object-format=sha1") + b"0001" + wants + b"0000"
    packed = await asyncio.to_thread(gzip.compress, body, 6)
    reply = await face.ls_refs(packed, {"Content-Encoding": "gzip"})
    answered(reply, 413, "too large")
    _stayed_small(face, before)
    await _lives(face)


@pytest.mark.parametrize("service", ["git-upload-pack", "git-receive-pack"])
async def test_a_bomb_of_nothing(face: Face, service: str) -> None:
    """500 KB that unfold to half a gigabyte; a push has honest commands in front."""
    before = _forget_peak(face)
    pack = PackBuilder()
    tip = simple_commit(pack)
    front = push_request([(ZERO, tip, "refs/heads/bomb")], b"PACK\0\0\0\2\0\0\0\1")
    body = gzip.compress(front if service == "git-receive-pack" else b"")
    body += await asyncio.to_thread(gzip.compress, bytes(500_000_000), 1)
    headers = {**V2, **basic("ann", face.token), "Content-Encoding": "gzip"}
    reply = await face.post(service, body, headers)
    if service == "git-upload-pack":
        answered(reply, 400)
    else:
        answered(reply, 413, "50000000 bytes")
    _stayed_small(face, before)
    await _lives(face)


@pytest.mark.parametrize("service", ["git-upload-pack", "git-receive-pack"])
@pytest.mark.parametrize("damage", ["no gzip", "cut off", "bad checksum"])
async def test_broken_compression(face: Face, service: str, damage: str) -> None:
    pack = PackBuilder()
    push = push_request([(ZERO, simple_commit(pack, message=damage), "refs/heads/broken")], pack.build())
    packed = gzip.compress(LS_REFS if service == "git-upload-pack" else push)
    body = {"no gzip": LS_REFS, "cut off": packed[:-12], "bad checksum": packed[:-8] + b"\0" * 8}[damage]
    headers = {**V2, **basic("ann", face.token), "Content-Encoding": "gzip"}
    reply = await face.post(service, body, headers)
    if reply.status == 200:
        assert service == "git-receive-pack"
        assert not read_report(reply.body).ok, reply
    else:
        answered(reply, 400)
    assert "refs/heads/broken" not in await asyncio.to_thread(
        Git(face.yard.folder).refs, f"{face.base}/ann/open"
    )
    assert not face.yard.server.log("Unhandled exception")
    await _lives(face)


@pytest.mark.parametrize(
    "body",
    [
        b"zz\r\n0000\r\n0\r\n\r\n",
        b"-4\r\n0000\r\n0\r\n\r\n",
        b"2\r\n00X2\r\n00\r\n0\r\n\r\n",
        b"2\n00\n0\n\n",
    ],
)
async def test_broken_chunks(face: Face, body: bytes) -> None:
    head = (
        "POST /ann/open/git-receive-pack HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n"
        f"Authorization: Bearer {face.token}\r\n"
        "Content-Type: application/x-git-receive-pack-request\r\n\r\n"
    )
    async with connected(face.base) as connection:
        await connection.send(head.encode() + body)
        assert (await connection.reply()).status == 400
        assert await connection.closed()
    await _lives(face)


@pytest.mark.parametrize(
    "lines",
    [
        "Content-Length: 4\r\nTransfer-Encoding: chunked",
        "Content-Length: 4\r\nContent-Length: 40",
        "Content-Length: -4",
        "Content-Length: +4",
        "Content-Length: 4, 4",
        "Transfer-Encoding: chunked, identity",
        "Transfer-Encoding: x",
        "Content-Length : 4",
        " Content-Length: 4",
    ],
)
async def test_two_opinions_about_the_length(face: Face, lines: str) -> None:
    """What a proxy and a server might read differently is read by nobody."""
    head = (
        "POST /ann/open/git-upload-pack HTTP/1.1\r\nHost: x\r\n"
        f"Content-Type: application/x-git-upload-pack-request\r\n{lines}\r\n\r\n"
    )
    async with connected(face.base) as connection:
        await connection.send(head.encode() + b"0000")
        assert (await connection.reply()).status == 400
        assert await connection.closed()


@pytest.mark.parametrize("service", ["git-upload-pack", "git-receive-pack"])
@pytest.mark.parametrize("length", [60_000_000, 10**15, 2**63, 10**30])
async def test_a_body_that_is_declared_too_large(face: Face, service: str, length: int) -> None:
    headers = {
        **basic("ann", face.token),
        "Content-Type": f"application/x-{service}-request",
        "Content-Length": str(length),
    }
    async with connected(face.base) as connection:
        await connection.head("POST", f"/ann/open/{service}", headers)
        reply = await connection.reply()  # before a byte of the body
        assert reply.status in ((413,) if length < 2**63 else (413, 400)), reply
        assert await connection.closed()


async def test_a_pack_that_is_too_large_undeclared(face: Face) -> None:
    pack = PackBuilder()
    tip = simple_commit(pack)
    front = push_request([(ZERO, tip, "refs/heads/huge")], b"PACK\0\0\0\2\0\0\0\3")
    blob = bytes(1 << 20)
    headers = {**basic("ann", face.token), "Transfer-Encoding": "chunked"}
    reply = await face.post("git-receive-pack", chunked(front, *[blob] * 60), headers)
    answered(reply, 413, "50000000 bytes")
    await _lives(face)
