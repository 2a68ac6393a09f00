"""`kill -9` while large files come in: what was acknowledged is whole, what was not is not visible.

The points come from the program, so a new one is covered the day it is declared.
"""

import asyncio
import hashlib
import json
import signal
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

import pytest
from aiohttp import ClientConnectionError, ClientSession, encode_basic_auth

from core import failpoints
from tests.support.git import Git
from tests.support.git_lfs import NEWEST, LfsClient, lfs_client, same_files, start
from tests.support.lfs_places import STORAGES, Place, Storage, lfs_places
from tests.support.lfs_soundness import assert_lfs_sound, assert_no_lfs_leftovers, lfs_state
from tests.support.processes import wait_until
from tests.support.program import start_forkserver
from tests.support.soundness import assert_sound, program
from tests.support.streams import noise
from tests.support.wire_tap import WireTap
from tests.support.yard import USER

# Importing the server, as the places do, imports every module that declares a point.
KNOWN = failpoints.known()
UPLOAD_POINTS = [name for name in KNOWN if name.startswith("lfs.upload.")]
PARTS_POINTS = [name for name in KNOWN if name.startswith("lfs.parts.")]
# What stands behind the commit: the client never heard of it, and yet it counts.
COMMITTED = {"lfs.upload.after-commit", "lfs.parts.after-verify"}
# Bytes that skip the server do not pass the point before them.
NOT_DIRECT = {"lfs.upload.before-bytes"}
PART_BYTES = 5 * 1024**2
SIZE = 6 * 1000**2

Way = Literal["http", "ssh"]
WAYS: list[tuple[Way, Storage]] = [
    ("http", "local"),
    ("ssh", "local"),
    ("http", "proxy"),
    ("http", "redirect"),
]
CASES = [
    (point, way, storage)
    for way, storage in WAYS
    for point in UPLOAD_POINTS
    if storage != "redirect" or point not in NOT_DIRECT
]


@pytest.fixture(scope="module", autouse=True)
def forkserver() -> None:
    start_forkserver()


@dataclass
class Victim:
    """A server that will be killed, a repository that must have nothing in it, and a file for it."""

    place: Place
    client: LfsClient
    repository_id: str
    path: str
    content: bytes

    @classmethod
    async def make(cls, place: Place, folder: Path) -> "Victim":
        made = await place.yard.server.add_repository(USER, "victim")
        content = noise(SIZE, str(folder))
        return cls(place, lfs_client(NEWEST, folder), made.id, f"{USER}/victim", content)

    @property
    def oid(self) -> str:
        return hashlib.sha256(self.content).hexdigest()

    def source(self, way: Way) -> tuple[Git, str]:
        """A repository with the file, and where to push it."""
        git = self.place.yard.git(self.place.yard.new_folder())
        # Whoever restarts the server is the test, so there is nothing for the client to wait for.
        impatient = {"lfs.transfer.maxretries": "1"}
        url = self.place.url(self.path) if way == "http" else self.place.yard.ssh_url(self.path)
        if way == "ssh":
            git = self.client.over_ssh(git, url, pure=True)
        return start(self.client.over(git, {**git.config, **impatient}), {"big.bin": self.content}), url

    async def died(self) -> None:
        status = await asyncio.to_thread(self.place.yard.server.wait, timeout=60)
        assert status == -signal.SIGKILL

    async def restarted(self, *, committed: bool) -> None:
        """Without the failpoint: exactly what was committed is visible, and the rest can be swept."""
        server = self.place.yard.server
        server.restart(env={name: value for name, value in server.env.items() if "FAILPOINT" not in name})
        state = await assert_lfs_sound(server)
        assert state.visible(self.repository_id) == ({self.oid} if committed else set())
        await assert_no_lfs_leftovers(server)

    async def recovered(self) -> None:
        """A clone has the file, and nothing is wrong with the server."""
        server = self.place.yard.server
        assert (await assert_lfs_sound(server)).visible(self.repository_id) == {self.oid}
        await assert_no_lfs_leftovers(server)
        if self.place.storage != "redirect":  # where the doctor has something to say about MinIO itself
            await assert_sound(server)
        await asyncio.to_thread(program(server).done, "lfs", "fsck")

    async def lands(self, source: Git, url: str) -> None:
        """The retry of the same client succeeds, and another one gets what it pushed."""
        await asyncio.to_thread(source, "push", "-q", url, "main")
        copy = self.place.client(self.client)
        await asyncio.to_thread(copy, "clone", "-q", self.place.url(self.path), ".")
        same_files(copy.cwd, {"big.bin": self.content})
        await self.recovered()


