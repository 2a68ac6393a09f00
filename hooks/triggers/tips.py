"""What the new tip of a branch or tag says about rules: its commit and its `.modelyard.toml`."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from core.errors import PayloadTooLarge, RevisionNotFound
from gitserver.objects import Kind, MissingObject, ObjectCache, PackSet
from gitserver.revisions import resolve_commit
from gitserver.snapshots import CacheUnavailable, Snapshot, Snapshots
from gitserver.trees import EntryKind, find, kind_of, root_of
from gitserver.updates import RefUpdate
from hooks.triggers.rules_file import FILE, MAX_BYTES, NO_RULES, Problem, RulesFile, parse_rules

_HEADS, _TAGS = "refs/heads/", "refs/tags/"


@dataclass(frozen=True, slots=True)
class Tip:
    """A branch or tag that a push created or moved.

    Attributes:
        commit: what it names now, behind all tags; its full oid.
        blob: of its `.modelyard.toml`; None when it has none that is a file.
        file: what is in there.
    """

    update: RefUpdate
    commit: str
    blob: str | None = None
    file: RulesFile = NO_RULES

    @property
    def ref(self) -> str:
        return self.update.name

    @property
    def branch(self) -> str | None:
        """The name of the branch, if it is one."""
        return self.ref.removeprefix(_HEADS) if self.ref.startswith(_HEADS) else None

    @property
    def tag(self) -> str | None:
        """The name of the tag, if it is one."""
        return self.ref.removeprefix(_TAGS) if self.ref.startswith(_TAGS) else None

    @property
    def name(self) -> str:
        """What people call it."""
        return self.branch or self.tag or self.ref


def moved(updates: Iterable[RefUpdate]) -> Iterator[RefUpdate]:
    """The updates after which there is a tip: not deletions, and nothing but branches and tags."""
    return (one for one in updates if not one.deletes and one.name.startswith((_HEADS, _TAGS)))


class Tips:
    """Reads tips, in this process: no child of git is started."""

    def __init__(self, snapshots: Snapshots, objects: ObjectCache) -> None:
        self._snapshots = snapshots
        self._objects = objects

    async def read(self, repository_id: str, updates: Iterable[RefUpdate]) -> list[Tip]:
        """The tips of these updates, without those that name no commit, or one that is gone or too large.

        Raises:
            RepositoryNotFound, Unavailable: as `Snapshots.open`.
        """
        async with self._snapshots.open(repository_id) as snapshot:
            return await self._objects.read(snapshot, lambda packs: _read(packs, snapshot, updates))


def _read(packs: PackSet, snapshot: Snapshot, updates: Iterable[RefUpdate]) -> list[Tip]:
    """Without a snapshot, what is not found is not gone: somebody deleted the cache meanwhile."""
    try:
        tips = _tips(packs, snapshot, updates)
    except (MissingObject, OSError) as error:
        if snapshot.objects.exists():
            raise
        raise CacheUnavailable("the cache was deleted meanwhile") from error
    if not snapshot.objects.exists():
        raise CacheUnavailable("the cache was deleted meanwhile")
    return tips


def _tips(packs: PackSet, snapshot: Snapshot, updates: Iterable[RefUpdate]) -> list[Tip]:
    tips = []
    files: dict[tuple[int, str], RulesFile] = {}
    for update in updates:
        if packs.header(update.new) is None:  # `resolve` would look for a branch of that name
            continue
        try:
            revision = resolve_commit(packs, snapshot, update.new)
            root = root_of(packs, revision)
        except (RevisionNotFound, PayloadTooLarge):
            continue
        try:
            found = find(packs, root, FILE.encode())
        except PayloadTooLarge:
            file = _problem("the directory around this is too large to be read")
            tips.append(Tip(update, revision.oid, file=file))
            continue
        if found is None:
            tips.append(Tip(update, revision.oid))
            continue
        if found not in files:
            files[found] = _file(packs, *found)
        tips.append(Tip(update, revision.oid, found[1], files[found]))
    return tips


def _file(packs: PackSet, mode: int, oid: str) -> RulesFile:
    kind = kind_of(mode)
    if kind is not EntryKind.BLOB:
        what = {EntryKind.SYMLINK: "symbolic link", EntryKind.TREE: "directory"}.get(kind, "submodule")
        return _problem(f"this is a {what}; only a file has rules")
    header = packs.header(oid)
    if header is not None and header.size > MAX_BYTES:
        return _problem(f"this is larger than {MAX_BYTES} bytes")
    try:
        return parse_rules(packs.read(oid, Kind.BLOB))
    except PayloadTooLarge:
        return _problem("this is packed in a way that takes too much memory to read")


def _problem(message: str) -> RulesFile:
    return RulesFile(problems=(Problem(1, 1, message),))
