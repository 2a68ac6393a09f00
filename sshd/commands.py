"""What a client may ask for: an allow-list of exact command forms, never a shell.

Clients send one line, quoted for a shell: `git-upload-pack '/owner/name.git'`. It is split as a shell would
split it and compared with the few forms that Git and git-lfs use; nothing is expanded and nothing is ever
executed.
"""

import shlex
from dataclasses import dataclass
from enum import StrEnum

from core.errors import BadRequest
from core.names import Address, parse_address
from lfs.batch import Operation
from lfs.pointer import is_oid

# The longest path that can be an address is below 200 characters; quoting at most doubles it.
MAX_COMMAND_LENGTH = 1024


class Service(StrEnum):
    """The services, under the names that clients ask for."""

    UPLOAD_PACK = "git-upload-pack"
    RECEIVE_PACK = "git-receive-pack"
    UPLOAD_ARCHIVE = "git-upload-archive"
    LFS_AUTHENTICATE = "git-lfs-authenticate"
    LFS_TRANSFER = "git-lfs-transfer"


class CommandRefused(BadRequest):
    """The line is not one of the commands that are offered here."""

    code = "command_refused"


@dataclass(frozen=True, slots=True)
class Command:
    """One accepted command. The address is well formed; the repository may not exist.

    `operation` is what a client of large files is about to do, and None for Git itself.
    """

    service: Service
    address: Address
    operation: Operation | None = None


_OFFERED = f"{', '.join(list(Service)[:-1])} and {list(Service)[-1]}"
_LFS = frozenset({Service.LFS_AUTHENTICATE, Service.LFS_TRANSFER})


def parse_command(line: str) -> Command:
    """Reads the command line of an exec request.

    Both spellings are taken, `git-upload-pack PATH` and `git upload-pack PATH`. The path may be quoted, start
    with `/` or `~/`, carry a prefix (`models/`, `datasets/`) and end in `.git`. Large files want `upload` or
    `download` behind it; git-lfs before 2.0 adds an oid to `git-lfs-authenticate`, which says nothing.

    Raises:
        CommandRefused: the line is too long, or anything but such a command with exactly its arguments.
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
    if name not in set(Service):
        raise CommandRefused(f"this command is not offered; this server offers {_OFFERED}")
    service = Service(name)
    operation = _operation(service, arguments) if service in _LFS else None
    if len(arguments) != 1 or arguments[0].startswith("-"):
        raise CommandRefused(f"{name} takes the path of one repository and no option")
    return Command(service, parse_address(_without_home(arguments[0])), operation)


def _operation(service: Service, arguments: list[str]) -> Operation:
    """Takes what comes behind the path out of `arguments`."""
    if service is Service.LFS_AUTHENTICATE and len(arguments) == 3 and is_oid(arguments[2]):
        del arguments[2]
    if len(arguments) != 2 or arguments[1] not in set(Operation):
        raise CommandRefused(f"{service} takes the path of one repository, and upload or download")
    return Operation(arguments.pop())


def _without_home(path: str) -> str:
    """`ssh://host/~/a/b` arrives as `~/a/b`; everybody's home here is the root of all repositories."""
    return path.removeprefix("/").removeprefix("~/")
