"""Smart HTTP to the letter, with a client that sends every byte itself."""

import asyncio
import gzip
import random
import zlib
from collections.abc import Iterator, Mapping
from itertools import count

import pytest

from core.models import Scope
from tests.support.git import Git
from tests.support.http_face import (
    LIMITS,
    LS_REFS,
    V2,
    Face,
    answered,
    is_not_cached,
    open_face,
    speaks_v2,
)
from tests.support.raw_http import Reply, basic, chunked, connected, request
from tests.support.server import PASSWORD, running_server
from tests.support.wire import packets
from tests.support.yard import Yard

_CHALLENGE = 'Basic realm="Modelyard", charset="UTF-8"'

_addresses = (f"127.0.1.{number}" for number in count(1))


@pytest.fixture(scope="module")
def face(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Face]:
    folder = tmp_path_factory.mktemp("face")
    with running_server(folder / "server", env=LIMITS) as server:
        yard = asyncio.run(Yard.open(server, folder / "clients"))
        yield asyncio.run(open_face(yard))
        asyncio.run(yard.quiet())


# -- addresses ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "path",
    [
        "/ann/open",
        "/ann/open.git",
        "/ann/open.git/",
        "/ann/open/",
        "/models/ann/open",
        "/models/ann/open.git",
        "/datasets/ann/open",
        "/datasets/ann/open.git",
        "/ANN/Open.GIT",
    ],
)
async def test_spellings_of_an_address(face: Face, path: str) -> None:
    reply = await face.get(f"{path}/info/refs?service=git-upload-pack")
    assert reply.status == 200, reply
    assert f"{face.head} refs/heads/main".encode() in reply.body
    assert (await face.post("git-upload-pack", LS_REFS, V2, path=path)).status == 200


@pytest.mark.parametrize(
    "path", ["/ann", "/", "/ann/open/extra", "/datasets/ann", "/spaces/ann/open", "/x/open"]
)
async def test_what_is_no_repository(face: Face, path: str) -> None:
    reply = await face.get(f"{path}/info/refs?service=git-upload-pack", basic("ann", face.token))
    answered(reply, 404)


async def test_the_real_client_with_a_slash_at_the_end(face: Face) -> None:
    folder = await asyncio.to_thread(face.yard.new_folder)
    await asyncio.to_thread(Git(folder), "clone", "-q", f"{face.base}/ann/open/", "clone")
    assert (folder / "clone" / "a").read_text() == "1\n"


# -- what is said first ------------------------------------------------------------------------------


def _is_advertisement(reply: Reply, service: str) -> None:
    assert reply.status == 200, reply
    assert reply.headers["Content-Type"] == f"application/x-{service}-advertisement"
    is_not_cached(reply)


@pytest.mark.parametrize("asked", [None, "version=0", "version=3", "nonsense", ""])
async def test_version_0(face: Face, asked: str | None) -> None:
    headers = {} if asked is None else {"Git-Protocol": asked}
    reply = await face.get("/ann/open/info/refs?service=git-upload-pack", headers)
    _is_advertisement(reply, "git-upload-pack")
    service, flush, first, main, *_ = packets(reply.body)
    assert (service, flush) == (b"# service=git-upload-pack\n", b"")
    oid, _, rest = first.partition(b" ")
    name, _, capabilities = rest.partition(b"\0")
    assert (oid.decode(), name) == (face.head, b"HEAD")
    assert {b"symref=HEAD:refs/heads/main", b"side-band-64k", b"object-format=sha1"} <= set(
        capabilities.split()
    )
    assert main == f"{face.head} refs/heads/main\n".encode()
    assert reply.body.endswith(b"0000")


async def test_version_1(face: Face) -> None:
    reply = await face.get("/ann/open/info/refs?service=git-upload-pack", {"Git-Protocol": "version=1"})
    _is_advertisement(reply, "git-upload-pack")
    assert packets(reply.body)[:3] == [b"# service=git-upload-pack\n", b"", b"version 1\n"]


@pytest.mark.parametrize("asked", ["version=2", "version=1:version=2", "version=2:key=value"])
async def test_version_2(face: Face, asked: str) -> None:
    reply = await face.get("/ann/open/info/refs?service=git-upload-pack", {"Git-Protocol": asked})
    _is_advertisement(reply, "git-upload-pack")
    lines = packets(reply.body)
    assert lines[0] == b"version 2\n"
    assert {b"object-format=sha1\n", b"server-option\n"} <= set(lines)
    assert any(line.startswith(b"ls-refs=") for line in lines)
    assert any(line.startswith(b"fetch=") for line in lines)


@pytest.mark.parametrize("version", ["0", "1", "2"])
async def test_receive_pack_has_no_version_2(face: Face, version: str) -> None:
    headers = {**basic("ann", face.token), "Git-Protocol": f"version={version}"}
    reply = await face.get("/ann/open/info/refs?service=git-receive-pack", headers)
    _is_advertisement(reply, "git-receive-pack")
    assert b"version 2" not in reply.body
    assert f"{face.head} refs/heads/main\0".encode() in reply.body
    assert b"report-status-v2" in reply.body


