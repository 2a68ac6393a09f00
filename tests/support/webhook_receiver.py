"""A real receiver of webhooks that does what a test wants, and remembers every request that it saw.

async with running_receiver() as receiver:
    receiver.behave = answering(500)
    ...
    receiver.requests[0].verify(secret)
"""

import asyncio
import hmac
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import msgspec
from aiohttp import web
from standardwebhooks.webhooks import Webhook


@dataclass(slots=True)
class Received:
    """One request as it arrived; `status` is None until it was answered, or for good if it never was."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes
    at: float
    status: int | None = None

    @property
    def delivery_id(self) -> str:
        return self.headers["webhook-id"]

    @property
    def attempt(self) -> tuple[str, int]:
        """The delivery and the number of the attempt."""
        return self.delivery_id, int(self.headers["X-Modelyard-Attempt"])

    @property
    def event(self) -> str:
        return self.headers["X-Modelyard-Event"]

    @property
    def json(self) -> Any:
        return msgspec.json.decode(self.body)

    @property
    def data(self) -> Any:
        return self.json["data"]

    @property
    def repository(self) -> str:
        """The path of the repository that it is about."""
        return str(self.json["repository"]["path"])

    @property
    def accepted(self) -> bool:
        return self.status is not None and 200 <= self.status < 300

    def verify(self, secret: str) -> None:
        """Raises unless the signatures are good, by the reference library and by a plain HMAC."""
        Webhook(secret).verify(self.body, dict(self.headers))
        plain = hmac.new(secret.encode(), self.body, "sha256").hexdigest()
        assert self.headers["X-Hub-Signature-256"] == f"sha256={plain}"


Behaviour: TypeAlias = Callable[[Received], Awaitable[web.StreamResponse]]


def answering(status: int, *, text: str = "", headers: Mapping[str, str] | None = None) -> Behaviour:
    """Always the same answer."""

    async def behave(received: Received) -> web.StreamResponse:
        return web.Response(status=status, text=text, headers=headers)

    return behave


def silent(seconds: float = 30.0) -> Behaviour:
    """Keeps the client waiting; it gives up, or gets a 200 in the end."""

    async def behave(received: Received) -> web.StreamResponse:
        await asyncio.sleep(seconds)
        return web.Response()

    return behave


def one_after_the_other(*behaviours: Behaviour) -> Behaviour:
    """Another behaviour for each request; the last one stays."""
    left = list(behaviours)

    async def behave(received: Received) -> web.StreamResponse:
        return await (left.pop(0) if len(left) > 1 else left[0])(received)

    return behave


@dataclass(slots=True)
class Receiver:
    """A running receiver; `behave` may be changed at any time."""

    base: str
    behave: Behaviour = field(default_factory=lambda: answering(200))
    requests: list[Received] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"{self.base}/hook"

    @property
    def port(self) -> int:
        return int(self.base.rpartition(":")[2])

    @property
    def accepted(self) -> list[Received]:
        """The requests that it answered with 2xx, in the order in which they came."""
        return [one for one in self.requests if one.accepted]

    async def wait_for(self, count: int, *, seconds: float = 60) -> list[Received]:
        """Waits until it has accepted so many."""
        await self._wait(lambda: len(self.accepted) >= count, f"{count} accepted requests", seconds)
        return self.accepted

    async def wait_for_requests(self, count: int, *, seconds: float = 60) -> None:
        """Waits until so many have come, whatever becomes of them."""
        await self._wait(lambda: len(self.requests) >= count, f"{count} requests", seconds)

    async def _wait(self, condition: Callable[[], bool], what: str, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline, f"not within {seconds} seconds: {what}"
            await asyncio.sleep(0.01)

    async def handle(self, request: web.Request) -> web.StreamResponse:
        received = Received(
            request.method, request.path_qs, request.headers.copy(), await request.read(), time.time()
        )
        self.requests.append(received)
        answer = await self.behave(received)
        # A client that gave up cancels the handler, so that it never gets here.
        received.status = answer.status
        return answer


@asynccontextmanager
async def running_receiver(
    *, port: int = 0, context: ssl.SSLContext | None = None
) -> AsyncIterator[Receiver]:
    """A receiver on a port of 127.0.0.1, with TLS when there is a context."""
    app = web.Application(client_max_size=64 * 1024**2)
    runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.1, access_log=None)
    scheme = "https" if context else "http"
    receiver = Receiver("")
    app.router.add_route("*", "/{path:.*}", receiver.handle)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", port, ssl_context=context)
        await site.start()
        receiver.base = f"{scheme}://127.0.0.1:{runner.addresses[0][1]}"
        yield receiver
    finally:
        await runner.cleanup()
