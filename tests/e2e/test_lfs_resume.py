"""Transfers that break off go on where they were, and expired links are asked for anew: seen on the wire."""

import asyncio
import hashlib
import re
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.support.git import Git
from tests.support.git_lfs import (
    NEWEST,
    NOTHING,
    ONLY_POINTERS,
    VERSIONS,
    LfsClient,
    Version,
    lfs_client,
    same_files,
    start,
)
from tests.support.lfs_places import STORAGES, Place, Places, Storage, lfs_places
from tests.support.lfs_soundness import assert_lfs_sound, assert_no_lfs_leftovers
from tests.support.ports import free_port
from tests.support.streams import noise
from tests.support.wire_tap import Cut, Exchange, WireTap
from tests.support.yard import USER

SIZE = 8 * 1000**2
CUT_AT = 3 * 1000**2


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Places]:
    with lfs_places(tmp_path_factory.mktemp("places")) as made:
        yield made


@pytest.fixture(params=VERSIONS)
def client(request: pytest.FixtureRequest, tmp_path: Path) -> LfsClient:
    version: Version = request.param
    return lfs_client(version, tmp_path)


@pytest.fixture
def newest(tmp_path: Path) -> LfsClient:
    return lfs_client(NEWEST, tmp_path)


@dataclass(frozen=True)
class Tapped:
    """A server, and a tap on the wire on which its clients send and receive bytes."""

    place: Place
    tap: WireTap

    def url(self, path: str) -> str:
        """The address for clients whose bytes shall pass the tap."""
        if self.place.storage == "redirect":
            return self.place.url(path)
        return f"http://{USER}:{self.place.yard.secret}@{self.tap.netloc}/{path}.git"

    def git(self, client: LfsClient, environment: Mapping[str, str] = NOTHING) -> Git:
        return client.over(self.place.yard.git(self.place.yard.new_folder()), environment=environment)

    async def pushed(self, client: LfsClient) -> tuple[str, bytes]:
        """A repository with one object; returns its path and the object."""
        path = await self.place.yard.new_repository()
        content = noise(SIZE, f"{path} {self.place.storage} {client.version}")
        source = start(self.git(client), {"big.bin": content})
        await asyncio.to_thread(source, "push", "-q", self.url(path), "main")
        return path, content

    async def cloned(self, client: LfsClient, path: str) -> Git:
        """A clone with pointers only."""
        copy = self.git(client, ONLY_POINTERS)
        await asyncio.to_thread(copy, "clone", "-q", self.url(path), ".")
        return copy


class Beside:
    """The one server whose clients reach MinIO over a tap, and the port of that tap."""

    def __init__(self, places: Places) -> None:
        self._places = places
        self._made: tuple[Place, int] | None = None

    async def get(self) -> tuple[Place, int]:
        if self._made is None:
            port = free_port()
            env = {"MODELYARD_STORAGE__PUBLIC_ENDPOINT": f"127.0.0.1:{port}"}
            self._made = await self._places.make("tapped", "redirect", env=env), port
        return self._made


@pytest.fixture(scope="module")
def beside(places: Places) -> Beside:
    return Beside(places)


@pytest.fixture(params=STORAGES)
async def tapped(request: pytest.FixtureRequest, places: Places, beside: Beside) -> AsyncIterator[Tapped]:
    storage: Storage = request.param
    if storage == "redirect":
        place, listen = await beside.get()
        assert place.minio is not None
        server = place.minio.port
    else:
        place, listen = await places.get(storage), 0
        server = port_of(place)
    async with WireTap("127.0.0.1", server, listen=listen) as tap:
        yield Tapped(place, tap)


def port_of(place: Place) -> int:
    port = urlsplit(place.yard.server.http).port
    assert port is not None
    return port


