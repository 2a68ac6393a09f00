"""How an object is cut into parts, and whether what is stored are those parts."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby
from typing import Self

from core.models import LfsUpload, StoreKind
from lfs.errors import WrongParts
from storage.protocol import MAX_PARTS, MIN_PART_BYTES, StoredPart

_MIB = 1024**2
# More parts make answers long.
_MOST_PARTS = 1000
# Behind this server on MinIO a part is held in memory while it travels: rather more parts than larger ones.
_MOST_HELD_BYTES = 100 * _MIB
# S3 takes no larger part.
_MOST_BYTES = 5 * 1024 * _MIB

# A message names so many ranges of parts.
_NAMED = 20


def choose_part_bytes(size: int, wanted: int, store: StoreKind, *, direct: bool) -> int:
    """The size of the parts of an object of `size` bytes: `wanted`, or more where that would be too many.

    `direct`: parts may go past this server.
    """
    wanted = max(wanted, MIN_PART_BYTES) if store is StoreKind.MINIO else wanted
    grown = _grown(wanted, size, _MOST_PARTS)
    if store is StoreKind.MINIO and not direct and grown > _MOST_HELD_BYTES:
        grown = _grown(max(wanted, _MOST_HELD_BYTES), size, MAX_PARTS)
    return min(grown, _MOST_BYTES)


def _grown(part_bytes: int, size: int, count: int) -> int:
    """`part_bytes`, or the least number of whole MiB that makes no more than `count` parts."""
    return part_bytes if size <= part_bytes * count else -(-size // (count * _MIB)) * _MIB


@dataclass(frozen=True, slots=True)
class PartPlan:
    """How one object is cut: `count` parts of `part_bytes`, the last one shorter; `done` are stored."""

    upload_id: str
    repository_id: str
    oid: str
    size: int
    part_bytes: int
    store: StoreKind
    key: str
    multipart_id: str
    done: Mapping[int, StoredPart] = field(default_factory=dict)

    @classmethod
    def of(cls, row: LfsUpload) -> Self:
        """The plan before anybody looked into the store."""
        return cls(
            upload_id=row.id,
            repository_id=row.repository_id,
            oid=row.oid,
            size=row.size,
            part_bytes=row.part_bytes,
            store=row.store,
            key=row.key,
            multipart_id=row.multipart_id,
        )

    @property
    def count(self) -> int:
        """The number of parts; an empty object has none."""
        return -(-self.size // self.part_bytes)

    @property
    def missing(self) -> list[int]:
        """The numbers of the parts to upload."""
        return [number for number in range(1, self.count + 1) if number not in self.done]

    def size_of(self, number: int) -> int:
        """Bytes of part `number`, which counts from 1."""
        return min(self.part_bytes, self.size - self.offset_of(number))

    def offset_of(self, number: int) -> int:
        """Where part `number` begins in the object."""
        return (number - 1) * self.part_bytes

    def holding(self, parts: Sequence[StoredPart]) -> Self:
        """With what the store has. Parts that a client put there past this server may be of any size."""
        fitting = {
            part.number: part
            for part in parts
            if 1 <= part.number <= self.count and part.size == self.size_of(part.number)
        }
        return replace(self, done=fitting)


def compare(plan: PartPlan, claimed: Sequence[tuple[int, str]] | None) -> list[StoredPart]:
    """The parts to assemble, in order.

    Raises:
        WrongParts: some are missing, or are not those that the client says it uploaded.
    """
    if plan.missing:
        raise WrongParts(
            f"these parts are missing or have the wrong size: {_ranges(plan.missing)}",
            parts=plan.missing[:_MOST_PARTS],
        )
    if claimed is not None:
        if sorted(number for number, _ in claimed) != list(range(1, plan.count + 1)):
            raise WrongParts(f"the list of parts must name each of 1 to {plan.count} once")
        wrong = [number for number, etag in claimed if bare(etag) != plan.done[number].etag]
        if wrong:
            raise WrongParts(f"the store has other bytes than claimed for these parts: {_ranges(wrong)}")
    return [plan.done[number] for number in sorted(plan.done)]


def bare(etag: str) -> str:
    """An entity tag without its quotes."""
    return etag.strip().removeprefix("W/").strip('"')


def _ranges(numbers: Iterable[int]) -> str:
    """As in `1-3, 7`."""
    runs = [
        [number for _, number in run]
        for _, run in groupby(enumerate(sorted(numbers)), key=lambda pair: pair[1] - pair[0])
    ]
    texts = [str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in runs]
    return ", ".join(texts[:_NAMED]) + (", …" if len(texts) > _NAMED else "")
