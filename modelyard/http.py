"""The HTTP face: one application with everything that is served over HTTP."""

from collections import Counter

from aiohttp import web

from core.errors import TooManyRequests
from gitserver.http import GitHttp
from lfs.http import LfsHttp
from lfs.http_face import Face, RateLimit
from lfs.http_parts import LfsParts
from modelyard import health
from modelyard.api.routes import add_routes as add_api_routes
from modelyard.authentication import actor_of
from modelyard.client import Proxies
from modelyard.context import (
    ACTOR_LIMIT,
    ADDRESS_LIMIT,
    BUSY,
    DRAIN,
    FAILURE_LIMIT,
    GAUGES,
    METRICS,
    PROXIES,
    REQUEST_ID,
    SERVICES,
    base_url,
)
from modelyard.drain import Drain
from modelyard.gauges import Gauges
from modelyard.limits import RateLimiter
from modelyard.metrics import Metrics
from modelyard.middleware import add_headers, middlewares
from modelyard.services import Services

# A path of 4096 bytes may be three times as long once it is percent-encoded.
_MAX_LINE_BYTES = 16 * 1024
_MAX_FIELD_BYTES = 8 * 1024
_MAX_FIELDS = 100


def make_app(
    services: Services, *, metrics: Metrics | None = None, drain: Drain | None = None
) -> web.Application:
    """The application. Raises `SettingsError` for settings of `[http]` that cannot be used."""
    settings = services.settings.http
    app = web.Application(
        middlewares=middlewares(settings.public_url),
        # Bounds what handlers read in one piece (JSON); what they stream has limits of its own.
        client_max_size=settings.max_json_bytes,
    )
    app[SERVICES] = services
    app[METRICS] = metrics or Metrics()
    app[DRAIN] = drain or Drain()
    services.publisher.listeners.append(app[METRICS].pushed)
    app[GAUGES] = Gauges(services, app[DRAIN])
    app[METRICS].add(app[GAUGES])
    app[PROXIES] = Proxies(settings.trusted_proxies)
    app[ACTOR_LIMIT] = RateLimiter(settings.requests_per_minute)
    app[ADDRESS_LIMIT] = RateLimiter(settings.anonymous_requests_per_minute)
    app[BUSY] = Counter()
    app[FAILURE_LIMIT] = RateLimiter(settings.anonymous_requests_per_minute)
    app.on_response_prepare.append(add_headers)
    health.add_routes(app, services)
    add_api_routes(app, services)  # before git, whose routes take any path with the right end
    git = GitHttp(
        services.git,
        services.repositories,
        actor_of,
        max_pack_bytes=services.settings.git.max_pack_bytes,
        observer=app[METRICS],
    )
    app.router.add_routes(_lfs_routes(services, app[METRICS]))
    app.router.add_routes(git.routes())
    return app


def _lfs_routes(services: Services, metrics: Metrics) -> list[web.RouteDef]:
    settings = services.settings.lfs
    face = Face(
        services.large_files.service,
        actor_of,
        base_url=base_url,
        request_id=lambda request: request[REQUEST_ID],
        limit=_limit(settings.requests_per_minute),
    )
    parts = LfsParts(face, services.large_files.parts)
    lfs = LfsHttp(face, max_batch_objects=settings.max_batch_objects, observer=metrics, more=parts.routes())
    return lfs.routes()


def _limit(per_minute: int) -> RateLimit:
    limiter = RateLimiter(per_minute)

    def take(client: str) -> None:
        allowance = limiter.take(client)
        if not allowance.allowed:
            raise TooManyRequests("too many requests; slow down", retry_after=allowance.reset)

    return take


def make_runner(app: web.Application, *, idle_seconds: float) -> web.AppRunner:
    """What serves the application on sockets.

    A client that goes away cancels its handler, and with it the handler's children. A connection that has
    sent no complete request head for `idle_seconds` is closed, whether it sent nothing or a byte at a time.
    """
    return web.AppRunner(
        app,
        handler_cancellation=True,
        keepalive_timeout=idle_seconds,
        # Draining is `Drain.wait`, before this runner is told to stop; what is left then gets a second.
        shutdown_timeout=1,
        access_log=None,
        max_line_size=_MAX_LINE_BYTES,
        max_field_size=_MAX_FIELD_BYTES,
        max_headers=_MAX_FIELDS,
    )
