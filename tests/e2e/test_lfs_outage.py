"""MinIO goes away, the disk is full, somebody locks the database: clear words, and a retry loses nothing."""

import asyncio
import hashlib
import sqlite3
from collections.abc import AsyncIterator, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.support.full_disk import FullDisk, full_disk
from tests.support.git import Git, Result
from tests.support.git_lfs import NEWEST, ONLY_POINTERS, LfsClient, lfs_client, same_files, start
from tests.support.lfs_places import Place, Places, lfs_places
from tests.support.lfs_soundness import assert_lfs_sound, assert_no_lfs_leftovers, lfs_state
from tests.support.minio_server import MinioServer
from tests.support.processes import wait_until
from tests.support.streams import noise
from tests.support.wire_tap import WireTap
from tests.support.yard import USER

# More than all buffers between server and client can hold together.
SIZE = 40 * 1000**2
HALF_WAY = 4 * 1000**2
BYTES_PER_SECOND = 4 * 1000**2
# A client that gives up soon, so that the outage outlasts it.
IMPATIENT = {"lfs.transfer.maxretries": "1"}


@pytest.fixture
def client(tmp_path: Path) -> LfsClient:
    return lfs_client(NEWEST, tmp_path)


@pytest.fixture
def places(tmp_path: Path) -> Iterator[Places]:
    with lfs_places(tmp_path / "places") as made:
        yield made


@dataclass(frozen=True)
class Fragile:
    """A server on MinIO behind a slow wire, and the MinIO to be stopped."""

    place: Place
    minio: MinioServer
    tap: WireTap
    client: LfsClient

    def url(self, path: str) -> str:
        if self.place.storage == "redirect":
            return self.place.url(path)
        return f"http://{USER}:{self.place.yard.secret}@{self.tap.netloc}/{path}.git"

    def git(self) -> Git:
        return self.client.over(self.place.yard.git(self.place.yard.new_folder()), IMPATIENT)

    async def stopped_in_the_middle_of(self, git: Git, method: str, *arguments: str) -> Result:
        """Runs a command, and stops MinIO when about a third of its bytes have passed."""
        self.tap.seen.clear()
        self.tap.bytes_per_second = BYTES_PER_SECOND
        running = asyncio.create_task(asyncio.to_thread(git.run, *arguments))

        def passed() -> bool:
            exchanges = self.tap.named(method)
            return sum(one.request_bytes + one.response_bytes for one in exchanges) > HALF_WAY

        try:
            await asyncio.to_thread(wait_until, passed, "a part of the transfer")
            await asyncio.to_thread(self.minio.stop)
        finally:
            self.tap.bytes_per_second = 0
            result = await running
        return result


@pytest.fixture(params=["proxy", "redirect"])
async def fragile(
    request: pytest.FixtureRequest, places: Places, client: LfsClient
) -> AsyncIterator[Fragile]:
    minio = await places.minio()
    if request.param == "redirect":
        async with WireTap("127.0.0.1", minio.port) as tap:
            env = {"MODELYARD_STORAGE__PUBLIC_ENDPOINT": tap.netloc}
            yield Fragile(await places.make("fragile", "redirect", env=env), minio, tap, client)
    else:
        place = await places.make("fragile", "proxy")
        async with WireTap("127.0.0.1", port_of(place)) as tap:
            yield Fragile(place, minio, tap, client)


def port_of(place: Place) -> int:
    port = urlsplit(place.yard.server.http).port
    assert port is not None
    return port


async def test_minio_stops_during_an_upload(fragile: Fragile) -> None:
    path = await fragile.place.yard.new_repository()
    content = noise(SIZE, f"upload {fragile.place.storage}")
    source = start(fragile.git(), {"big.bin": content})
    result = await fragile.stopped_in_the_middle_of(source, "PUT", "push", fragile.url(path), "main")
    assert result.status != 0
    if fragile.place.storage == "proxy":
        assert "object store" in result.output, result.output
    await asyncio.to_thread(fragile.minio.start)
    state = await lfs_state(fragile.place.yard.server)
    assert (state.objects, state.links) == ({}, []), "nobody acknowledged it"
    await asyncio.to_thread(source, "push", "-q", fragile.url(path), "main")
    await assert_landed(fragile.place, fragile.client, fragile.url(path), {"big.bin": content})


async def test_minio_stops_during_a_download(fragile: Fragile) -> None:
    path = await fragile.place.yard.new_repository()
    content = noise(SIZE, f"download {fragile.place.storage}")
    source = start(fragile.git(), {"big.bin": content})
    await asyncio.to_thread(source, "push", "-q", fragile.url(path), "main")
    copy = fragile.client.over(
        fragile.place.yard.git(fragile.place.yard.new_folder()), IMPATIENT, ONLY_POINTERS
    )
    await asyncio.to_thread(copy, "clone", "-q", fragile.url(path), ".")
    result = await fragile.stopped_in_the_middle_of(copy, "GET", "lfs", "pull")
    assert result.status != 0
    await asyncio.to_thread(fragile.minio.start)
    await asyncio.to_thread(copy, "lfs", "pull")
    same_files(copy.cwd, {"big.bin": content})
    ranges = [one.request.get("range") for one in fragile.tap.named("GET") if one.status == 206]
    assert ranges, "what had arrived was not sent again"


