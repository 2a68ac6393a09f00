"""One server process: HTTP, SSH and the background workers in one event loop."""

import asyncio
import gc
import resource
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import AsyncExitStack
from urllib.parse import urlsplit

import structlog
import uvloop
from aiohttp import web

from core.errors import ModelyardError
from core.settings import Settings
from modelyard.drain import Drain
from modelyard.http import make_app, make_runner
from modelyard.listening import Listeners
from modelyard.metering import MeteredGit, MeteredLargeFiles
from modelyard.metrics import Metrics
from modelyard.services import Services, host_key_path
from modelyard.stopping import Stop, signals
from modelyard.tls import Certificate
from sshd.large_files import LfsCommands
from sshd.lfs_authenticate import HttpFace
from sshd.server import SshServer

log = structlog.get_logger(__name__)

_BACKLOG = 1024
_FILES = 65_536


class Server:
    """Both faces and the background workers of one process, over open services and bound sockets."""

    def __init__(
        self, services: Services, listeners: Listeners, certificate: Certificate | None, *, worker: int = 1
    ) -> None:
        self._services = services
        self._settings = services.settings
        self._listeners = listeners
        self._certificate = certificate
        self._metrics = Metrics(str(worker))
        self._drain = Drain()
        large_files = LfsCommands(
            services.large_files.service,
            http_face(self._settings, listeners),
            max_batch_objects=self._settings.lfs.max_batch_objects,
        )
        self._ssh = SshServer(
            self._settings.ssh,
            services.repositories,
            services.credentials,
            MeteredGit(services.git, self._metrics),
            MeteredLargeFiles(large_files, self._metrics),
            host_key_path(self._settings),
            observer=self._metrics,
        )

    async def run(self, stop: Stop, ready: Callable[[], Awaitable[None]]) -> None:
        """Starts, calls `ready` once connections are accepted, and returns when it is stopped and drained.

        Raises:
            SettingsError: it could not start.
            ExceptionGroup: a background worker failed, which is a bug; everything was closed.
        """
        app = make_app(self._services, metrics=self._metrics, drain=self._drain)
        runner = make_runner(app, idle_seconds=self._settings.http.idle_seconds)
        async with AsyncExitStack() as stack:
            stack.enter_context(signals(stop, self._reload))
            await self._check_store()
            await runner.setup()
            stack.push_async_callback(runner.cleanup)
            context = self._certificate.context if self._certificate else None
            site = web.SockSite(runner, self._listeners.http, ssl_context=context, backlog=_BACKLOG)
            await site.start()
            if self._listeners.ssh is not None:
                stack.push_async_callback(self._ssh.close)
                await self._ssh.start(sockets=[self._listeners.ssh])
            async with asyncio.TaskGroup() as group:
                workers = [group.create_task(work) for work in background(self._services)]
                await ready()
                log.info("ready", http=self._listeners.endpoints.http, ssh=self._listeners.endpoints.ssh)
                await stop.requested.wait()
                log.info("stopping", in_flight=self._drain.in_flight)
                for worker in workers:
                    worker.cancel()
                async with asyncio.TaskGroup() as closing:
                    closing.create_task(self._close_http(runner, stop))
                    closing.create_task(self._close_ssh(stop))
        log.info("stopped")

    async def _close_http(self, runner: web.AppRunner, stop: Stop) -> None:
        for site in runner.sites:
            await site.stop()
        assert runner.server is not None
        cut = await self._drain.wait(runner.server, self._settings.server.drain_seconds, stop.hurried)
        if cut:
            log.warning("requests cut off", requests=cut)

    async def _close_ssh(self, stop: Stop) -> None:
        if self._listeners.ssh is None:
            return
        closing = asyncio.ensure_future(self._ssh.close(self._settings.server.drain_seconds))
        hurried = asyncio.ensure_future(stop.hurried.wait())
        try:
            await asyncio.wait({closing, hurried}, return_when=asyncio.FIRST_COMPLETED)
            if closing.done():
                await closing
        finally:
            hurried.cancel()
            closing.cancel()
        await self._ssh.close()

    async def _check_store(self) -> None:
        """Makes what the store lacks. A store that is away does not stop us: `/readyz` tells, pushes wait."""
        for store in {self._services.store, self._services.large_files.stores.current}:
            try:
                await store.check()
            except ModelyardError as error:
                log.warning("the object store is not available", reason=error.message)

    def _reload(self) -> None:
        if self._certificate is not None:
            self._certificate.reload()
        else:
            log.info("nothing to reload without a certificate")


def http_face(settings: Settings, listeners: Listeners) -> HttpFace:
    """What clients of SSH are told of the HTTP face."""
    listens_at = urlsplit(listeners.endpoints.http)
    assert listens_at.port is not None
    return HttpFace(settings.http.public_url, listens_at.scheme, listens_at.port, settings.ssh.public_host)


def background(services: Services) -> list[Coroutine[object, object, None]]:
    """What runs beside the faces until it ends or is cancelled."""
    works = [services.large_files.mode.settle(), services.notifying.run_forever()]
    if services.settings.hooks.enabled:
        works += [
            services.pipeline.run_forever(),
            services.understanding.heads.run_forever(),
            services.understanding.digester.run_forever(),
        ]
    if services.settings.maintenance.enabled:
        works += [services.maintenance.run_forever(), services.safekeeping.upkeep.run_forever()]
    return works


def run_loop(main: Coroutine[object, object, None]) -> None:
    """Runs a coroutine in an event loop fit for a server. Call it in the main thread."""
    # Every connection and every child needs descriptors; the usual soft limit of 1024 is for `select`.
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _FILES if hard == resource.RLIM_INFINITY else min(hard, _FILES)
    resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    # The headers of a large model are a million lists and dicts without a cycle among them. With the usual
    # thresholds the collector looks at all of them again and again: two thirds of the time it takes to parse
    # them, and nothing else runs meanwhile.
    gc.set_threshold(10_000, 20, 50)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main)
