"""Tensors of two revisions, compared: by real files, and what they say against numpy."""

from collections.abc import Collection
from contextlib import AbstractAsyncContextManager
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gguf import GGMLQuantizationType, GGUFWriter
from gguf.quants import quantize
from sqlalchemy import delete, update

from core.access import SYSTEM
from core.errors import RevisionNotFound
from core.models import LfsLink, TensorDigests, Transport, now
from gitserver.children import Child
from gitserver.commits import Delete
from gitserver.process import GitRunner
from gitserver.updates import RefUpdate
from hooks.tensors import diff, step
from hooks.tensors.comparing import Change
from tests.support.hooks_world import HooksWorld, pointer_to
from tests.support.lfs_world import oid_of
from tests.support.model_files import Tensors, raw_safetensors
from tests.support.tensor_world import (
    Raw,
    RawTensors,
    TensorWorld,
    base_model,
    differing,
    fine_tuned,
    told,
    weights,
)

FILE = "model.safetensors"
BASE = base_model()
NAMES = sorted(BASE)


@pytest.fixture
def tensors(world: HooksWorld) -> TensorWorld:
    return TensorWorld(world)


async def commit(world: HooksWorld, folder: Path, tensors: RawTensors, *, path: str = FILE) -> str:
    return await world.commit(lfs={path: weights(folder, tensors)})


def shards(folder: Path, tensors: RawTensors, *groups: Collection[str]) -> dict[str, bytes]:
    """The tensors in files, each of one group."""
    total = len(groups)
    return {
        f"model-{number:05}-of-{total:05}.safetensors": weights(
            folder, {name: tensors[name] for name in group}
        )
        for number, group in enumerate(groups, start=1)
    }


@pytest.mark.parametrize("lfs", [True, False])
async def test_a_fine_tune_names_what_changed(
    world: HooksWorld, tensors: TensorWorld, tmp_path: Path, *, lfs: bool
) -> None:
    after = fine_tuned(BASE, {NAMES[3], NAMES[17], NAMES[18]})
    assert {BASE[name].dtype for name in differing(BASE, after)} == {"F32", "F16", "BF16"}
    files = [{FILE: weights(tmp_path, one)} for one in (BASE, after)]
    base, head = [await (world.commit(lfs=one) if lfs else world.commit(one)) for one in files]
    found = await tensors.only(base, head)
    assert told(found) == {"changed": differing(BASE, after)}
    difference = found.difference
    assert (difference.before, difference.after, difference.unchanged, difference.undecided) == (
        40,
        40,
        37,
        0,
    )
    for change in difference.changes:
        assert change.before
        assert change.after
        raw = BASE[change.name]
        assert change.before[:4] == (change.name, raw.dtype, raw.elements.shape, raw.elements.nbytes)
        assert change.after[:4] == change.before[:4]
    back = await tensors.only(head, base)
    assert told(back) == told(found)
    assert (await tensors.compare(head, head)).checkpoints == ()


async def test_all_that_can_happen(world: HooksWorld, tensors: TensorWorld, tmp_path: Path) -> None:
    base = await commit(world, tmp_path, BASE)
    after = fine_tuned(BASE, [NAMES[0], NAMES[1]])
    after["renamed"] = after.pop(NAMES[2])
    after["renamed and changed"] = after.pop(NAMES[1])
    f32 = next(name for name in NAMES[3:] if BASE[name].dtype == "F32")
    after[f32] = Raw("F16", BASE[f32].elements.astype(np.uint16))
    after[NAMES[5]] = Raw(BASE[NAMES[5]].dtype, BASE[NAMES[5]].elements.reshape(-1))
    bf16 = next(name for name in NAMES[6:] if BASE[name].dtype == "BF16")
    after[bf16] = Raw("F16", BASE[bf16].elements)  # the same bits
    del after[NAMES[7]]
    after["added"] = Raw("F32", np.arange(4, dtype=np.uint32))
    assert len({NAMES[5], NAMES[7], f32, bf16}) == 4
    head = await commit(world, tmp_path, after)
    assert told(await tensors.only(base, head)) == {
        "changed": {NAMES[0]},
        "renamed": {f"{NAMES[2]} → renamed"},
        "removed": {NAMES[1], NAMES[7]},
        "added": {"renamed and changed", "added"},
        "reshaped": {NAMES[5]},
        "retyped": {f32, bf16},
    }


