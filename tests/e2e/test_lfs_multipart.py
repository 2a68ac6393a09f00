"""Uploads in parts by the clients that people have: huggingface_hub, its agent for git-lfs, giftless-client.

What resumes is counted on the wire: the bytes of parts that clients send, and that somebody takes.
"""

import asyncio
import hashlib
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from aiohttp import ClientSession

from storage.probe import PROBE_PREFIX
from tests.support.children import keep, release
from tests.support.git_lfs import NEWEST, lfs_client, same_files, start
from tests.support.lfs_places import STORAGES, Place, Places, Storage, lfs_places
from tests.support.lfs_soundness import assert_lfs_sound, assert_no_lfs_leftovers
from tests.support.processes import kill_tree, wait_until
from tests.support.program import PROJECT
from tests.support.streams import noise
from tests.support.wire_tap import Cut, Exchange, WireTap
from tests.support.yard import USER

PART = 16 * 1024**2
COUNT = 4
SIZE = 3 * PART + 1_000_000
# A line as people have it: on loopback megabytes are on the way before anybody can be told to stop.
BYTES_PER_SECOND = 32 * 1024**2
ON_THE_WAY = PART // 3
ENVIRONMENT = {
    "MODELYARD_LFS__MULTIPART_BYTES": str(PART),
    "MODELYARD_LFS__PART_BYTES": str(PART),
}


