"""`serve --workers N`: one parent that serves nothing and keeps N identical processes alive.

All workers bind the same ports (SO_REUSEPORT) and share the database, the store and the cache; a worker is
a node. The parent holds the ports, so that one that the system chose is still ours when a worker is replaced.
"""

import asyncio
import os
import signal
import sys
from asyncio.subprocess import PIPE, Process
from pathlib import Path

import structlog

from core.errors import Unavailable
from core.settings import Settings
from modelyard.assignment import READY, Assignment
from modelyard.bootstrap import ensure_administrator
from modelyard.listening import Listeners
from modelyard.ready import ReadyFile, announce
from modelyard.services import open_services
from modelyard.stopping import Stop, signals

log = structlog.get_logger(__name__)

_FIRST_DELAY = 0.2
_LONGEST_DELAY = 30.0
_STABLE_SECONDS = 60.0
_KILL_MARGIN_SECONDS = 15.0


class WorkersFailed(Unavailable):
    """A worker ended before the server was ready; the log says why."""

    code = "workers_failed"


async def supervise(settings: Settings, ready_file: Path | None = None) -> None:
    """Runs `[server] workers` processes until it is told to stop. Call it in the main thread.

    Raises:
        SettingsError: the settings cannot be used.
        WorkersFailed: a worker could not start.
    """
    ready = ReadyFile(ready_file)
    stop = Stop()
    Listeners.require_free(settings)
    with Listeners(settings, share=True) as listeners:
        settings = listeners.pinned(settings)
        # Makes keys and tables once, before N processes would do it at the same time.
        async with open_services(settings):
            pass
        workers = Workers(settings, stop)
        with signals(stop, workers.reload):
            try:
                async with asyncio.TaskGroup() as group:
                    group.create_task(workers.run())
                    if await workers.started():
                        async with open_services(settings) as services:
                            password = await ensure_administrator(services)
                        ready.write(listeners.endpoints)
                        announce(settings, listeners.endpoints, password)
            except* WorkersFailed as failed:
                raise _first(failed) from None
            finally:
                ready.remove()


def _first(group: BaseExceptionGroup[WorkersFailed]) -> WorkersFailed:
    """One of the errors in a group of groups."""
    error = group.exceptions[0]
    return _first(error) if isinstance(error, BaseExceptionGroup) else error


class Workers:
    """The child processes."""

    def __init__(self, settings: Settings, stop: Stop) -> None:
        self._settings = settings
        self._stop = stop
        self._processes: dict[int, Process] = {}
        self._ready: set[int] = set()
        self._all_ready = asyncio.Event()

    async def started(self) -> bool:
        """Waits until every worker accepts connections; False when asked to stop before."""
        waits = [asyncio.ensure_future(event.wait()) for event in (self._all_ready, self._stop.requested)]
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        for wait in waits:
            wait.cancel()
        return self._all_ready.is_set()

    async def run(self) -> None:
        """Starts the workers, replaces those that end, and returns when all have ended after a stop.

        Raises:
            WorkersFailed: one ended before all were ready.
        """
        async with asyncio.TaskGroup() as group:
            keepers = [
                group.create_task(self._keep(number))
                for number in range(1, self._settings.server.workers + 1)
            ]
            ending = group.create_task(self._end())
            await asyncio.wait(keepers)
            ending.cancel()

    def reload(self) -> None:
        """Passes SIGHUP on."""
        self._signal(signal.SIGHUP)

    async def _keep(self, number: int) -> None:
        """Has one worker run, again and again, until the stop."""
        delay = _FIRST_DELAY
        loop = asyncio.get_running_loop()
        while not self._stop.requested.is_set():
            began = loop.time()
            status = await self._run_one(number)
            if self._stop.requested.is_set():
                return
            if not self._all_ready.is_set():
                raise WorkersFailed(f"worker {number} ended with status {status} before it was ready")
            delay = _FIRST_DELAY if loop.time() - began > _STABLE_SECONDS else min(delay * 2, _LONGEST_DELAY)
            log.error("worker ended; starting it again", worker=number, status=status, delay=delay)
            await self._pause(delay)

    async def _run_one(self, number: int) -> int:
        # The module is found where this process found it, never in the directory it happens to run in.
        places = os.pathsep.join(place for place in sys.path if place)
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "modelyard.worker",
            stdin=PIPE,
            stdout=PIPE,
            env={**os.environ, "PYTHONSAFEPATH": "1", "PYTHONPATH": places},
            # Ctrl-C is for us; we tell them, once.
            start_new_session=True,
        )
        self._processes[number] = process
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            process.stdin.write(Assignment(self._settings, number).encode())
            if await process.stdout.readline() == READY:
                log.info("worker ready", worker=number, pid=process.pid)
                self._ready.add(number)
                if len(self._ready) == self._settings.server.workers:
                    self._all_ready.set()
            return await process.wait()
        finally:
            process.stdin.close()
            if process.returncode is None:
                process.kill()
                await process.wait()
            self._ready.discard(number)
            del self._processes[number]

    async def _pause(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._stop.requested.wait()
        except TimeoutError:
            pass  # the usual end of a pause

    async def _end(self) -> None:
        """Tells the workers to stop, then to hurry, and kills those that do neither."""
        await self._stop.requested.wait()
        log.info("stopping", workers=len(self._processes))
        self._signal(signal.SIGTERM)
        try:
            async with asyncio.timeout(self._settings.server.drain_seconds + _KILL_MARGIN_SECONDS):
                await self._stop.hurried.wait()
            self._signal(signal.SIGTERM)
            await asyncio.sleep(_KILL_MARGIN_SECONDS)
        except TimeoutError:
            pass  # they had their time
        self._signal(signal.SIGKILL)

    def _signal(self, number: signal.Signals) -> None:
        for process in self._processes.values():
            if process.returncode is None:
                process.send_signal(number)
