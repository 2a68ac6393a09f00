"""What a client may not have: more requests than its share, and objects of somebody else."""

import asyncio
import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from aiohttp import ClientSession, encode_basic_auth

from lfs.pointer import Pointer, write_pointer
from tests.support.git import Git
from tests.support.git_lfs import (
    NEWEST,
    ONLY_POINTERS,
    VERSIONS,
    LfsClient,
    Version,
    done,
    lfs_client,
    same_files,
    start,
    traced,
)
from tests.support.lfs_places import Place, Places, lfs_places
from tests.support.lfs_soundness import lfs_state
from tests.support.streams import noise
from tests.support.wire_tap import WireTap
from tests.support.yard import USER

LFS_JSON = "application/vnd.git-lfs+json"
STRANGER = "bob"


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Places]:
    with lfs_places(tmp_path_factory.mktemp("places")) as made:
        yield made


def logged_in(user: str, secret: str) -> ClientSession:
    return ClientSession(headers={"Authorization": encode_basic_auth(user, secret)})


@dataclass(frozen=True)
class Answer:
    """What came back; `headers` by lower-case name."""

    status: int
    headers: dict[str, str]
    body: dict[str, Any]


async def batch(
    session: ClientSession, place: Place, path: str, operation: str, oid: str, size: int
) -> Answer:
    """Asks for one object."""
    body = {"operation": operation, "objects": [{"oid": oid, "size": size}], "hash_algo": "sha256"}
    async with session.post(
        f"{place.url(path)}/info/lfs/objects/batch",
        data=json.dumps(body),
        headers={"Accept": LFS_JSON, "Content-Type": LFS_JSON},
    ) as response:
        headers = {name.lower(): value for name, value in response.headers.items()}
        return Answer(response.status, headers, json.loads(await response.read()))


@pytest.mark.parametrize("version", VERSIONS)
async def test_a_storm_is_slowed_down_and_passes(places: Places, version: Version, tmp_path: Path) -> None:
    place = await places.make(f"stormy-{version}", "local", env={"MODELYARD_LFS__REQUESTS_PER_MINUTE": "60"})
    path = await place.yard.new_repository()
    client = lfs_client(version, tmp_path)
    files = {f"{n}.bin": noise(1000, f"{version} storm {n}") for n in range(20)}
    source = start(
        client.over(place.yard.git(place.yard.new_folder()), {"lfs.transfer.batchSize": "4"}), files
    )
    async with logged_in(USER, place.yard.secret) as session:
        while True:
            answer = await batch(session, place, path, "download", "0" * 64, 1)
            if answer.status == 429:
                break
            assert answer.status == 200
    assert 1 <= int(answer.headers["retry-after"]) <= 60
    assert answer.headers["content-type"] == LFS_JSON
    assert "message" in answer.body
    trace = done(traced(source, "push", place.url(path), "main"))
    assert 429 in trace.statuses, "it was told to wait, and did"
    copy = place.client(client)
    copy("clone", "-q", place.url(path), ".")
    same_files(copy.cwd, files)


@dataclass(frozen=True)
class Neighbours:
    """Ann's private repository with one object, and bob, who knows what it is called."""

    place: Place
    client: LfsClient
    secret: str
    path: str
    content: bytes

    @property
    def oid(self) -> str:
        return hashlib.sha256(self.content).hexdigest()

    @property
    def pointer(self) -> bytes:
        return write_pointer(Pointer(self.oid, len(self.content)))

    def bob(self, config: dict[str, str] | None = None, *, only_pointers: bool = False) -> Git:
        server = self.place.yard.server
        git = server.git(self.place.yard.new_folder(), user=STRANGER, secret=self.secret)
        return self.client.over(git, config or {}, ONLY_POINTERS if only_pointers else {})

    async def of_bob(self, name: str) -> tuple[str, str]:
        """A repository of bob: its id and its path."""
        made = await self.place.yard.server.add_repository(STRANGER, name)
        return made.id, f"{STRANGER}/{name}"


@pytest.fixture(scope="module")
def neighbours(places: Places, tmp_path_factory: pytest.TempPathFactory) -> Neighbours:
    async def make() -> Neighbours:
        place = await places.get("local")
        client = lfs_client(NEWEST, tmp_path_factory.mktemp("client"))
        path = await place.yard.new_repository()
        content = noise(1_500_000, "a secret of ann")
        start(place.client(client), {"secret.bin": content})("push", "-q", place.url(path), "main")
        await place.yard.server.add_user(STRANGER)
        secret = await place.yard.server.add_token(STRANGER)
        return Neighbours(place, client, secret, path, content)

    return asyncio.run(make())


