"""`kill -9` between a push and what is done about it: nothing is forgotten, and the order is kept."""

import asyncio
import contextlib
import json
import os
import signal
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest
from aiohttp import ClientConnectionError, ClientSession
from sqlalchemy import select

from core import failpoints
from core.models import ModelVersion, OutboxEvent, Push
from core.outbox import EventName
from tests.support.api import Caller, commit
from tests.support.database import Databases, Engine
from tests.support.git import Git, Result
from tests.support.plugins import install_plugin
from tests.support.program import PROJECT, start_forkserver
from tests.support.server import RunningServer, running_server
from tests.support.soundness import assert_sound
from tests.support.yard import Yard

# Importing the services, as `running_server` does, imports every module that declares a point.
KNOWN = [name for name in failpoints.known() if name.startswith(("hooks.", "metadata."))]
# A push passes the points of a step once for each of them.
POINTS = [
    "push.after-commit",
    "push.before-report",
    *(f"{name}{at}" for name in ("hooks.before-step", "hooks.after-step") for at in ("", ":2", ":3")),
    "hooks.before-end",
    *(name for name in KNOWN if name.startswith("metadata.")),
]

# Once for each push, however often it runs; the log has the order. Two at once would find each other.
ONCE = """#!/bin/sh
cd "{folder}" || exit 1
mkdir "busy-$MODELYARD_REPOSITORY_ID" || echo overlap >> faults
grep -qx "$MODELYARD_PUSH_ID" "$MODELYARD_REPOSITORY_ID.log" 2> /dev/null ||
    echo "$MODELYARD_PUSH_ID" >> "$MODELYARD_REPOSITORY_ID.log"
rmdir "busy-$MODELYARD_REPOSITORY_ID"
echo "seen $MODELYARD_PUSH_ID"
"""

# Every time it runs.
ALWAYS = """
from pathlib import Path

class Step:
    name = "count"

    async def run(self, push, report):
        with Path({file!r}).open("a") as file:
            file.write(f"{{push.id}}\\n")

def hooks(context):
    return [Step()]
"""


@pytest.fixture(scope="module", autouse=True)
def forkserver() -> None:
    start_forkserver()


class Hooked:
    """A server with a plug-in and a program that take note of pushes."""

    def __init__(self, folder: Path) -> None:
        self.notes = folder / "notes"
        self._site = folder / "site"
        self._hooks = folder / "hooks"
        for path in (self.notes, self._hooks):
            path.mkdir()
        program = self._hooks / "post-receive"
        program.write_text(ONCE.format(folder=self.notes))
        program.chmod(0o755)
        install_plugin(self._site, "counting", ALWAYS.format(file=str(self.notes / "runs")))

    def environment(self) -> dict[str, str]:
        return {
            "PYTHONPATH": f"{PROJECT}{os.pathsep}{self._site}",
            "MODELYARD_HOOKS__DIRECTORY": str(self._hooks),
            # A lease lasts for three seconds.
            "MODELYARD_HOOKS__POLL_SECONDS": "0.3",
            # Reports are whole, however busy the machine is.
            "MODELYARD_HOOKS__REPORT_SECONDS": "60",
        }

    def order(self, repository_id: str) -> list[int]:
        """The pushes, as the program saw them."""
        file = self.notes / f"{repository_id}.log"
        return [int(line) for line in file.read_text().splitlines()] if file.exists() else []

    def runs(self) -> Counter[int]:
        """How often the plug-in's step was run for each push."""
        file = self.notes / "runs"
        return Counter(int(line) for line in file.read_text().splitlines())


async def all_done(server: RunningServer, *, seconds: float = 60) -> None:
    """Waits until nothing is on the queue."""
    async with server.services() as services, asyncio.timeout(seconds):
        while await services.pipeline.queue_length():  # noqa: ASYNC110 - another process empties it
            await asyncio.sleep(0.05)


async def pushes(server: RunningServer) -> dict[str, list[int]]:
    """The pushes of each repository, in order."""
    found: dict[str, list[int]] = {}
    async with server.services() as services, services.database.read() as session:
        for push in await session.scalars(select(Push).order_by(Push.id)):
            found.setdefault(push.repository_id, []).append(push.id)
    return found


@dataclass
class Victim:
    """A server that takes note of pushes, with a repository and somebody's clone of it."""

    yard: Yard
    hooked: Hooked
    path: str
    work: Git

    @classmethod
    async def make(
        cls, tmp_path: Path, database_url: str, env: Mapping[str, str], *, workers: int = 1
    ) -> "Victim":
        hooked = Hooked(tmp_path)
        env = {**hooked.environment(), **env}
        server = running_server(tmp_path / "server", database_url=database_url, workers=workers, env=env)
        yard = await Yard.open(server, tmp_path / "clients")
        path = await yard.new_repository()
        await asyncio.to_thread(server.start)
        work = yard.git(yard.new_folder())
        await asyncio.to_thread(work, "init", "-q", "-b", "main", ".")
        return cls(yard, hooked, path, work)

    async def push(self, number: int) -> Result:
        """Pushes a new version of a model; what comes of it is for the caller to see."""
        config = json.dumps({"model_type": "llama", "hidden_size": number})
        await asyncio.to_thread(self.work.commit, {"config.json": config})
        return await asyncio.to_thread(self.work.run, "push", self.yard.url(self.path), "main")


