"""`modelyard serve`."""

from pathlib import Path
from typing import Annotated

import structlog
import typer

from core.errors import ModelyardError
from modelyard.cli.framework import Invocation, Verb
from modelyard.cli.settings import settings_of
from modelyard.serve import serve as run_server

log = structlog.get_logger(__name__)


def serve(
    context: typer.Context,
    http: Annotated[
        str | None, typer.Option(metavar="HOST:PORT", help="Where HTTP listens; port 0 picks a free one.")
    ] = None,
    ssh: Annotated[
        str | None, typer.Option(metavar="HOST:PORT", help="Where SSH listens; port 0 picks a free one.")
    ] = None,
    workers: Annotated[int | None, typer.Option(min=1, help="How many processes serve.")] = None,
    ready_file: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Written as JSON `http`, `ssh`, `pid` once both listeners accept."),
    ] = None,
) -> None:
    """Run the server.

    SIGTERM or SIGINT lets what runs finish and stops, a second one stops at once; SIGHUP reads the TLS
    certificate again. With --json the log is JSON.
    """
    settings = settings_of(
        context,
        http={"listen": http},
        ssh={"listen": ssh},
        server={"workers": workers, "log_format": "json" if Invocation.of(context).json else None},
    )
    try:
        run_server(settings, ready_file)
    except ModelyardError:
        raise
    except Exception:
        # Nobody can run a server that died at night again with --debug.
        log.exception("the server failed")
        raise


command = Verb(serve)
