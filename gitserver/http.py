"""Smart HTTP (gitprotocol-http(5)), versions 0, 1 and 2, as a thin adapter of `GitService`."""

import asyncio
import os
import time
from collections.abc import Awaitable, Callable
from typing import Protocol, get_args

import structlog
from aiohttp import ClientPayloadError, web
from aiohttp.abc import AbstractStreamWriter
from aiohttp.http import StreamWriter
from aiohttp.http_exceptions import PayloadEncodingError

from core.access import Actor, Permission
from core.errors import AuthenticationRequired, BadRequest, ModelyardError, PayloadTooLarge, ProtocolError
from core.models import Transport
from core.names import parse_address
from core.repositories import Repositories, RepositoryInfo
from gitserver.process import PIPE_BYTES
from gitserver.protocol import FLUSH, parse_protocol, pkt_line
from gitserver.service import GitService, Service
from storage.sendfile import CannotSendFile, send_file

log = structlog.get_logger(__name__)

CHALLENGE = 'Basic realm="Modelyard", charset="UTF-8"'
_NO_CACHE = {"Cache-Control": "no-cache, max-age=0, must-revalidate", "X-Content-Type-Options": "nosniff"}
_DUMB = "Modelyard speaks Git's smart HTTP protocol only; use git 1.6.6 or newer.\n"

# A client that sends or takes nothing for this long in the middle of a body is taken for gone.
_STALL_SECONDS = 300


class UnsupportedMediaType(ModelyardError):
    code = "unsupported_media_type"
    status = 415


class TransferObserver(Protocol):
    """Counts what goes through; for metrics."""

    def transfer(
        self, service: str, transport: str, outcome: str, received: int, sent: int, seconds: float
    ) -> None:
        """Called once at the end of each request that carries Git's bytes."""
        ...


class GitHttp:
    """The Git routes."""

    def __init__(
        self,
        service: GitService,
        repositories: Repositories,
        authenticate: Callable[[web.Request], Awaitable[Actor]],
        *,
        max_pack_bytes: int,
        observer: TransferObserver | None = None,
    ) -> None:
        """`authenticate` raises `InvalidCredentials` or returns the actor, anonymous without credentials."""
        self._service = service
        self._repositories = repositories
        self._authenticate = authenticate
        self._max_pack_bytes = max_pack_bytes
        self._observer = observer

    def routes(self) -> list[web.RouteDef]:
        """What to add to an application, before any route that takes every path."""
        return [
            web.get("/{path:.+}/info/refs", self._info_refs, allow_head=False),
            web.post("/{path:.+}/{service:git-upload-pack|git-receive-pack}", self._rpc),
            web.get("/{path:.+}/HEAD", self._dumb, allow_head=False),
            web.get("/{path:.+}/objects/{tail:(info|pack|[0-9a-f]{2})/.+}", self._dumb, allow_head=False),
        ]

    async def _dumb(self, _request: web.Request) -> web.Response:
        return web.Response(status=403, text=_DUMB, headers=_NO_CACHE)

    async def _info_refs(self, request: web.Request) -> web.StreamResponse:
        asked = request.query.get("service")
        service = next((name for name in get_args(Service) if name == asked), None)
        if service is None:
            return await self._dumb(request)

        async def serve(repository: RepositoryInfo, actor: Actor, writer: _Writer) -> None:
            protocol = parse_protocol(request.headers.get("Git-Protocol"))
            if service == "git-receive-pack" or protocol != 2:
                await writer.write(pkt_line(f"# service={service}\n".encode()) + FLUSH)
            await self._service.advertise(repository, service, protocol, writer, client=actor.client)

        return await self._answer(request, service, f"application/x-{service}-advertisement", serve)

    async def _rpc(self, request: web.Request) -> web.StreamResponse:
        service: Service = (
            "git-receive-pack" if request.match_info["service"] == "git-receive-pack" else "git-upload-pack"
        )

        async def serve(repository: RepositoryInfo, actor: Actor, writer: _Writer) -> None:
            if request.content_type != f"application/x-{service}-request":
                raise UnsupportedMediaType(f"expected application/x-{service}-request")
            if (request.content_length or 0) > self._max_pack_bytes + (1 << 20):
                raise PayloadTooLarge(f"a push may weigh {self._max_pack_bytes} bytes at most")
            reader = _Reader(request)
            protocol = parse_protocol(request.headers.get("Git-Protocol"))
            if service == "git-upload-pack":
                await self._service.upload_pack(
                    repository, protocol, reader, writer, stateless=True, client=actor.client
                )
            else:
                await self._service.receive_pack(
                    repository, actor, Transport.HTTP, protocol, reader, writer, stateless=True
                )

        return await self._answer(request, service, f"application/x-{service}-result", serve)

    async def _answer(
        self,
        request: web.Request,
        service: Service,
        content_type: str,
        serve: "Callable[[RepositoryInfo, Actor, _Writer], Awaitable[None]]",
    ) -> web.StreamResponse:
        writer = _Writer(request, content_type)
        started = time.monotonic()
        outcome = "failed"
        try:
            actor = await self._authenticate(request)
            repository = await self._open(request, actor, service)
            await serve(repository, actor, writer)
            outcome = "ok"
            return await writer.finish()
        except ConnectionError:
            outcome = "gone"
            raise
        except ModelyardError as error:
            outcome = error.code
            if writer.started:
                # The client is in the middle of an answer that cannot be completed: let it see the break.
                log.warning("git.broken_off", path=request.path, code=error.code, error=error.message)
                if request.transport is not None:
                    request.transport.abort()
                return writer.response
            return _render(error)
        finally:
            if self._observer is not None:
                self._observer.transfer(
                    service, "http", outcome, writer.received, writer.sent, time.monotonic() - started
                )

    async def _open(self, request: web.Request, actor: Actor, service: Service) -> RepositoryInfo:
        address = parse_address(request.match_info["path"])
        if service == "git-receive-pack":
            return await self._repositories.open_or_create(actor, address, Transport.HTTP)
        return await self._repositories.open(actor, address, Permission.READ)


