"""What holds for every operation: refusals, limits, pages, and URLs that try to be clever."""

import asyncio
import gzip
import os
from pathlib import Path
from urllib.parse import quote, urlsplit

import pytest

from core.settings import Settings
from tests.support import children
from tests.support.api import API, ApiServer, Caller, api_settings, commit, running_api
from tests.support.database import Databases


@pytest.fixture
async def alice(api: ApiServer) -> Caller:
    return await api.user("alice")


async def test_a_method_that_a_path_does_not_know(api: ApiServer, alice: Caller) -> None:
    answer = await alice("DELETE", "/repositories")
    assert answer.code == "method_not_allowed"
    assert answer.headers["Allow"] == "GET, HEAD, POST"
    assert (await api.anonymous("OPTIONS", "/user")).headers["Allow"] == "GET, HEAD"
    assert (await api.anonymous("PROPFIND", "/user")).code == "method_not_allowed"


@pytest.mark.parametrize("path", ["/", "/nothing", "/users/a/b/c", "//users", "/users//keys", "/%75sers"])
async def test_a_path_that_is_none(api: ApiServer, path: str) -> None:
    for method in ("GET", "POST"):
        assert (await api.anonymous(method, path)).code == "not_found"


async def test_outside_of_this_version(api: ApiServer) -> None:
    assert (await api.anonymous("GET", f"{api.base}/api/v2/users")).code == "not_found"
    assert (await api.anonymous("GET", f"{api.base}/api/")).code == "not_found"


@pytest.mark.parametrize(
    ("body", "code", "place"),
    [
        (b"", "invalid_json", None),
        (b"{", "invalid_json", None),
        (b'{"name": "\xff"}', "invalid_json", None),
        (b"[" * 100_000, "invalid_request", "$"),
        (b'{"owner":"a","name":' + b"[" * 100_000, "invalid_request", "$.name"),
        (b'{"owner": "alice"}', "invalid_request", "$"),
        (b'{"owner": "alice", "name": 1}', "invalid_request", "$.name"),
        (b'{"owner": "alice", "name": "x", "colour": 1}', "invalid_request", "$"),
        (b'{"owner": "alice", "name": "x", "type": "space"}', "invalid_request", "$.type"),
    ],
)
async def test_bodies_that_do_not_fit(alice: Caller, body: bytes, code: str, place: str | None) -> None:
    answer = await alice("POST", "/repositories", data=body, headers={"Content-Type": "application/json"})
    assert answer.code == code
    assert [one["path"] for one in answer.json.get("errors", [])] == ([place] if place else [])


def _small(directory: Path, url: str) -> Settings:
    return api_settings(directory, url, max_json_bytes=10_000)


async def test_bodies_of_other_types_and_sizes(tmp_path: Path, databases: Databases) -> None:
    async with databases.fresh("sqlite") as url, running_api(_small(tmp_path, url)) as api:
        alice = await api.user("alice")
        json = {"Content-Type": "application/json"}
        for kind in ("text/plain", "application/x-www-form-urlencoded", "application/json-patch+json"):
            answer = await alice("POST", "/repositories", data=b"{}", headers={"Content-Type": kind})
            assert answer.code == "unsupported_media_type"
        large = b'{"description": "' + b"x" * 20_000 + b'"}'
        assert (await alice("POST", "/repositories", data=large, headers=json)).code == "payload_too_large"
        bomb = gzip.compress(b" " * 10_000_000)
        assert len(bomb) < 10_000
        packed = json | {"Content-Encoding": "gzip"}
        assert (await alice("POST", "/repositories", data=bomb, headers=packed)).status == 413
        broken = await alice("POST", "/repositories", data=b"no gzip", headers=packed)
        assert broken.code == "bad_request"


@pytest.mark.parametrize(
    "query",
    [
        "limit=0",
        "limit=101",
        "limit=x",
        "limit=1&limit=2",
        "colour=red",
        "search=%00",
        "search=%ff",
        "%ff=1",
        "type=space",
        f"search={'x' * 201}",
        "limit=99999999999999999999",
    ],
)
async def test_query_parameters_that_do_not_fit(api: ApiServer, query: str) -> None:
    answer = await api.anonymous("GET", f"/repositories?{query}")
    assert answer.code == "invalid_request"
    assert answer.json["errors"][0]["in"] == "query"


async def test_cursors_cannot_be_made_up(api: ApiServer, alice: Caller) -> None:
    for number in range(3):
        await alice.ok(
            "POST", "/repositories", {"owner": "alice", "name": f"n{number}", "visibility": "public"}
        )
    link = (await alice("GET", "/repositories?limit=1")).headers["Link"]
    cursor = link.partition("cursor=")[2].partition(">")[0]
    assert (await alice("GET", f"/repositories?limit=1&cursor={cursor}")).json[0]["name"] == "n1"
    for made_up in ("", "x", cursor[:-4], cursor[::-1], "A" + cursor[1:], quote("é"), "%00"):
        answer = await alice("GET", f"/repositories?cursor={made_up}")
        assert answer.code in {"invalid_cursor", "invalid_request"}, made_up
    assert (await alice("GET", f"/users?cursor={cursor}")).code == "invalid_cursor", "it is of another list"


async def test_next_links_keep_the_address_and_the_query(api: ApiServer, alice: Caller) -> None:
    for number in range(2):
        await alice.ok("POST", "/repositories", {"owner": "alice", "name": f"n{number}"})
    host = {"Host": "hub.example:8443"}
    link = (await alice("GET", "/repositories?owner=alice&limit=1&search=n", headers=host)).headers["Link"]
    url = urlsplit(link.removeprefix("<").partition(">")[0])
    assert (url.scheme, url.netloc, url.path) == ("http", "hub.example:8443", f"{API}/repositories")
    assert {"owner=alice", "limit=1", "search=n"} < set(url.query.split("&"))