async def test_a_pointer_to_somebody_elses_object_brings_nothing(neighbours: Neighbours) -> None:
    """Neither the client nor the push gets past it, and the words are those for an object of nobody."""
    repository_id, path = await neighbours.of_bob("claims")
    nobody = write_pointer(Pointer("5" * 64, len(neighbours.content)))
    told = []
    for pointer in (neighbours.pointer, nobody):
        # A client that is told to push what it does not have, and leave the rest to the server.
        work = neighbours.bob({"lfs.allowincompletepush": "true"}, only_pointers=True)
        start(work, {"README": "bob\n"})
        work("config", "filter.lfs.clean", "cat")
        (work.cwd / "claimed.bin").write_bytes(pointer)
        work("add", "README")
        blob = work("hash-object", "-w", "--no-filters", "claimed.bin")
        work("update-index", "--add", "--cacheinfo", f"100644,{blob},claimed.bin")
        work("commit", "-q", "-m", "claim")
        outcome = work.run("push", neighbours.place.url(path), "main")
        assert outcome.status != 0
        assert "claimed.bin" in outcome.output, outcome.output
        told.append(_without_oids(outcome.output))
    assert told[0] == told[1]
    assert (await lfs_state(neighbours.place.yard.server)).visible(repository_id) == set()


def _without_oids(text: str) -> list[str]:
    """The remarks of the server, with nothing in them that must differ."""
    lines = [line for line in text.splitlines() if line.startswith("remote:")]
    words = [[word for word in line.split() if len(word.strip("()[]:,")) < 40] for line in lines]
    return [" ".join(line) for line in words]


async def test_the_answers_do_not_tell_that_it_exists(neighbours: Neighbours) -> None:
    _, path = await neighbours.of_bob("asks")
    size = len(neighbours.content)
    async with logged_in(STRANGER, neighbours.secret) as session:
        for operation in ("download", "upload"):
            answers: list[dict[str, Any]] = []
            for oid in (neighbours.oid, "5" * 64):
                answer = await batch(session, neighbours.place, path, operation, oid, size)
                assert answer.status == 200
                (told,) = answer.body["objects"]
                assert told.pop("oid") == oid
                told["actions"] = sorted(told.get("actions", {}))
                answers.append(told)
            assert answers[0] == answers[1]
            assert bool(answers[0]["actions"]) == (operation == "upload")
        hidden = await batch(session, neighbours.place, neighbours.path, "download", neighbours.oid, size)
        absent = await batch(session, neighbours.place, f"{USER}/nothing", "download", neighbours.oid, size)
        assert (hidden.status, absent.status) == (404, 404)


async def test_whoever_has_the_bytes_uploads_all_of_them(neighbours: Neighbours) -> None:
    repository_id, path = await neighbours.of_bob("has")
    address = urlsplit(neighbours.place.yard.server.http)
    assert address.port is not None
    async with WireTap("127.0.0.1", address.port) as tap:
        url = f"http://{STRANGER}:{neighbours.secret}@{tap.netloc}/{path}.git"
        work = start(neighbours.bob(), {"mine.bin": neighbours.content})
        await asyncio.to_thread(work, "push", "-q", url, "main")
        (put,) = tap.named("PUT")
    assert put.request_bytes == len(neighbours.content)
    state = await lfs_state(neighbours.place.yard.server)
    assert state.visible(repository_id) == {neighbours.oid}
    assert len([key for key in state.keys if neighbours.oid in key]) == 1, "stored once for both"


async def test_a_stranger_cannot_fetch(neighbours: Neighbours) -> None:
    _, path = await neighbours.of_bob("fetches")
    work = neighbours.bob()
    work("init", "-q", ".")
    work("remote", "add", "origin", neighbours.place.url(path))
    outcome = work.run("lfs", "smudge", "claimed.bin", data=neighbours.pointer)
    assert outcome.status != 0
    assert neighbours.content not in outcome.stdout.encode(errors="replace")
    assert not list((work.cwd / ".git" / "lfs").rglob(neighbours.oid))