@pytest.mark.parametrize(
    "target",
    [
        "/ann/open.git/info/refs",
        "/ann/open.git/info/refs?service=",
        "/ann/open.git/info/refs?service=git-upload-archive",
        "/ann/open.git/info/refs?service=git-upload-pack%00",
        "/ann/open.git/HEAD",
        "/ann/open.git/objects/info/packs",
        "/ann/open.git/objects/ab/cdef",
        "/ann/open.git/objects/pack/pack-1.idx",
        "/nobody/nothing/info/refs",
    ],
)
async def test_the_dumb_protocol_gets_one_clear_line(face: Face, target: str) -> None:
    answered(await face.get(target), 403, "smart HTTP")


async def test_a_dumb_client_shows_the_line(face: Face) -> None:
    folder = await asyncio.to_thread(face.yard.new_folder)
    git = Git(folder, environment={"GIT_SMART_HTTP": "0"})
    done = await asyncio.to_thread(git.run, "ls-remote", f"{face.base}/ann/open")
    assert done.status != 0
    assert "smart HTTP protocol only" in done.output


# -- requests ----------------------------------------------------------------------------------------


async def test_bodies_as_they_are(face: Face) -> None:
    await speaks_v2(face, await face.ls_refs())


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
async def test_compressed_bodies(face: Face, encoding: str) -> None:
    body = gzip.compress(LS_REFS) if encoding == "gzip" else zlib.compress(LS_REFS)
    await speaks_v2(face, await face.ls_refs(body, {"Content-Encoding": encoding}))


@pytest.mark.parametrize("compressed", [False, True])
async def test_chunked_bodies(face: Face, compressed: bool) -> None:
    body = gzip.compress(LS_REFS) if compressed else LS_REFS
    headers = {"Transfer-Encoding": "chunked", **({"Content-Encoding": "gzip"} if compressed else {})}
    pieces = [bytes([byte]) for byte in body]
    await speaks_v2(face, await face.ls_refs(chunked(*pieces), headers))


async def test_the_real_client_sends_large_pushes_in_chunks(face: Face) -> None:
    yard = face.yard
    path = await yard.new_repository()
    git = yard.git(await asyncio.to_thread(yard.new_folder))
    traced = Git(
        git.cwd, {**git.config, "http.postBuffer": "65536"}, {**git.environment, "GIT_TRACE_CURL": "1"}
    )
    await asyncio.to_thread(git, "init", "-q", ".")
    tip = await asyncio.to_thread(git.commit, {"big": random.Random(1).randbytes(2_000_000)})
    done = await asyncio.to_thread(traced.run, "push", f"{face.base}/{path}", "main")
    assert done.status == 0, done.output
    assert "Transfer-Encoding: chunked" in done.output
    assert (await asyncio.to_thread(git.refs, yard.url(path)))["refs/heads/main"] == tip


async def test_expect_continue(face: Face) -> None:
    headers = {
        "Content-Type": "application/x-git-upload-pack-request",
        "Content-Length": str(len(LS_REFS)),
        "Expect": "100-continue",
        **V2,
    }
    async with connected(face.base) as connection:
        await connection.head("POST", "/ann/open/git-upload-pack", headers)
        assert (await connection.reply()).status == 100
        await connection.send(LS_REFS)
        await speaks_v2(face, await connection.reply())


async def test_another_expectation(face: Face) -> None:
    reply = await face.ls_refs(headers={"Expect": "the-unexpected"})
    assert reply.status == 417
    assert not face.yard.server.log("Unhandled exception")


@pytest.mark.parametrize("service", ["git-upload-pack", "git-receive-pack"])
async def test_the_probe_before_a_large_request(face: Face, service: str) -> None:
    """A bare flush, with which git finds out about logins before it sends what it cannot send twice."""
    reply = await face.post(service, b"0000", basic("ann", face.token))
    assert (reply.status, reply.body) == (200, b"")
    assert reply.headers["Content-Type"] == f"application/x-{service}-result"
    is_not_cached(reply)


async def test_a_probe_without_a_login_is_asked_for_one(face: Face) -> None:
    reply = await face.post("git-receive-pack", b"0000")
    answered(reply, 401)
    assert reply.headers["WWW-Authenticate"] == _CHALLENGE


@pytest.mark.parametrize("service", ["git-upload-pack", "git-receive-pack"])
@pytest.mark.parametrize(
    "kind", ["", "text/plain", "application/json", "application/x-git-upload-pack-advertisement", "garbage"]
)
async def test_other_content_types(face: Face, service: str, kind: str) -> None:
    reply = await face.post(service, b"0000", {**basic("ann", face.token), "Content-Type": kind})
    answered(reply, 415, f"application/x-{service}-request")


@pytest.mark.parametrize("method", ["HEAD", "OPTIONS", "PUT", "DELETE", "PATCH", "POST", "PROPFIND"])
async def test_methods_of_the_advertisement(face: Face, method: str) -> None:
    reply = await face.get("/ann/open.git/info/refs?service=git-upload-pack", method=method)
    assert (reply.status, reply.headers["Allow"]) == (405, "GET")


