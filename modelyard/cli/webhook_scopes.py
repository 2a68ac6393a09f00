"""What the commands about webhooks share: which ones are meant, and reading what people typed."""

import sys
from datetime import datetime
from typing import Annotated

import typer

from core.names import parse_address
from webhooks.scopes import SERVER, WebhookScope

_SERVER = "server"

Where = Annotated[
    str,
    typer.Argument(
        metavar="WHERE",
        help="`OWNER/NAME`, or `OWNER` for everything they own, or `server` for everything.",
        show_default=False,
    ),
]
WebhookId = Annotated[int, typer.Argument(metavar="ID", help="As `list` shows it.", show_default=False)]
DeliveryId = Annotated[
    str, typer.Argument(metavar="DELIVERY", help="As `deliveries` shows it.", show_default=False)
]
SecretStdin = Annotated[
    bool,
    typer.Option(
        "--secret-stdin", help="Read the secret, `whsec_…`, from standard input; without: a new one."
    ),
]
TrialSecret = Annotated[
    str | None,
    typer.Option(
        "--secret",
        metavar="SECRET",
        envvar="WEBHOOK_SECRET",
        help="The secret of the webhook, `whsec_…`.",
        show_default=False,
    ),
]
Since = Annotated[
    str | None,
    typer.Option(
        metavar="TIME",
        help="Queued then or later, as in 2026-01-31T12:00, here or with a zone.",
        show_default=False,
    ),
]
Until = Annotated[str | None, typer.Option(metavar="TIME", help="Queued before then.", show_default=False)]


def scope_of(where: str) -> WebhookScope:
    """Whose webhooks are meant.

    Raises:
        RepositoryNotFound: it is not the address of a repository.
    """
    if where == _SERVER:
        return SERVER
    return WebhookScope(repository=parse_address(where)) if "/" in where else WebhookScope(owner=where)


def read_secret(*, from_stdin: bool) -> str | None:
    """A secret: the first line of standard input, if it was said to be there."""
    return sys.stdin.readline().strip() if from_stdin else None


def parse_time(text: str | None, option: str) -> datetime | None:
    """A moment; without a zone, of this machine's.

    Raises:
        typer.BadParameter: it is none.
    """
    try:
        return datetime.fromisoformat(text).astimezone() if text is not None else None
    except (ValueError, OverflowError) as error:
        raise typer.BadParameter("a time, as in 2026-01-31T12:00", param_hint=option) from error
