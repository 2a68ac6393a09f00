"""What every HTTP answer of the application has in common."""

import asyncio
import base64
from typing import Any

import pytest
from aiohttp import ClientPayloadError

from core.access import SYSTEM
from core.errors import SettingsError
from core.models import Scope
from tests.integration.modelyard.conftest import App, Serve
from tests.support.server import PASSWORD

JSON = {"Accept": "application/json"}


async def test_a_refusal_is_a_problem_document(app: App) -> None:
    answer = await app.get("/test/conflict", headers=JSON)
    assert answer.status == 409
    assert answer.content_type == "application/problem+json"
    problem = await answer.json()
    assert problem == {
        "type": "about:blank",  # a field of the error cannot take the place of a member
        "title": "Conflict",
        "status": 409,
        "detail": "it is so already",
        "code": "conflict",
        "name": "x",
        "instance": "/test/conflict",
        "request_id": answer.headers["X-Request-Id"],
    }


async def test_git_and_people_get_one_line_of_text(app: App) -> None:
    answer = await app.get("/test/conflict")
    assert (answer.status, answer.content_type) == (409, "text/plain")
    assert await answer.text() == "it is so already\n"


async def test_what_is_not_there(app: App) -> None:
    answer = await app.get("/nothing/here/at/all", headers=JSON)
    assert (answer.status, (await answer.json())["code"]) == (404, "not_found")
    answer = await app.get("/api/v1/nothing")
    assert (answer.status, answer.content_type) == (404, "application/problem+json")


async def test_a_wrong_method_says_which_are_right(app: App) -> None:
    async with app.session.post(app.url + "/healthz", headers=JSON) as answer:
        assert answer.status == 405
        assert answer.headers["Allow"] == "GET, HEAD"
        assert (await answer.json())["code"] == "method_not_allowed"


async def test_a_bug_shows_an_id_and_nothing_else(app: App, capsys: pytest.CaptureFixture[str]) -> None:
    answer = await app.get("/test/bug", headers=JSON)
    problem = await answer.json()
    assert (answer.status, problem["code"]) == (500, "internal_error")
    assert "hunter2" not in await answer.text()
    assert problem["request_id"] in problem["detail"]
    assert "RuntimeError" in capsys.readouterr().out


async def test_an_answer_that_broke_off_does_not_look_complete(app: App) -> None:
    with pytest.raises(ClientPayloadError):
        await app.get("/test/late")


async def test_a_json_body_is_bounded(serve: Serve) -> None:
    async with serve(max_json_bytes=1000) as app:
        async with app.session.post(app.url + "/test/body", data=b"x" * 1000) as answer:
            assert await answer.json() == {"bytes": 1000}
        async with app.session.post(app.url + "/test/body", data=b"x" * 1001, headers=JSON) as answer:
            assert (answer.status, (await answer.json())["code"]) == (413, "payload_too_large")


async def test_headers_of_every_answer(app: App) -> None:
    for path in ("/healthz", "/test/bug", "/nothing", "/api/v1/nothing"):
        headers = (await app.get(path)).headers
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert headers["X-Frame-Options"] == "DENY"
        assert "default-src 'none'" in headers["Content-Security-Policy"]
        assert headers["Server"] == "Modelyard"
        assert len(headers["X-Request-Id"]) == 16


async def test_the_challenge(app: App) -> None:
    for authorization in (None, "Basic broken", "Digest x", "Bearer myd_wrong", _basic("ann", "wrong")):
        headers = {"Authorization": authorization} if authorization else {}
        answer = await app.get("/ann/private/info/refs?service=git-upload-pack", headers=headers)
        assert answer.status == 401
        assert answer.headers["WWW-Authenticate"] == 'Basic realm="Modelyard", charset="UTF-8"'
    answer = await app.get("/api/v1/user", headers={"Authorization": "Basic broken"})
    assert (answer.status, (await answer.json())["code"]) == (401, "invalid_credentials")
    assert answer.headers["WWW-Authenticate"].startswith("Basic ")