@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS", "PUT", "DELETE", "PATCH", "TRACE"])
@pytest.mark.parametrize("service", ["git-upload-pack", "git-receive-pack"])
async def test_methods_of_the_services(face: Face, method: str, service: str) -> None:
    reply = await face.get(f"/ann/open.git/{service}", method=method)
    assert (reply.status, reply.headers["Allow"]) == (405, "POST")


async def test_requests_follow_each_other_on_one_connection(face: Face) -> None:
    """Refused ones with a body among them: what is left of it is never taken for the next request."""
    body = b"GET /healthz HTTP/1.1\r\nHost: smuggled\r\n\r\n" * 200
    login = basic("ann", face.token)
    async with connected(face.base) as connection:
        for headers, status in [
            ({"Content-Type": "application/x-git-receive-pack-request"}, 401),
            ({"Content-Type": "text/plain", **login}, 415),
        ]:
            reply = await connection.request("POST", "/ann/open/git-receive-pack", headers, body)
            assert reply.status == status
        reply = await connection.request("GET", "/ann/open/info/refs?service=git-upload-pack")
        _is_advertisement(reply, "git-upload-pack")


# -- who is it ---------------------------------------------------------------------------------------


async def _login(face: Face, headers: Mapping[str, str], source: str = "") -> Reply:
    target = "/ann/open.git/info/refs?service=git-receive-pack"
    return await request(face.base, "GET", target, headers, source=source)


@pytest.mark.parametrize("user", ["ann", "", "git", "oauth2", "__token__", "nobody-known", "\u00fcnknown"])
async def test_a_token_with_any_user_name(face: Face, user: str) -> None:
    assert (await _login(face, basic(user, face.token))).status == 200


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER"])
async def test_a_bearer_token(face: Face, scheme: str) -> None:
    assert (await _login(face, {"Authorization": f"{scheme} {face.token}"})).status == 200


@pytest.mark.parametrize("user", ["ann", "Ann"])
async def test_a_password(face: Face, user: str) -> None:
    assert (await _login(face, basic(user, PASSWORD))).status == 200


@pytest.mark.parametrize(
    "given",
    [
        basic("ann", "wrong")["Authorization"],
        basic("nobody", PASSWORD)["Authorization"],
        basic("ann", "")["Authorization"],
        basic("", "")["Authorization"],
        basic("ann", "myd_" + "x" * 46)["Authorization"],
        "Bearer " + "x" * 40,
        "Bearer",
        "Basic",
        "Basic !!!!",
        "Basic YW5u",  # no colon
        "Basic /w==",  # no UTF-8
        "Digest username=ann",
        "Negotiate abc",
        "nonsense",
    ],
)
async def test_what_proves_nobody(face: Face, given: str) -> None:
    """Also where the repository is public: whoever says a name must prove it."""
    for target in ("git-upload-pack", "git-receive-pack"):
        reply = await request(
            face.base,
            "GET",
            f"/ann/open.git/info/refs?service={target}",
            {"Authorization": given},
            source=next(_addresses),
        )
        answered(reply, 401)
        assert reply.headers["WWW-Authenticate"] == _CHALLENGE
        assert face.head not in reply.text


async def test_two_logins_in_one_request(face: Face) -> None:
    head = (
        f"GET /ann/open/info/refs?service=git-receive-pack HTTP/1.1\r\nHost: x\r\n"
        f"Authorization: Bearer {face.token}\r\nAuthorization: Bearer {face.token}\r\n\r\n"
    )
    async with connected(face.base) as connection:
        await connection.send(head.encode())
        answered(await connection.reply(), 401)


async def test_guessing_is_slowed_down_and_nobody_else_is(face: Face) -> None:
    server = face.yard.server
    await server.add_user("bob")
    token = await server.add_token("bob", scope=Scope.WRITE)
    here, there = next(_addresses), next(_addresses)
    wrong, right = basic("bob", "wrong"), basic("bob", PASSWORD)
    pauses: list[int] = []
    attempts = 0
    while not pauses or pauses[-1] < 3:  # so long that what follows falls into it
        reply = await _login(face, wrong, here)
        if reply.status == 429:
            pauses.append(int(reply.headers["Retry-After"]))
            if pauses[-1] < 3:
                await asyncio.sleep(pauses[-1])
        else:
            answered(reply, 401)
            attempts += 1
        assert attempts < 12, pauses
    assert attempts > 4
    for source in (here, there):  # the account is blocked from everywhere
        answered(await _login(face, right, source), 429, "wait")
    assert (await _login(face, basic("bob", token), here)).status == 403, "known, and may only read"
    assert (await _login(face, {"Authorization": f"Bearer {token}"}, here)).status == 403
    assert (await _login(face, basic("ann", PASSWORD), here)).status == 200
    folder = await asyncio.to_thread(face.yard.new_folder)
    done = await asyncio.to_thread(server.git(folder, user="bob").run, "ls-remote", f"{face.base}/bob/x")
    assert "429" in done.output
    await asyncio.sleep(pauses[-1] + 1)
    assert (await _login(face, right, here)).status == 403, "the pause is over"
    answered(await _login(face, wrong, here), 401)
