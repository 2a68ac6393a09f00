"""Commits: what they say and in which order they come.

Git decides the order (`rev-list`); the commits are then read in process. Names and messages are bytes in any
encoding: they are decoded as the commit says, else as UTF-8, and what does not decode is replaced.
"""

import codecs
import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, timezone

from gitserver.objects import Kind, PackSet
from gitserver.process import GitRunner
from gitserver.queries import ask, path_arguments
from gitserver.snapshots import Snapshot

_PERSON = re.compile(rb"(?P<name>[^<]*)<(?P<email>[^>]*)>?(?: (?P<time>-?\d+)(?: (?P<zone>[+-]\d{4}))?)?")
# The other codecs of Python are no character sets, or can be made to eat time or memory.
_CHARSETS = re.compile(
    r"ascii|big5\w*|cp\d+|euc_\w+|gb\w+|iso8859-\d+|iso2022_\w+|koi8-\w|mac-\w+|shift_jis\w*"
)


@dataclass(frozen=True, slots=True)
class Signature:
    """Who did it and when, in their own time zone."""

    name: str
    email: str
    when: datetime


@dataclass(frozen=True, slots=True)
class Commit:
    oid: str
    tree: str
    parents: tuple[str, ...]
    author: Signature
    committer: Signature
    message: str

    @property
    def summary(self) -> str:
        """The first paragraph of the message in one line, as Git shows it."""
        paragraph = re.split(r"\n\s*\n", self.message.strip("\n"), maxsplit=1)[0]
        return " ".join(line.strip() for line in paragraph.splitlines())


def read_commit(packs: PackSet, oid: str) -> Commit:
    """Reads one commit; whatever a strange one lacks is empty."""
    headers, body = split_headers(packs.read(oid, Kind.COMMIT))
    charset = _charset(headers)
    return Commit(
        oid=oid,
        tree=_first(headers, b"tree").decode("ascii", "replace"),
        parents=tuple(value.decode("ascii", "replace") for key, value in headers if key == b"parent"),
        author=parse_signature(_first(headers, b"author"), charset),
        committer=parse_signature(_first(headers, b"committer"), charset),
        message=body.decode(charset, "replace"),
    )


def split_headers(content: bytes) -> tuple[list[tuple[bytes, bytes]], bytes]:
    """The headers of a commit or tag, continuation lines joined, and what follows the first empty line."""
    head, _, body = content.partition(b"\n\n")
    headers: list[tuple[bytes, bytes]] = []
    for line in head.split(b"\n"):
        if line.startswith(b" ") and headers:
            key, value = headers[-1]
            headers[-1] = (key, value + b"\n" + line[1:])
        else:
            key, _, value = line.partition(b" ")
            headers.append((key, value))
    return headers, body


def parse_signature(line: bytes, charset: str = "utf-8") -> Signature:
    """Reads `Name <email> seconds zone`; nonsense becomes empty text or the epoch."""
    found = _PERSON.match(line)
    if found is None:
        return Signature(line.decode(charset, "replace").strip(), "", datetime.fromtimestamp(0, UTC))
    return Signature(
        name=found["name"].decode(charset, "replace").strip(),
        email=found["email"].decode(charset, "replace").strip(),
        when=_when(found["time"] or b"0", found["zone"] or b"+0000"),
    )


async def list_commits(
    git: GitRunner,
    snapshot: Snapshot,
    tip: str,
    *,
    without: str | None = None,
    path: bytes = b"",
    limit: int,
    skip: int = 0,
) -> list[str]:
    """Oids of the commits that `tip` reaches and `without` does not, newest first.

    With `path`, those that changed it, simplified as `git log -- path` does.
    """
    tips = [tip] if without is None else [tip, f"^{without}"]
    limits = [f"--max-count={limit}", f"--skip={skip}"]
    answer = await ask(git, snapshot, ["rev-list", *limits, *tips, *path_arguments(path)])
    return answer.decode("ascii").split()


def _first(headers: list[tuple[bytes, bytes]], key: bytes) -> bytes:
    return next((value for name, value in headers if name == key), b"")


def _charset(headers: list[tuple[bytes, bytes]]) -> str:
    # Cut, because Python remembers every name that it is asked for.
    name = _first(headers, b"encoding")[:40].decode("ascii", "replace")
    try:
        found = codecs.lookup(name).name if name else "utf-8"
    except (LookupError, ValueError):
        return "utf-8"
    return found if _CHARSETS.fullmatch(found) else "utf-8"


def _when(seconds: bytes, zone: bytes) -> datetime:
    minutes = int(zone[1:3]) * 60 + int(zone[3:5])
    offset = timedelta(minutes=-minutes if zone.startswith(b"-") else minutes)
    try:
        return datetime.fromtimestamp(int(seconds), timezone(offset))
    except (ValueError, OverflowError, OSError):  # a zone of days, a year without a name
        return datetime.fromtimestamp(0, UTC)