async def test_a_request_id_is_taken_from_trusted_proxies_only(serve: Serve) -> None:
    given = {"X-Request-Id": "from-the-proxy.1"}
    async with serve() as app:
        assert (await app.get("/healthz", headers=given)).headers["X-Request-Id"] != "from-the-proxy.1"
    async with serve(trusted_proxies=("127.0.0.0/8",)) as app:
        assert (await app.get("/healthz", headers=given)).headers["X-Request-Id"] == "from-the-proxy.1"
        for bad in ("", "a b", "x" * 65, "-leading", "a\tb"):
            answer = await app.get("/healthz", headers={"X-Request-Id": bad})
            assert len(answer.headers["X-Request-Id"]) == 16


FORWARDED: list[tuple[dict[str, str], dict[str, Any]]] = [
    ({}, {"address": "127.0.0.1"}),
    ({"X-Forwarded-For": "192.0.2.7"}, {"address": "192.0.2.7", "inside": False}),
    # What the client made up stands before what our proxy added.
    ({"X-Forwarded-For": "10.0.0.1, 192.0.2.7"}, {"address": "192.0.2.7"}),
    ({"X-Forwarded-For": "192.0.2.7, 127.0.0.9"}, {"address": "192.0.2.7"}),
    ({"X-Forwarded-For": "unknown, garbage"}, {"address": "127.0.0.1"}),
    ({"X-Forwarded-For": "192.0.2.7:4711"}, {"address": "192.0.2.7"}),
    ({"X-Forwarded-For": "[2001:db8::7]:4711"}, {"address": "2001:db8::7"}),
    ({"X-Forwarded-For": "::ffff:192.0.2.7"}, {"address": "192.0.2.7"}),
    (
        {
            "X-Forwarded-For": "192.0.2.7",
            "X-Forwarded-Proto": "https",
            "X-Forwarded-Host": "models.example.org",
        },
        {"base": "https://models.example.org"},
    ),
    (
        {
            "X-Forwarded-Proto": "https",
            "X-Forwarded-Host": "evil.example, models.example.org",
            "X-Forwarded-Port": "8443",
            "X-Forwarded-Prefix": "/hub/",
        },
        {"base": "https://models.example.org:8443/hub"},
    ),
    ({"X-Forwarded-Proto": "javascript", "X-Forwarded-Host": "a/b"}, {"base": "http://{own}"}),
    ({"X-Forwarded-Host": "m.example.org", "X-Forwarded-Prefix": "//evil"}, {"base": "http://m.example.org"}),
    (
        {"Forwarded": 'for=10.9.9.9, for="[2001:db8::7]:80";proto=https;host=models.example.org'},
        {"address": "2001:db8::7", "base": "https://models.example.org"},
    ),
]


@pytest.mark.parametrize(("headers", "expected"), FORWARDED)
async def test_a_trusted_proxy_speaks_for_its_clients(
    serve: Serve, headers: dict[str, str], expected: dict[str, Any]
) -> None:
    async with serve(trusted_proxies=("127.0.0.0/8", "::1")) as app:
        seen = await (await app.get("/test/client", headers=headers)).json()
        own = app.url.removeprefix("http://")
    expected = {
        name: value.format(own=own) if isinstance(value, str) else value for name, value in expected.items()
    }
    assert {name: seen[name] for name in expected} == expected


@pytest.mark.parametrize(("headers", "expected"), FORWARDED)
async def test_nobody_else_does(app: App, headers: dict[str, str], expected: dict[str, Any]) -> None:
    seen = await (await app.get("/test/client", headers=headers)).json()
    assert seen == {"address": "127.0.0.1", "base": app.url, "inside": not headers}