class _Reader:
    """A request body as a `ByteReader`; Content-Encoding and chunking are undone by aiohttp."""

    def __init__(self, request: web.Request) -> None:
        self._content = request.content

    async def read(self, n: int) -> bytes:
        try:
            async with asyncio.timeout(_STALL_SECONDS):
                return await self._content.read(n)
        except TimeoutError as error:
            raise ConnectionAbortedError("the client stopped sending") from error
        except (PayloadEncodingError, ClientPayloadError, web.RequestPayloadError) as error:
            raise ProtocolError("the request body cannot be decoded") from error


class _Writer:
    """A response as a `ByteWriter`: its head goes out with the first byte, so that errors come before.

    Files go past aiohttp, which makes this the one place that frames chunks (RFC 9112 section 7.1) itself.
    """

    def __init__(self, request: web.Request, content_type: str) -> None:
        self._request = request
        self._payload: AbstractStreamWriter | None = None
        self.response = web.StreamResponse(headers={**_NO_CACHE, "Content-Type": content_type})
        self.started = False
        self.sent = 0

    @property
    def received(self) -> int:
        """Bytes of the body that were read, as they came over the wire."""
        return self._request.content.total_bytes

    async def _start(self) -> None:
        if not self.started:
            self.started = True
            self._payload = await self.response.prepare(self._request)

    async def write_file(self, descriptor: int, offset: int, count: int) -> None:
        await self._start()
        transport, payload = self._request.transport, self._payload
        if transport is None or not isinstance(payload, StreamWriter):
            raise ConnectionResetError("the client is gone")
        if payload.chunked:
            transport.write(b"%x\r\n" % count)
        try:
            await send_file(transport, descriptor, offset, count, stall_seconds=_STALL_SECONDS)
        except CannotSendFile:  # TLS, for one
            await self._copy_file(transport, payload, descriptor, offset, count)
        if payload.chunked:
            transport.write(b"\r\n")
        payload.output_size += count
        self.sent += count

    async def _copy_file(
        self, transport: asyncio.Transport, payload: StreamWriter, descriptor: int, offset: int, count: int
    ) -> None:
        end = offset + count
        while offset < end:
            data = await asyncio.to_thread(os.pread, descriptor, min(PIPE_BYTES, end - offset), offset)
            if not data:
                raise ConnectionAbortedError("a file was cut while it was sent")
            transport.write(data)
            offset += len(data)
            try:
                async with asyncio.timeout(_STALL_SECONDS):
                    await payload.drain()
            except TimeoutError as error:
                raise ConnectionAbortedError("the client stopped reading") from error

    async def write(self, data: bytes) -> None:
        await self._start()
        self.sent += len(data)
        try:
            async with asyncio.timeout(_STALL_SECONDS):
                await self.response.write(data)
        except TimeoutError as error:
            raise ConnectionAbortedError("the client stopped reading") from error

    async def finish(self) -> web.StreamResponse:
        await self._start()
        await self.response.write_eof()
        return self.response


def _render(error: ModelyardError) -> web.Response:
    """Plain text: git shows it to its user behind `remote: `."""
    headers = dict(_NO_CACHE)
    if isinstance(error, AuthenticationRequired):
        headers["WWW-Authenticate"] = CHALLENGE
    if "retry_after" in error.fields:
        headers["Retry-After"] = str(error.fields["retry_after"])
    response = web.Response(status=error.status, text=f"{error.message}\n", headers=headers)
    if isinstance(error, BadRequest | PayloadTooLarge):
        response.force_close()  # what is left of the body is not worth reading
    return response
