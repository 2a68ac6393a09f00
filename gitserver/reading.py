"""Everything that can be read from a repository, for the faces: one method for each question.

Every method reads one snapshot. A face that asks twice about a branch resolves it once and asks for the oid.
"""

from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from itertools import islice

from core.errors import RevisionNotFound
from gitserver import archives, diffs, history, revisions, trees
from gitserver.archives import Archive, ArchiveFormat
from gitserver.blobs import Blob
from gitserver.diffs import Changes, Comparison, Patch
from gitserver.history import Commit, Signature
from gitserver.objects import Kind, ObjectCache, PackSet
from gitserver.process import GitRunner
from gitserver.revisions import Revision
from gitserver.snapshots import Snapshot, Snapshots
from gitserver.states import RefValue
from gitserver.trees import Entry, TreePage

MAX_FILES = 300
MAX_PATCH_BYTES = 8 * 1024**2


@dataclass(frozen=True, slots=True)
class Branch:
    name: str
    oid: str
    is_default: bool


@dataclass(frozen=True, slots=True)
class Tag:
    """A tag.

    Attributes:
        oid: what the ref names: the tag object of an annotated tag.
        target, target_kind: the object behind it, nearly always a commit.
        tagger: None for a lightweight tag and for very old annotated ones.
        message: None for a lightweight tag.
    """

    name: str
    oid: str
    target: str
    target_kind: Kind
    tagger: Signature | None
    message: str | None


