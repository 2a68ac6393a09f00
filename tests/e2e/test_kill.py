"""`kill -9` at every failpoint: what was acknowledged is whole, what was not is all there or not at all.

The points come from the program, so a new one is covered the day it is declared.
"""

import asyncio
import signal
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from aiohttp import ClientConnectionError, ClientSession

from core import failpoints
from core.access import SYSTEM, Permission
from core.names import parse_address
from gitserver import receive
from gitserver.commits import Put
from tests.support.api import Caller, commit
from tests.support.database import Databases, Engine
from tests.support.git import Git
from tests.support.program import start_forkserver
from tests.support.server import running_server
from tests.support.soundness import (
    assert_cache_tidy,
    assert_sound,
    assert_sweeps_clean,
    refs_of,
    state_of,
)
from tests.support.yard import Yard

MAIN = "refs/heads/main"
# Importing the services, as `running_server` does, imports every module that declares a point.
KNOWN = failpoints.known()
PUSH_POINTS = [name for name in KNOWN if name.startswith("push.")]
REPACK_POINTS = [name for name in KNOWN if name.startswith("repack.")]
# What stands behind the commit: the client never heard of it, and yet it counts.
COMMITTED = {"push.after-commit", "push.before-report"}
# Commits made by the server itself pass all points but those of reading and answering a client.
CLIENTS_ONLY = {value for value in vars(receive).values() if isinstance(value, str) and value in KNOWN}


@pytest.fixture(scope="module", autouse=True)
def forkserver() -> None:
    start_forkserver()


@dataclass
class Victim:
    """A server that can be killed, with a repository whose `main` has one acknowledged commit."""

    yard: Yard
    path: str
    head: str
    work: Git

    @classmethod
    async def make(cls, folder: Path, database_url: str, env: dict[str, str]) -> "Victim":
        server = running_server(folder / "server", database_url=database_url, env=env)
        yard = await Yard.open(server, folder / "clients")
        path = await yard.new_repository()
        async with server.services() as services:
            repository = await services.repositories.open(SYSTEM, parse_address(path), Permission.WRITE)
            made = await services.committer.commit(repository, SYSTEM, "main", [Put("a", b"1\n")], "first")
        server.start()
        work = yard.git(yard.new_folder())
        work("clone", "-q", yard.url(path), ".")
        return cls(yard, path, made.oid, work)

    async def push(self, url: str) -> None:
        """Must fail: nobody acknowledges it."""
        await asyncio.to_thread(self.work, "fetch", "-q", self.yard.url(self.path), "main")
        await asyncio.to_thread(self.work, "reset", "-q", "--hard", "FETCH_HEAD")
        await asyncio.to_thread(self.work.commit, {"b": f"{urlsplit(url).scheme} {self.head}\n"})
        outcome = await asyncio.to_thread(self.work.run, "push", url, "main")
        assert outcome.status != 0, outcome.output

    async def push_http(self) -> None:
        await self.push(self.yard.url(self.path))

    async def push_ssh(self) -> None:
        await self.push(self.yard.ssh_url(self.path))

    async def commit_api(self) -> None:
        async with ClientSession() as session:
            caller = Caller(session, self.yard.server.http, {"Authorization": f"Bearer {self.yard.secret}"})
            with pytest.raises(ClientConnectionError):
                await commit(caller, f"/repositories/models/{self.path}", {"c": b"api\n"}, parent=self.head)

    async def died(self) -> None:
        status = await asyncio.to_thread(self.yard.server.wait, timeout=60)
        assert status == -signal.SIGKILL

    async def recovered(self) -> None:
        """Restarted without the failpoint: all is well, pushes land, and what is left is swept."""
        server = self.yard.server
        server.restart(env={name: value for name, value in server.env.items() if "FAILPOINT" not in name})
        await assert_cache_tidy(server)
        copy = self.yard.git(self.yard.new_folder())
        copy("clone", "-q", self.yard.ssh_url(self.path), ".")
        assert copy("rev-parse", "HEAD") == self.head
        copy("fsck", "--strict", "--no-dangling")
        tip = copy.commit({"after": "the crash\n"})
        copy("push", "-q", self.yard.url(self.path), "main")
        assert await refs_of(server, self.path) == {MAIN: tip}
        await assert_sweeps_clean(server)
        await assert_sound(server)


