"""What only the local directory promises."""

import asyncio
import errno
import hashlib
import os
import signal
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from core.settings import Settings, StorageSettings
from storage.build import build_store
from storage.local import AFTER_PUBLISH, BEFORE_PUBLISH, LocalStore
from storage.local_files import Draft, publish, remove
from storage.protocol import ObjectNotFound, PartsNotFound, StoreUnavailable
from tests.support.stores import LocalWorld, names
from tests.support.streams import noise, pieces, read_all

PUT_FOREVER = """
import asyncio, sys
from pathlib import Path
from storage.local import LocalStore

async def endless():
    for _ in range(3):
        yield b"x" * 1024 * 1024
    print("written", flush=True)
    await asyncio.Event().wait()

asyncio.run(LocalStore(Path(sys.argv[1]), low_bytes=0).put("a/killed", endless()))
"""


COMPLETE = """
import asyncio, sys
from pathlib import Path
from storage.local import LocalStore
from storage.protocol import StoredPart

async def main():
    store = LocalStore(Path(sys.argv[1]), low_bytes=0)
    parts = await store.list_parts("a/k", sys.argv[2])
    await store.complete_parts("a/k", sys.argv[2], parts)

asyncio.run(main())
"""


PUT_BEYOND_THE_LIMIT = """
import asyncio, resource, signal, sys
from pathlib import Path
from storage.local import LocalStore
from storage.protocol import ObjectNotFound, PartsNotFound, StoreUnavailable

async def data():
    for _ in range(8):
        yield b"x" * 1024 * 1024

async def main():
    store = LocalStore(Path(sys.argv[1]), low_bytes=0)
    try:
        await store.put("k", data())
    except StoreUnavailable as error:
        print(error.message)
    await store.close()

signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (3 * 1024 * 1024, 3 * 1024 * 1024))
asyncio.run(main())
"""


@pytest.fixture
def other_device(tmp_path: Path) -> Iterator[Path]:
    shared_memory = Path("/dev/shm")
    if not shared_memory.is_dir() or shared_memory.stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("needs a second file system at /dev/shm")
    with tempfile.TemporaryDirectory(dir=shared_memory) as directory:
        yield Path(directory)


async def test_kill_during_put_leaves_only_a_draft_for_the_sweeper(local: LocalWorld) -> None:
    child = await _python(PUT_FOREVER, local.root)
    assert child.stdout is not None
    assert await child.stdout.readline() == b"written\n"
    child.kill()
    await child.communicate()
    assert [item async for item in local.store.list("")] == []
    assert local.leftovers("a/killed") == 1
    assert await local.store.sweep_temp(3600) == 0
    assert await local.store.sweep_temp(0) == 1
    assert local.leftovers("a/killed") == 0


@pytest.mark.parametrize("point", [BEFORE_PUBLISH, AFTER_PUBLISH])
async def test_kill_during_completion_leaves_nothing_or_the_whole(local: LocalWorld, point: str) -> None:
    store = local.store
    data = [noise(1_000_000), noise(10, "end")]
    parts_id = await store.begin_parts("a/k")
    parts = [await store.put_part("a/k", parts_id, number, pieces(data[number - 1])) for number in (1, 2)]
    child = await _python(COMPLETE, local.root, parts_id, MODELYARD_FAILPOINT=point)
    await child.communicate()
    assert child.returncode == -signal.SIGKILL
    assert [item.key async for item in store.list("")] == (["a/k"] if point == AFTER_PUBLISH else [])
    assert await store.complete_parts("a/k", parts_id, parts) == 1_000_010
    assert await read_all(store, "a/k") == b"".join(data)
    await store.sweep_temp(0)
    assert local.leftovers("a/k") == 0


async def test_parts_untouched_for_long_are_swept(local: LocalWorld) -> None:
    store = local.store
    old, young = await store.begin_parts("k"), await store.begin_parts("k")
    for parts_id in (old, young):
        await store.put_part("k", parts_id, 1, pieces(b"x"))
    (directory,) = (local.root / "parts").glob(f"{old}*")
    os.utime(directory, (1_000_000_000, 1_000_000_000))
    assert await store.sweep_temp(0) == 0
    assert await store.sweep_parts(3600) == 1
    with pytest.raises(PartsNotFound):
        await store.list_parts("k", old)
    assert len(await store.list_parts("k", young)) == 1
    os.utime(next((local.root / "parts").iterdir()), (1_000_000_000, 1_000_000_000))
    await store.put_part("k", young, 2, pieces(b"y"))
    assert await store.sweep_parts(3600) == 0


@pytest.mark.parametrize("broken", [errno.EXDEV, errno.ENOSYS, None], ids=str)
async def test_completes_where_files_cannot_be_copied_by_the_kernel(
    local: LocalWorld, monkeypatch: pytest.MonkeyPatch, broken: int | None
) -> None:
    def copy_file_range(*_: object, **__: object) -> int:
        if broken is None:  # as some kernels on some file systems
            return 0
        raise OSError(broken, os.strerror(broken))

    monkeypatch.setattr(os, "copy_file_range", copy_file_range)
    data = noise(1_000_001)
    parts_id = await local.store.begin_parts("k")
    parts = [await local.store.put_part("k", parts_id, number, pieces(data)) for number in (1, 2)]
    assert await local.store.complete_parts("k", parts_id, parts) == 2 * len(data)
    assert await read_all(local.store, "k") == data + data