def oid_of(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def resumed(exchange: Exchange) -> int:
    """The offset from which the client went on, and the answer that it got to that."""
    asked = re.fullmatch(r"bytes=(\d+)-(\d*)", exchange.request["range"])
    assert asked
    offset = int(asked[1])
    assert exchange.status == 206
    assert exchange.response["content-range"] == f"bytes {offset}-{SIZE - 1}/{SIZE}"
    assert exchange.response_bytes == SIZE - offset
    return offset


async def test_broken_download_goes_on(tapped: Tapped, client: LfsClient) -> None:
    path, content = await tapped.pushed(client)
    copy = await tapped.cloned(client, path)
    tapped.tap.cut(Cut("GET", oid_of(content), response_bytes=CUT_AT))
    await asyncio.to_thread(copy, "lfs", "pull")
    same_files(copy.cwd, {"big.bin": content})
    first, second = tapped.tap.named("GET", oid_of(content))
    assert (first.status, first.was_cut, "range" in first.request) == (200, True, False)
    assert resumed(second) == CUT_AT, "not a byte twice"


async def test_the_next_process_goes_on(tapped: Tapped, newest: LfsClient) -> None:
    """One that has given up keeps what it had for the next."""
    path, content = await tapped.pushed(newest)
    copy = await tapped.cloned(newest, path)
    oid = oid_of(content)
    tapped.tap.cut(Cut("GET", oid, response_bytes=CUT_AT), Cut("GET", oid, response_bytes=0, times=100))
    outcome = await asyncio.to_thread(copy.run, "lfs", "pull")
    assert outcome.status != 0
    tapped.tap.mend()
    await asyncio.to_thread(copy, "lfs", "pull")
    same_files(copy.cwd, {"big.bin": content})
    assert resumed(tapped.tap.named("GET", oid)[-1]) == CUT_AT


async def test_broken_upload_is_sent_again(tapped: Tapped, newest: LfsClient) -> None:
    """A basic upload starts anew; of the broken one nothing is visible and nothing stays."""
    tapped.tap.cut(Cut("PUT", request_bytes=CUT_AT))
    path, content = await tapped.pushed(newest)
    first, second = tapped.tap.named("PUT")
    assert first.was_cut
    assert (second.status, second.request_bytes) == (200, SIZE)
    copy = tapped.git(newest)
    await asyncio.to_thread(copy, "clone", "-q", tapped.url(path), ".")
    same_files(copy.cwd, {"big.bin": content})
    await assert_lfs_sound(tapped.place.yard.server)
    await assert_no_lfs_leftovers(tapped.place.yard.server)


async def test_expired_links_are_asked_for_anew(places: Places, client: LfsClient) -> None:
    """Clients drop a link five seconds before its end; here that is a second after they got it."""
    env = {"MODELYARD_LFS__LINK_SECONDS": "6", "MODELYARD_LFS__SLOWEST_BYTES_PER_SECOND": str(10**12)}
    place = await places.make(f"hasty-{client.version}", "local", env=env)
    async with WireTap("127.0.0.1", port_of(place)) as tap:
        tapped = Tapped(place, tap)
        path = await place.yard.new_repository()
        files = {f"{n}.bin": noise(1000**2, f"{client.version} {n}") for n in range(6)}
        one_by_one = {"lfs.concurrenttransfers": "1"}
        source = start(client.over(place.yard.git(place.yard.new_folder()), one_by_one), files)
        tap.bytes_per_second = 2 * 1000**2
        await asyncio.to_thread(source, "push", "-q", tapped.url(path), "main")
        batches = tap.named("POST", "/objects/batch")
        assert len(batches) > 1
        assert {one.status for one in batches} == {200}
        puts = tap.named("PUT")
        assert [one.status for one in puts] == [200] * len(files), "no link was used when it was expired"

        copy = client.over(place.yard.git(place.yard.new_folder()), one_by_one)
        tap.seen.clear()
        await asyncio.to_thread(copy, "clone", "-q", tapped.url(path), ".")
        same_files(copy.cwd, files)
        assert len(tap.named("POST", "/objects/batch")) > 1