async def assert_landed(place: Place, client: LfsClient, url: str, files: dict[str, bytes]) -> None:
    """A new clone has everything, and the server nothing else."""
    copy = client.over(place.yard.git(place.yard.new_folder()))
    await asyncio.to_thread(copy, "clone", "-q", url, ".")
    same_files(copy.cwd, files)
    state = await assert_lfs_sound(place.yard.server)
    assert state.objects.keys() == {hashlib.sha256(content).hexdigest() for content in files.values()}
    await assert_no_lfs_leftovers(place.yard.server)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[FullDisk]:
    made = full_disk(tmp_path / "disk")
    yield made
    made.close()


@pytest.mark.parametrize("transport", ["http", "ssh"])
async def test_the_disk_is_full(disk: FullDisk, places: Places, client: LfsClient, transport: str) -> None:
    # `disk` is asked for before `places`, so the server has ended before its disk goes.
    env = {"MODELYARD_STORAGE__PATH": str(disk.folder)}
    place = await places.make("full", "local", env=env)
    path = await place.yard.new_repository()
    url = place.url(path) if transport == "http" else place.yard.ssh_url(path)
    content = noise(24 * 1000**2, f"full {transport}")
    git = place.yard.git(place.yard.new_folder())
    git = client.over(git, IMPATIENT) if transport == "http" else client.over_ssh(git, url, pure=True)
    source = start(git, {"big.bin": content})
    disk.fill(place.yard.server.pid, 8)
    result = await asyncio.to_thread(source.run, "push", url, "main")
    assert result.status != 0
    assert "object store" in result.output, result.output
    state = await lfs_state(place.yard.server)
    assert (state.objects, state.links, state.keys) == ({}, [], [])
    assert sum(file.stat().st_size for file in disk.folder.rglob("*") if file.is_file()) < 1000**2

    small = start(place.client(client), {"small.bin": noise(1000**2, "small")})
    await asyncio.to_thread(small, "push", "-q", place.url(path), "main:small")

    disk.make_room(place.yard.server.pid)
    await asyncio.to_thread(source, "push", "-q", url, "main")
    files = {"big.bin": content}
    copy = place.client(client)
    await asyncio.to_thread(copy, "clone", "-q", url, ".")
    same_files(copy.cwd, files)
    await assert_lfs_sound(place.yard.server)
    await assert_no_lfs_leftovers(place.yard.server)


async def test_the_database_is_locked_for_five_seconds(places: Places, client: LfsClient) -> None:
    """Nobody but the clock notices."""
    place = await places.make("locked", "local")
    source, url, files = await waiting_to_push(place, client)
    with closing(lock(place)) as other:
        pushing = asyncio.create_task(asyncio.to_thread(source, "push", "-q", url, "main"))
        await asyncio.sleep(5)
        other.execute("ROLLBACK")
        await pushing
    await assert_landed(place, client, url, files)


async def test_the_database_is_locked_for_longer_than_anybody_waits(
    places: Places, client: LfsClient
) -> None:
    place = await places.make("locked", "local", env={"MODELYARD_DATABASE__BUSY_SECONDS": "1"})
    source, url, files = await waiting_to_push(place, client)
    with closing(lock(place)):
        outcome = await asyncio.to_thread(source.run, "push", "-q", url, "main")
    assert outcome.status != 0
    assert "try again" in outcome.output, outcome.output
    state = await lfs_state(place.yard.server)
    assert (state.objects, state.links) == ({}, [])
    await assert_no_lfs_leftovers(place.yard.server)  # bytes may wait for the sweeper
    await asyncio.to_thread(source, "push", "-q", url, "main")
    await assert_landed(place, client, url, files)


async def waiting_to_push(place: Place, client: LfsClient) -> tuple[Git, str, dict[str, bytes]]:
    """A repository with large files, where to push it, and the files."""
    files = {f"{n}.bin": noise(100_000, f"locked {n}") for n in range(5)}
    git = client.over(place.yard.git(place.yard.new_folder()), IMPATIENT)
    return start(git, files), place.url(await place.yard.new_repository()), files


def lock(place: Place) -> sqlite3.Connection:
    """Somebody else who writes to the database, and takes their time."""
    connection = sqlite3.connect(place.yard.data / "modelyard.db", isolation_level=None)
    connection.execute("BEGIN IMMEDIATE")
    return connection
