"""What a client may ask for: an allow-list of exact command forms, never a shell.

Clients send one line, quoted for a shell: `git-upload-pack '/owner/name.git'`. It is split as a shell would
split it and compared with the few forms that Git uses; nothing is expanded and nothing is ever executed.
"""

import shlex
from dataclasses import dataclass
from enum import StrEnum

from core.errors import BadRequest
from core.names import Address, parse_address

# The longest path that can be an address is below 200 characters; quoting at most doubles it.
MAX_COMMAND_LENGTH = 1024


class Service(StrEnum):
    """The Git services, under the names that clients ask for."""

    UPLOAD_PACK = "git-upload-pack"
    RECEIVE_PACK = "git-receive-pack"
    UPLOAD_ARCHIVE = "git-upload-archive"


class CommandRefused(BadRequest):
    """The line is not one of the commands that are offered here."""

    code = "command_refused"


@dataclass(frozen=True, slots=True)
class Command:
    """One accepted command. The address is well formed; the repository may not exist."""

    service: Service
    address: Address


_OFFERED = "git-upload-pack, git-receive-pack and git-upload-archive"
_LFS = frozenset({"git-lfs-authenticate", "git-lfs-transfer"})


def parse_command(line: str) -> Command:
    """Reads the command line of an exec request.

    Both spellings are taken, `git-upload-pack PATH` and `git upload-pack PATH`. The path may be quoted, start
    with `/` or `~/`, carry a prefix (`models/`, `datasets/`) and end in `.git`.

    Raises:
        CommandRefused: the line is too long, or anything but such a command with exactly one path.
        RepositoryNotFound: no repository can have this address.
    """
    if len(line) > MAX_COMMAND_LENGTH:
        raise CommandRefused("the command line is too long")
    if not line.isprintable():
        raise CommandRefused("the command line holds control characters")
    try:
        words = shlex.split(line)
    except ValueError as error:
        raise CommandRefused("the quotes in the command line do not match") from error
    if words[:1] == ["git"] and len(words) > 1:
        words[:2] = [f"git-{words[1]}"]
    if not words:
        raise CommandRefused(f"the command line is empty; this server offers {_OFFERED}")
    name, *arguments = words
    if name in _LFS:
        raise CommandRefused("Git LFS over SSH is not offered yet by this server")
    if name not in set(Service):
        raise CommandRefused(f"this command is not offered; this server offers {_OFFERED}")
    if len(arguments) != 1 or arguments[0].startswith("-"):
        raise CommandRefused(f"{name} takes the path of one repository and no option")
    return Command(Service(name), parse_address(_without_home(arguments[0])))


def _without_home(path: str) -> str:
    """`ssh://host/~/a/b` arrives as `~/a/b`; everybody's home here is the root of all repositories."""
    return path.removeprefix("/").removeprefix("~/")
