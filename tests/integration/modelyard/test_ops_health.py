"""/healthz, /readyz and /metrics, and who may see what."""

import asyncio
import os
import urllib.request
from pathlib import Path

import pytest

from core.access import SYSTEM
from core.models import Scope
from core.settings import HttpSettings, ServerSettings, Settings
from modelyard.services import open_services
from tests.integration.modelyard.conftest import App, Serve
from tests.integration.modelyard.test_ops_process import sample
from tests.support.server import PASSWORD, running_server

OUTSIDE = {"X-Forwarded-For": "192.0.2.7"}


async def test_ready_and_every_check_named(app: App) -> None:
    answer = await app.get("/readyz")
    assert (answer.status, await answer.json()) == (
        200,
        {"status": "ready", "checks": {"database": "ok", "store": "ok", "cache": "ok"}},
    )


async def test_a_broken_part_is_named_and_recovers(app: App) -> None:
    cache = app.services.settings.cache_dir
    cache.rename(cache.with_name("away"))
    cache.write_text("not a directory")
    answer = await app.get("/readyz")
    body = await answer.json()
    assert (answer.status, body["status"]) == (503, "unready")
    assert body["checks"]["database"] == body["checks"]["store"] == "ok"
    assert "cache cannot be written" in body["checks"]["cache"]
    assert (await app.get("/healthz")).status == 200
    cache.unlink()
    cache.with_name("away").rename(cache)
    assert (await app.get("/readyz")).status == 503, "asked again within the second"
    await asyncio.sleep(1.1)
    assert (await app.get("/readyz")).status == 200


async def test_a_database_that_is_gone(app: App) -> None:
    await app.services.database.close()
    (app.services.settings.data_dir / "modelyard.db").unlink()
    (app.services.settings.data_dir / "modelyard.db").mkdir()
    answer = await app.get("/readyz")
    assert (answer.status, (await answer.json())["checks"]["database"]) == (
        503,
        "the database is not available; try again",
    )
    assert "modelyard_maintenance_queue{" in await (await app.get("/metrics")).text()


async def test_draining_is_not_ready(app: App) -> None:
    app.drain.started = True
    answer = await app.get("/readyz")
    assert (answer.status, (await answer.json())["status"]) == (503, "draining")
    assert answer.headers["Connection"] == "close"


@pytest.mark.parametrize("trusted", [(), ("127.0.0.1",)], ids=["unknown proxy", "known proxy"])
async def test_outside_nobody_sees_details(serve: Serve, trusted: tuple[str, ...]) -> None:
    async with serve(trusted_proxies=trusted) as app:
        accounts, keyring = app.services.accounts, app.services.keyring
        await accounts.create_user(SYSTEM, "ann", password=PASSWORD)
        await accounts.create_user(SYSTEM, "root-user", password=PASSWORD, is_admin=True)
        assert await (await app.get("/readyz", headers=OUTSIDE)).json() == {"status": "ready"}
        assert (await app.get("/metrics", headers=OUTSIDE)).status == 401
        for user, scope, expected in (
            ("ann", Scope.ADMIN, 403),
            ("root-user", Scope.READ, 403),
            ("root-user", Scope.ADMIN, 200),
        ):
            secret, _ = await keyring.mint_token(SYSTEM, user, "test", scope)
            bearer = {**OUTSIDE, "Authorization": f"Bearer {secret}"}
            assert (await app.get("/metrics", headers=bearer)).status == expected
        if trusted:
            inside = {"X-Forwarded-For": "127.0.0.1"}
            assert (await app.get("/metrics", headers=inside)).status == 200


async def test_requests_are_counted_by_route(app: App) -> None:
    for path in ("/test/large", "/test/conflict", "/test/bug", "/nothing"):
        await app.get(path)
    text = await (await app.get("/metrics")).text()
    name = "modelyard_http_requests_total"
    assert sample(text, name, route="/test/{what}", status="200", method="GET") == 1
    assert sample(text, name, route="/test/{what}", status="409") == 1
    assert sample(text, name, route="/test/{what}", status="500") == 1
    assert sample(text, name, route="unmatched", status="404") == 1
    assert sample(text, "modelyard_http_request_seconds_count", route="/test/{what}") == 3
    assert sample(text, "modelyard_http_in_flight") == 1
    assert "/test/large" not in text
    for line in text.splitlines():
        assert line.startswith("#") or 'worker="1"' in line, line


async def test_two_applications_do_not_share_metrics(serve: Serve, tmp_path: Path) -> None:
    async with serve() as first:
        await first.get("/test/large")
        async with serve() as second:
            text = await (await second.get("/metrics")).text()
    assert sample(text, "modelyard_http_requests_total", route="/test/{what}") == 0


async def test_git_over_both_transports_is_counted(tmp_path: Path) -> None:
    async with running_server(tmp_path) as server:
        await server.add_user("ann")
        await server.add_key("ann")
        git = server.git(tmp_path, user="ann")
        git("init", "-q", "work")
        work = git.at(tmp_path / "work")
        work.commit({"a": os.urandom(100_000)})
        work("push", "-q", server.url("ann/demo"), "main")
        work.commit({"b": os.urandom(100_000)})
        work("push", "-q", server.ssh_url("ann/demo"), "main")
        git("clone", "-q", server.url("ann/demo"), "one")
        git("clone", "-q", server.ssh_url("ann/demo"), "two")
        text = read_text(server.url("metrics"))
    transfers, traffic = "modelyard_git_transfers_total", "modelyard_git_bytes_total"
    for transport in ("http", "ssh"):
        assert sample(text, transfers, transport=transport, service="git-receive-pack", outcome="ok") >= 1
        assert (
            sample(text, traffic, transport=transport, service="git-receive-pack", direction="in") > 100_000
        )
        assert (
            sample(text, traffic, transport=transport, service="git-upload-pack", direction="out") > 200_000
        )
    assert sample(text, "modelyard_pushes_total") == 2
    assert sample(text, "modelyard_packs_received_total") >= 1
    assert sample(text, "modelyard_pack_received_bytes_total") > 100_000
    assert sample(text, "modelyard_git_children") == 0
    assert sample(text, "modelyard_snapshot_misses_total") >= 1
    assert sample(text, "modelyard_cache_bytes") > 200_000
    assert sample(text, "process_resident_memory_bytes") > 10_000_000


def read_text(url: str) -> str:
    with urllib.request.urlopen(url, timeout=60) as answer:
        body: bytes = answer.read()
    return body.decode()


async def test_services_open_twice_on_one_directory(tmp_path: Path) -> None:
    settings = Settings(
        server=ServerSettings(data=str(tmp_path / "d")), http=HttpSettings(listen="127.0.0.1:0")
    )
    async with open_services(settings) as one, open_services(settings) as two:
        await one.accounts.create_user(SYSTEM, "ann")
        assert (await two.accounts.get("ann")).name == "ann"
        assert one.sealing_key == two.sealing_key
