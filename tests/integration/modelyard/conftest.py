"""The application in this process, with a few routes that misbehave on purpose."""

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from aiohttp import ClientResponse, ClientSession, web

from core.access import SYSTEM
from core.errors import Conflict
from core.settings import HttpSettings, ServerSettings, Settings
from modelyard.context import base_url, client_of
from modelyard.drain import Drain
from modelyard.http import make_app, make_runner
from modelyard.services import Services, open_services
from tests.support.server import PASSWORD


@dataclass
class App:
    """A served application."""

    url: str
    services: Services
    session: ClientSession
    drain: Drain

    async def get(self, path: str, **options: Any) -> ClientResponse:
        """The whole answer, body included."""
        async with self.session.get(self.url + path, **options) as response:
            await response.read()
            return response


Serve = Callable[..., AbstractAsyncContextManager[App]]


@pytest.fixture
def serve(tmp_path: Path) -> Serve:
    """`async with serve(trusted_proxies=…) as app`: takes settings of `[http]`."""

    @asynccontextmanager
    async def serving(**http: Any) -> AsyncIterator[App]:
        http = {"requests_per_minute": 0, "anonymous_requests_per_minute": 0, **http}
        settings = Settings(server=ServerSettings(data=str(tmp_path / "data")), http=HttpSettings(**http))
        async with open_services(settings) as services, ClientSession() as session:
            drain = Drain()
            app = make_app(services, drain=drain)
            app.router.add_get("/test/{what}", _misbehave)
            app.router.add_get("/test/{what}/info", _misbehave)
            app.router.add_post("/test/body", _read_body)
            runner = make_runner(app, idle_seconds=10)
            await runner.setup()
            try:
                await web.TCPSite(runner, "127.0.0.1", 0).start()
                yield App(f"http://127.0.0.1:{runner.addresses[0][1]}", services, session, drain)
            finally:
                await runner.cleanup()

    return serving


@pytest.fixture
async def app(serve: Serve) -> AsyncIterator[App]:
    """The application without any limit or proxy, with the users `ann` and, an administrator, `root-user`."""
    async with serve() as served:
        await served.services.accounts.create_user(SYSTEM, "ann", password=PASSWORD)
        await served.services.accounts.create_user(SYSTEM, "root-user", password=PASSWORD, is_admin=True)
        yield served


async def _misbehave(request: web.Request) -> web.StreamResponse:
    match request.match_info["what"]:
        case "client":
            client = client_of(request)
            return web.json_response(
                {"address": client.address, "base": base_url(request), "inside": client.inside}
            )
        case "bug":
            raise RuntimeError("hunter2hunter2 must not be shown")
        case "conflict":
            raise Conflict("it is so already", name="x", type="mine")
        case "late":
            response = web.StreamResponse()
            await response.prepare(request)
            await response.write(b"half")
            raise RuntimeError("too late for a status")
        case "large":
            return web.Response(body=b"x" * 1000)
        case _:
            raise web.HTTPNotFound


async def _read_body(request: web.Request) -> web.Response:
    return web.json_response({"bytes": len(await request.read())})
