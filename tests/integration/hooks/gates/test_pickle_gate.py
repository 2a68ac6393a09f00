"""The gate `pickle`: what would run code on whoever loads it is refused, whatever it lies in."""

import gzip
import io
import os
import pickle
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from core.settings import GatesSettings
from storage.protocol import StoreUnavailable
from tests.support.gates import MAIN, Gated
from tests.support.git_world import git
from tests.support.model_files import write_checkpoint

REASON = "is a pickle that imports posix.system: it could run code on whoever loads it"


class Evil:
    def __reduce__(self) -> tuple[Callable[[str], int], tuple[str]]:
        return os.system, ("echo owned",)


class Unheard:
    """Of no library that a scanner knows."""


EVIL = pickle.dumps({"weights": [1.0], "hook": Evil()})
GOOD = pickle.dumps({"weights": [1.0]})


def in_zip(data: bytes) -> bytes:
    """As `torch.save` has written since version 1.6."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("archive/data.pkl", data)
        archive.writestr("archive/data/0", bytes(100))
    return file.getvalue()


def of_old_torch(data: bytes) -> bytes:
    """As before: five pickles, and the tensors behind them."""
    parts = [0x1950A86A20F9469CFC6C, 1001, {"little_endian": True}]
    head = b"".join(pickle.dumps(part, protocol=2) for part in parts)
    return head + data + pickle.dumps(["0"], protocol=2) + bytes(range(256)) * 10


def in_array(data: object) -> bytes:
    file = io.BytesIO()
    np.save(file, np.array([data], dtype=object), allow_pickle=True)
    return file.getvalue()


@pytest.mark.parametrize("in_lfs", [False, True])
@pytest.mark.parametrize(
    ("path", "bad", "good"),
    [
        ("pytorch_model.bin", in_zip(EVIL), in_zip(GOOD)),
        ("old.pt", of_old_torch(EVIL), of_old_torch(GOOD)),
        ("sub dir/größe.pkl", EVIL, GOOD),
        ("old.pickle", pickle.dumps(Evil(), protocol=0), pickle.dumps([1], protocol=0)),
        ("packed.joblib", gzip.compress(EVIL, mtime=0), gzip.compress(GOOD, mtime=0)),
        ("array.npy", in_array(Evil()), in_array([1])),
        ("MODEL.CKPT", EVIL, GOOD),
    ],
)
async def test_each_kind_of_file(gated: Gated, path: str, bad: bytes, good: bytes, in_lfs: bool) -> None:
    async def put(data: bytes) -> None:
        await (gated.commit(lfs={path: data}) if in_lfs else gated.commit({path: data}))

    await gated.commit({"README.md": b"hello"})
    assert (await gated.push()).ok
    await put(bad)
    pushed = await gated.push()
    assert pushed.report.refs == {MAIN: f"{path}: {REASON}"}
    assert pushed.remote[0] == f"{path}: {REASON}"
    assert "safetensors" in pushed.remote[1]
    # The commit before still has it, and somebody may load that.
    await put(good)
    assert not (await gated.push()).ok
    gated.reset("HEAD~2")
    await put(good)
    pushed = await gated.push()
    assert pushed.ok
    assert [line for line in pushed.remote if "_reconstruct" not in line] == []


async def test_a_large_one(gated: Gated) -> None:
    """Neither in Git nor in LFS is it read as a whole."""
    big = pickle.dumps({"weights": os.urandom(3_000_000), "hook": Evil()})
    await gated.commit({"in-git.pkl": big}, lfs={"in-lfs.pkl": big + b"x"})
    pushed = await gated.push()
    assert {f"in-git.pkl: {REASON}", f"in-lfs.pkl: {REASON}"} <= set(pushed.remote)
    assert "(and 1 more problem)" in pushed.report.refs[MAIN]
    assert gated.world.counting.bytes < 1_000_000


async def test_moved_to_a_name_that_loaders_know(gated: Gated) -> None:
    await gated.commit({"notes.dat": EVIL}, lfs={"large.dat": EVIL + b"x"})
    assert (await gated.push()).ok
    git(gated.work, "mv", "notes.dat", "model.pkl")
    git(gated.work, "mv", "large.dat", "large.pkl")
    await gated.commit()
    pushed = await gated.push()
    assert not pushed.ok
    assert {f"model.pkl: {REASON}", f"large.pkl: {REASON}"} <= set(pushed.remote)


async def test_what_is_only_told(gated: Gated) -> None:
    name = f"{Unheard.__module__}.Unheard"
    await gated.commit({"a.pkl": pickle.dumps(Unheard()), "cut.pkl": GOOD[:-5]})
    pushed = await gated.push()
    assert pushed.ok
    assert pushed.remote == [
        f"warning: a.pkl: is a pickle that imports {name}, of which nobody knows what it does",
        "warning: cut.pkl: is a pickle that cannot be followed to its end: it may be cut",
    ]


async def test_what_is_no_pickle(gated: Gated, tmp_path: Path) -> None:
    checkpoint = write_checkpoint(tmp_path / "model.pt").read_bytes()
    random = {f"{number}.bin": os.urandom(10_000) for number in range(50)}
    await gated.commit(
        {"a.bin": b"a" * 5000, "empty.bin": b"", "t.bin": b"text\n", "model.pt": checkpoint, **random},
        lfs={"b.bin": b"a" * 5_000_000, "c.bin": bytes(5_000_000)},
    )
    pushed = await gated.push()
    assert pushed.ok
    assert pushed.remote == []


@pytest.mark.parametrize("length", [50_000_000, 2_000_000_000, 2**60])
async def test_what_only_begins_like_one(gated: Gated, length: int) -> None:
    """Weights that are no pickle: what reads as the length of an argument goes far behind their end."""
    start = b"\x8d%s" % struct.pack("<Q", length)
    await gated.commit({"in-git.bin": start + bytes(2_000_000)}, lfs={"in-lfs.bin": start + bytes(2_000_000)})
    pushed = await gated.push()
    assert pushed.ok
    assert pushed.remote == []


async def test_what_cannot_be_examined_is_refused(gated: Gated) -> None:
    """A scanner that gives up must not let through."""
    long = b"\x80\x04" + b"N0" * 1_500_000 + EVIL[2:]
    bomb = io.BytesIO()
    with zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", b"\x80\x04" + bytes(300_000_000))
    await gated.commit({"bomb.pt": bomb.getvalue(), "cut.pt": in_zip(EVIL)[:-30]}, lfs={"long.pkl": long})
    pushed = await gated.push()
    assert not pushed.ok
    for path in ("bomb.pt", "cut.pt", "long.pkl"):
        assert any(line.startswith(f"{path}: is ") for line in pushed.remote), path


class Deaf:
    """A store that is out of reach."""

    def open(self, *arguments: object, **options: object) -> None:
        raise StoreUnavailable("the object store cannot be reached")


async def test_without_the_store_nothing_passes_unseen(gated: Gated, monkeypatch: pytest.MonkeyPatch) -> None:
    await gated.commit(lfs={"model.bin": EVIL})
    monkeypatch.setattr(gated.world.counting, "open", Deaf().open)
    pushed = await gated.push()
    assert not pushed.ok
    assert "try again" in pushed.report.refs[MAIN]
    assert await gated.branches() == set()
    gated.use(GatesSettings(pickle="warn"))
    pushed = await gated.push()
    assert pushed.ok
    assert "the gate pickle could not look just now" in pushed.remote[0]