class Reader:
    """Reads repositories. Revisions are what `gitserver.revisions.resolve` accepts; close it when done.

    All methods may raise `RepositoryNotFound`, `RevisionNotFound` and `Unavailable`.
    """

    def __init__(self, snapshots: Snapshots, git: GitRunner) -> None:
        self._snapshots = snapshots
        self._git = git
        self._objects = ObjectCache()

    @property
    def objects(self) -> ObjectCache:
        """The open packs, for whoever reads objects of the same snapshots."""
        return self._objects

    async def close(self) -> None:
        """Closes cached packs."""
        await self._objects.close()

    async def resolve(self, repository_id: str, revision: str) -> Revision:
        """What a revision names."""
        async with self._snapshots.open(repository_id) as snapshot:
            return await self._objects.read(
                snapshot, lambda packs: revisions.resolve(packs, snapshot, revision)
            )

    async def tree(
        self,
        repository_id: str,
        revision: str,
        path: str | bytes = "",
        *,
        recursive: bool = False,
        limit: int = 1000,
        after: bytes = b"",
    ) -> TreePage:
        """Lists a directory, see `trees.list_tree`. Raises `EntryNotFound`."""

        def listed(packs: PackSet) -> TreePage:
            found = revisions.resolve(packs, snapshot, revision)
            return trees.list_tree(packs, found, path, recursive=recursive, limit=limit, after=after)

        async with self._snapshots.open(repository_id) as snapshot:
            return await self._objects.read(snapshot, listed)

    async def entry(self, repository_id: str, revision: str, path: str | bytes) -> Entry:
        """The file or directory at a path. Raises `EntryNotFound`."""
        async with self._snapshots.open(repository_id) as snapshot:
            return await self._entry(snapshot, revision, path)

    @asynccontextmanager
    async def blob(self, repository_id: str, revision: str, path: str | bytes) -> AsyncIterator[Blob]:
        """A file's size and identity now, its content on demand.

        Raises:
            EntryNotFound: there is no file at that path; a directory or a submodule is none.
        """
        async with self._snapshots.open(repository_id) as snapshot:
            entry = await self._entry(snapshot, revision, path)
            if entry.size is None:
                raise trees.missing_entry(path)
            yield Blob(entry, entry.size, self._git, snapshot)

    async def commit(self, repository_id: str, revision: str) -> Commit:
        """One commit."""

        def read(packs: PackSet) -> Commit:
            return history.read_commit(packs, revisions.resolve_commit(packs, snapshot, revision).oid)

        async with self._snapshots.open(repository_id) as snapshot:
            return await self._objects.read(snapshot, read)

    async def commits(
        self,
        repository_id: str,
        revision: str,
        *,
        path: str | bytes = "",
        limit: int = 50,
        skip: int = 0,
    ) -> list[Commit]:
        """The history of a revision, newest first; with `path`, the commits that changed it."""
        async with self._snapshots.open(repository_id) as snapshot:
            tip = await self._commit_oid(snapshot, revision)
            oids = await history.list_commits(
                self._git, snapshot, tip, path=trees.to_raw(path), limit=limit, skip=skip
            )
            return await self._read_commits(snapshot, oids)

    async def changes(self, repository_id: str, revision: str, *, limit: int = MAX_FILES) -> Changes:
        """What a commit changed against its first parent."""
        async with self._snapshots.open(repository_id) as snapshot:
            old, new = await self._sides(snapshot, None, revision)
            return await diffs.list_changes(self._git, snapshot, old, new, limit=limit)

    async def compare(
        self,
        repository_id: str,
        base: str,
        head: str,
        *,
        limit: int = 50,
        skip: int = 0,
        max_files: int = MAX_FILES,
    ) -> Comparison:
        """How `head` stands to `base`; `limit` and `skip` page its commits."""
        async with self._snapshots.open(repository_id) as snapshot:
            base = await self._commit_oid(snapshot, base)
            head = await self._commit_oid(snapshot, head)
            merge_base = await diffs.find_merge_base(self._git, snapshot, base, head)
            ahead, behind = await diffs.count_apart(self._git, snapshot, base, head)
            oids = await history.list_commits(self._git, snapshot, head, without=base, limit=limit, skip=skip)
            return Comparison(
                base=base,
                head=head,
                merge_base=merge_base,
                ahead=ahead,
                behind=behind,
                commits=await self._read_commits(snapshot, oids),
                changes=await diffs.list_changes(
                    self._git, snapshot, merge_base or base, head, limit=max_files
                ),
            )

    @asynccontextmanager
    async def patch(
        self,
        repository_id: str,
        base: str | None,
        head: str,
        *,
        path: str | bytes = "",
        max_bytes: int = MAX_PATCH_BYTES,
    ) -> AsyncIterator[Patch]:
        """The changes of `compare` as text; without `base` those of one commit, as `changes` lists them."""
        async with self._snapshots.open(repository_id) as snapshot:
            old, new = await self._sides(snapshot, base, head)
            async with diffs.open_patch(
                self._git, snapshot, old, new, path=trees.to_raw(path), max_bytes=max_bytes
            ) as patch:
                yield patch

    @asynccontextmanager
    async def archive(
        self, repository_id: str, revision: str, archive_format: ArchiveFormat, *, name: str
    ) -> AsyncIterator[Archive]:
        """All files of a revision in one archive; `name` is what its file and top directory start with."""
        async with self._snapshots.open(repository_id) as snapshot:
            found = await self._objects.read(
                snapshot, lambda packs: revisions.resolve(packs, snapshot, revision)
            )
            if found.kind is Kind.BLOB:
                raise RevisionNotFound(f"{found.short} is a blob and has no files")
            async with archives.open_archive(self._git, snapshot, found, archive_format, name) as archive:
                yield archive

    async def branches(self, repository_id: str, *, limit: int = 100, after: str = "") -> list[Branch]:
        """Branches by name, those behind `after`."""
        state = await self._snapshots.state(repository_id)
        rows = ((name, value.oid) for name, value in _names(state.refs, "refs/heads/", after))
        return [Branch(name, oid, name == state.default_branch) for name, oid in islice(rows, limit)]

    async def branch(self, repository_id: str, name: str) -> Branch:
        """One branch by its exact name."""
        state = await self._snapshots.state(repository_id)
        value = state.refs.get(f"refs/heads/{name}")
        if value is None:
            raise RevisionNotFound(f"no branch {revisions.shown(name)}", revision=revisions.shown(name))
        return Branch(name, value.oid, name == state.default_branch)

    async def tags(self, repository_id: str, *, limit: int = 100, after: str = "") -> list[Tag]:
        """Tags by name, those behind `after`."""
        async with self._snapshots.open(repository_id) as snapshot:
            names = [name for name, _ in islice(_names(snapshot.refs, "refs/tags/", after), limit)]
            return await self._objects.read(
                snapshot, lambda packs: [_read_tag(packs, snapshot, name) for name in names]
            )

    async def tag(self, repository_id: str, name: str) -> Tag:
        """One tag by its exact name."""
        async with self._snapshots.open(repository_id) as snapshot:
            if f"refs/tags/{name}" not in snapshot.refs:
                raise RevisionNotFound(f"no tag {revisions.shown(name)}", revision=revisions.shown(name))
            return await self._objects.read(snapshot, lambda packs: _read_tag(packs, snapshot, name))

    async def _entry(self, snapshot: Snapshot, revision: str, path: str | bytes) -> Entry:
        return await self._objects.read(
            snapshot,
            lambda packs: trees.entry_at(packs, revisions.resolve(packs, snapshot, revision), path),
        )

    async def _commit_oid(self, snapshot: Snapshot, revision: str) -> str:
        found = await self._objects.read(
            snapshot, lambda packs: revisions.resolve_commit(packs, snapshot, revision)
        )
        return found.oid

    async def _read_commits(self, snapshot: Snapshot, oids: list[str]) -> list[Commit]:
        return await self._objects.read(
            snapshot, lambda packs: [history.read_commit(packs, oid) for oid in oids]
        )

    async def _sides(self, snapshot: Snapshot, base: str | None, head: str) -> tuple[str | None, str]:
        """What to compare: from the merge base of two revisions, or from a commit's first parent."""
        new = await self._commit_oid(snapshot, head)
        if base is None:
            [commit] = await self._read_commits(snapshot, [new])
            return (commit.parents[0] if commit.parents else None), new
        old = await self._commit_oid(snapshot, base)
        return await diffs.find_merge_base(self._git, snapshot, old, new) or old, new


def _names(refs: Mapping[str, RefValue], prefix: str, after: str) -> Iterator[tuple[str, RefValue]]:
    for full, value in refs.items():
        name = full.removeprefix(prefix)
        if name != full and name > after:
            yield name, value


def _read_tag(packs: PackSet, snapshot: Snapshot, name: str) -> Tag:
    ref = f"refs/tags/{name}"
    oid = snapshot.refs[ref].oid
    target = revisions.resolve(packs, snapshot, ref)
    header = packs.header(oid)
    if header is None or header.kind is not Kind.TAG:
        return Tag(name, oid, target.oid, target.kind, None, None)
    headers, body = history.split_headers(packs.read(oid, Kind.TAG))
    tagger = next((value for key, value in headers if key == b"tagger"), None)
    return Tag(
        name,
        oid,
        target.oid,
        target.kind,
        history.parse_signature(tagger) if tagger is not None else None,
        body.decode("utf-8", "replace"),
    )
