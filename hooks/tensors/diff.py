"""The tensors of two revisions, compared."""

import asyncio
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace

from core.settings import HooksSettings
from gitserver.queries import TooExpensive
from hooks.errors import ContentMissing
from hooks.sources import REACH_BYTES
from hooks.tensors.checkpoints import Checkpoint, Pair, checkpoints, pairs
from hooks.tensors.comparing import NOTHING, Difference, compare
from hooks.tensors.ledger import Ledger, TooManyTensors
from hooks.tensors.queueing import DigestQueue
from hooks.tensors.reading import HEADERS_AT_ONCE, OpenWeights, WeightReader
from hooks.tensors.weights import Tensor
from hooks.version import Version, VersionFile
from hooks.versions import Versions

# Of one comparison, all checkpoints together; the largest models have 150,000. One takes some 400 bytes.
MOST_TENSORS = 400_000
MOST_CHECKPOINTS = 200
_AT_ONCE = 4
_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class CheckpointComparison:
    """A checkpoint that is not as it was; one side is None where it is new or gone.

    Attributes:
        problem: why nothing can be told of its tensors, for people; then the difference is empty.
        pending_bytes: of files that are being read to tell which contents differ; then compare again.
        uncompared_bytes: of files that are too large for that, see `[hooks] digest_bytes`.
    """

    before: Checkpoint | None
    after: Checkpoint | None
    difference: Difference = NOTHING
    problem: str | None = None
    pending_bytes: int = 0
    uncompared_bytes: int = 0

    @property
    def name(self) -> str:
        return self.there.name

    @property
    def there(self) -> Checkpoint:
        """The later one, if it is not gone."""
        checkpoint = self.after or self.before
        assert checkpoint is not None
        return checkpoint


@dataclass(frozen=True, slots=True)
class TensorComparison:
    """Two commits, by full oid, and the checkpoints that differ between them, by name.

    Attributes:
        left_out: how many more checkpoints differ than anybody looked at.
    """

    base: str
    head: str
    checkpoints: tuple[CheckpointComparison, ...]
    left_out: int = 0

    @property
    def complete(self) -> bool:
        """Whether nothing more will be known when it is asked for again."""
        return all(not one.pending_bytes for one in self.checkpoints)


class TensorDiffs:
    """Compares revisions of one repository."""

    def __init__(
        self,
        versions: Versions,
        reader: WeightReader,
        ledger: Ledger,
        queue: DigestQueue,
        settings: HooksSettings,
    ) -> None:
        self._versions = versions
        self._reader = reader
        self._ledger = ledger
        self._queue = queue
        self._settings = settings
        self._places = asyncio.Semaphore(_AT_ONCE)

    async def compare(
        self, repository_id: str, base: str, head: str, *, at_once: int = 0
    ) -> TensorComparison:
        """The checkpoints of two commits, by full oid.

        Contents that nobody has read yet are queued to be read, if that could tell more; those of a
        checkpoint are read at once where they fit into what is left of `at_once` bytes.

        Raises:
            RepositoryNotFound, RevisionNotFound: there is no such commit there.
            TooExpensive, Unavailable: it cannot be told now.
        """
        async with self._places:
            try:
                async with asyncio.timeout(_SECONDS):
                    return await self._compare(repository_id, base, head, at_once)
            except TimeoutError as error:
                raise TooExpensive("these revisions take too long to compare") from error

    async def _compare(self, repository_id: str, base: str, head: str, at_once: int) -> TensorComparison:
        before = await self._versions.look(repository_id, base)
        after = await self._versions.look(repository_id, head)
        differing = pairs(checkpoints(before.files), checkpoints(after.files))
        wanted = differing[:MOST_CHECKPOINTS]
        async with self._reader.open(repository_id, _files(wanted)) as weights:
            comparing = _Comparing(weights, self._versions, self._ledger, self._settings, after, at_once)
            compared = [await comparing.compare(*pair) for pair in wanted]
        await self._queue.enqueue(repository_id, comparing.pending)
        return TensorComparison(base, head, tuple(compared), len(differing) - len(wanted))


class _Untold(Exception):
    """Why nothing can be told of a checkpoint's tensors, for people."""