async def test_json_answers_have_versions(api: ApiServer, alice: Caller) -> None:
    path = await api.repository(alice, "net")
    first = await alice("GET", path)
    known = {"If-None-Match": first.headers["ETag"]}
    assert first.headers["Cache-Control"] == "private, no-cache"
    assert (await alice("GET", path, headers=known)).status == 304
    await alice.ok("PATCH", path, {"description": "new"})
    changed = await alice("GET", path, headers=known)
    assert (changed.status, changed.json["description"]) == (200, "new")


async def test_rate_limits(tmp_path: Path, databases: Databases) -> None:
    async with databases.fresh("sqlite") as url:
        settings = api_settings(tmp_path, url, anonymous_requests_per_minute=5)
        async with running_api(settings) as api:
            answers = [await api.anonymous("GET", "/repositories") for _ in range(6)]
            assert [answer.status for answer in answers] == [200] * 5 + [429]
            assert answers[-1].code == "too_many_requests"
            assert int(answers[-1].headers["Retry-After"]) > 0
            assert (await api.root("GET", "/repositories")).status == 200, "others are not slowed down"


@pytest.mark.parametrize(
    "path",
    [
        "/repositories/models/alice/net/raw/main/%2e%2e/README.md",
        "/repositories/models/alice/net/raw/main/..%2f..%2fREADME.md",
        "/repositories/models/alice/net/raw/main/src/../README.md",
        "/repositories/models/alice/net/raw/main/%252e%252e%252fREADME.md",
        "/repositories/models/alice/net/raw/main/README.md%00",
        "/repositories/models/alice/net/raw/main%00/README.md",
        "/repositories/models/alice/net/raw/%2e%2e/README.md",
        "/repositories/models/alice/net/raw/main/.git/config",
        "/repositories/models/alice/net/raw/main/C:%5cREADME.md",
        "/repositories/models/alice/net/tree/main/..",
        "/repositories/models/alice/../alice/net",
        "/repositories/models/alice/%2e%2e/net",
        "/repositories/models/alice%2fnet/x",
        "/repositories/models/alice/net%2f",
        "/repositories/models/alice/net%00",
        "/repositories/models/alice/%6eet%2egit/../net",
        "/repositories/models/al%C4%B1ce/net",
        "/repositories/models/%EF%BD%81lice/net",
        "/repositories/models%2falice/net/x",
        "/repositories/spaces/alice/net",
        "/repositories/model/alice/net",
        "/repositories/models/alice/" + "n" * 5000,
        "/users/%2e%2e",
        "/users/alice%00",
        "/users/alice%2fkeys",
        "/users/alice/keys/0",
        "/users/alice/keys/-1",
        "/users/alice/keys/1e3",
        "/users/alice/keys/99999999999999999999999",
        "/users/%ff",
    ],
)
async def test_hostile_paths_lead_nowhere(api: ApiServer, alice: Caller, path: str) -> None:
    await api.repository(alice, "net")
    answer = await alice("GET", path)
    assert answer.status == 404, (path, answer.body)
    assert answer.code
    assert b"hello" not in answer.body


async def test_a_head_request_is_a_get_without_a_body(api: ApiServer, alice: Caller) -> None:
    path = await api.repository(alice, "net")
    for url in (path, "/users", f"{path}/tree/main", f"{path}/commits/main"):
        head, get = await alice("HEAD", url), await alice("GET", url)
        assert (head.status, head.body) == (200, b"")
        assert head.headers["ETag"] == get.headers["ETag"]


async def test_a_client_that_leaves_ends_the_child(api: ApiServer, alice: Caller) -> None:
    path = await api.repository(alice, "net")
    for number in range(6):  # more than the buffers of a socket hold
        await commit(alice, path, {f"{number}.bin": os.urandom(2_800_000)})
    url, before = urlsplit(api.base), set(children.running())
    reader, writer = await asyncio.open_connection(url.hostname, url.port)
    authorization = alice.headers["Authorization"]
    writer.write(f"GET {API}{path}/archive/main.zip HTTP/1.1\r\nHost: x\r\n".encode())
    writer.write(f"Authorization: {authorization}\r\n\r\n".encode())
    assert (await reader.readline()).startswith(b"HTTP/1.1 200")
    assert set(children.running()) > before, "git waits for the client"
    writer.transport.abort()
    assert await asyncio.to_thread(children.left_behind, dict.fromkeys(before, ""), grace_seconds=30) == []


async def test_everything_is_listed_once_while_others_write(each_api: ApiServer) -> None:
    alice = await each_api.user("alice")
    for number in range(12):
        await alice.ok("POST", "/repositories", {"owner": "alice", "name": f"m{number:02}"})
    seen: list[str] = []
    following: str | None = "/repositories?limit=5"
    while following:
        reply = await alice("GET", following)
        seen += [one["name"] for one in reply.json]
        # Before and behind the cursor.
        await alice.ok("POST", "/repositories", {"owner": "alice", "name": f"a{len(seen)}"})
        await alice.ok("POST", "/repositories", {"owner": "alice", "name": f"z{len(seen)}"})
        link = reply.headers.get("Link")
        following = link.removeprefix("<").partition(">")[0] if link else None
        if len(seen) > 60:
            break
    assert len(seen) == len(set(seen))
    assert seen == sorted(seen)
    assert {f"m{number:02}" for number in range(12)} <= set(seen)
