"""From what a client calls a revision to an object: the only way a client's text becomes an oid.

Nothing that a client wrote reaches a git command line as a revision; children only ever see full oids.
"""

import re
from dataclasses import dataclass

from core.errors import RevisionNotFound
from gitserver.objects import Kind, PackSet
from gitserver.snapshots import Snapshot

SHORTEST_PREFIX = 7
_MAX_LENGTH = 600
_MAX_TAGS = 32
_HEX = re.compile(r"[0-9a-fA-F]+")


class AmbiguousRevision(RevisionNotFound):
    """Several objects start with these digits."""

    code = "ambiguous_revision"


@dataclass(frozen=True, slots=True)
class Revision:
    """An object that a client named.

    Attributes:
        oid: the object itself, behind all tags.
        kind: what it is; nearly always a commit.
        ref: the full name of the ref it was found by, None when it was found by its oid.
        exact: it was named by its full oid, so the answer can never change.
    """

    oid: str
    kind: Kind
    ref: str | None
    exact: bool = False

    @property
    def short(self) -> str:
        """A name for people: the branch or tag, else twelve digits."""
        if self.ref is None:
            return self.oid[:12]
        return self.ref.removeprefix("refs/").removeprefix("heads/").removeprefix("tags/")


def resolve(packs: PackSet, snapshot: Snapshot, text: str) -> Revision:
    """Finds a revision: full oid, `HEAD`, `refs/…`, branch, tag, or the first digits of a commit or tag.

    Raises:
        RevisionNotFound: nothing is called that; also for HEAD of an empty repository.
        AmbiguousRevision: the digits fit several commits.
    """
    if not text or len(text) > _MAX_LENGTH:
        raise _missing(text)
    is_hex = _HEX.fullmatch(text) is not None
    if is_hex and len(text) == packs.format.hex_length and packs.header(text.lower()) is not None:
        return _peeled(packs, text.lower(), None, exact=True)
    ref = find_ref(snapshot, text)
    if ref is not None:
        return _peeled(packs, snapshot.refs[ref].oid, ref)
    if is_hex and SHORTEST_PREFIX <= len(text) < packs.format.hex_length:
        return _peeled(packs, _complete(packs, text.lower()), None)
    raise _missing(text)


def resolve_commit(packs: PackSet, snapshot: Snapshot, text: str) -> Revision:
    """Like `resolve`, for callers who need a commit. Raises `RevisionNotFound` for anything else."""
    revision = resolve(packs, snapshot, text)
    if revision.kind is not Kind.COMMIT:
        raise RevisionNotFound(f"{shown(text)} is a {revision.kind}, not a commit", revision=shown(text))
    return revision


def find_ref(snapshot: Snapshot, text: str) -> str | None:
    """The full name of an existing ref, branches before tags."""
    if text == "HEAD":
        text = f"refs/heads/{snapshot.default_branch}"
    names = (text,) if text.startswith("refs/") else (f"refs/heads/{text}", f"refs/tags/{text}")
    return next((name for name in names if name in snapshot.refs), None)


def shown(text: str) -> str:
    """What may stand in a message: printable, short."""
    return text[:100].encode("unicode_escape").decode("ascii")


def tag_target(content: bytes) -> str:
    """The oid that a tag object names."""
    return content[len("object ") : content.index(b"\n")].decode("ascii", "replace")


def _complete(packs: PackSet, prefix: str) -> str:
    found = []
    for oid in packs.starting_with(prefix):
        header = packs.header(oid)
        if header is not None and header.kind in {Kind.COMMIT, Kind.TAG}:
            found.append(oid)
    if not found:
        raise _missing(prefix)
    if len(found) > 1:
        raise AmbiguousRevision(f"{prefix} fits {len(found)} revisions; add digits", revision=prefix)
    return found[0]


def _peeled(packs: PackSet, oid: str, ref: str | None, *, exact: bool = False) -> Revision:
    for _ in range(_MAX_TAGS):
        header = packs.header(oid)
        if header is None:
            raise _missing(oid)
        if header.kind is not Kind.TAG:
            return Revision(oid, header.kind, ref, exact)
        oid = tag_target(packs.read(oid, Kind.TAG))
    raise RevisionNotFound("too many tags of tags", revision=oid)


def _missing(text: str) -> RevisionNotFound:
    return RevisionNotFound(f"no revision {shown(text)}", revision=shown(text))
