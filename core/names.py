"""Names of accounts, repositories and refs: what is allowed, and how an address is read.

One normaliser serves every face, so that no face can be talked into another repository than the one that
was authorised.
"""

import re
from dataclasses import dataclass

from core.errors import InvalidName, RepositoryNotFound
from core.models import RepositoryType

_ACCOUNT = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,37}[a-z0-9])?")
_REPOSITORY = re.compile(r"[a-z0-9_](?:[a-z0-9._-]{0,94}[a-z0-9_])?")

# First path segments that are, or may become, addresses of the server itself.
RESERVED_ACCOUNTS = frozenset(
    """
    about account accounts anonymous api apps archive assets auth blog branches code codes collections
    commits compare csg dashboard dataset datasets docs events explore favicon favicon-ico git
    graphql health healthz help hf home hooks info internal jobs join lfs locks login logout mcps
    metrics model models modelyard ms new notifications null oauth objects org organisation
    organisations organization organizations orgs papers ping pricing privacy profile pull raw
    readyz register releases repo repos resolve robots root runs search security self server
    session sessions settings signin signout signup skills spaces ssh static status support system tags
    terms tos tree undefined user users v1 v2 v3 webhooks well-known xet
    """.split()
)
RESERVED_REPOSITORIES = frozenset(
    "api archive blob commits info members new raw repositories resolve settings tree".split()
)

_PREFIXES = {
    "models": RepositoryType.MODEL,
    "datasets": RepositoryType.DATASET,
}


@dataclass(frozen=True, slots=True)
class Address:
    """Where a repository is said to be. Well formed; it may not exist."""

    type: RepositoryType
    owner: str
    name: str

    @property
    def path(self) -> str:
        """The canonical path: `owner/name`, or `datasets/owner/name`."""
        prefix = "" if self.type is RepositoryType.MODEL else "datasets/"
        return f"{prefix}{self.owner}/{self.name}"

    def __str__(self) -> str:
        return self.path


def is_account_name(name: str) -> bool:
    """Whether an account may be called this; reserved names included, because old ones stay."""
    return _ACCOUNT.fullmatch(name) is not None


def check_account_name(name: str) -> str:
    """Returns `name` if a new account may have it.

    Raises:
        InvalidName: with what is allowed instead.
    """
    if not _ACCOUNT.fullmatch(name) or "--" in name:
        raise InvalidName(
            "an account name has 1 to 39 lower-case letters, digits and single inner hyphens",
            name=_shown(name),
        )
    if name in RESERVED_ACCOUNTS:
        raise InvalidName(f"the name {name} is reserved", name=name)
    return name


def check_repository_name(name: str) -> str:
    """Returns `name` if a new repository may have it.

    Raises:
        InvalidName: with what is allowed instead.
    """
    if not _REPOSITORY.fullmatch(name) or ".." in name:
        raise InvalidName(
            "a repository name has 1 to 96 lower-case letters, digits, `.`, `_` and `-`, "
            "starts and ends with a letter, digit or `_`, and has no `..`",
            name=_shown(name),
        )
    if name.endswith((".git", ".lock", ".atom", ".wiki")) or name in RESERVED_REPOSITORIES:
        raise InvalidName(f"the name {name} is reserved", name=name)
    return name


def parse_address(path: str) -> Address:
    """Reads `[models/|datasets/]owner/name[.git]`, with or without slashes around it.

    The path is taken as it is: percent-encoding was undone by the face, once.

    Raises:
        RepositoryNotFound: no repository can have this address. The same answer as for one that
            does not exist, so a prober learns nothing.
    """
    if not path.isascii():  # lower() would turn look-alikes such as the Kelvin sign into plain letters
        raise RepositoryNotFound("no such repository")
    parts = path.strip("/").split("/")
    kind = RepositoryType.MODEL
    if len(parts) == 3 and parts[0] in _PREFIXES:
        kind = _PREFIXES[parts.pop(0)]
    if len(parts) != 2:
        raise RepositoryNotFound("no such repository")
    owner, name = parts[0].lower(), parts[1].lower().removesuffix(".git")
    if not _ACCOUNT.fullmatch(owner) or not _REPOSITORY.fullmatch(name) or ".." in name:
        raise RepositoryNotFound("no such repository")
    return Address(kind, owner, name)


_REF_FORBIDDEN = re.compile(r"[\x00-\x20\x7f~^:?*\[\\]|\.\.|@\{|//|/\.|\.lock(?:/|$)|\.$|/$|^/|^\.")


def is_valid_ref(name: str) -> bool:
    """Whether `git check-ref-format` would take the name, and it lies below `refs/`, within 512 bytes."""
    return (
        name.startswith("refs/")
        and name.count("/") >= 2
        and len(name.encode()) <= 512
        and not _REF_FORBIDDEN.search(name)
    )


def check_branch_name(name: str) -> str:
    """Returns `name` if a branch may have it; the full ref is `refs/heads/<name>`.

    Raises:
        InvalidName: it is not a valid Git branch name.
    """
    if not is_valid_ref(f"refs/heads/{name}") or name.startswith("-") or name == "HEAD":
        raise InvalidName("this is not a valid branch name", name=_shown(name))
    return name


def check_tag_name(name: str) -> str:
    """Returns `name` if a tag may have it; the full ref is `refs/tags/<name>`.

    Raises:
        InvalidName: it is not a valid Git tag name.
    """
    if not is_valid_ref(f"refs/tags/{name}") or name.startswith("-"):
        raise InvalidName("this is not a valid tag name", name=_shown(name))
    return name


def _shown(name: str) -> str:
    """What may stand in an answer or a log line: printable, short."""
    return name[:100].encode("unicode_escape").decode("ascii")
