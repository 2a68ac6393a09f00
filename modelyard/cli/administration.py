"""How the administration commands reach the services, and read what people typed.

They work on the database itself, as `core.access.SYSTEM`: who can read the data directory needs no
password. A server may be running beside them.
"""

import contextlib
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Annotated, TypeVar

import msgspec
import typer

from core.access import SYSTEM, Permission
from core.errors import BadRequest
from core.models import RepositoryType, Visibility
from core.names import Address, check_account_name, check_repository_name, parse_address
from core.repositories import RepositoryInfo
from core.settings import Settings
from modelyard import logs
from modelyard.cli.framework import Invocation
from modelyard.cli.settings import settings_of
from modelyard.services import Services, open_services

PAGE = 100
_KEY_FILE_BYTES = 64 * 1024

_Item = TypeVar("_Item")

UserName = Annotated[str, typer.Argument(metavar="USER", help="Name of the user.", show_default=False)]
OrganisationName = Annotated[
    str, typer.Argument(metavar="ORG", help="Name of the organisation.", show_default=False)
]
RepositoryPath = Annotated[
    str,
    typer.Argument(metavar="OWNER/NAME", help="A dataset is `datasets/OWNER/NAME`.", show_default=False),
]
Kind = Annotated[RepositoryType | None, typer.Option("--type", help="What it holds.")]
Private = Annotated[
    bool | None,
    typer.Option("--private/--public", help="Who may read it; without: [repositories] default_visibility."),
]
KeyFile = Annotated[
    Path,
    typer.Argument(metavar="FILE.pub", help="The public key; `-` is standard input.", show_default=False),
]
KeyTitle = Annotated[
    str, typer.Option("--title", help="What it is called; without: its comment.", show_default=False)
]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]


@contextlib.asynccontextmanager
async def administer(context: typer.Context) -> AsyncIterator[Services]:
    """The services, on the database and the store that the settings name.

    Raises:
        SettingsError: the settings cannot be used.
        Unavailable: the database or the store cannot be reached.
    """
    settings = settings_of(context)
    quieten(context, settings)
    async with open_services(settings) as services:
        yield services


def quieten(context: typer.Context, settings: Settings) -> None:
    """Sends the log to standard error, and there only what is an error, or everything with `--debug`.

    Standard output belongs to the answer, and standard error to the one line that says why not.
    """
    level = "debug" if Invocation.of(context).debug else "error"
    logs.configure(msgspec.structs.replace(settings.server, log_level=level))


async def every(page: Callable[[_Item | None], Awaitable[list[_Item]]]) -> list[_Item]:
    """All items of a paginated list; `page` gets the last item of the page before."""
    items: list[_Item] = []
    while found := await page(items[-1] if items else None):
        items += found
        if len(found) < PAGE:
            break
    return items


async def repositories_of(
    services: Services,
    *,
    owner: str | None = None,
    kind: RepositoryType | None = None,
    search: str | None = None,
) -> list[RepositoryInfo]:
    """All repositories that fit, by owner, type and name."""

    async def page(last: RepositoryInfo | None) -> list[RepositoryInfo]:
        after = last.cursor if last else None
        return await services.repositories.list_visible(
            SYSTEM, owner=owner, type=kind, search=search, limit=PAGE, after=after
        )

    return await every(page)


async def named_repositories(services: Services, paths: list[str] | None) -> list[RepositoryInfo]:
    """The repositories at these paths; without any path, all there are.

    Raises:
        RepositoryNotFound: there is none at one of them.
    """
    if not paths:
        return await repositories_of(services)
    return [await services.repositories.open(SYSTEM, parse_address(path), Permission.ADMIN) for path in paths]


def new_address(path: str, kind: RepositoryType | None) -> Address:
    """The address of a repository that is to be made; `kind` is what `--type` said.

    Raises:
        InvalidName: the message says what a name may be.
        BadRequest: it is not an address, or its prefix contradicts `kind`.
    """
    prefix, _, rest = path.strip("/").partition("/")
    if prefix not in ("models", "datasets") or rest.count("/") != 1:
        prefix, rest = "", path.strip("/")
    owner, separator, name = rest.partition("/")
    if not separator:
        raise BadRequest(f"{path} is not of the form OWNER/NAME")
    check_account_name(owner.lower())
    check_repository_name(name.lower().removesuffix(".git"))
    address = parse_address(path)
    if kind is None or kind == address.type:
        return address
    if prefix:
        raise BadRequest(f"{path} is the address of a {address.type}, and --type says {kind}")
    return Address(kind, address.owner, address.name)


def visibility_of(private: bool | None) -> Visibility | None:
    """What `--private/--public` said; None is for the settings to decide."""
    if private is None:
        return None
    return Visibility.PRIVATE if private else Visibility.PUBLIC


def read_key(file: Path) -> str:
    """The text of a public key file.

    Raises:
        BadRequest: it cannot be read, or it is no public key by its looks.
    """
    try:
        with contextlib.nullcontext(sys.stdin.buffer) if str(file) == "-" else file.open("rb") as opened:
            return opened.read(_KEY_FILE_BYTES).decode()
    except OSError as error:
        raise BadRequest(f"cannot read {file}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise BadRequest(f"{file} is not an OpenSSH public key") from error


def read_password(*, from_stdin: bool) -> str:
    """A password: the first line of standard input, or typed twice at a terminal.

    Raises:
        typer.BadParameter: neither was asked for nor possible.
    """
    if from_stdin:
        return sys.stdin.readline().rstrip("\r\n")
    if not sys.stdin.isatty():
        raise typer.BadParameter("give it on standard input with --password-stdin", param_hint="password")
    return str(typer.prompt("Password", hide_input=True, confirmation_prompt=True, err=True))


def confirm(question: str, *, yes: bool) -> None:
    """Goes on only if `--yes` was given or somebody at a terminal agrees.

    Raises:
        typer.Abort: they do not.
        typer.BadParameter: there is nobody to ask.
    """
    if yes:
        return
    if not sys.stdin.isatty():
        raise typer.BadParameter("needed, because there is no terminal to ask at", param_hint="--yes")
    typer.confirm(question, abort=True, err=True)
