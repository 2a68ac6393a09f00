"""Uploads in parts over HTTP: parts, their completion, and giving up. Links authorise every request."""

import asyncio
import fcntl
import struct
import termios
from collections import OrderedDict
from collections.abc import AsyncIterator

import msgspec
from aiohttp import web

from lfs.bodies import read_body
from lfs.errors import InvalidBatch
from lfs.http_face import PREFIX, Face, reply
from lfs.links import Link, Use
from lfs.multipart import MultipartUploads
from lfs.multipart_actions import STORED
from storage.protocol import StoredPart

# An answer that the client's system has not taken after this long, with a full line, will not get there.
_LINGER_SECONDS = 5.0
# A proxy in between has the answer before the client has: it needs a moment to pass it on.
_PASSING_ON_SECONDS = 0.05
# How many hasty answers are remembered; each is a few hundred bytes.
_REMEMBERED = 4096


class LfsParts:
    """The routes of uploads in parts."""

    def __init__(self, face: Face, parts: MultipartUploads) -> None:
        self._face = face
        self._service = face.service
        self._parts = parts
        self._hung_up: OrderedDict[tuple[str, int], None] = OrderedDict()

    def routes(self) -> list[web.RouteDef]:
        """What to add to an application, before any route that takes every path."""
        upload = f"{PREFIX}/uploads/{{upload:[0-9a-f]{{32}}}}"
        answering = self._face.answering
        return [
            web.put(f"{upload}/parts/{{number:[0-9]{{1,5}}}}", answering(self._put_part)),
            web.post(f"{upload}/complete", answering(self._complete)),
            web.post(f"{upload}/abort", answering(self._abort)),
            web.delete(f"{upload}/abort", answering(self._abort)),
        ]

    async def _put_part(self, request: web.Request) -> web.StreamResponse:
        number = int(request.match_info["number"])
        link = await self._admitted(request, Use.PART, number)
        if STORED in request.query:
            part = await self._parts.stored_part(link.repository_id, link.upload_id, number)
            if part is not None:
                return await self._skip(request, link, part)
        async with self._service.place(link.actor):
            part = await self._parts.put_part(
                link.repository_id,
                link.upload_id,
                number,
                self._face.stream(request),
                length=request.content_length,
            )
        return _stored(part)

    async def _skip(self, request: web.Request, link: Link, part: StoredPart) -> web.StreamResponse:
        """Answers for a part that is stored without reading it, and makes the client stop sending it.

        A client that cannot take that comes back for the same part; then it is let finish.
        """
        response = _stored(part)
        seen = (link.upload_id, part.number)
        if seen in self._hung_up:
            del self._hung_up[seen]
            async with self._service.place(link.actor):
                await _discard(self._face.stream(request), part.size)
            return response
        if request.content.at_eof() or request.transport is None:
            return response
        self._hung_up[seen] = None
        if len(self._hung_up) > _REMEMBERED:
            self._hung_up.popitem(last=False)
        response.force_close()
        await response.prepare(request)
        await response.write_eof()
        await _hang_up(request.transport)
        return response

    async def _complete(self, request: web.Request) -> web.StreamResponse:
        link = await self._admitted(request, Use.COMPLETE)
        body = await self._face.read_json(request, by_link=True) if request.body_exists else b""
        claimed: list[tuple[int, str]] | None = None
        if body.strip():
            completion = read_body(body, _Completion)
            if completion.oid not in (None, link.oid):
                raise InvalidBatch("this upload is of another object")
            if completion.parts is not None:
                claimed = [(part.partNumber, part.etag) for part in completion.parts]
        async with self._service.place(link.actor):
            await self._parts.complete(link.repository_id, link.actor, link.oid, link.upload_id, claimed)
        return reply({"oid": link.oid, "size": link.size})

    async def _abort(self, request: web.Request) -> web.StreamResponse:
        link = await self._admitted(request, Use.ABORT)
        await self._parts.abort(link.repository_id, link.upload_id)
        return reply({})

    async def _admitted(self, request: web.Request, use: Use, part: int = 0) -> Link:
        upload_id = request.match_info["upload"]
        return await self._face.admitted(request, use, upload_id=upload_id, part=part)


class _Part(msgspec.Struct, frozen=True):
    partNumber: int  # noqa: N815 - as S3 and the Hub write it
    etag: str


class _Completion(msgspec.Struct, frozen=True):
    """What huggingface_hub sends; Giftless's clients send nothing."""

    oid: str | None = None
    parts: list[_Part] | None = None


def _stored(part: StoredPart) -> web.Response:
    return web.Response(headers={"ETag": f'"{part.etag}"'})


async def _discard(data: AsyncIterator[bytes], most: int) -> None:
    """Reads to the end, or until it is more than it can be."""
    seen = 0
    async for chunk in data:
        seen += len(chunk)
        if seen > most:
            return


async def _hang_up(transport: asyncio.Transport) -> None:
    """Ends a connection on which the client still sends, once the client's system has the answer.

    HTTP/1.1 has no other way to stop a client: it sees a broken connection, stops sending and finds the
    answer. Hung up earlier, the break could overtake the answer.
    """
    if transport.can_write_eof():
        transport.write_eof()
    loop = asyncio.get_running_loop()
    deadline = loop.time() + _LINGER_SECONDS
    pause = 0.001
    while not transport.is_closing() and loop.time() < deadline and _unacknowledged(transport):
        await asyncio.sleep(pause)
        pause = min(pause * 2, 0.1)
    await asyncio.sleep(_PASSING_ON_SECONDS)
    transport.abort()


def _unacknowledged(transport: asyncio.Transport) -> bool:
    """Whether something that was sent is still on its way (tcp(7), SIOCOUTQ, which is TIOCOUTQ)."""
    if transport.get_write_buffer_size():
        return True
    connection = transport.get_extra_info("socket")
    try:
        raw = fcntl.ioctl(connection.fileno(), termios.TIOCOUTQ, b"\0" * 4)
    except (AttributeError, OSError):  # no socket, or a system that does not tell
        return True
    return bool(struct.unpack("i", raw)[0])
