"""Reading files of weights of a repository: their headers, or every byte for the digests."""

import asyncio
from collections.abc import AsyncIterator, Callable, Collection
from contextlib import asynccontextmanager

from hooks.errors import ContentMissing, ContentUnavailable
from hooks.formats.registry import FORMATS as PARSED
from hooks.formats.source import Source, SourceUnreadable, TooMuchRead
from hooks.tensors.weights import FORMATS, Weights, digested, listed
from hooks.trees import Tree, TreeFile, Trees
from hooks.version import VersionFile

_HEADER_BYTES = {known.name: known.max_bytes for known in PARSED if known.name in FORMATS}
# A header of 16 MiB may take ten times as much while it is read.
HEADERS_AT_ONCE = 2


class WeightReader:
    """Opens files of weights, which are of one of `weights.FORMATS`."""

    def __init__(self, trees: Trees) -> None:
        self._trees = trees
        self._headers = asyncio.Semaphore(HEADERS_AT_ONCE)

    @asynccontextmanager
    async def open(self, repository_id: str, files: Collection[VersionFile]) -> AsyncIterator["OpenWeights"]:
        """Some files of a repository, as one of its versions names them.

        Raises:
            RepositoryNotFound, Unavailable: as `Trees.holding`.
        """
        async with self._trees.holding(repository_id, [_tree_file(file) for file in files]) as tree:
            yield OpenWeights(tree, self._headers)


class OpenWeights:
    """Files that can be read. What reads raises `ContentMissing` and `ContentUnavailable`."""

    def __init__(self, tree: Tree, headers: asyncio.Semaphore) -> None:
        self._tree = tree
        self._headers = headers

    def has(self, file: VersionFile) -> bool:
        """Whether the repository has the content, so that its people may know what is in it."""
        return self._tree.has(_tree_file(file))

    async def list(self, file: VersionFile) -> Weights:
        """The tensors without digests; reads the header only."""
        async with self._headers:
            return await self._read(file, _HEADER_BYTES[file.parser or ""], listed)

    async def digest(self, file: VersionFile) -> Weights:
        """The tensors with digests. Reads every byte; a cancelled caller stops it within one piece."""
        return await self._read(file, file.size + _HEADER_BYTES[file.parser or ""], digested)

    async def _read(
        self, file: VersionFile, allowance: int, read: Callable[[Source, str], Weights]
    ) -> Weights:
        try:
            async with self._tree.source(_tree_file(file), allowance) as source:
                return await asyncio.to_thread(read, source, file.parser or "")
        except TooMuchRead:
            return None
        except ContentMissing:
            raise
        except SourceUnreadable as error:
            message = f"the weights cannot be read just now: {error}"
            raise ContentUnavailable(message, path=file.path) from error


def _tree_file(file: VersionFile) -> TreeFile:
    kind, _, oid = file.digest.partition(":")
    if kind == "sha256":
        return TreeFile(file.path, "", file.size, oid)
    return TreeFile(file.path, oid, file.size)
