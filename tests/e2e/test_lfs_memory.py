"""Three hundred files and one of 3 GB, to every place where bytes can lie: all arrive, memory stays flat."""

import hashlib
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.gauge import MIB, assert_flat, watched
from tests.support.git import Git
from tests.support.git_lfs import NEWEST, OLDEST, Version, lfs_client, start
from tests.support.lfs_places import Storage, lfs_places
from tests.support.streams import noise
from tests.support.yard import Yard

HUGE_BYTES = 3 * 1000**3
MANY = 300
SECONDS = 280


@dataclass(frozen=True)
class Source:
    """A repository with the files, committed once for all servers."""

    folder: Path
    work: Path
    oids: dict[str, str]

    def git(self, way: "Way", yard: Yard, url: str) -> Git:
        return self._client(way, yard.git(self.work), url)

    def copy(self, way: "Way", yard: Yard, url: str) -> Git:
        return self._client(way, yard.git(yard.new_folder()), url)

    def _client(self, way: "Way", git: Git, url: str) -> Git:
        client = lfs_client(way.version, self.folder)
        git = client.over_ssh(git, url, pure=way.pure) if way.ssh else client.over(git)
        return Git(git.cwd, git.config, git.environment, SECONDS)


@dataclass(frozen=True)
class Way:
    """Which client, over what, to where."""

    storage: Storage
    version: Version = NEWEST
    tls: bool = False
    ssh: bool = False
    pure: bool = False


WAYS = {
    "http to local": Way("local"),
    "http to proxy": Way("proxy"),
    "http to redirect": Way("redirect"),
    "https to local, old client": Way("local", OLDEST, tls=True),
    "authenticated by ssh to local, old client": Way("local", OLDEST, ssh=True),
    "pure ssh to local": Way("local", ssh=True, pure=True),
}


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
    return Source(folder, work, {name: oid for oid, _, name in names})


def _write_huge(path: Path) -> None:
    """Mostly holes, but no two pieces of a part's size are the same."""
    with path.open("wb") as file:
        for offset in range(0, HUGE_BYTES, 4 * MIB):
            file.seek(offset)
            file.write(noise(512, f"huge {offset}"))
        file.truncate(HUGE_BYTES)


@pytest.fixture(params=WAYS)
def way(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Way]:
    yield WAYS[request.param]
    shutil.rmtree(tmp_path)  # the next one needs the room


@pytest.mark.slow
@pytest.mark.timeout(600)
async def test_many_files_and_a_huge_one(way: Way, source: Source, tmp_path: Path) -> None:
    assert len(source.oids) == MANY + 1
    with lfs_places(tmp_path) as places:
        place = await places.get(way.storage, tls=way.tls)
        path = await place.yard.new_repository()
        url = place.yard.ssh_url(path) if way.ssh else place.url(path)
        place.yard.git(place.yard.folder).refs(url)
        with watched(place.yard.server) as gauge:
            source.git(way, place.yard, url)("push", "-q", url, "main")
        assert_flat(gauge)
        copy = source.copy(way, place.yard, url)
        copy("clone", "-q", "--bare", url, ".")
        with watched(place.yard.server) as gauge:
            copy("lfs", "fetch", "origin", "main")
        assert_flat(gauge)
        for oid in source.oids.values():
            file = copy.cwd / "lfs" / "objects" / oid[:2] / oid[2:4] / oid
            with file.open("rb") as opened:
                assert hashlib.file_digest(opened, "sha256").hexdigest() == oid
        assert "OK" in copy("lfs", "fsck", "main")
