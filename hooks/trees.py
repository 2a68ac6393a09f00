"""The files of one commit that mean something for models: listed at once, pointers resolved, read on demand.

The same for published commits and for those in a push's quarantine. Reading costs two children of git: one
lists, one answers for all small blobs. Large files come from the object store, through the repository's own
links only (invariant I7).
"""

import asyncio
from collections.abc import AsyncIterator, Collection, Iterable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

from gitserver.listings import ObjectsUnreadable
from gitserver.policy import ProposedPush
from gitserver.process import GitRunner
from gitserver.queries import CHUNK_BYTES
from gitserver.snapshots import Snapshots
from hooks.blobs import Blobs
from hooks.errors import ContentMissing
from hooks.formats.source import Source, SourceUnreadable, TooMuchRead
from hooks.sources import Bridge, MemorySource, StoreSource, StreamSource, spool
from hooks.tree_listing import Changes, Listing, TreeFile, list_changes, list_files
from lfs.objects import Objects, StoredObject
from lfs.pointer import MAX_POINTER_BYTES, Pointer, parse_pointer
from lfs.stores import Stores

__all__ = ["Changes", "Tree", "TreeFile", "Trees"]

_MAX_KNOWN = 50_000
# Answers that are kept for whoever asks second, and how long one may be.
_ASKED_KEPT = 8
_ASKED_CHARACTERS = 64 * 1024
# A blob up to this size is read as a whole.
_WHOLE_BYTES = 1024**2


class Tree:
    """The files of one commit whose paths interest somebody. Valid inside the block that made it.

    Attributes:
        commit: its full oid.
        files: by path, in Git's order; `tree_listing.MAX_FILES` at most.
        files_total: how many there are, as far as they were counted.
        cut: there are more than `files` has, so that what is not there proves nothing.
    """

    def __init__(
        self,
        repository_id: str,
        commit: str,
        listing: Listing,
        stored: Mapping[str, StoredObject],
        blobs: Blobs,
        stores: Stores,
        folder: Path,
    ) -> None:
        self.repository_id = repository_id
        self.commit = commit
        self.files: Mapping[str, TreeFile] = listing.files
        self.files_total = listing.total
        self.cut = listing.cut
        self._stored = stored
        self._blobs = blobs
        self._stores = stores
        self._folder = folder

    def has(self, file: TreeFile) -> bool:
        """Whether the repository has the content, so that its people may know what is in it."""
        if file.lfs is None:
            return True
        stored = self._stored.get(file.lfs)
        return stored is not None and not stored.damaged and stored.size == file.size

    @asynccontextmanager
    async def source(self, file: TreeFile, allowance: int) -> AsyncIterator[Source]:
        """The content, for a thread: `read` blocks, and must not be called in the event loop.

        `allowance` is how many bytes may be read. After the block, whoever still reads is told
        `SourceUnreadable`.

        Raises:
            ContentMissing: a `SourceUnreadable`; the repository does not have it, or not in this size.
            SourceUnreadable: it cannot be read just now.
        """
        if not self.has(file):
            raise ContentMissing("the repository does not have this LFS object, or it is damaged")
        async with AsyncExitStack() as stack:
            if file.lfs is not None:
                bridge = await stack.enter_async_context(Bridge())
                stored = self._stored[file.lfs]
                yield StoreSource(bridge, self._stores[stored.store], stored.key, file.size, allowance)
            elif file.size <= _WHOLE_BYTES:
                yield MemorySource(await self._blobs.read(file.blob), allowance)
            else:
                spooled = await stack.enter_async_context(spool(self._folder))
                stream = await stack.enter_async_context(self._blobs.stream(file.blob))
                bridge = await stack.enter_async_context(Bridge())
                yield StreamSource(bridge, lambda: stream.read(CHUNK_BYTES), file.size, allowance, spooled)

    async def read(self, path: str, max_bytes: int) -> bytes | None:
        """The whole content of a small file; None when there is no file at this path among `files`.

        Raises:
            TooMuchRead: it has more than `max_bytes`.
            SourceUnreadable: as `source`.
        """
        file = self.files.get(path)
        if file is None:
            return None
        if file.size > max_bytes:
            raise TooMuchRead
        async with self.source(file, max_bytes) as source:
            return await asyncio.to_thread(source.read, 0, file.size)