async def die_and_catch_up(point: str, engine: Engine, tmp_path: Path, databases: Databases) -> None:
    async with databases.fresh(engine) as url:
        victim = await Victim.make(
            tmp_path, url if engine == "postgresql" else "", {"MODELYARD_FAILPOINT": point}
        )
        server, hooked = victim.yard.server, victim.hooked
        try:
            await victim.push(1)
            assert await asyncio.to_thread(server.wait, timeout=60) == -signal.SIGKILL
            (repository_id,) = await pushes(server)
            await asyncio.to_thread(server.restart, env=hooked.environment())
            second = await victim.push(2)
            assert second.status == 0, second.output
            await all_done(server)
            third = await victim.push(3)
            assert "remote: seen 3" in third.output
            await all_done(server)

            assert await pushes(server) == {repository_id: [1, 2, 3]}
            assert hooked.order(repository_id) == [1, 2, 3]
            assert not (hooked.notes / "faults").exists()
            runs = hooked.runs()
            assert runs[1] in (1, 2)
            assert (runs[2], runs[3]) == (1, 1)
            commits = victim.work("rev-list", "--reverse", "main").split()
            async with server.services() as services, services.database.read() as session:
                versions = list(await session.scalars(select(ModelVersion.commit)))
                created = OutboxEvent.name == EventName.MODEL_VERSION_CREATED
                events = list(
                    await session.scalars(select(OutboxEvent).where(created).order_by(OutboxEvent.id))
                )
            assert sorted(versions) == sorted(commits)
            assert [one.payload["commit"] for one in events] == commits
            await assert_sound(server)
        finally:
            server.stop()


@pytest.mark.parametrize("point", POINTS)
async def test_killed_at(point: str, tmp_path: Path, databases: Databases) -> None:
    await die_and_catch_up(point, "sqlite", tmp_path, databases)


@pytest.mark.parametrize("point", ["push.after-commit", "hooks.before-step:2", "hooks.after-step"])
async def test_killed_at_on_postgresql(point: str, tmp_path: Path, databases: Databases) -> None:
    await die_and_catch_up(point, "postgresql", tmp_path, databases)


@pytest.mark.parametrize("engine", ["sqlite", "postgresql"])
async def test_two_workers_killed_in_a_burst(engine: Engine, tmp_path: Path, databases: Databases) -> None:
    """Commits to three repositories, both workers killed twice: all is done, in order, one at a time."""
    async with databases.fresh(engine) as url:
        victim = await Victim.make(tmp_path, url if engine == "postgresql" else "", {}, workers=2)
        server, hooked = victim.yard.server, victim.hooked
        paths = [victim.path, await victim.yard.new_repository(), await victim.yard.new_repository()]
        accepted = 0

        async def some_more() -> None:
            """Waits for another three, so that the server is in the middle of it."""
            enough = accepted + 3
            async with asyncio.timeout(60):
                while accepted < enough:  # noqa: ASYNC110 - the bursts tell nobody
                    await asyncio.sleep(0.02)

        async def burst(session: ClientSession, path: str) -> None:
            nonlocal accepted
            headers = {"Authorization": f"Bearer {victim.yard.secret}"}
            for number in range(8):
                with contextlib.suppress(ClientConnectionError):
                    caller = Caller(session, server.http, headers)
                    await commit(caller, f"/repositories/models/{path}", {f"{number}.txt": os.urandom(8)})
                    accepted += 1
                await asyncio.sleep(0.1)

        try:
            for _ in range(2):
                async with ClientSession() as session, asyncio.TaskGroup() as group:
                    for path in paths:
                        group.create_task(burst(session, path))
                    await some_more()
                    await asyncio.to_thread(server.kill)
                # What the dead were in the middle of.
                for busy in hooked.notes.glob("busy-*"):
                    busy.rmdir()
                await asyncio.to_thread(server.start)
            await all_done(server)
            expected = await pushes(server)
            assert sum(map(len, expected.values())) >= accepted > 0
            assert {name: hooked.order(name) for name in expected} == expected
            assert not (hooked.notes / "faults").exists()
        finally:
            server.stop()


def test_no_point_is_forgotten() -> None:
    assert {name.partition(":")[0] for name in POINTS} >= set(KNOWN)