async def test_other_shards_of_the_same(world: HooksWorld, tensors: TensorWorld, tmp_path: Path) -> None:
    whole = await commit(world, tmp_path, BASE)
    await world.git.committer.commit(world.repository, world.lfs.owner, "main", [Delete(FILE)], "cut")
    two = await world.commit(lfs=shards(tmp_path, BASE, NAMES[:20], NAMES[20:]))
    after = fine_tuned(BASE, [NAMES[30]])
    three = await replaced(world, shards(tmp_path, after, NAMES[:10], NAMES[10:15], NAMES[15:]), "00002")
    found = await tensors.only(whole, two)
    assert found.before
    assert (found.before.name, found.name) == (FILE, "model-*-of-00002.safetensors")
    assert (told(found), found.difference.unchanged) == ({}, 40)
    found = await tensors.only(two, three)
    assert (told(found), found.difference.unchanged) == ({"changed": {NAMES[30]}}, 39)
    assert told(await tensors.only(three, whole)) == {"changed": {NAMES[30]}}


async def replaced(world: HooksWorld, files: dict[str, bytes], gone: str) -> str:
    """A commit with these large files and without the shards of so many."""
    old = [f"model-{number:05}-of-{gone}.safetensors" for number in range(1, int(gone) + 1)]
    await world.git.committer.commit(
        world.repository, world.lfs.owner, "main", [Delete(path) for path in old], "gone"
    )
    return await world.commit(lfs=files)


async def test_a_shard_that_stays_is_not_read(
    world: HooksWorld, tensors: TensorWorld, tmp_path: Path
) -> None:
    model = base_model(side=300)
    large, small = NAMES[:30], NAMES[30:]
    base = await world.commit(lfs=shards(tmp_path, model, large, small))
    after = shards(tmp_path, fine_tuned(model, [small[4]]), large, small)
    head = await world.commit(lfs=after)
    for one in (base, head):
        await world.understand(one)
    world.counting.bytes = 0
    found = await tensors.only(base, head)
    assert told(found) == {"changed": {small[4]}}
    difference = found.difference
    assert (difference.before, difference.after, difference.unchanged) == (40, 40, 39)
    sizes = [len(data) for data in after.values()]
    assert 2 * sizes[1] <= world.counting.bytes < 2 * sizes[1] + 2**20 < sizes[0]
    # Nor anything a second time.
    world.counting.bytes = 0
    assert await tensors.only(base, head) == found
    assert world.counting.bytes == 0


async def test_a_copy_that_is_kept_hides_nothing(
    world: HooksWorld, tensors: TensorWorld, tmp_path: Path
) -> None:
    base = await commit(world, tmp_path, BASE)
    old, new = weights(tmp_path, BASE), weights(tmp_path, fine_tuned(BASE, [NAMES[9]]))
    head = await world.commit(lfs={FILE: new, "before/model.safetensors": old})
    copy, changed = (await tensors.compare(base, head)).checkpoints
    assert (copy.before, copy.name, copy.difference.counts[Change.ADDED]) == (None, "before/" + FILE, 40)
    assert told(changed) == {"changed": {NAMES[9]}}


async def test_a_whole_file_beside_shards_is_compared(
    world: HooksWorld, tensors: TensorWorld, tmp_path: Path
) -> None:
    base = await world.commit(lfs={FILE: weights(tmp_path, BASE)} | shards(tmp_path, BASE, NAMES))
    head = await commit(world, tmp_path, fine_tuned(BASE, [NAMES[9]]))
    found = await tensors.only(base, head)
    assert (found.name, told(found)) == (FILE, {"changed": {NAMES[9]}})


async def test_a_name_in_two_shards_hides_nothing(
    world: HooksWorld, tensors: TensorWorld, tmp_path: Path
) -> None:
    first = shards(tmp_path, BASE, NAMES[:2], NAMES[1:2])
    base = await world.commit(lfs=first)
    after = fine_tuned(BASE, [NAMES[1]])
    path = "model-00002-of-00002.safetensors"
    head = await world.commit(lfs={path: shards(tmp_path, after, NAMES[:2], NAMES[1:2])[path]})
    assert told(await tensors.only(base, head)) == {"changed": {NAMES[1]}}


