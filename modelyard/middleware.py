"""What every HTTP request passes, outermost first: observation, error rendering, rate limits."""

import asyncio
import time
from secrets import token_hex

import structlog
from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from core.access import ActorKind
from core.errors import InvalidCredentials, ModelyardError, TooManyRequests
from modelyard import problems
from modelyard.authentication import actor_of
from modelyard.client import limit_key
from modelyard.context import (
    ACTOR,
    ACTOR_LIMIT,
    ADDRESS_LIMIT,
    BUSY,
    CLIENT,
    DRAIN,
    METRICS,
    PROXIES,
    RATE_HEADERS,
    REQUEST_ID,
)
from modelyard.limits import RateLimiter

log = structlog.get_logger("modelyard.http")

_GONE = 499  # as nginx counts a client that did not wait for the answer
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_QUIET = frozenset({"/healthz", "/readyz", "/metrics"})
_API = "/api/"
# Many answers stream out of a child process, for as long as the client takes to read them.
_AT_ONCE = 24

_SECURITY_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "same-origin",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",
}


def middlewares(public_url: str) -> list[Middleware]:
    """The middlewares of the application."""
    return [_observe(public_url), _render_errors, _limit_rate]


async def add_headers(request: web.Request, response: web.StreamResponse) -> None:
    """Puts the headers of every answer on it, as they are sent; a handler's own ones stay."""
    for name, value in _SECURITY_HEADERS.items():
        response.headers.setdefault(name, value)
    response.headers.update(request.get(RATE_HEADERS, {}))
    if REQUEST_ID in request:  # aiohttp refuses an unknown `Expect` before any middleware runs
        response.headers["X-Request-Id"] = request[REQUEST_ID]
    response.headers["Server"] = "Modelyard"
    if request.config_dict[DRAIN].started:
        response.force_close()
        response.headers["Connection"] = "close"


def _observe(public_url: str) -> Middleware:
    """Gives the request its id and its client, then counts, times and logs it."""

    @web.middleware
    async def observe(request: web.Request, handler: Handler) -> web.StreamResponse:
        client = request.app[PROXIES].client(request, public_url)
        request[CLIENT] = client
        request[REQUEST_ID] = client.request_id or token_hex(8)
        start, status, sent = time.monotonic(), _GONE, 0
        with (
            request.app[DRAIN].request(request),
            structlog.contextvars.bound_contextvars(request_id=request[REQUEST_ID]),
        ):
            try:
                response = await handler(request)
                status, sent = response.status, _body_length(response)
                return response
            finally:
                _report(request, status, sent, time.monotonic() - start)

    return observe


def _body_length(response: web.StreamResponse) -> int:
    # What was streamed is known exactly; what aiohttp is about to send, by its declared length.
    return response.body_length if response.prepared else response.content_length or 0


def _report(request: web.Request, status: int, sent: int, seconds: float) -> None:
    resource = request.match_info.route.resource
    request.app[METRICS].request_answered(
        request.method if request.method in _METHODS else "other",
        resource.canonical if resource is not None else "unmatched",
        status,
        seconds,
    )
    actor = request.get(ACTOR)
    write = log.debug if request.path in _QUIET else log.info
    write(
        "request",
        method=request.method,
        path=request.rel_url.raw_path,  # the query may hold a secret
        status=status,
        milliseconds=round(seconds * 1000, 1),
        sent=sent,
        client=request[CLIENT].address,
        actor=actor.name if actor is not None else None,
        agent=request.headers.get("User-Agent", "")[:200],
    )


@web.middleware
async def _render_errors(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Turns what was raised into an answer. What was already begun can only be cut off."""
    try:
        return await handler(request)
    except (asyncio.CancelledError, ConnectionError):
        raise  # nobody is there to read an answer
    except web.HTTPException as error:
        if error.status < 400:
            raise
        cause: Exception = error
        answer = problems.render_http(request, error)
    except ModelyardError as error:
        if error.status >= 500:
            log.warning("refused", code=error.code, exc_info=error)
        cause, answer = error, problems.render(request, error)
    except Exception as error:
        log.exception("unexpected error", path=request.rel_url.raw_path)
        cause, answer = error, problems.render_unexpected(request)
    if request.writer.output_size > 0:
        raise ConnectionResetError("the answer had begun") from cause
    return answer


@web.middleware
async def _limit_rate(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Limits the REST face by actor, or by address when nobody is logged in."""
    if not request.path.startswith(_API):
        return await handler(request)
    try:
        actor = await actor_of(request)
    except InvalidCredentials:
        _take_from_address(request)  # a wrong guess costs as much as any other request of nobody
        raise
    if actor.kind is ActorKind.ANONYMOUS:
        _take_from_address(request)
    else:
        _take(request, request.app[ACTOR_LIMIT], "actor", actor.name)
    nobody = actor.kind is ActorKind.ANONYMOUS
    key = limit_key(request[CLIENT].address) if nobody else actor.name
    busy = request.app[BUSY]
    if busy[key] >= _AT_ONCE:
        raise TooManyRequests("too many requests at once; wait for some to end", retry_after=1)
    busy[key] += 1
    try:
        return await handler(request)
    finally:
        busy[key] -= 1
        if not busy[key]:
            del busy[key]


def _take_from_address(request: web.Request) -> None:
    _take(request, request.app[ADDRESS_LIMIT], "address", limit_key(request[CLIENT].address))


def _take(request: web.Request, limiter: RateLimiter, policy: str, key: str) -> None:
    """Takes one request out of the key's bucket. Raises `TooManyRequests` when there is none left."""
    allowance = limiter.take(key)
    if allowance.limit:
        request[RATE_HEADERS] = allowance.headers(policy)
    if not allowance.allowed:
        raise TooManyRequests("too many requests; slow down", retry_after=allowance.reset)
