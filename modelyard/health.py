"""Whether the process lives, whether it can work, and what it measures."""

import asyncio
import os
import tempfile
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

import structlog
from aiohttp import web
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4

from core.access import require_site_admin
from core.errors import ModelyardError, Unavailable
from modelyard.authentication import actor_of
from modelyard.context import DRAIN, GAUGES, METRICS, client_of
from modelyard.services import Services

log = structlog.get_logger(__name__)

_CACHE_SECONDS = 1.0
_CHECK_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Report:
    """The outcome of each check: `ok`, or why not."""

    checks: dict[str, str]

    @property
    def ready(self) -> bool:
        return all(outcome == "ok" for outcome in self.checks.values())


class Readiness:
    """Examines the parts that every answer needs, at most once a second however often it is asked."""

    def __init__(self, services: Services) -> None:
        self._checks: dict[str, Callable[[], Awaitable[None]]] = {
            "database": services.database.check,
            "store": services.store.check,
            "cache": lambda: asyncio.to_thread(_write_probe, services.settings.cache_dir),
        }
        large_files = services.large_files.stores.current
        if large_files is not services.store:
            self._checks["lfs_store"] = large_files.check
        self._lock = asyncio.Lock()
        self._report: Report | None = None
        self._at = 0.0

    async def report(self) -> Report:
        """The state as it was at most a second ago; never raises."""
        async with self._lock:
            if self._report is None or time.monotonic() - self._at > _CACHE_SECONDS:
                outcomes = await asyncio.gather(*(_outcome(check) for check in self._checks.values()))
                self._report = Report(dict(zip(self._checks, outcomes, strict=True)))
                self._at = time.monotonic()
            return self._report


async def _outcome(check: Callable[[], Awaitable[None]]) -> str:
    try:
        async with asyncio.timeout(_CHECK_SECONDS):
            await check()
    except TimeoutError:
        return f"no answer within {_CHECK_SECONDS:.0f} seconds"
    except ModelyardError as error:
        return error.message
    except Exception as error:
        # Whatever a driver raises means "not ready".
        log.warning("readiness check failed", exc_info=error)
        return type(error).__name__
    return "ok"


def _write_probe(directory: Path) -> None:
    try:
        directory.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=directory) as file:
            file.write(b"probe")
    except OSError as error:
        raise Unavailable(f"the cache cannot be written: {os.strerror(error.errno or 0)}") from error


def add_routes(app: web.Application, services: Services) -> None:
    """Adds `/healthz`, `/readyz` and `/metrics`."""
    readiness = Readiness(services)

    async def readyz(request: web.Request) -> web.Response:
        report = await readiness.report()
        draining = request.app[DRAIN].started
        status = "draining" if draining else "ready" if report.ready else "unready"
        body: dict[str, object] = {"status": status}
        if client_of(request).inside:
            body["checks"] = report.checks
        return web.json_response(body, status=200 if status == "ready" else 503)

    app.router.add_get("/healthz", healthz)
    app.router.add_get("/readyz", readyz)
    app.router.add_get("/metrics", metrics)


async def healthz(_request: web.Request) -> web.Response:
    """Answers as long as the event loop turns."""
    return web.json_response({"status": "ok"})


async def metrics(request: web.Request) -> web.Response:
    """The metrics of this worker, for whoever is inside, and for administrators.

    Raises:
        AuthenticationRequired, PermissionDenied: they are neither.
    """
    if not client_of(request).inside:
        require_site_admin(await actor_of(request))
    gauges = request.app[GAUGES]
    await gauges.refresh()
    body = request.app[METRICS].text()
    return web.Response(body=body, headers={"Content-Type": CONTENT_TYPE_PLAIN_0_0_4})