@pytest.mark.parametrize(("point", "way", "storage"), CASES)
async def test_upload(point: str, way: Way, storage: Storage, tmp_path: Path) -> None:
    with lfs_places(tmp_path) as places:
        place = await places.make("victim", storage, env={"MODELYARD_FAILPOINT": point})
        victim = await Victim.make(place, tmp_path)
        source, url = victim.source(way)
        outcome = await asyncio.to_thread(source.run, "push", url, "main")
        assert outcome.status != 0
        await victim.died()
        await victim.restarted(committed=point in COMMITTED)
        await victim.lands(source, url)


@pytest.mark.parametrize("storage", ["local", "proxy"])
async def test_in_the_middle_of_the_bytes(storage: Storage, tmp_path: Path) -> None:
    with lfs_places(tmp_path) as places:
        place = await places.make("victim", storage)
        victim = await Victim.make(place, tmp_path)
        source, url = victim.source("http")
        port = urlsplit(place.yard.server.http).port
        assert port is not None
        async with WireTap("127.0.0.1", port) as tap:
            tap.bytes_per_second = SIZE // 8
            tapped = f"http://{USER}:{place.yard.secret}@{tap.netloc}/{victim.path}.git"
            pushing = asyncio.create_task(asyncio.to_thread(source.run, "push", tapped, "main"))
            try:

                def begun() -> bool:
                    return sum(one.request_bytes for one in tap.named("PUT")) > SIZE // 4

                await asyncio.to_thread(wait_until, begun, "a quarter of an upload")
            finally:
                place.yard.server.kill()
                outcome = await pushing
        assert outcome.status != 0
        await victim.restarted(committed=False)
        await victim.lands(source, url)


class PartsClient:
    """An upload in parts as huggingface_hub makes it."""

    def __init__(self, victim: Victim, session: ClientSession) -> None:
        self._victim = victim
        self._session = session

    async def upload(self) -> None:
        """Asks for the parts, sends them, completes. Says nothing when the object is there already."""
        victim = self._victim
        wanted = {"oid": victim.oid, "size": len(victim.content)}
        answer = await self._post(
            f"{victim.place.url(victim.path)}/info/lfs/objects/batch",
            {"operation": "upload", "transfers": ["basic", "multipart"], "objects": [wanted]},
            login=encode_basic_auth(USER, victim.place.yard.secret),
        )
        (one,) = answer["objects"]
        assert "error" not in one, one
        if "actions" not in one:
            return
        assert answer["transfer"] == "multipart"
        upload = one["actions"]["upload"]
        size = int(upload["header"]["chunk_size"])
        parts = []
        for number, name in enumerate(sorted(key for key in upload["header"] if key.isdigit()), 1):
            piece = victim.content[(number - 1) * size : number * size]
            async with self._session.put(upload["header"][name], data=BytesIO(piece)) as response:
                assert response.status == 200, await response.text()
                parts.append({"partNumber": number, "etag": response.headers["ETag"]})
        await self._post(upload["href"], {"oid": victim.oid, "parts": parts})

    async def _post(self, url: str, body: object, login: str = "") -> dict[str, Any]:
        kind = "application/vnd.git-lfs+json"
        headers = {"Accept": kind, "Content-Type": kind, **({"Authorization": login} if login else {})}
        async with self._session.post(url, data=json.dumps(body), headers=headers) as response:
            content = await response.read()
            assert response.status == 200, content
            answer: dict[str, Any] = json.loads(content)
            return answer


@pytest.mark.parametrize("storage", STORAGES)
@pytest.mark.parametrize("point", PARTS_POINTS)
async def test_upload_in_parts(point: str, storage: Storage, tmp_path: Path) -> None:
    env = {
        "MODELYARD_FAILPOINT": point,
        "MODELYARD_LFS__MULTIPART_BYTES": str(PART_BYTES),
        "MODELYARD_LFS__PART_BYTES": str(PART_BYTES),
    }
    with lfs_places(tmp_path) as places:
        place = await places.make("victim", storage, env=env)
        victim = await Victim.make(place, tmp_path)
        async with ClientSession() as session:
            client = PartsClient(victim, session)
            with pytest.raises(ClientConnectionError):
                await client.upload()
            await victim.died()
            await victim.restarted(committed=point in COMMITTED)
            await client.upload()
            await victim.recovered()
            assert (await lfs_state(place.yard.server)).uploads == []
            source, url = victim.source("http")
            await victim.lands(source, url)


def test_no_point_is_forgotten() -> None:
    """A new family of points of uploads needs tests here."""
    families = {name.rpartition(".")[0] for name in KNOWN if name.startswith("lfs.")}
    assert {"lfs.upload", "lfs.parts"} <= families
    assert families <= {"lfs.upload", "lfs.parts", "lfs.gc", "lfs.migrate", "lfs.abandoned"}
    assert {*UPLOAD_POINTS, *PARTS_POINTS} >= COMMITTED | NOT_DIRECT
