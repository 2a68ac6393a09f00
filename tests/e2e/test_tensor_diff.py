"""Fine-tunes, pushed by the real clients: whoever pushes is told which tensors changed, at once or later."""

import asyncio
import contextlib
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import ClientError, ClientSession
from sqlalchemy import func, select

from core.models import TensorDigestTask
from hooks.tensors.digester import BEFORE_STORE
from tests.support.api import Caller
from tests.support.database import Databases
from tests.support.git import Git
from tests.support.git_lfs import NEWEST, lfs_client
from tests.support.server import RunningServer, running_server
from tests.support.tensor_world import base_model, differing, fine_tuned, weights
from tests.support.yard import Yard

FILE = "model.safetensors"
ATTRIBUTES = "*.safetensors filter=lfs diff=lfs merge=lfs -text\n"
# The report is whole, however busy the machine is; what a killed server held is taken up after three seconds.
ENVIRONMENT = {"MODELYARD_HOOKS__REPORT_SECONDS": "120", "MODELYARD_HOOKS__POLL_SECONDS": "0.3"}


class Tuner:
    """Somebody who pushes weights over HTTP, with git-lfs."""

    def __init__(self, yard: Yard, path: str, git: Git) -> None:
        self.yard = yard
        self.path = path
        self._git = git

    @classmethod
    async def make(cls, yard: Yard, folder: Path) -> "Tuner":
        git = lfs_client(NEWEST, folder).over(yard.git(yard.new_folder()))
        await asyncio.to_thread(git, "init", "-q", "-b", "main", ".")
        return cls(yard, await yard.new_repository(), git)

    async def push(self, data: bytes, branch: str = "main") -> tuple[str, list[str]]:
        """Returns the commit, and what the server said."""
        commit = await asyncio.to_thread(self._git.commit, {".gitattributes": ATTRIBUTES, FILE: data})
        url = self.yard.url(self.path)
        pushed = await asyncio.to_thread(self._git.run, "push", url, f"main:refs/heads/{branch}")
        assert pushed.status == 0, pushed.output
        lines = pushed.stderr.splitlines()
        return commit, [line.removeprefix("remote: ").rstrip() for line in lines if "remote: " in line]

    async def compare(self, base: str, head: str) -> Any:
        async with self._caller() as call:
            return await call.ok("GET", f"/repositories/models/{self.path}/tensors/{base}...{head}")

    async def compared(self, base: str, head: str, *, seconds: float = 60) -> Any:
        """The answer, as soon as it is complete."""
        async with asyncio.timeout(seconds):
            while not (found := await self.compare(base, head))["complete"]:  # noqa: ASYNC110
                await asyncio.sleep(0.1)
        return found

    @contextlib.asynccontextmanager
    async def _caller(self) -> AsyncIterator[Caller]:
        async with ClientSession() as session:
            headers = {"Authorization": f"Bearer {self.yard.secret}"}
            yield Caller(session, self.yard.server.http, headers)


def changed(found: Any) -> set[str]:
    [one] = found["checkpoints"]
    assert (one["undecided"], one["pending_bytes"], one["problem"]) == (0, 0, None)
    assert {tuple(change["kinds"]) for change in one["tensors"]} == {("changed",)}
    return {change["after"]["name"] for change in one["tensors"]}


@pytest.mark.parametrize("engine", ["sqlite", "postgresql"])
async def test_whoever_pushes_is_told(engine: str, tmp_path: Path, databases: Databases) -> None:
    base = base_model(side=92)
    names = sorted(base)[10:12]
    after = fine_tuned(base, names)
    async with databases.fresh("postgresql" if engine == "postgresql" else "sqlite") as url:
        with running_server(
            tmp_path / "server", database_url=url if engine == "postgresql" else "", env=ENVIRONMENT
        ) as server:
            tuner = await Tuner.make(await Yard.open(server, tmp_path / "clients"), tmp_path)
            before, said = await tuner.push(weights(tmp_path, base))
            assert not any("changed" in line for line in said)
            head, said = await tuner.push(weights(tmp_path, after))
            line = f"{FILE}: 2 of 40 tensors changed ({names[0]}, {names[1]}), 1.1 MB → 1.1 MB"
            assert line in said
            # Complete already: what was read for the report is known.
            found = await tuner.compare(before, head)
            assert found["complete"]
            assert changed(found) == differing(base, after) == set(names)


@pytest.mark.slow
async def test_what_is_large_is_compared_a_moment_later(tmp_path: Path) -> None:
    base = base_model(6, side=2000)
    after = fine_tuned(base, [max(base)])
    files = [weights(tmp_path, one) for one in (base, after)]
    assert min(map(len, files)) > 32 * 1024**2
    with running_server(tmp_path / "server", env=ENVIRONMENT) as server:
        tuner = await Tuner.make(await Yard.open(server, tmp_path / "clients"), tmp_path)
        before, _ = await tuner.push(files[0])
        head, said = await tuner.push(files[1])
        assert f"{FILE}: 6 tensors are being compared, 64.1 MB → 64.1 MB" in said
        assert changed(await tuner.compared(before, head)) == differing(base, after)


@pytest.mark.parametrize("engine", ["sqlite", "postgresql"])
async def test_killed_before_it_is_stored(engine: str, tmp_path: Path, databases: Databases) -> None:
    """What was read is read again by the server that comes next, soon, although nobody asks."""
    base = base_model()
    after = fine_tuned(base, [min(base)])
    async with databases.fresh("postgresql" if engine == "postgresql" else "sqlite") as url:
        server = running_server(
            tmp_path / "server",
            database_url=url if engine == "postgresql" else "",
            env=ENVIRONMENT | {"MODELYARD_FAILPOINT": BEFORE_STORE},
        )
        try:
            tuner = await Tuner.make(await Yard.open(server, tmp_path / "clients"), tmp_path)
            await asyncio.to_thread(server.start)
            # New branches are compared with nothing.
            before, _ = await tuner.push(weights(tmp_path, base), "one")
            head, _ = await tuner.push(weights(tmp_path, after), "two")
            with contextlib.suppress(ClientError):
                assert not (await tuner.compare(before, head))["complete"]
            assert await asyncio.to_thread(server.wait, timeout=60) == -signal.SIGKILL
            assert await waiting(server) == 2
            await asyncio.to_thread(server.restart, env=ENVIRONMENT)
            async with asyncio.timeout(60):
                while await waiting(server):  # noqa: ASYNC110
                    await asyncio.sleep(0.1)
            found = await tuner.compare(before, head)
            assert found["complete"]
            assert changed(found) == differing(base, after)
        finally:
            server.stop()


async def waiting(server: RunningServer) -> int:
    """How many contents are to be read."""
    async with server.services() as services, services.database.read() as session:
        return await session.scalar(select(func.count()).select_from(TensorDigestTask)) or 0
