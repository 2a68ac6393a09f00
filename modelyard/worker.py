"""One worker of several: `python -m modelyard.worker`, started by the supervisor and by nobody else.

Standard input carries one line, the assignment, and stays open for as long as the supervisor lives. Standard
output carries one line back, once connections are accepted.
"""

import asyncio
import os
import sys

import structlog

from core.errors import ModelyardError
from modelyard import logs
from modelyard.assignment import READY, Assignment
from modelyard.listening import Listeners
from modelyard.server import Server, run_loop
from modelyard.services import open_services
from modelyard.stopping import Stop
from modelyard.tls import certificate_of

log = structlog.get_logger(__name__)


def main() -> int:
    """Works as assigned; returns the exit status."""
    assignment = Assignment.decode(sys.stdin.buffer.readline())
    logs.configure(assignment.settings.server, worker=assignment.worker)
    try:
        run_loop(_work(assignment))
    except ModelyardError as error:
        log.critical("worker cannot start", reason=error.message)
        return 1
    return 0


async def _work(assignment: Assignment) -> None:
    settings = assignment.settings
    stop = Stop()
    _watch_supervisor(stop)
    certificate = certificate_of(settings.http)
    with Listeners(settings, share=True) as listeners:
        async with open_services(settings) as services:
            await Server(services, listeners, certificate, worker=assignment.worker).run(stop, _tell)


def _watch_supervisor(stop: Stop) -> None:
    """Asks to stop when standard input ends: then the supervisor is gone, and nobody would stop us."""
    loop, descriptor = asyncio.get_running_loop(), sys.stdin.fileno()

    def readable() -> None:
        if not os.read(descriptor, 4096):
            loop.remove_reader(descriptor)
            log.warning("the supervisor is gone")
            stop.request()

    loop.add_reader(descriptor, readable)


async def _tell() -> None:
    sys.stdout.buffer.write(READY)
    sys.stdout.buffer.flush()


if __name__ == "__main__":
    sys.exit(main())
