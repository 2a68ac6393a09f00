"""`modelyard tls …`."""

import socket
from pathlib import Path
from typing import Annotated

import typer

from core.errors import BadRequest
from modelyard.cli.framework import Noun
from modelyard.cli.output import Answer, done
from modelyard.cli.settings import settings_of
from modelyard.tls import write_self_signed

command = Noun()


@command.command("self-signed")
def self_signed(
    context: typer.Context,
    names: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[NAME]...", help="Host names and addresses that clients use; without: this machine's."
        ),
    ] = None,
    cert: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Where the certificate goes; without: DATA/cert.pem.")
    ] = None,
    key: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Where its key goes; without: DATA/key.pem.")
    ] = None,
    days: Annotated[int, typer.Option(min=1, max=3650, help="How long it is good for.")] = 825,
    force: Annotated[bool, typer.Option("--force", help="Replace files that exist.")] = False,
) -> Answer:
    """Make a certificate that signs itself, for development and closed networks."""
    data = settings_of(context).data_dir
    cert, key = (cert or data / "cert.pem").absolute(), (key or data / "key.pem").absolute()
    names = names or ["localhost", "127.0.0.1", "::1", socket.gethostname().lower()]
    try:
        if data in (cert.parent, key.parent):
            data.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_self_signed(cert, key, names, days=days, overwrite=force)
    except OSError as error:
        raise BadRequest(f"cannot write {error.filename}: {error.strerror}") from error
    setting = f'[http]\ncert = "{cert}"\nkey = "{key}"'
    return done(
        f"made a certificate for {', '.join(names)}; serve with it by\n\n{setting}",
        cert=cert,
        key=key,
        names=names,
        days=days,
    )