def write_gguf(path: Path, tensors: Tensors, kind: GGMLQuantizationType | None) -> bytes:
    writer = GGUFWriter(path, "llama")
    for name, tensor in tensors.items():
        if kind is None or tensor.ndim == 1:
            writer.add_tensor(name, tensor)
        else:
            writer.add_tensor(name, quantize(tensor, kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path.read_bytes()


async def test_gguf_that_is_quantised_anew(world: HooksWorld, tensors: TensorWorld, tmp_path: Path) -> None:
    random = np.random.default_rng(1)
    model: Tensors = {
        f"blk.{number}.weight": random.standard_normal((64, 640)).astype(np.float32) for number in range(20)
    }
    model["norm"] = random.standard_normal(64).astype(np.float32)
    path, kinds = tmp_path / "a.gguf", GGMLQuantizationType
    base = await world.commit(lfs={"a.gguf": write_gguf(path, model, None)})
    head = await world.commit(lfs={"a.gguf": write_gguf(path, model, kinds.Q8_0)})
    found = await tensors.only(base, head)
    assert told(found) == {"retyped": set(model) - {"norm"}}
    model["norm"][0] += 1
    changed = await world.commit(lfs={"a.gguf": write_gguf(path, model, kinds.Q8_0)})
    assert told(await tensors.only(head, changed)) == {"changed": {"norm"}}
    # Where types alone tell everything, nothing is read but headers.
    del model["norm"]
    base = await world.commit(lfs={"a.gguf": write_gguf(path, model, None)})
    head = await world.commit(lfs={"a.gguf": write_gguf(path, model, kinds.Q4_0)})
    world.counting.bytes = 0
    found = await tensors.only(base, head, at_once=0)
    assert told(found) == {"retyped": set(model)}
    assert (found.pending_bytes, await tensors.tasks()) == (0, [])


@pytest.mark.parametrize("data", [raw_safetensors({}, b"too much"), raw_safetensors(b"{")])
async def test_what_is_broken_has_a_problem(
    world: HooksWorld, tensors: TensorWorld, tmp_path: Path, data: bytes
) -> None:
    base = await commit(world, tmp_path, BASE)
    broken = await world.commit(lfs={FILE: data})
    for one, other in ((base, broken), (broken, base)):
        for at_once in (0, 2**20):
            compared = await tensors.compare(one, other, at_once=at_once)
            [found] = compared.checkpoints
            assert found.problem == f"{FILE} cannot be understood; its metadata says why"
            assert compared.complete
            assert (found.difference.changes, found.difference.before) == ((), 0)
    assert await tensors.tasks() == []


async def test_a_model_without_tensors_is_one(
    world: HooksWorld, tensors: TensorWorld, tmp_path: Path
) -> None:
    base = await world.commit(lfs={FILE: raw_safetensors({})})
    head = await commit(world, tmp_path, BASE)
    compared = await tensors.compare(base, head, at_once=0)
    assert compared.complete
    assert told(compared.checkpoints[0]) == {"added": set(BASE)}
    assert await tensors.tasks() == []


async def test_nobody_learns_of_what_he_does_not_have(
    world: HooksWorld, tensors: TensorWorld, tmp_path: Path
) -> None:
    after = fine_tuned(BASE, [NAMES[0]])
    base, head = [await commit(world, tmp_path, one) for one in (BASE, after)]
    assert told(await tensors.only(base, head)) == {"changed": {NAMES[0]}}
    # Another repository knows the oids, and nothing else.
    other = await world.new_repository("thief")
    pointers = [pointer_to(weights(tmp_path, one)) for one in (BASE, after)]
    stolen = [await world.commit({FILE: pointer}, repository=other) for pointer in pointers]
    assert (await tensors.diffs.compare(other.id, stolen[0], stolen[1])).checkpoints == ()
    # One that had the object has it no more, although the version of its commit still says what it was.
    for one in (base, head):
        await world.understand(one)
    async with world.database.transaction() as session:
        gone = LfsLink.oid == oid_of(weights(tmp_path, BASE))
        await session.execute(update(LfsLink).where(gone).values(trashed_at=now()))
    found = await tensors.only(base, head)
    assert found.problem == f"the repository does not have {FILE}, or it is damaged"
    assert found.difference.before == 0
    async with world.database.transaction() as session:
        await session.execute(delete(LfsLink).where(gone))
    assert (await tensors.only(base, head)).problem == found.problem


async def test_a_row_that_is_no_good_is_made_anew(
    world: HooksWorld, tensors: TensorWorld, tmp_path: Path
) -> None:
    base, head = [await commit(world, tmp_path, one) for one in (BASE, fine_tuned(BASE, [NAMES[0]]))]
    found = await tensors.only(base, head)
    rows = await tensors.rows()
    for bad in (b"", b"\0", rows[0].data[:-20]):
        async with world.database.transaction() as session:
            await session.execute(update(TensorDigests).values(data=bad))
        assert await tensors.only(base, head) == found
        assert [one.data for one in await tensors.rows()] == [one.data for one in rows]


async def test_limits_are_told(
    world: HooksWorld, tensors: TensorWorld, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base, head = [await commit(world, tmp_path, one) for one in (BASE, fine_tuned(BASE, [NAMES[0]]))]
    off = TensorWorld(world, digest_bytes=0)
    found = await off.only(base, head)
    assert (found.difference.undecided, found.pending_bytes) == (40, 0)
    assert found.uncompared_bytes == 2 * len(weights(tmp_path, BASE))
    assert await off.tasks() == []
    monkeypatch.setattr(diff, "MOST_TENSORS", 79)
    for at_once in (0, 2**20, 0):  # from headers, read, and known
        assert (await tensors.only(base, head, at_once=at_once)).problem == "there are too many tensors"
    monkeypatch.setattr(diff, "MOST_TENSORS", 80)
    assert told(await tensors.only(base, head)) == {"changed": {NAMES[0]}}
    monkeypatch.setattr(diff, "MOST_CHECKPOINTS", 1)
    monkeypatch.setattr(step, "_CHECKPOINTS", 1)
    more = {f"{name}.safetensors": weights(tmp_path, {"a": BASE[NAMES[0]]}) for name in "abc"}
    last = await world.commit(lfs=more)
    compared = await tensors.compare(head, last)
    assert (len(compared.checkpoints), compared.left_out) == (1, 2)
    assert (await world.received(tensors.step))[1:] == ("and 2 more models",)


async def test_revisions_that_are_not_there(world: HooksWorld, tensors: TensorWorld, tmp_path: Path) -> None:
    base = await commit(world, tmp_path, BASE)
    with pytest.raises(RevisionNotFound):
        await tensors.compare(base, "1" * 40)


async def test_what_whoever_pushes_is_told(world: HooksWorld, tensors: TensorWorld, tmp_path: Path) -> None:
    base = await commit(world, tmp_path, BASE)
    assert await world.received(tensors.step) == ()
    await commit(world, tmp_path, fine_tuned(BASE, NAMES[:2]))
    assert await world.received(tensors.step) == (
        f"{FILE}: 2 of 40 tensors changed ({NAMES[0]}, {NAMES[1]}), 64.8 kB → 64.8 kB",
    )
    # Run again after a crash, it says the same.
    assert await world.received(tensors.step) == await world.received(tensors.step)
    await world.commit({"README.md": b"# Nothing of weights\n"})
    assert await world.received(tensors.step) == ()
    # What is new or gone was nothing before, or is nothing now; tags tell of branches what these told.
    for ref, oid in (("refs/tags/v1", base), ("refs/heads/other", base), ("refs/heads/other", None)):
        await world.point(ref, oid)
        assert await world.received(tensors.step) == ()


async def test_several_branches_at_once(world: HooksWorld, tensors: TensorWorld, tmp_path: Path) -> None:
    first = await commit(world, tmp_path, BASE)
    second = await commit(world, tmp_path, fine_tuned(BASE, NAMES[:1]))
    refs = ["refs/heads/main", "refs/heads/other"]
    await world.point(refs[1], first)
    updates = [RefUpdate(refs[0], second, first), RefUpdate(refs[1], first, second)]
    await world.git.publisher.publish(
        world.repository.id, updates, None, actor=SYSTEM, transport=Transport.LOCAL, epoch=0
    )
    line = f"{FILE}: 1 of 40 tensors changed ({NAMES[0]}), 64.8 kB → 64.8 kB"
    assert await world.received(tensors.step) == (f"main: {line}", f"other: {line}")


async def test_it_costs_a_push_little(
    world: HooksWorld, tensors: TensorWorld, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of twenty files, two small ones of weights change: no child of git, and each is read once for all."""
    files = {f"notes/{number}.md": b"# Notes\n" for number in range(18)}
    commits: list[str] = []
    for seed in range(6):
        changed = weights(tmp_path, base_model(seed=seed))
        lfs = {"a.safetensors": changed, "b.safetensors": changed[:-1] + b"b"}
        commits.append(await world.commit(files if not commits else {}, lfs=lfs))
        await world.received(world.metadata)
    children = 0
    start = GitRunner.start

    def counted(git: GitRunner, *arguments: Any, **options: Any) -> AbstractAsyncContextManager[Child]:
        nonlocal children
        children += 1
        return start(git, *arguments, **options)

    monkeypatch.setattr(GitRunner, "start", counted)
    for base, head in pairwise(commits):
        world.counting.requests = 0
        assert len((await tensors.compare(base, head)).checkpoints) == 2
    assert children == 0
    assert world.counting.requests <= 4  # the header and the rest, of two files