async def test_etags_are_those_of_s3(local: LocalWorld) -> None:
    parts_id = await local.store.begin_parts("k")
    part = await local.store.put_part("k", parts_id, 1, pieces(b"x" * 500_000))
    assert part.etag == hashlib.md5(b"x" * 500_000, usedforsecurity=False).hexdigest()


async def test_sweep_keeps_objects_and_needs_no_store(tmp_path: Path) -> None:
    store = LocalStore(tmp_path / "new", low_bytes=0)
    assert await store.sweep_temp(0) == 0
    await store.put("k", pieces(b"x"))
    assert await store.sweep_temp(0) == 0
    assert await read_all(store, "k") == b"x"
    await store.close()


async def test_files_are_linked_not_copied(local: LocalWorld, tmp_path: Path) -> None:
    source, out = tmp_path / "source", tmp_path / "out"
    source.write_bytes(noise(1000))
    await local.store.put_file("k", source)
    await local.store.get_file("k", out)
    assert local.store.local_path("k").stat().st_ino == source.stat().st_ino == out.stat().st_ino


async def test_files_are_copied_across_devices(local: LocalWorld, tmp_path: Path, other_device: Path) -> None:
    data = noise(1_000_000)
    (other_device / "source").write_bytes(data)
    assert await local.store.put_file("k", other_device / "source") == len(data)
    assert await read_all(local.store, "k") == data
    await local.store.get_file("k", other_device / "out")
    assert (other_device / "out").read_bytes() == data
    assert names(other_device) == ["out", "source"]


async def test_objects_are_read_only_and_the_root_is_private(local: LocalWorld) -> None:
    await local.store.put("a/k", pieces(b"x"))
    assert local.store.local_path("a/k").read_bytes() == b"x"
    assert local.store.local_path("a/k").stat().st_mode & 0o222 == 0
    assert local.root.stat().st_mode & 0o777 == 0o700


async def test_deleting_the_last_object_removes_its_directories(local: LocalWorld) -> None:
    await local.store.put("a/b/c/k", pieces(b"x"))
    await local.store.put("a/other", pieces(b"x"))
    await local.store.delete("a/b/c/k")
    assert names(local.root / "data" / "a") == ["other"]
    await local.store.delete("a/other")
    assert names(local.root / "data") == []


async def test_publishing_survives_the_pruning_of_its_directory(local: LocalWorld) -> None:
    """Straight on the files, where the moment between mkdir and rename is hit most often."""
    await local.store.check()

    def cycle(number: int) -> None:
        target = local.store.local_path(f"a/b/c/{number}")
        for _ in range(300):
            draft = Draft(local.root / "tmp")
            draft.create()
            draft.finish()
            publish(draft.path, target, local.root)
            remove(target, local.root / "data")

    await asyncio.gather(*(asyncio.to_thread(cycle, number) for number in range(4)))
    assert names(local.root / "data") == names(local.root / "tmp") == []


async def test_no_symbolic_link_is_followed_out_of_the_store(local: LocalWorld, tmp_path: Path) -> None:
    await local.store.put("a/k", pieces(b"x"))
    (tmp_path / "secret").write_bytes(b"secret")
    (local.root / "data" / "a" / "link").symlink_to(tmp_path / "secret")
    assert [item.key async for item in local.store.list("")] == ["a/k"]
    with pytest.raises(StoreUnavailable):
        await read_all(local.store, "a/link")


async def test_signs_nothing(local: LocalWorld) -> None:
    store = local.store
    await store.put("k", pieces(b"x"))
    assert not store.signs
    assert await store.signed_get("k", seconds=60) is None
    assert await store.signed_part("k", await store.begin_parts("k"), 1, seconds=60, size=1) is None
    assert await store.signed_put("k", seconds=60, sha256="0" * 64, size=1, content_type="a/b") is None
    with pytest.raises(ObjectNotFound):
        await store.finish_put("k", sha256="0" * 64)


async def test_a_root_that_is_no_directory_is_unavailable(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    for root in (tmp_path / "file", tmp_path / "file" / "below"):
        store = LocalStore(root)
        with pytest.raises(StoreUnavailable, match="cannot be used"):
            await store.check()
        with pytest.raises(StoreUnavailable):
            await store.put("k", pieces(b"x"))
        await store.close()


async def test_check_reports_a_full_disk(tmp_path: Path) -> None:
    store = LocalStore(tmp_path / "store", low_bytes=1 << 62)
    with pytest.raises(StoreUnavailable, match="almost full") as caught:
        await store.check()
    assert caught.value.fields["free_bytes"]
    await store.close()


async def test_a_write_that_hits_the_limit_is_unavailable_and_leaves_nothing(tmp_path: Path) -> None:
    """The file size limit of a child stands in for a full disk: write() fails half-way."""
    child = await _python(PUT_BEYOND_THE_LIMIT, tmp_path / "store")
    output, _ = await child.communicate()
    assert output == b"the object store cannot be used: File too large\n"
    assert names(tmp_path / "store" / "tmp") == names(tmp_path / "store" / "data") == []


async def test_is_built_from_settings(tmp_path: Path) -> None:
    store = build_store(Settings(storage=StorageSettings(path=str(tmp_path / "objects"))))
    await store.put("k", pieces(b"x"))
    assert (tmp_path / "objects" / "data" / "k").read_bytes() == b"x"
    await store.close()


async def _python(script: str, *arguments: str | Path, **environment: str) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        script,
        *arguments,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), **environment},
        stdout=asyncio.subprocess.PIPE,
    )
