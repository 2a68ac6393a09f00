"""A REST API in this process, on a real socket, and a client that sends URLs exactly as they are written."""

import base64
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import Any

import msgspec
from aiohttp import ClientSession, encode_basic_auth, web
from multidict import CIMultiDictProxy
from yarl import URL

from core.access import SYSTEM
from core.models import Scope
from core.settings import AuthSettings, DatabaseSettings, HttpSettings, ServerSettings, Settings
from modelyard.http import make_app, make_runner
from modelyard.services import Services, open_services

API = "/api/v1"
PASSWORD = "correct horse battery"


@dataclass(frozen=True, slots=True)
class Reply:
    """What the server answered."""

    status: int
    headers: CIMultiDictProxy[str]
    body: bytes

    @property
    def json(self) -> Any:
        return msgspec.json.decode(self.body)

    @property
    def code(self) -> str:
        """The code of a refusal, which must be a complete problem document."""
        assert self.headers["Content-Type"].startswith("application/problem+json"), self.body
        problem = self.json
        assert problem["status"] == self.status
        assert problem["title"]
        assert problem["detail"]
        return str(problem["code"])


@dataclass(slots=True)
class Caller:
    """Sends requests as one actor."""

    session: ClientSession
    base: str
    headers: dict[str, str] = field(default_factory=dict)

    async def __call__(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        data: bytes | None = None,
        headers: dict[str, str] | None = None,
    ) -> Reply:
        """Sends one request; `path` comes below `/api/v1`, or is a whole URL, and is sent as it is."""
        sent = {**self.headers, **(headers or {})}
        if body is not None:
            data = msgspec.json.encode(body)
            sent.setdefault("Content-Type", "application/json")
        url = path if path.startswith("http") else self.base + API + path
        async with self.session.request(
            # aiohttp warns of large bytes, which it would send in one piece.
            method,
            URL(url, encoded=True),
            data=BytesIO(data) if data else data,
            headers=sent,
            allow_redirects=False,
        ) as response:
            return Reply(response.status, response.headers, await response.read())

    async def ok(self, method: str, path: str, body: Any = None, **rest: Any) -> Any:
        """Sends one request that must succeed; returns the decoded answer, None for an empty one."""
        reply = await self(method, path, body, **rest)
        assert reply.status < 300, (method, path, reply.status, reply.body)
        return reply.json if reply.body else None

    async def pages(self, path: str) -> list[list[Any]]:
        """All pages of a list, by the `Link` headers."""
        found = []
        following: str | None = path
        while following is not None:
            reply = await self("GET", following)
            assert reply.status == 200, (following, reply.body)
            found.append(reply.json)
            link = reply.headers.get("Link")
            following = link.removeprefix("<").removesuffix('>; rel="next"') if link else None
        return found


@dataclass(slots=True)
class ApiServer:
    """A running API. The site administrator is `root`."""

    services: Services
    base: str
    session: ClientSession
    anonymous: Caller
    root: Caller

    def bearer(self, token: str) -> Caller:
        return Caller(self.session, self.base, {"Authorization": f"Bearer {token}"})

    def basic(self, user: str, secret: str) -> Caller:
        return Caller(self.session, self.base, {"Authorization": encode_basic_auth(user, secret)})

    async def user(self, name: str, *, admin: bool = False) -> Caller:
        """Makes a user, without a password, who calls with a token of scope `admin`."""
        await self.services.accounts.create_user(SYSTEM, name, is_admin=admin)
        return await self.token(name)

    async def token(self, name: str, scope: Scope = Scope.ADMIN, **options: Any) -> Caller:
        """A caller with a new token of a user."""
        secret, _ = await self.services.keyring.mint_token(SYSTEM, name, "test", scope, **options)
        return self.bearer(secret)

    async def repository(self, owner: Caller, name: str, **members: Any) -> str:
        """Makes a repository with `README.md` and `src/main.py` on `main`; returns its path in the API."""
        me = await owner.ok("GET", "/user")
        made = await owner.ok("POST", "/repositories", {"owner": me["name"], "name": name, **members})
        path = f"/repositories/{made['type']}s/{made['owner']}/{made['name']}"
        await commit(owner, path, {"README.md": b"# hello\n", "src/main.py": b"print(1)\n"})
        return path


async def commit(
    caller: Caller, repository: str, files: dict[str, bytes], message: str = "a change", **members: Any
) -> Any:
    """Writes files in one commit on `main`, or on `branch`."""
    operations = [
        {
            "action": "put",
            "path": path,
            "content": base64.b64encode(content).decode(),
            "encoding": "base64",
        }
        for path, content in files.items()
    ]
    body = {"branch": "main", "message": message, "operations": operations, **members}
    return await caller.ok("POST", f"{repository}/commits", body)


def api_settings(
    directory: Path, database_url: str, *, auth: AuthSettings | None = None, **http: Any
) -> Settings:
    """Settings of a server that keeps everything in `directory`, on a migrated database."""
    return Settings(
        server=ServerSettings(data=str(directory)),
        database=DatabaseSettings(url=database_url, migrate=False),
        http=HttpSettings(**{"requests_per_minute": 0, "anonymous_requests_per_minute": 0, **http}),
        auth=auth or AuthSettings(),
    )


@asynccontextmanager
async def running_api(settings: Settings) -> AsyncIterator[ApiServer]:
    """The API on a free port of the loopback interface."""
    async with open_services(settings) as services, ClientSession(auto_decompress=True) as session:
        app = make_app(services)
        runner = make_runner(app, idle_seconds=30)
        await runner.setup()
        try:
            site = web.TCPSite(runner, "127.0.0.1", 0)
            await site.start()
            base = f"http://127.0.0.1:{runner.addresses[0][1]}"
            anonymous = Caller(session, base)
            server = ApiServer(services, base, session, anonymous, anonymous)
            server.root = await server.user("root-user", admin=True)
            yield server
        finally:
            await runner.cleanup()
