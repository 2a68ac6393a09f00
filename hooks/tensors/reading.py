"""Reading files of weights of a revision: their headers, or every byte for the digests."""

import asyncio
from collections.abc import Callable, Iterable, Sequence

from hooks.errors import ContentMissing, ContentUnavailable
from hooks.formats.registry import FORMATS as PARSED
from hooks.formats.source import Source, SourceUnreadable, TooMuchRead
from hooks.tensors.weights import FORMATS, Tensor, digested, listed
from hooks.trees import Tree, Trees
from hooks.version import VersionFile

_HEADER_BYTES = {known.name: known.max_bytes for known in PARSED if known.name in FORMATS}


class WeightReader:
    """Opens the tree once for all files that are asked for together. Files are of one of `weights.FORMATS`.

    Every method raises `RevisionNotFound` and `Unavailable` as `Trees.open` does.
    """

    def __init__(self, trees: Trees) -> None:
        self._trees = trees

    async def list(
        self, repository_id: str, commit: str, files: Iterable[VersionFile]
    ) -> dict[str, Sequence[Tensor]]:
        """The tensors without digests, by the digest of their file; none for what cannot be read.

        Reads the headers only.
        """
        return await self._each(
            repository_id, commit, files, lambda file: _HEADER_BYTES[file.parser or ""], listed
        )

    async def digest(
        self, repository_id: str, commit: str, files: Iterable[VersionFile]
    ) -> dict[str, Sequence[Tensor]]:
        """The tensors with digests. Reads every byte; a cancelled caller stops it within one piece."""
        wanted = True

        def read(source: Source, kind: str) -> Sequence[Tensor]:
            return digested(source, kind, lambda: wanted)

        try:
            return await self._each(
                repository_id, commit, files, lambda file: file.size + _HEADER_BYTES[file.parser or ""], read
            )
        finally:
            wanted = False

    async def _each(
        self,
        repository_id: str,
        commit: str,
        files: Iterable[VersionFile],
        allowance: Callable[[VersionFile], int],
        read: Callable[[Source, str], Sequence[Tensor]],
    ) -> dict[str, Sequence[Tensor]]:
        found: dict[str, Sequence[Tensor]] = {}
        wanted = list(files)
        if not wanted:
            return found
        async with self._trees.open(repository_id, commit) as tree:
            for file in wanted:
                if file.digest not in found:
                    found[file.digest] = await _read(tree, file, allowance(file), read)
        return found


async def _read(
    tree: Tree, file: VersionFile, allowance: int, read: Callable[[Source, str], Sequence[Tensor]]
) -> Sequence[Tensor]:
    there = tree.files.get(file.path)
    if there is None or there.digest != file.digest:
        return ()
    try:
        async with tree.source(there, allowance) as source:
            return await asyncio.to_thread(read, source, file.parser or "")
    except (ContentMissing, TooMuchRead):
        return ()
    except SourceUnreadable as error:
        raise ContentUnavailable(f"the weights cannot be read just now: {error}", path=file.path) from error
