"""Files and directories of a revision.

Git's paths are bytes. Text from a client becomes bytes with `surrogateescape`, so a face that decodes
percent-escapes that way can name any path; on the way out `path` shows what is not UTF-8 as U+FFFD and
`raw_path` is exact.
"""

import stat
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from itertools import islice

from core.errors import EntryNotFound, RevisionNotFound
from gitserver.objects import Kind, PackSet
from gitserver.revisions import Revision, shown

_SUBMODULE = 0o160000


class EntryKind(StrEnum):
    BLOB = "blob"
    TREE = "tree"
    SYMLINK = "symlink"
    COMMIT = "commit"  # a submodule


@dataclass(frozen=True, slots=True)
class Entry:
    """One file, directory, symbolic link or submodule.

    Attributes:
        path: from the root, for people: what is not UTF-8 is replaced.
        raw_path: from the root, exactly.
        mode: as Git writes it, six octal digits.
        size: in bytes, of blobs and symbolic links.
    """

    path: str
    raw_path: bytes
    kind: EntryKind
    mode: str
    oid: str
    size: int | None

    @property
    def name(self) -> str:
        """The last component of the path."""
        return self.path.rpartition("/")[2]

    @property
    def executable(self) -> bool:
        return self.kind is EntryKind.BLOB and int(self.mode, 8) & 0o100 != 0


@dataclass(frozen=True, slots=True)
class TreePage:
    """A part of a listing.

    Attributes:
        oid: the tree that was listed; it never changes.
        entries: in Git's order.
        after: give it back to get the next page; None on the last one.
    """

    oid: str
    entries: list[Entry]
    after: bytes | None


def to_raw(path: str | bytes) -> bytes:
    """A client's path as bytes, without slashes around it. Raises `EntryNotFound` for what is none."""
    if isinstance(path, bytes):
        return path.strip(b"/")
    try:
        return path.strip("/").encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        raise missing_entry(path) from None


def to_text(raw: bytes) -> str:
    """A path or other text for people; what is not UTF-8 is replaced."""
    return raw.decode("utf-8", "replace")


def root_of(packs: PackSet, revision: Revision) -> str:
    """The oid of a revision's root tree. Raises `RevisionNotFound` when it names a blob."""
    if revision.kind is Kind.TREE:
        return revision.oid
    if revision.kind is not Kind.COMMIT:
        raise RevisionNotFound(f"{revision.short} is a {revision.kind} and has no files")
    return tree_of(packs.read(revision.oid, Kind.COMMIT))


def tree_of(commit: bytes) -> str:
    """The tree that a commit's content names."""
    return commit[len("tree ") : commit.index(b"\n")].decode("ascii", "replace")


def find(packs: PackSet, root: str, path: bytes) -> tuple[int, str] | None:
    """Mode and oid at a path below a tree, None when there is nothing; the empty path is the tree itself."""
    mode, oid = stat.S_IFDIR, root
    for part in path.split(b"/") if path else ():
        if not stat.S_ISDIR(mode):
            return None
        for name, entry_mode, entry_oid in packs.tree(oid):
            if name == part:
                mode, oid = entry_mode, entry_oid
                break
        else:
            return None
    return mode, oid


def entry_at(packs: PackSet, revision: Revision, path: str | bytes) -> Entry:
    """The entry at a path; the empty path is the root. Raises `EntryNotFound`."""
    raw = to_raw(path)
    found = find(packs, root_of(packs, revision), raw)
    if found is None:
        raise missing_entry(path)
    return _entry(packs, raw, *found)


def list_tree(
    packs: PackSet,
    revision: Revision,
    path: str | bytes,
    *,
    recursive: bool,
    limit: int,
    after: bytes,
) -> TreePage:
    """Lists a directory; with `recursive` also everything below, each directory before its content.

    Raises:
        EntryNotFound: there is nothing at `path`, or no directory.
    """
    raw = to_raw(path)
    found = find(packs, root_of(packs, revision), raw)
    if found is None or not stat.S_ISDIR(found[0]):
        raise missing_entry(path)
    prefix = raw + b"/" if raw else b""
    rows = list(islice(_walk(packs, found[1], prefix, recursive, after), limit + 1))
    entries = [_entry(packs, *row) for row in rows[:limit]]
    more = len(rows) > limit and limit > 0
    return TreePage(found[1], entries, _key(*rows[limit - 1][:2]) if more else None)


def missing_entry(path: str | bytes) -> EntryNotFound:
    """The error for a path at which there is nothing of the wanted kind."""
    text = shown(path if isinstance(path, str) else to_text(path))
    return EntryNotFound(f"no file or directory {text} in this revision", path=text)


def kind_of(mode: int) -> EntryKind:
    """What a mode says an entry is."""
    if stat.S_ISDIR(mode):
        return EntryKind.TREE
    if stat.S_ISLNK(mode):
        return EntryKind.SYMLINK
    return EntryKind.COMMIT if mode == _SUBMODULE else EntryKind.BLOB


def _entry(packs: PackSet, raw: bytes, mode: int, oid: str) -> Entry:
    kind = kind_of(mode)
    size = None
    if kind in {EntryKind.BLOB, EntryKind.SYMLINK}:
        header = packs.header(oid)
        size = header.size if header is not None else None
    return Entry(to_text(raw), raw, kind, f"{mode:06o}", oid, size)


def _key(path: bytes, mode: int) -> bytes:
    """What Git sorts by: directories as if they ended in a slash. The whole listing ascends in it."""
    return path + b"/" if stat.S_ISDIR(mode) else path


def _walk(
    packs: PackSet, tree: str, prefix: bytes, recursive: bool, after: bytes
) -> Iterator[tuple[bytes, int, str]]:
    """Path, mode and oid of what comes behind `after`, without reading directories that end before it."""
    open_trees = [(prefix, packs.tree(tree))]  # a list, not recursion: nothing bounds the depth of a tree
    while open_trees:
        prefix, entries = open_trees[-1]
        for name, mode, oid in entries:
            path = prefix + name
            key = _key(path, mode)
            if key > after:
                yield path, mode, oid
            if recursive and stat.S_ISDIR(mode) and (key > after or after.startswith(key)):
                open_trees.append((key, packs.tree(oid)))
                break
        else:
            open_trees.pop()