async def test_a_public_url_wins_and_a_bad_host_loses(serve: Serve, app: App) -> None:
    seen = await (await app.get("/test/client", headers={"Host": "evil/<script>"})).json()
    assert seen["base"] == app.url
    async with serve(public_url="https://models.example.org/hub/") as published:
        seen = await (await published.get("/test/client")).json()
        assert seen["base"] == "https://models.example.org/hub"


async def test_a_bad_proxy_network_names_the_setting(serve: Serve) -> None:
    with pytest.raises(SettingsError, match="trusted_proxies"):
        async with serve(trusted_proxies=("proxy.example.org",)):
            pass


async def test_requests_are_limited_by_address_and_by_actor(serve: Serve) -> None:
    async with serve(anonymous_requests_per_minute=3, requests_per_minute=5) as app:
        answers = [await app.get("/api/v1/nothing") for _ in range(4)]
        assert [answer.status for answer in answers] == [404, 404, 404, 429]
        assert answers[0].headers["RateLimit-Policy"] == '"address";q=3;w=60'
        assert answers[0].headers["RateLimit"].startswith('"address";r=2;t=')
        assert 1 <= int(answers[3].headers["Retry-After"]) <= 20
        problem = await answers[3].json()
        assert (problem["code"], problem["retry_after"]) == (
            "too_many_requests",
            int(answers[3].headers["Retry-After"]),
        )
        # The others are not limited: somebody who is logged in, what is not REST, git.
        await app.services.accounts.create_user(SYSTEM, "ann", password=PASSWORD)
        statuses = [
            (await app.get("/api/v1/nothing", headers=_login("ann", PASSWORD))).status for _ in range(6)
        ]
        assert statuses == [404] * 5 + [429]
        assert (await app.get("/healthz")).status == 200
        git = await app.get("/ann/x/info/refs?service=git-upload-pack", headers=_login("ann", PASSWORD))
        assert git.status == 404


async def test_guessing_passwords_is_limited_everywhere_and_tokens_still_work(serve: Serve) -> None:
    async with serve(anonymous_requests_per_minute=4) as app:
        await app.services.accounts.create_user(SYSTEM, "ann", password=PASSWORD)
        secret, _ = await app.services.keyring.mint_token(SYSTEM, "ann", "test", Scope.READ)
        path = "/ann/x/info/refs?service=git-upload-pack"
        statuses = [
            (await app.get(path, headers=_login(f"user{number}", "wrong"))).status for number in range(6)
        ]
        assert statuses == [401] * 4 + [429] * 2
        assert (await app.get(path, headers=_login("ann", PASSWORD))).status == 429
        assert (await app.get(path, headers=_login("ann", secret))).status == 404


async def test_a_client_that_leaves_cancels_its_handler(app: App) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", int(app.url.rpartition(":")[2]))
    writer.write(b"POST /test/body HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nabc")
    await writer.drain()
    await _until(app, in_flight=1)
    writer.close()
    await _until(app, in_flight=0)
    assert await reader.read() == b""


async def test_request_bytes_that_are_not_http(app: App) -> None:
    port = int(app.url.rpartition(":")[2])
    for request in (
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
        b"GET /" + b"a" * 20_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nX-Big: " + b"b" * 20_000 + b"\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\n" + b"".join(b"X-%d: 1\r\n" % n for n in range(200)) + b"\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost : x\r\n\r\n",
    ):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(request)
        async with asyncio.timeout(30):
            answer = await reader.read()
        writer.close()
        assert answer.split(b" ", 2)[1] == b"400", (request[:40], answer[:100])
    assert (await app.get("/healthz")).status == 200


async def _until(app: App, *, in_flight: int) -> None:
    async with asyncio.timeout(30):
        while app.drain.in_flight != in_flight:  # noqa: ASYNC110 - nothing signals it
            await asyncio.sleep(0.01)


def _login(user: str, secret: str) -> dict[str, str]:
    return {"Authorization": _basic(user, secret)}


def _basic(user: str, secret: str) -> str:
    return "Basic " + base64.b64encode(f"{user}:{secret}".encode()).decode()
