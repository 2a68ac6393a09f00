"""Three hundred files and one of 3 GB, to every place where bytes can lie: all arrive, memory stays flat."""

import hashlib
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.gauge import MIB, assert_flat, watched
from tests.support.git import Git
from tests.support.git_lfs import NEWEST, LfsClient, lfs_client, start
from tests.support.lfs_places import STORAGES, Storage, lfs_places
from tests.support.streams import noise
from tests.support.yard import Yard

HUGE_BYTES = 3 * 1000**3
MANY = 300
SECONDS = 280


@dataclass(frozen=True)
class Source:
    """A repository with the files, committed once for all servers."""

    client: LfsClient
    work: Path
    oids: dict[str, str]

    def git(self, yard: Yard) -> Git:
        return self._patient(self.client.over(yard.git(self.work)))

    def copy(self, yard: Yard) -> Git:
        return self._patient(self.client.over(yard.git(yard.new_folder())))

    def _patient(self, git: Git) -> Git:
        return Git(git.cwd, git.config, git.environment, SECONDS)


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Source:
    folder = tmp_path_factory.mktemp("source")
    client = lfs_client(NEWEST, folder)
    work = folder / "work"
    work.mkdir()
    files = {f"many/{n:03}.bin": noise(1000 + 37 * n, f"many {n}") for n in range(MANY)}
    _write_huge(work / "huge.bin")
    git = start(client.over(Git(work, timeout=SECONDS)), files)
    (work / "huge.bin").unlink()  # git-lfs has its own copy
    names = [line.split(" ", 2) for line in git("lfs", "ls-files", "--long").splitlines()]
    return Source(client, work, {name: oid for oid, _, name in names})


def _write_huge(path: Path) -> None:
    """Mostly holes, but no two pieces of a part's size are the same."""
    with path.open("wb") as file:
        for offset in range(0, HUGE_BYTES, 4 * MIB):
            file.seek(offset)
            file.write(noise(512, f"huge {offset}"))
        file.truncate(HUGE_BYTES)


@pytest.fixture(params=STORAGES)
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Storage]:
    yield request.param
    shutil.rmtree(tmp_path)  # the next one needs the room


@pytest.mark.slow
@pytest.mark.timeout(600)
async def test_many_files_and_a_huge_one(storage: Storage, source: Source, tmp_path: Path) -> None:
    assert len(source.oids) == MANY + 1
    with lfs_places(tmp_path) as places:
        place = await places.get(storage)
        path = await place.yard.new_repository()
        place.yard.git(place.yard.folder).refs(place.url(path))
        with watched(place.yard.server) as gauge:
            source.git(place.yard)("push", "-q", place.url(path), "main")
        assert_flat(gauge)
        copy = source.copy(place.yard)
        copy("clone", "-q", "--bare", place.url(path), ".")
        with watched(place.yard.server) as gauge:
            copy("lfs", "fetch", "origin", "main")
        assert_flat(gauge)
        for oid in source.oids.values():
            file = copy.cwd / "lfs" / "objects" / oid[:2] / oid[2:4] / oid
            with file.open("rb") as opened:
                assert hashlib.file_digest(opened, "sha256").hexdigest() == oid