async def kill_at(point: str, victim: Victim) -> None:
    """Kills the server at this point on every way that leads there, one after the other."""
    server = victim.yard.server
    ways: list[Callable[[], Coroutine[None, None, None]]] = [victim.push_http, victim.push_ssh]
    if point not in CLIENTS_ONLY:
        ways.append(victim.commit_api)
    for number, push in enumerate(ways):
        if number:
            server.start()  # and what the last one left behind is in nobody's way
        await push()
        await victim.died()
        refs = await refs_of(server, victim.path)
        assert refs.keys() == {MAIN}
        assert (refs[MAIN] != victim.head) == (point in COMMITTED)
        victim.head = refs[MAIN]
    await victim.recovered()


@pytest.mark.parametrize("point", PUSH_POINTS)
async def test_push(point: str, tmp_path: Path) -> None:
    victim = await Victim.make(tmp_path, "", {"MODELYARD_FAILPOINT": point})
    try:
        await kill_at(point, victim)
    finally:
        victim.yard.server.stop()


@pytest.mark.parametrize("point", ["push.after-store", "push.before-commit", "push.after-commit"])
async def test_push_on_postgresql(point: str, tmp_path: Path, databases: Databases) -> None:
    async with databases.fresh("postgresql") as url:
        victim = await Victim.make(tmp_path, url, {"MODELYARD_FAILPOINT": point})
        try:
            await kill_at(point, victim)
        finally:
            victim.yard.server.stop()


@pytest.mark.parametrize("engine", ["sqlite", "postgresql"])
@pytest.mark.parametrize("point", REPACK_POINTS)
async def test_repack(point: str, engine: Engine, tmp_path: Path, databases: Databases) -> None:
    """The server's own queue repacks after the third push, and dies of it."""
    env = {
        "MODELYARD_FAILPOINT": point,
        "MODELYARD_MAINTENANCE__PACKS_THRESHOLD": "3",
        "MODELYARD_MAINTENANCE__POLL_SECONDS": "0.1",
    }
    async with databases.fresh(engine) as url:
        victim = await Victim.make(tmp_path, url if engine == "postgresql" else "", env)
        try:
            for number in range(2):
                victim.head = await asyncio.to_thread(victim.work.commit, {"b": f"{number}\n"})
                # The last may be cut off by the death that it causes; it is published by then.
                await asyncio.to_thread(victim.work.run, "push", "-q", victim.yard.url(victim.path), "main")
            await victim.died()
            assert await refs_of(victim.yard.server, victim.path) == {MAIN: victim.head}
            before = await state_of(victim.yard.server, victim.path)
            assert (len(before.packs) == 3) == (point == "repack.before-swap"), before.packs
            await victim.recovered()
            async with victim.yard.server.services() as services:
                await services.maintenance.run(before.repository_id)
            await assert_sweeps_clean(victim.yard.server)
            await assert_sound(victim.yard.server)
        finally:
            victim.yard.server.stop()


def test_no_point_is_forgotten() -> None:
    """Each family has tests: above, with large files, stores or hooks. A new one needs new ones."""
    elsewhere = ("lfs.", "storage.", "hooks.", "metadata.", "tensors.", "trigger.", "webhook.")
    assert {name for name in KNOWN if not name.startswith(elsewhere)} == {
        *PUSH_POINTS,
        *REPACK_POINTS,
    }
    assert set(PUSH_POINTS) >= COMMITTED
    assert len(CLIENTS_ONLY) == 3
