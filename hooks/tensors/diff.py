"""The tensors of two revisions, compared."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from core.settings import HooksSettings
from hooks.tensors.checkpoints import Checkpoint, checkpoints, pairs
from hooks.tensors.comparing import Difference, compare
from hooks.tensors.ledger import Ledger
from hooks.tensors.reading import WeightReader
from hooks.tensors.weights import Tensor
from hooks.version import Version, VersionFile
from hooks.versions import Versions

_Found = dict[str, Sequence[Tensor]]


@dataclass(frozen=True, slots=True)
class CheckpointComparison:
    """A checkpoint that is not as it was; one side is None where it is new or gone.

    Attributes:
        pending_bytes: of files that are being read to tell which contents differ; then compare again.
        uncompared_bytes: of files that are too large for that, see `[hooks] digest_bytes`.
    """

    before: Checkpoint | None
    after: Checkpoint | None
    difference: Difference
    pending_bytes: int = 0
    uncompared_bytes: int = 0

    @property
    def name(self) -> str:
        checkpoint = self.after or self.before
        assert checkpoint is not None
        return checkpoint.name


@dataclass(frozen=True, slots=True)
class TensorComparison:
    """Two commits, by full oid, and the checkpoints that differ between them."""

    base: str
    head: str
    checkpoints: tuple[CheckpointComparison, ...]

    @property
    def complete(self) -> bool:
        """Whether nothing more will be known when it is asked for again."""
        return all(not one.pending_bytes for one in self.checkpoints)


class TensorDiffs:
    """Compares revisions of one repository."""

    def __init__(
        self, versions: Versions, reader: WeightReader, ledger: Ledger, settings: HooksSettings
    ) -> None:
        self._versions = versions
        self._reader = reader
        self._ledger = ledger
        self._settings = settings

    async def compare(
        self, repository_id: str, base: str, head: str, *, at_once: int = 0
    ) -> TensorComparison:
        """The checkpoints of two commits, by full oid.

        Contents that nobody has read yet are queued to be read; of those, the smallest are read at once, up
        to `at_once` bytes in all.

        Raises:
            RepositoryNotFound, RevisionNotFound: there is no such commit there.
            TooExpensive, Unavailable: it cannot be told now.
        """
        before = await self._versions.look(repository_id, base)
        after = await self._versions.look(repository_id, head)
        both = pairs(checkpoints(before.files), checkpoints(after.files))
        # Where one side is missing, or a shard is the same on both, no content need be read to compare it.
        old = {file.digest: file for one, _ in both if one for file in one.files}
        new = {file.digest: file for _, one in both if one for file in one.files}
        wanted = {
            file.digest: file
            for left, right in both
            if left and right
            for file in {*left.files, *right.files}
            if not (file.digest in old and file.digest in new)
        }
        known: _Found = await self._ledger.find({*old, *new})
        await self._read_some(before, after, wanted, known, at_once)
        unread = {
            digest: file
            for digest, file in wanted.items()
            if digest not in known and 0 < file.size <= self._settings.digest_bytes
        }
        await self._enqueue(before, after, unread)
        listed = await self._list(before, after, old, new, known)
        compared = [
            CheckpointComparison(
                left,
                right,
                compare(_tensors(left, listed), _tensors(right, listed)),
                pending_bytes=_bytes(left, right, unread),
                uncompared_bytes=_bytes(
                    left, right, {key: file for key, file in wanted.items() if key not in {*known, *unread}}
                ),
            )
            for left, right in both
        ]
        return TensorComparison(base, head, tuple(sorted(compared, key=lambda one: one.name)))

    async def _read_some(
        self,
        before: Version,
        after: Version,
        wanted: Mapping[str, VersionFile],
        known: _Found,
        at_once: int,
    ) -> None:
        """Reads what fits into the budget, and adds it to `known`."""
        small = []
        for file in sorted(wanted.values(), key=lambda file: file.size):
            if file.digest not in known and file.size <= at_once:
                at_once -= file.size
                small.append(file)
        read: _Found = {}
        for version, files in _apart(before, after, small):
            read |= await self._reader.digest(version.repository_id, version.commit, files)
        # What cannot be loaded has no tensors; that is not kept, since it may be read one day.
        found = {digest: tensors for digest, tensors in read.items() if tensors}
        await self._ledger.store(found)
        known |= found

    async def _enqueue(self, before: Version, after: Version, unread: Mapping[str, VersionFile]) -> None:
        for version, files in _apart(before, after, unread.values()):
            await self._ledger.enqueue(version.repository_id, version.commit, files)

    async def _list(
        self,
        before: Version,
        after: Version,
        old: Mapping[str, VersionFile],
        new: Mapping[str, VersionFile],
        known: _Found,
    ) -> _Found:
        """Every file's tensors; from the headers alone where nothing is known."""
        listed: _Found = {}
        missing = {digest: file for digest, file in {**old, **new}.items() if digest not in known}
        for version, files in _apart(before, after, missing.values()):
            listed |= await self._reader.list(version.repository_id, version.commit, files)
        for digest in old.keys() & new.keys() & listed.keys():
            listed[digest] = _same(digest, listed[digest])
        return {**listed, **known}


def _apart(
    before: Version, after: Version, files: Iterable[VersionFile]
) -> list[tuple[Version, list[VersionFile]]]:
    """By the version that has them; those of both are read in the later one."""
    there = {(file.path, file.digest) for file in after.files}
    wanted = list(files)
    late = [file for file in wanted if (file.path, file.digest) in there]
    early = [file for file in wanted if (file.path, file.digest) not in there]
    return [(version, some) for version, some in ((before, early), (after, late)) if some]


def _same(digest: str, tensors: Sequence[Tensor]) -> list[Tensor]:
    """Tensors of a file that is the same on both sides: each is itself there, whatever its bytes are."""
    return [one._replace(digest=f"{digest}:{one.name}") for one in tensors]


def _tensors(checkpoint: Checkpoint | None, listed: Mapping[str, Sequence[Tensor]]) -> list[Tensor]:
    """Of all its files; of a name that stands twice, what the first file has."""
    found: dict[str, Tensor] = {}
    for file in checkpoint.files if checkpoint else ():
        for tensor in listed.get(file.digest, ()):
            found.setdefault(tensor.name, tensor)
    return list(found.values())


def _bytes(left: Checkpoint | None, right: Checkpoint | None, files: Mapping[str, VersionFile]) -> int:
    digests = {file.digest for one in (left, right) if one for file in one.files}
    return sum(files[digest].size for digest in digests if digest in files)