class Trees:
    """Opens trees."""

    def __init__(self, git: GitRunner, snapshots: Snapshots, objects: Objects, stores: Stores) -> None:
        self._git = git
        self._snapshots = snapshots
        self._objects = objects
        self._stores = stores
        # Which small blobs are pointers, so that most trees cost one child; some 300 bytes each.
        self._known: dict[str, Pointer | None] = {}
        # What was asked once about a push, the latest last.
        self._asked: dict[tuple[Path, str | None, str], Changes] = {}

    @asynccontextmanager
    async def open(self, repository_id: str, commit: str) -> AsyncIterator[Tree]:
        """A published commit, by its full oid.

        Raises:
            RevisionNotFound: the repository does not have this commit (any more).
            RepositoryNotFound, CacheUnavailable: as `Snapshots.open`.
            TooExpensive: git needs more than a minute to list it.
            ObjectsUnreadable, DatabaseUnavailable: try again.
        """
        async with self._snapshots.open(repository_id) as snapshot:
            where = {"GIT_DIR": str(snapshot.path)}
            async with self._opened(repository_id, commit, where) as tree:
                yield tree

    @asynccontextmanager
    async def proposed(self, push: ProposedPush, commit: str) -> AsyncIterator[Tree]:
        """A commit that a push brings, in its quarantine. Raises as `open` does."""
        where = push.quarantine.environment()
        async with self._opened(push.repository.id, commit, where) as tree:
            yield tree

    async def changed(self, repository_id: str, base: str | None, head: str) -> Changes:
        """Which paths differ between two published commits; without a base (None, zeros): all of `head`.

        Raises as `open` does.
        """
        async with self._snapshots.open(repository_id) as snapshot:
            return await list_changes(self._git, {"GIT_DIR": str(snapshot.path)}, base, head)

    async def proposed_changes(self, push: ProposedPush, base: str | None, head: str) -> Changes:
        """The same between two commits of which a push brings the second. Raises as `open` does.

        Whoever asks second need not wait, unless much changed: the gates and `PlainPushes` ask the same of
        most pushes.
        """
        asked = (push.quarantine.path, base, head)
        changes = self._asked.pop(asked, None)
        if changes is None:
            changes = await list_changes(self._git, push.quarantine.environment(), base, head)
            if sum(map(len, changes.paths)) <= _ASKED_CHARACTERS:
                self._asked[asked] = changes
            while len(self._asked) > _ASKED_KEPT:
                del self._asked[next(iter(self._asked))]
        return changes

    @asynccontextmanager
    async def brought(self, push: ProposedPush, files: Iterable[TreeFile]) -> AsyncIterator[Tree]:
        """Files that a push brings in any of its commits, pointers resolved, to be read as those of a tree.

        What the tree says of its commit and its files means nothing. Raises `DatabaseUnavailable`.
        """
        stored = await self._objects.find(push.repository.id, {file.lfs for file in files if file.lfs})
        async with Blobs(self._git, push.quarantine.environment()) as blobs:
            yield Tree(push.repository.id, "", Listing(), stored, blobs, self._stores, self._snapshots.root)

    @asynccontextmanager
    async def holding(self, repository_id: str, files: Collection[TreeFile]) -> AsyncIterator[Tree]:
        """Published files as they were found before, to be read as those of a tree, without listing one.

        What the tree says of its commit and its files means nothing; what the repository has no more, `has`
        or `source` tell. Git is only asked for files that are not in LFS.

        Raises:
            RepositoryNotFound, CacheUnavailable: as `Snapshots.open`.
            DatabaseUnavailable: try again.
        """
        stored = await self._objects.find(repository_id, {file.lfs for file in files if file.lfs})
        async with AsyncExitStack() as stack:
            where: dict[str, str] = {}
            if any(file.lfs is None for file in files):
                snapshot = await stack.enter_async_context(self._snapshots.open(repository_id))
                where = {"GIT_DIR": str(snapshot.path)}
            blobs = await stack.enter_async_context(Blobs(self._git, where))
            yield Tree(repository_id, "", Listing(), stored, blobs, self._stores, self._snapshots.root)

    @asynccontextmanager
    async def _opened(self, repository_id: str, commit: str, where: Mapping[str, str]) -> AsyncIterator[Tree]:
        listed = await list_files(self._git, where, commit)
        async with Blobs(self._git, where) as blobs:
            pointers = await self._pointers(listed.files.values(), blobs)
            listed.files.update(pointers)
            stored = await self._objects.find(repository_id, {file.lfs or "" for file in pointers.values()})
            yield Tree(repository_id, commit, listed, stored, blobs, self._stores, self._snapshots.root)

    async def _pointers(self, files: Iterable[TreeFile], blobs: Blobs) -> dict[str, TreeFile]:
        """Those of the files that are pointers, as what they point to."""
        small = [file for file in files if file.size < MAX_POINTER_BYTES]
        # A blob is named by its content, so whoever has it in a tree may know what it points to.
        known = {file.blob: self._known[file.blob] for file in small if file.blob in self._known}
        try:
            async for file, data in blobs.each(file for file in small if file.blob not in known):
                known[file.blob] = parse_pointer(data)
        except SourceUnreadable as error:
            raise ObjectsUnreadable(str(error)) from error
        self._known |= known
        while len(self._known) > _MAX_KNOWN:
            del self._known[next(iter(self._known))]
        pointers = ((file, known[file.blob]) for file in small)
        return {
            file.path: TreeFile(file.path, file.blob, pointer.size, pointer.oid)
            for file, pointer in pointers
            if pointer is not None
        }
