"""What all LFS routes share: who asks and for which repository, JSON in and out, refusals, bodies."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Protocol, TypeVar

import msgspec
import structlog
from aiohttp import ClientPayloadError, web
from aiohttp.http_exceptions import PayloadEncodingError
from aiohttp.typedefs import Handler

from core.access import Actor, Permission
from core.errors import (
    AuthenticationRequired,
    ModelyardError,
    PayloadTooLarge,
    ProtocolError,
    RangeNotSatisfiable,
)
from core.names import Address, parse_address
from core.opening import RepositoryInfo
from lfs.bodies import read_body
from lfs.errors import LinkRefused, LockExists
from lfs.links import REFUSED, SESSION_PREFIX, Link, Use
from lfs.locks import Lock
from lfs.service import LfsService

log = structlog.get_logger(__name__)

CONTENT_TYPE = "application/vnd.git-lfs+json"
CHALLENGE = 'Basic realm="Modelyard", charset="UTF-8"'
# In front of every route: the repository's path, with or without `.git`.
PREFIX = "/{path:.+}/info/lfs"

_READ_BYTES = 256 * 1024

T = TypeVar("T", bound=msgspec.Struct)


class UnsupportedMediaType(ModelyardError):
    code = "unsupported_media_type"
    status = 415


class RequestTimeout(ModelyardError):
    """The client stopped in the middle of what it was sending."""

    code = "request_timeout"
    status = 408


class RateLimit(Protocol):
    """Bounds requests that cost the database something."""

    def __call__(self, client: str) -> None:
        """Counts one of an account, a key or an address of nobody. Raises `TooManyRequests`."""
        ...


class Face:
    """Over one `LfsService`. `stall_seconds`: a client that moves no byte for so long is taken for gone."""

    def __init__(
        self,
        service: LfsService,
        authenticate: Callable[[web.Request], Awaitable[Actor]],
        *,
        base_url: Callable[[web.Request], str],
        request_id: Callable[[web.Request], str],
        limit: RateLimit,
        stall_seconds: float = 300,
    ) -> None:
        """`authenticate` raises `InvalidCredentials` or returns the actor, anonymous without credentials."""
        self.service = service
        self.base_url = base_url
        self.limit = limit
        self.stall_seconds = stall_seconds
        self._authenticate = authenticate
        self._request_id = request_id

    def answering(self, handle: Handler) -> Handler:
        """The handler with its refusals in the words of the LFS API."""

        async def answer(request: web.Request) -> web.StreamResponse:
            try:
                return await handle(request)
            except ModelyardError as error:
                if error.status >= 500:
                    log.warning("refused", code=error.code, exc_info=error)
                return self._refusal(request, error)

        return answer

    # -- who, and for what ---------------------------------------------------------------------------

    async def actor(self, request: web.Request) -> Actor:
        """Who sends this request: as everywhere else, or with a session from `git-lfs-authenticate`.

        Raises:
            InvalidCredentials, TooManyRequests: as `authenticate`.
        """
        headers = request.headers.getall("Authorization", [])
        scheme, _, token = headers[0].strip().partition(" ") if len(headers) == 1 else ("", "", "")
        if scheme.lower() == "bearer" and token.strip().startswith(SESSION_PREFIX):
            return await self.service.resume_session(token.strip())
        return await self._authenticate(request)

    async def open(self, request: web.Request, actor: Actor, permission: Permission) -> RepositoryInfo:
        """The repository of the request's address. Raises as `Repositories.open`."""
        return await self.service.open(actor, address_of(request), permission)

    async def limited(self, request: web.Request, permission: Permission) -> tuple[RepositoryInfo, Actor]:
        """Who asks and for what, counted against the rate limit. Raises as `counted` and `open`."""
        actor = await self.counted(request)
        return await self.open(request, actor, permission), actor

    async def counted(self, request: web.Request) -> Actor:
        """Who asks, counted against the rate limit. Raises as `actor` and `limit`."""
        actor = await self.actor(request)
        self.limit(actor.client)
        return actor

    async def admitted(
        self,
        request: web.Request,
        use: Use,
        *,
        oid: str | None = None,
        upload_id: str = "",
        part: int = 0,
    ) -> Link:
        """The request's link, as `LfsService.admit`; a request without one is refused, too."""
        links = request.query.getall("link", [])
        if len(links) != 1:
            raise LinkRefused(REFUSED)
        return await self.service.admit(
            links[0], address_of(request), use, oid=oid, upload_id=upload_id, part=part
        )

    # -- bodies --------------------------------------------------------------------------------------

    async def read_json(self, request: web.Request, *, by_link: bool = False) -> bytes:
        """The body, bounded by the application's `client_max_size`.

        `by_link`: the caller heeds the request's link alone. Whoever has that needs nobody's browser, so the
        body need not be said to be anything.

        Raises:
            UnsupportedMediaType: it is not said to be JSON; a page of somebody else's can send that.
            PayloadTooLarge, ProtocolError, RequestTimeout: too long, not what its headers say, or too slow.
        """
        is_said = "Content-Type" in request.headers
        if request.can_read_body and (is_said or not by_link) and not request.content_type.endswith("json"):
            raise UnsupportedMediaType(f"expected {CONTENT_TYPE}")
        try:
            async with asyncio.timeout(self.stall_seconds):
                return await request.read()
        except TimeoutError as error:
            raise RequestTimeout("no byte came for too long") from error
        except web.HTTPRequestEntityTooLarge as error:
            raise PayloadTooLarge("the request body is too large") from error
        except (PayloadEncodingError, ClientPayloadError, web.RequestPayloadError) as error:
            raise ProtocolError("the request body cannot be decoded") from error

    async def read_struct(self, request: web.Request, kind: type[T], *, by_link: bool = False) -> T:
        """The body as JSON of this form; unknown keys are passed over. `by_link` as in `read_json`.

        Raises:
            InvalidBatch: it is something else.
            UnsupportedMediaType, PayloadTooLarge, ProtocolError, RequestTimeout: as `read_json`.
        """
        return read_body(await self.read_json(request, by_link=by_link), kind)

    async def stream(self, request: web.Request) -> AsyncIterator[bytes]:
        """The body as it comes.

        Raises:
            RequestTimeout: the client sent nothing for `stall_seconds`.
            ProtocolError: it cannot be decoded.
        """
        while True:
            try:
                async with asyncio.timeout(self.stall_seconds):
                    chunk = await request.content.read(_READ_BYTES)
            except TimeoutError as error:
                raise RequestTimeout("no byte came for too long") from error
            except (PayloadEncodingError, ClientPayloadError, web.RequestPayloadError) as error:
                raise ProtocolError("the request body cannot be decoded") from error
            if not chunk:
                return
            yield chunk

    # -- answers -------------------------------------------------------------------------------------

    def _refusal(self, request: web.Request, error: ModelyardError) -> web.Response:
        headers: dict[str, str] = {}
        if isinstance(error, AuthenticationRequired):
            headers = {"LFS-Authenticate": CHALLENGE, "WWW-Authenticate": CHALLENGE}
        if "retry_after" in error.fields:
            headers["Retry-After"] = str(error.fields["retry_after"])
        if isinstance(error, RangeNotSatisfiable) and "size" in error.fields:
            headers["Content-Range"] = f"bytes */{error.fields['size']}"
        body: dict[str, object] = {
            "message": error.message,
            "request_id": self._request_id(request),
            "code": error.code,
        }
        if isinstance(error, LockExists):
            body["lock"] = lock_json(error.lock)
        response = reply(body, status=error.status, headers=headers)
        if request.can_read_body:
            response.force_close()  # what is left of the body is not worth reading
        return response


def reply(body: object, *, status: int = 200, headers: dict[str, str] | None = None) -> web.Response:
    """An answer in the LFS dialect."""
    return web.Response(
        status=status, headers=headers, body=msgspec.json.encode(body), content_type=CONTENT_TYPE
    )


def lock_json(lock: Lock) -> dict[str, object]:
    """A lock as the API has it. RFC 3339, to the second, as git-lfs writes times."""
    return {
        "id": lock.id,
        "path": lock.path,
        "locked_at": lock.locked_at.strftime("%Y-%m-%dT%H:%M:%SZ"),
        "owner": {"name": lock.owner},
    }


def address_of(request: web.Request) -> Address:
    """Raises `RepositoryNotFound`: no repository can have this address."""
    return parse_address(request.match_info["path"])
