"""The bytes of objects over HTTP: the basic transfer, and verification.

https://github.com/git-lfs/git-lfs/blob/main/docs/api/basic-transfers.md
"""

import asyncio
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

import msgspec
import structlog
from aiohttp import web

from core.access import Actor, Permission
from core.errors import ModelyardError
from lfs.downloads import Download
from lfs.errors import InvalidOid, WrongBytes
from lfs.http_face import PREFIX, Face, reply
from lfs.links import Use
from lfs.pointer import is_oid
from lfs.ranges import Range, select_range
from storage.protocol import StoreUnavailable
from storage.sendfile import CannotSendFile, send_file

log = structlog.get_logger(__name__)


class TransferObserver(Protocol):
    """Counts what goes through; for metrics."""

    def lfs_transfer(self, operation: str, outcome: str, size: int, seconds: float) -> None:
        """Called at the end of each `upload` or `download`, with the bytes that moved."""
        ...


class LfsTransfers:
    """The routes of objects."""

    def __init__(self, face: Face, observer: TransferObserver | None = None) -> None:
        self._face = face
        self._service = face.service
        self._observer = observer

    def routes(self) -> list[web.RouteDef]:
        answering = self._face.answering
        return [
            web.post(f"{PREFIX}/objects/verify", answering(self._verify)),
            web.get(f"{PREFIX}/objects/{{oid}}", answering(self._download), allow_head=False),
            web.head(f"{PREFIX}/objects/{{oid}}", answering(self._describe)),
            web.put(f"{PREFIX}/objects/{{oid}}", answering(self._upload)),
        ]

    async def _describe(self, request: web.Request) -> web.StreamResponse:
        oid = _oid(request)
        repository_id, _ = await self._reader(request, oid)
        stored = await self._service.find(repository_id, oid)
        response = _head(oid, Range(0, stored.size, stored.size))
        await response.prepare(request)
        await response.write_eof()
        return response

    async def _download(self, request: web.Request) -> web.StreamResponse:
        oid = _oid(request)
        repository_id, actor = await self._reader(request, oid)
        async with self._service.open_download(repository_id, actor, oid) as download:
            headers = request.headers
            wanted = select_range(headers.get("Range"), headers.get("If-Range"), _etag(oid), download.size)
            response, moved = _head(oid, wanted), _Moved()
            try:
                with self._observed("download", moved):
                    await self._send(request, response, download, wanted, moved)
            except (ConnectionError, ModelyardError) as error:
                if not response.prepared:
                    raise
                # The client is in the middle of an answer that cannot be completed: let it see the break.
                log.info("lfs.broken_off", oid=oid, sent=moved.bytes, reason=str(error))
                if request.transport is not None:
                    request.transport.abort()
            return response

    async def _upload(self, request: web.Request) -> web.StreamResponse:
        oid = _oid(request)
        link = await self._face.admitted(request, Use.UPLOAD, oid=oid)
        length = request.content_length
        if length is not None and length != link.size:
            raise WrongBytes(f"{length} bytes were to come, {link.size} were announced", oid=oid)
        moved = _Moved()
        with self._observed("upload", moved):
            await self._service.receive(
                link.repository_id, link.actor, oid, link.size, self._face.stream(request)
            )
            moved.bytes = link.size
        return web.Response()

    async def _verify(self, request: web.Request) -> web.StreamResponse:
        if "link" in request.query:
            wanted = await self._face.read_struct(request, _Verification, by_link=True)
            link = await self._face.admitted(request, Use.VERIFY, oid=wanted.oid)
            if wanted.size != link.size:
                raise WrongBytes(f"{link.size} bytes were announced, not {wanted.size}", oid=wanted.oid)
            repository_id, actor = link.repository_id, link.actor
        else:
            actor = await self._face.actor(request)
            repository_id = (await self._face.open(request, actor, Permission.WRITE)).id
            wanted = await self._face.read_struct(request, _Verification)
        if not is_oid(wanted.oid):
            raise InvalidOid(_NO_OID)
        await self._service.verify(repository_id, actor, wanted.oid, wanted.size)
        return reply({"oid": wanted.oid, "size": wanted.size})

    async def _reader(self, request: web.Request, oid: str) -> tuple[str, Actor]:
        """By link, or by whatever else proves who asks: the repository and the actor."""
        if "link" in request.query:
            link = await self._face.admitted(request, Use.DOWNLOAD, oid=oid)
            return link.repository_id, link.actor
        actor = await self._face.actor(request)
        return (await self._face.open(request, actor, Permission.READ)).id, actor

    async def _send(
        self,
        request: web.Request,
        response: web.StreamResponse,
        download: Download,
        wanted: Range,
        moved: "_Moved",
    ) -> None:
        if download.descriptor is not None and await self._send_file(request, response, download, wanted):
            moved.bytes = wanted.length
            return
        async with download.open(offset=wanted.offset, length=wanted.length) as chunks:
            await response.prepare(request)
            async for chunk in chunks:
                try:
                    async with asyncio.timeout(self._face.stall_seconds):
                        await response.write(chunk)
                except TimeoutError as error:
                    raise ConnectionAbortedError("the client stopped reading") from error
                moved.bytes += len(chunk)
        if moved.bytes != wanted.length:
            raise StoreUnavailable("the object store ended in the middle of an object")
        await response.write_eof()

    async def _send_file(
        self, request: web.Request, response: web.StreamResponse, download: Download, wanted: Range
    ) -> bool:
        """Without a copy in this process; False if this connection cannot, before the first byte."""
        writer = await response.prepare(request)
        transport = request.transport
        if transport is None or writer is None:
            raise ConnectionResetError("the client is gone")
        assert download.descriptor is not None
        try:
            await send_file(
                transport,
                download.descriptor,
                wanted.offset,
                wanted.length,
                stall_seconds=self._face.stall_seconds,
            )
        except CannotSendFile:
            return False
        writer.output_size += wanted.length  # it went past the writer, which counts for the log
        await response.write_eof()
        return True

    @contextmanager
    def _observed(self, operation: str, moved: "_Moved") -> Iterator[None]:
        outcome, started = "failed", time.monotonic()
        try:
            yield
            outcome = "ok"
        except ConnectionError:
            outcome = "gone"
            raise
        except ModelyardError as error:
            outcome = error.code
            raise
        finally:
            if self._observer is not None:
                self._observer.lfs_transfer(operation, outcome, moved.bytes, time.monotonic() - started)


class _Moved:
    """How many bytes went through so far."""

    bytes = 0


class _Verification(msgspec.Struct, frozen=True):
    oid: str
    size: int


_NO_OID = "an oid is 64 lower-case hexadecimal digits"


def _oid(request: web.Request) -> str:
    oid = request.match_info["oid"]
    if not is_oid(oid):
        raise InvalidOid(_NO_OID)
    return oid


def _etag(oid: str) -> str:
    return f'"{oid}"'


def _head(oid: str, wanted: Range) -> web.StreamResponse:
    headers = {
        "Content-Type": "application/octet-stream",
        "Content-Length": str(wanted.length),
        "Accept-Ranges": "bytes",
        "ETag": _etag(oid),
        "Cache-Control": "private",
        # A browser must not take it for a page of ours.
        "Content-Disposition": "attachment",
        "X-Content-Type-Options": "nosniff",
    }
    if wanted.partial:
        headers["Content-Range"] = wanted.content_range
    return web.StreamResponse(status=206 if wanted.partial else 200, headers=headers)