class _Comparing:
    """Compares one pair after the other.

    Attributes:
        pending: the files that have to be read to tell more.
    """

    def __init__(
        self,
        weights: OpenWeights,
        versions: Versions,
        ledger: Ledger,
        settings: HooksSettings,
        head: Version,
        at_once: int,
    ) -> None:
        self.pending: list[VersionFile] = []
        self._weights = weights
        self._versions = versions
        self._ledger = ledger
        self._settings = settings
        self._head = head
        self._at_once = at_once
        self._room = MOST_TENSORS

    async def compare(self, before: Checkpoint | None, after: Checkpoint | None) -> CheckpointComparison:
        try:
            return await self._compare(before, after)
        except _Untold as why:
            return CheckpointComparison(before, after, problem=str(why))
        except ContentMissing as error:
            return CheckpointComparison(before, after, problem=str(error))
        except TooManyTensors:
            self._room = -1  # nor is the rest read
            return CheckpointComparison(before, after, problem="there are too many tensors")

    async def _compare(self, before: Checkpoint | None, after: Checkpoint | None) -> CheckpointComparison:
        if self._room < 0:
            raise TooManyTensors
        # Before anything that is known of the contents: it may be known from another repository.
        files = _files([(before, after)])
        for file in files:
            if not self._weights.has(file):
                raise _Untold(f"the repository does not have {file.path}, or it is damaged")
        # What stays as it is need not be read, and its tensors are in neither list.
        old, new = _digests(before), _digests(after)
        same = [file for file in files if file.digest in old and file.digest in new]
        changed = [file for file in files if (file.digest in old) != (file.digest in new)]
        known = await self._ledger.find(changed, self._room)
        unread = [file for file in changed if file.digest not in known]
        readable = [file for file in unread if file.size <= self._limit(file)] if before and after else []
        known |= await self._read_some(readable)
        known |= await self._list([file for file in unread if file.digest not in known])
        self._room -= sum(map(len, known.values()))
        if self._room < 0:
            raise TooManyTensors
        difference = await asyncio.to_thread(
            compare, _tensors(before, old - new, known), _tensors(after, new - old, known)
        )
        difference = _with(difference, await self._count(same))
        found = CheckpointComparison(before, after, difference)
        if not (before and after and difference.needs_contents):
            return found
        pending = [file for file in readable if any(one.digest is None for one in known[file.digest])]
        self.pending += pending
        return replace(
            found,
            pending_bytes=sum(file.size for file in pending),
            uncompared_bytes=sum(file.size for file in unread if file.size > self._limit(file)),
        )

    def _limit(self, file: VersionFile) -> int:
        """How large a file may be to be read."""
        limit = self._settings.digest_bytes
        return limit if file.digest.startswith("sha256:") else min(limit, REACH_BYTES)

    async def _read_some(self, files: Sequence[VersionFile]) -> dict[str, Sequence[Tensor]]:
        """All files, if there is time for it."""
        size = sum(file.size for file in files)
        if not files or size > self._at_once:
            return {}
        self._at_once -= size
        found = {file.digest: _told(file, await self._weights.digest(file)) for file in files}
        await self._ledger.store(files[0].parser or "", found)
        return found

    async def _list(self, files: Sequence[VersionFile]) -> dict[str, Sequence[Tensor]]:
        found: dict[str, Sequence[Tensor]] = {}
        for start in range(0, len(files), HEADERS_AT_ONCE):
            some = files[start : start + HEADERS_AT_ONCE]
            # Waits for all, whatever becomes of one.
            listed = await asyncio.gather(
                *(self._weights.list(file) for file in some), return_exceptions=True
            )
            for file, one in zip(some, listed, strict=True):
                if isinstance(one, BaseException):
                    raise one
                found[file.digest] = _told(file, one)
            if sum(map(len, found.values())) > self._room:
                raise TooManyTensors
        return found

    async def _count(self, files: Iterable[VersionFile]) -> int:
        """How many tensors files of the later version have."""
        digests = {file.digest for file in files}
        there = [file for file in self._head.files if file.digest in digests]
        wanted = {file.digest: file for file in there}.values()
        total = 0
        if wanted:
            async with aclosing(self._versions.parsed(self._head, wanted)) as answers:
                async for _, parsed in answers:
                    total += int((parsed.metadata or {}).get("tensors_total", 0))
        return total


def _told(file: VersionFile, tensors: Sequence[Tensor] | None) -> Sequence[Tensor]:
    if tensors is None:
        raise _Untold(f"{file.path} cannot be understood; its metadata says why")
    return tensors


def _files(some: Iterable[Pair]) -> list[VersionFile]:
    """Each content once."""
    found = {file.digest: file for pair in some for one in pair if one for file in one.files}
    return list(found.values())


def _digests(checkpoint: Checkpoint | None) -> set[str]:
    return {file.digest for file in checkpoint.files} if checkpoint else set()


def _with(difference: Difference, same: int) -> Difference:
    """With so many tensors more that are the same."""
    return replace(
        difference,
        unchanged=difference.unchanged + same,
        before=difference.before + same,
        after=difference.after + same,
    )


def _tensors(
    checkpoint: Checkpoint | None, digests: Collection[str], known: Mapping[str, Sequence[Tensor]]
) -> list[Tensor]:
    """Of those of its files; a name that stands in several is told apart by the file."""
    found: dict[str, Tensor] = {}
    for file in checkpoint.files if checkpoint else ():
        for tensor in known[file.digest] if file.digest in digests else ():
            name = tensor.name if tensor.name not in found else f"{tensor.name} ({file.path})"
            found[name] = tensor._replace(name=name)
    return list(found.values())
