"""`modelyard serve`: one process, or several under a supervisor."""

from pathlib import Path

from core.settings import Settings
from modelyard import logs
from modelyard.bootstrap import ensure_administrator
from modelyard.listening import Listeners
from modelyard.ready import ReadyFile, announce
from modelyard.server import Server, run_loop
from modelyard.services import open_services
from modelyard.stopping import Stop
from modelyard.supervisor import supervise
from modelyard.tls import certificate_of


def serve(settings: Settings, ready_file: Path | None = None) -> None:
    """Serves until SIGTERM or SIGINT; with `[server] workers` above 1, in that many processes.

    The first signal stops accepting and lets what runs finish for `[server] drain_seconds`; the second ends
    it at once. SIGHUP reads the TLS certificate again. Call it in the main thread.

    Raises:
        ModelyardError: it could not start; the message says why.
    """
    logs.configure(settings.server)
    several = settings.server.workers > 1
    run_loop(supervise(settings, ready_file) if several else run(settings, ready_file))


async def run(settings: Settings, ready_file: Path | None = None) -> None:
    """As `serve`, in this process and the running event loop."""
    ready = ReadyFile(ready_file)
    certificate = certificate_of(settings.http)
    with Listeners(settings, share=False) as listeners:
        async with open_services(settings) as services:

            async def tell() -> None:
                password = await ensure_administrator(services)
                ready.write(listeners.endpoints)
                announce(settings, listeners.endpoints, password)

            try:
                await Server(services, listeners, certificate).run(Stop(), tell)
            finally:
                ready.remove()
