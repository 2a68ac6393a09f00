"""What compares tensors, over a `HooksWorld`; and fine-tunes whose changes are known."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import TensorSpec, serialize_file
from sqlalchemy import select

from core.models import TensorDigests, TensorDigestTask
from core.settings import HooksSettings
from hooks.tensors.diff import CheckpointComparison, TensorComparison, TensorDiffs
from hooks.tensors.digester import Digester
from hooks.tensors.ledger import Ledger
from hooks.tensors.queueing import DigestQueue
from hooks.tensors.reading import WeightReader
from hooks.tensors.step import CompareTensors
from tests.support.hooks_world import HooksWorld
from tests.support.model_files import Tensors

ELEMENT_BYTES = {"F32": 4, "F16": 2, "BF16": 2}
# As the library's functions below those for numpy and torch name them.
_DTYPES = {"F32": "float32", "F16": "float16", "BF16": "bfloat16"}
AT_ONCE = 32 * 1024**2


@dataclass(frozen=True)
class Raw:
    """A tensor of any type that the format has, numpy or not: its elements as unsigned numbers."""

    dtype: str
    elements: NDArray[Any]


RawTensors = Mapping[str, Raw]


def base_model(tensors: int = 40, *, side: int = 16, seed: int = 1) -> dict[str, Raw]:
    """So many tensors, in turn F32, F16 and BF16, of random bits."""
    random = np.random.default_rng(seed)
    found = {}
    for number in range(tensors):
        dtype = list(ELEMENT_BYTES)[number % 3]
        kind = np.uint32 if ELEMENT_BYTES[dtype] == 4 else np.uint16
        elements = random.integers(0, np.iinfo(kind).max, (side, side + number), dtype=kind)
        found[f"model.layers.{number}.weight"] = Raw(dtype, elements)
    return found


def fine_tuned(base: RawTensors, names: Collection[str]) -> dict[str, Raw]:
    """The same, but for the last bit of one element of each tensor of these names."""
    changed = dict(base)
    for name in names:
        elements = base[name].elements.copy()
        elements.flat[-1] ^= 1
        changed[name] = Raw(base[name].dtype, elements)
    return changed


def differing(before: RawTensors, after: RawTensors) -> set[str]:
    """The names whose elements are not the same, as numpy sees it."""
    return {name for name in before if not np.array_equal(before[name].elements, after[name].elements)}


def weights(folder: Path, tensors: RawTensors) -> bytes:
    """A safetensors file, written by the library."""
    path = folder / "written.safetensors"
    flat = {
        name: TensorSpec(
            dtype=_DTYPES[one.dtype],
            shape=one.elements.shape,
            data_ptr=one.elements.ctypes.data,
            data_len=one.elements.nbytes,
        )
        for name, one in tensors.items()
    }
    serialize_file(flat, path, {"format": "pt"})
    return path.read_bytes()


def numpy_tensors(tensors: RawTensors) -> Tensors:
    """As unsigned numbers, for formats without those types."""
    return {name: one.elements for name, one in tensors.items()}


class TensorWorld:
    """One process that compares and reads in the background."""

    def __init__(self, world: HooksWorld, *, poll_seconds: float = 5.0, digest_bytes: int = 2**36) -> None:
        self.world = world
        self.settings = HooksSettings(poll_seconds=poll_seconds, digest_bytes=digest_bytes)
        self.ledger = Ledger(world.database)
        self.queue = DigestQueue(world.database, poll_seconds=poll_seconds)
        self.reader = WeightReader(world.trees)
        self.diffs = TensorDiffs(world.versions, self.reader, self.ledger, self.queue, self.settings)
        self.digester = Digester(self.queue, self.ledger, self.reader, poll_seconds=poll_seconds)
        self.step = CompareTensors(self.diffs, self.digester)

    async def compare(self, base: str, head: str, *, at_once: int = AT_ONCE) -> TensorComparison:
        return await self.diffs.compare(self.world.repository.id, base, head, at_once=at_once)

    async def only(self, base: str, head: str, *, at_once: int = AT_ONCE) -> CheckpointComparison:
        """The only checkpoint that differs."""
        [found] = (await self.compare(base, head, at_once=at_once)).checkpoints
        return found

    async def tasks(self) -> list[TensorDigestTask]:
        async with self.world.database.read() as session:
            return list(await session.scalars(select(TensorDigestTask).order_by(TensorDigestTask.size)))

    async def rows(self) -> list[TensorDigests]:
        async with self.world.database.read() as session:
            return list(await session.scalars(select(TensorDigests).order_by(TensorDigests.digest)))


def told(found: CheckpointComparison) -> dict[str, set[str]]:
    """The names of what differs, by what happened; of what was renamed as `old → new`."""
    assert found.problem is None
    names: dict[str, set[str]] = {}
    for change in found.difference.changes:
        name = change.name
        if change.before and change.after and change.before.name != name:
            name = f"{change.before.name} → {name}"
        for kind in change.kinds:
            names.setdefault(kind.value, set()).add(name)
    return names
