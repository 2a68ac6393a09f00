"""The real git-lfs, old and new, over every transport, to every place where bytes can lie."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pytest

from tests.support.git import Git
from tests.support.git_lfs import (
    ONLY_POINTERS,
    VERSIONS,
    LfsClient,
    Trace,
    Version,
    done,
    lfs_client,
    same_files,
    start,
    traced,
)
from tests.support.lfs_places import STORAGES, Place, Places, Storage, lfs_places
from tests.support.streams import noise

Transport = Literal["http", "https", "ssh-authenticate", "ssh-pure"]
TRANSPORTS: tuple[Transport, ...] = ("http", "https", "ssh-authenticate", "ssh-pure")
FILES = 30


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Places]:
    with lfs_places(tmp_path_factory.mktemp("places")) as made:
        yield made


@pytest.fixture(params=VERSIONS)
def client(request: pytest.FixtureRequest, tmp_path: Path) -> LfsClient:
    version: Version = request.param
    return lfs_client(version, tmp_path)


@dataclass(frozen=True)
class Cell:
    """One combination of client, transport and storage, with a repository."""

    client: LfsClient
    transport: Transport
    place: Place
    path: str

    @property
    def url(self) -> str:
        return self.place.yard.ssh_url(self.path) if self._is_ssh else self.place.url(self.path)

    @property
    def _is_ssh(self) -> bool:
        return self.transport.startswith("ssh")

    def git(self) -> Git:
        """A client in a new folder."""
        git = self.place.yard.git(self.place.yard.new_folder())
        if self._is_ssh:
            return self.client.over_ssh(git, self.url, pure=self.transport == "ssh-pure")
        return self.client.over(git)

    def travelled(self, trace: Trace, method: str) -> None:
        """The command succeeded, and its objects went the way that this cell is about."""
        done(trace)
        assert trace.pure_ssh == (self.transport == "ssh-pure"), trace.result.stderr[-4000:]
        assert trace.authenticated_by_ssh == (self.transport == "ssh-authenticate")
        hosts = {one.host for one in trace.requests if one.method == method}
        assert hosts == (set() if self.transport == "ssh-pure" else {self.place.bytes_netloc})


@pytest.fixture(params=STORAGES)
def storage(request: pytest.FixtureRequest) -> Storage:
    name: Storage = request.param
    return name


@pytest.fixture(params=TRANSPORTS)
async def cell(request: pytest.FixtureRequest, client: LfsClient, places: Places, storage: Storage) -> Cell:
    transport: Transport = request.param
    place = await places.get(storage, tls=transport == "https")
    return Cell(client, transport, place, await place.yard.new_repository())


def large_files(seed: str) -> dict[str, bytes]:
    """From one byte to five megabytes, two with the same content, and names that break careless programs."""
    files = {f"data/{n:02}.bin": noise(1 + n**3 * 11, f"{seed} {n}") for n in range(FILES - 4)}
    files["weights.bin"] = noise(5 * 1000**2, f"{seed} weights")
    files["the same weights.bin"] = files["weights.bin"]
    files["späce & “ünïcode” 模型.bin"] = noise(4097, f"{seed} unicode")
    files["-leading dash #1 100%.bin"] = noise(64 * 1024, f"{seed} dash")
    return files


async def test_push_clone_pull(cell: Cell) -> None:
    files = large_files(f"{cell.client.version} {cell.transport} {cell.place.storage}")
    assert len(files) == FILES
    source = start(cell.git(), {**files, "README": "small files stay in git\n"})
    source("remote", "add", "origin", cell.url)
    cell.travelled(traced(source, "push", "-q", "-u", "origin", "main"), "PUT")
    again = done(traced(source, "push", "-q", "-f", "origin", "main:again"))
    assert not [one for one in again.requests if one.method == "PUT"], "what is there is not sent again"

    copy = cell.git()
    cell.travelled(traced(copy, "clone", cell.url, "."), "GET")
    same_files(copy.cwd, files)
    assert "OK" in copy("lfs", "fsck")

    changed = {"data/05.bin": noise(77_777, f"{cell.path} changed"), "new.bin": noise(1, f"{cell.path} new")}
    source.commit(changed)
    source("push", "-q", "origin", "main")
    cell.travelled(traced(copy, "pull", "-q"), "GET")
    same_files(copy.cwd, {**files, **changed})
    assert "OK" in copy("lfs", "fsck")
    assert copy("status", "--porcelain") == ""


async def test_only_what_is_asked_for(client: LfsClient, places: Places, storage: Storage) -> None:
    """A clone of pointers, then some of the objects, then all."""
    place = await places.get(storage)
    path = await place.yard.new_repository()
    files = {f"{name}.bin": noise(10_000, f"{path} {storage} {client.version} {name}") for name in "abc"}
    source = start(place.client(client), files)
    source("push", "-q", place.url(path), "main")
    copy = client.over(place.yard.git(place.yard.new_folder()), environment=ONLY_POINTERS)
    copy("clone", "-q", place.url(path), ".")
    for name, content in files.items():
        assert hashlib.sha256(content).hexdigest() in (copy.cwd / name).read_text()
    trace = done(traced(copy, "lfs", "pull", "--include", "a.bin,b.bin"))
    assert len([one for one in trace.requests if one.method == "GET"]) == 2
    same_files(copy.cwd, {name: files[name] for name in ("a.bin", "b.bin")})
    copy("lfs", "pull")
    same_files(copy.cwd, files)