@dataclass
class Tapped:
    """A server, and taps in front of all that take bytes."""

    place: Place
    taps: Sequence[WireTap]
    folder: Path
    path: str
    content: bytes

    @property
    def base(self) -> str:
        """The server behind its tap."""
        return f"http://{self.taps[0].netloc}"

    @property
    def file(self) -> Path:
        return self.folder / "model.bin"

    @property
    def oid(self) -> str:
        return hashlib.sha256(self.content).hexdigest()

    def puts(self) -> list[Exchange]:
        """The parts that were sent, in order; without what the server sends to examine the store."""
        return [one for tap in self.taps for one in tap.named("PUT") if PROBE_PREFIX not in one.target]

    def forget(self) -> None:
        for tap in self.taps:
            tap.seen.clear()

    def environment(self) -> dict[str, str]:
        """For clients; nothing of theirs is found or left outside of the folder."""
        return {
            "PATH": os.environ["PATH"],
            "HOME": str(self.folder),
            **self.hub_environment(),
        }

    def hub_environment(self) -> dict[str, str]:
        """For huggingface_hub."""
        return {
            "HF_HOME": str(self.folder / "hf"),
            "HF_HUB_DISABLE_XET": "1",
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "NO_PROXY": "127.0.0.1",
        }

    def hub(self) -> list[str]:
        script = str(PROJECT / "tests" / "support" / "hub_upload.py")
        return [sys.executable, script, self.base, self.path, self.place.yard.secret, str(self.file)]

    def giftless(self) -> list[str]:
        owner, name = self.path.split("/")
        program = str(Path(sys.executable).with_name("giftless-client"))
        server = ["-u", f"{self.base}/{owner}", "-b", self.place.yard.secret]
        return [program, *server, "upload", str(self.file), f"{name}.git", "info/lfs"]

    async def run(self, command: list[str]) -> str:
        done = await asyncio.to_thread(
            subprocess.run, command, env=self.environment(), capture_output=True, text=True, timeout=120
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    async def broken_off(
        self,
        command: list[str],
        *,
        after: int,
        environment: Mapping[str, str] | None = None,
        cwd: Path | None = None,
    ) -> None:
        """Runs a client and kills it in the middle of the part behind so many whole ones."""
        for tap in self.taps:
            tap.bytes_per_second = BYTES_PER_SECOND

        def there() -> bool:
            puts = self.puts()
            whole = [one for one in puts if one.status == 200]
            return len(whole) >= after and any(not one.status and one.request_bytes > 10_000 for one in puts)

        process = await asyncio.to_thread(
            subprocess.Popen,
            command,
            env=environment or self.environment(),
            cwd=cwd or self.folder,
            stderr=subprocess.PIPE,
            text=True,
        )
        keep(process.pid)
        try:
            await asyncio.to_thread(wait_until, there, f"{after} parts")
        finally:
            kill_tree(process.pid)
            await asyncio.to_thread(process.communicate)
            release(process.pid)

    async def expect_whole(self) -> None:
        """Another client gets the object, and nothing else is left."""
        server = self.place.yard.server
        headers = {"Authorization": f"Bearer {self.place.yard.secret}"}
        async with (
            ClientSession(headers=headers) as session,
            session.get(server.url(f"{self.path}.git/info/lfs/objects/{self.oid}")) as response,
        ):
            assert response.status == 200
            assert hashlib.sha256(await response.read()).hexdigest() == self.oid
        state = await assert_lfs_sound(server)
        assert state.uploads == []
        await assert_no_lfs_leftovers(server)

    async def expect_nothing(self) -> None:
        assert (await assert_lfs_sound(self.place.yard.server)).objects == {}


@asynccontextmanager
async def behind_taps(places: Places, storage: Storage, folder: Path) -> AsyncIterator[Tapped]:
    async with AsyncExitStack() as stack:
        taps: list[WireTap] = []
        env = dict(ENVIRONMENT)
        if storage == "redirect":
            minio = await places.minio()
            taps.append(await stack.enter_async_context(WireTap("127.0.0.1", minio.port)))
            env["MODELYARD_STORAGE__PUBLIC_ENDPOINT"] = taps[0].netloc
        place = await places.make("server", storage, env=env)
        port = urlsplit(place.yard.server.http).port
        assert port is not None
        taps.insert(0, await stack.enter_async_context(WireTap("127.0.0.1", port)))
        clients = folder / "clients"
        await asyncio.to_thread(clients.mkdir)
        made = Tapped(place, taps, clients, await place.yard.new_repository(), noise(SIZE, str(folder)))
        await asyncio.to_thread(made.file.write_bytes, made.content)
        yield made


@pytest.fixture(params=STORAGES)
async def tapped(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Tapped]:
    with lfs_places(tmp_path) as places:
        async with behind_taps(places, request.param, tmp_path) as made:
            yield made


def expect_resumed(tapped: Tapped, *, kept: int) -> None:
    """Parts that were stored were not read again, and what was missing went once."""
    asked = [one for one in tapped.puts() if "stored=1" in one.target]
    sent = [one for one in tapped.puts() if "stored=1" not in one.target]
    assert [one.status for one in asked] == [200] * kept
    assert max((one.request_bytes for one in asked), default=0) < ON_THE_WAY
    expect_sent(sent, kept=kept)


def expect_sent(puts: list[Exchange], *, kept: int) -> None:
    sizes = [PART] * (COUNT - 1 - kept) + [SIZE - (COUNT - 1) * PART]
    assert sorted((one.request_bytes, one.status) for one in puts) == sorted((size, 200) for size in sizes)


async def test_huggingface_hub(tapped: Tapped) -> None:
    version = await tapped.run(tapped.hub())
    assert int(version.partition(".")[0]) >= 1
    expect_resumed(tapped, kept=0)
    if tapped.place.storage == "redirect":
        assert tapped.taps[0].named("PUT") == [], "bytes went through the server"
    await tapped.expect_whole()
    tapped.forget()
    await tapped.run(tapped.hub())
    assert tapped.puts() == []


async def test_huggingface_hub_goes_on_where_it_was(tapped: Tapped) -> None:
    await tapped.broken_off(tapped.hub(), after=2)
    await tapped.expect_nothing()
    tapped.forget()
    await tapped.run(tapped.hub())
    expect_resumed(tapped, kept=2)
    await tapped.expect_whole()


async def test_huggingface_hub_asks_again_for_a_lost_answer(tapped: Tapped) -> None:
    tapped.taps[0].cut(Cut("POST", "/complete", response_bytes=0))
    await tapped.run(tapped.hub())
    asked = tapped.taps[0].named("POST", "/complete")
    assert [(one.status, one.was_cut) for one in asked] == [(200, True), (200, False)]
    await tapped.expect_whole()


async def test_the_agent_of_huggingface_hub_for_git_lfs(tapped: Tapped) -> None:
    client = lfs_client(NEWEST, tapped.folder)
    agent = {
        "lfs.customtransfer.multipart.path": str(Path(sys.executable).with_name("hf")),
        "lfs.customtransfer.multipart.args": "lfs-multipart-upload",
    }
    git = tapped.place.yard.git(tapped.place.yard.new_folder())
    git = client.over(git, {**git.config, **agent}, tapped.hub_environment())
    url = f"http://{USER}:{tapped.place.yard.secret}@{tapped.taps[0].netloc}/{tapped.path}.git"
    await asyncio.to_thread(start, git, {"big.bin": tapped.content})
    await tapped.broken_off(["git", "push", "-q", url, "main"], after=2, environment=git.env(), cwd=git.cwd)
    await tapped.expect_nothing()
    tapped.forget()
    await asyncio.to_thread(git, "push", "-q", url, "main")
    expect_resumed(tapped, kept=2)
    copy = client.over(tapped.place.yard.git(tapped.place.yard.new_folder()))
    await asyncio.to_thread(copy, "clone", "-q", url, ".")
    same_files(copy.cwd, {"big.bin": tapped.content})
    await tapped.expect_whole()


async def test_giftless_client(tapped: Tapped) -> None:
    """It is told of the missing parts alone, so it does not even ask for the others."""
    await tapped.broken_off(tapped.giftless(), after=2)
    await tapped.expect_nothing()
    tapped.forget()
    await tapped.run(tapped.giftless())
    expect_sent(tapped.puts(), kept=2)
    await tapped.expect_whole()
