"""From `.modelyard.toml` to requests, with real clients: what fires, what is told, and what never loops."""

import asyncio
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import ClientSession
from sqlalchemy import select

from core.access import SYSTEM
from core.models import OutboxEvent, Scope, TriggerRequest
from core.names import parse_address
from tests.support.api import Caller, commit
from tests.support.database import Databases, Engine
from tests.support.git import Git
from tests.support.server import RunningServer, running_server
from tests.support.yard import USER, Yard

# So that the report is whole, however busy the machine is.
PATIENT = {"MODELYARD_HOOKS__REPORT_SECONDS": "60"}
FILE = ".modelyard.toml"
CARD = "---\nlicense: apache-2.0\npipeline_tag: text-generation\n---\n# A model\n"
FINETUNE = """\
[[rule]]
name = "finetune"
run = "training"
on.branches = ["main", "release/*"]
on.paths = ["data/**", "!data/README.md"]
when = { task = "text-generation", license = ["mit", "apache-2.0"] }
parameters = { epochs = 3, learning_rate = 1e-4, revision = "${branch}@${commit}" }
"""
# What takes its own results for news: only the guard keeps it from going round.
ROUND = """\
[[rule]]
name = "train"
run = "training"
from_runs = true

[[rule]]
name = "evaluate"
run = "evaluation"
from_runs = true
"""


@pytest.fixture(scope="module")
def yard(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Yard]:
    folder = tmp_path_factory.mktemp("yard")
    with running_server(folder / "server", env=PATIENT) as server:
        yield asyncio.run(Yard.open(server, folder / "clients"))


@asynccontextmanager
async def caller(yard: Yard, secret: str = "") -> AsyncIterator[Caller]:
    """The REST API as ann, or with another token."""
    async with ClientSession() as session:
        yield Caller(session, yard.server.http, {"Authorization": f"Bearer {secret or yard.secret}"})


async def requests_of(yard: Yard, path: str) -> list[dict[str, Any]]:
    """Everything that rules of a repository asked for, oldest first, in full."""
    place = f"/repositories/models/{path}/requests"
    async with caller(yard) as call:
        listed = [one for page in await call.pages(place) for one in page]
        return [await call.ok("GET", f"{place}/{one['id']}") for one in reversed(listed)]


async def events_of(server: RunningServer) -> list[dict[str, Any]]:
    """What consumers are told, oldest first."""
    query = select(OutboxEvent).where(OutboxEvent.name.like("%.requested")).order_by(OutboxEvent.id)
    async with server.services() as services, services.database.read() as session:
        return [{"name": one.name, **one.payload} for one in await session.scalars(query)]


async def new_work(yard: Yard) -> tuple[str, Git]:
    """A new repository, and somebody's folder for it."""
    path = await yard.new_repository()
    work = yard.git(yard.new_folder())
    await asyncio.to_thread(work, "init", "-q", "-b", "main", ".")
    return path, work


async def push(work: Git, url: str, *options: str, ref: str = "main") -> list[str]:
    """Pushes, insists on success, and returns what the server says."""
    arguments = [argument for option in options for argument in ("-o", option)]
    done = await asyncio.to_thread(work.run, "push", *arguments, url, ref)
    assert done.status == 0, done.output
    lines = [
        line.removeprefix("remote: ").rstrip() for line in done.stderr.splitlines() if "remote: " in line
    ]
    return [line for line in lines if "requested" in line or "fire" in line or "rule" in line or FILE in line]


@pytest.mark.parametrize("way", ["http", "ssh", "api"])
async def test_a_rule_asks_for_training(yard: Yard, way: str) -> None:
    path, work = await new_work(yard)
    files = {FILE: FINETUNE, "README.md": CARD, "data/1.csv": "text\nhello\n"}
    said: list[str] = []
    if way == "api":
        async with caller(yard) as call:
            place = f"/repositories/models/{path}"
            made = await commit(call, place, {name: text.encode() for name, text in files.items()})
            oid = made["oid"]
        async with asyncio.timeout(60):  # nobody waits for the report of a commit made here
            while not await requests_of(yard, path):  # noqa: ASYNC110 - the server tells nobody
                await asyncio.sleep(0.1)
    else:
        oid = await asyncio.to_thread(work.commit, files)
        said = await push(work, yard.url(path) if way == "http" else yard.ssh_url(path))
    (request,) = await requests_of(yard, path)
    if way != "api":
        assert said == [f'training "finetune" requested ({request["id"]})']
    assert request["parameters"] == {"epochs": 3, "learning_rate": 1e-4, "revision": f"main@{oid}"}
    assert (request["commit"], request["ref"], request["rule"]) == (oid, "refs/heads/main", "finetune")
    assert (request["run"], request["source"], request["chain"]) == ("training", "file", [])
    assert request["metadata"]["task"] == "text-generation"
    assert request["metadata"]["licenses"] == ["apache-2.0"]
    (event,) = [one for one in await events_of(yard.server) if one["request_id"] == request["id"]]
    assert event["name"] == "training.requested"
    for told, shown in (("commit", "commit"), ("parameters", "parameters"), ("metadata", "metadata")):
        assert event[told] == request[shown]


async def test_what_does_not_match_fires_nothing_unless_asked(yard: Yard) -> None:
    path, work = await new_work(yard)
    url = yard.url(path)
    await asyncio.to_thread(work.commit, {FILE: FINETUNE, "README.md": CARD})
    assert await push(work, url) == []
    await asyncio.to_thread(work.commit, {"data/README.md": "x"})
    assert await push(work, url) == []
    await asyncio.to_thread(work.commit, {"data/1.csv": "x"})
    assert await push(work, url, "skip") == ["no rule fires: skipped with -o skip"]
    assert await push(work, url, ref="main:refs/heads/dev") == []
    assert await requests_of(yard, path) == []
    await asyncio.to_thread(work.commit, {"x": "1"})
    said = await push(work, url, "run=finetune", "run=fine", ref="main:refs/heads/dev")
    (request,) = await requests_of(yard, path)
    assert said == [
        "-o run=fine: there is no such rule here; there are: finetune",
        f'training "finetune" requested ({request["id"]})',
    ]
    assert (request["ref"], request["parameters"]["revision"]) == (
        "refs/heads/dev",
        f"dev@{request['commit']}",
    )


@pytest.mark.parametrize("transport", ["http", "ssh"])
async def test_a_broken_file_is_reported_with_line_and_column(yard: Yard, transport: str) -> None:
    path, work = await new_work(yard)
    url = yard.url(path) if transport == "http" else yard.ssh_url(path)
    broken = FINETUNE.replace("on.paths", "on.path").replace("when = { task", "when = { tasks")
    await asyncio.to_thread(work.commit, {FILE: broken, "README.md": CARD, "data/1.csv": "x"})
    said = await push(work, url)
    assert said[0].startswith(f"{FILE}:5:4: unknown key `path`; known are branches, tags, paths")
    assert said[1] == "no rule of this file fires until it is mended (main)"
    await asyncio.to_thread(work.commit, {FILE: '[[rule]]\nname = "a\n'})
    assert (await push(work, url))[0].startswith(f"{FILE}:2:10: ")
    assert await requests_of(yard, path) == []
    await asyncio.to_thread(work.commit, {FILE: FINETUNE, "data/1.csv": "y"})
    assert len(await push(work, url)) == 1
    assert len(await requests_of(yard, path)) == 1


async def test_rules_over_rest(yard: Yard) -> None:
    path, work = await new_work(yard)
    rules = f"/repositories/models/{path}/rules"
    async with caller(yard) as call:
        await call.ok("POST", rules, {"name": "deploy", "run": "deployment", "on": {"tags": ["v*"]}})
        await asyncio.to_thread(work.commit, {"a": "1"})
        assert await push(work, yard.url(path)) == []
        await asyncio.to_thread(work, "tag", "-a", "-m", "One", "v1")
        (line,) = await push(work, yard.url(path), ref="v1")
        (request,) = await requests_of(yard, path)
        assert line == f'deployment "deploy" requested ({request["id"]})'
        assert request["commit"] == work("rev-parse", "v1^{commit}")
        assert request["source"] == "rest"
        await call.ok("PATCH", f"{rules}/deploy", {"enabled": False})
        await asyncio.to_thread(work, "tag", "v2")
        assert await push(work, yard.url(path), ref="v2") == []
    assert len(await requests_of(yard, path)) == 1


async def test_what_runs_push_does_not_loop(yard: Yard) -> None:
    """A consumer that answers every request with a push, for as long as there is one to answer."""
    path, work = await new_work(yard)
    await asyncio.to_thread(work.commit, {FILE: ROUND})
    await push(work, yard.url(path))
    async with yard.server.services() as services:
        secret, _ = await services.keyring.mint_token(
            SYSTEM, USER, "runner", Scope.WRITE, repository=parse_address(path), for_runs=True
        )
    url = yard.server.url(f"{path}.git", user=USER, secret=secret)
    answered: list[str] = []
    while left := [one for one in await requests_of(yard, path) if one["id"] not in answered]:
        answered.append(left[0]["id"])
        await asyncio.to_thread(work.commit, {f"out/{len(answered)}": left[0]["id"]})
        await push(work, url, f"run.of={left[0]['id']}")
        assert len(answered) < 20, "it loops"
    requests = await requests_of(yard, path)
    chains = sorted((one["rule"], len(one["chain"])) for one in requests)
    assert chains == [("evaluate", 0), ("evaluate", 1), ("train", 0), ("train", 1)]
    await asyncio.to_thread(work.commit, {"x": "1"})
    said = await push(work, url)
    assert all("-o run.of=REQUEST" in line for line in said)
    await asyncio.to_thread(work.commit, {"x": "2"})
    await push(work, yard.url(path), f"run.of={requests[-1]['id']}", "run=train", "run=evaluate")
    async with caller(yard, secret) as call:
        await commit(call, f"/repositories/models/{path}", {"y": b"1"})
    await asyncio.to_thread(work, "fetch", "-q", yard.url(path), "main")
    await asyncio.to_thread(work, "reset", "-q", "--hard", "FETCH_HEAD")
    await asyncio.to_thread(work.commit, {"x": "3"})
    await push(work, url)  # one after the other: what came before is done when this one's report is whole
    assert len(await requests_of(yard, path)) == len(requests)


# -- crashes ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("point", ["trigger.before-commit", "trigger.after-commit"])
@pytest.mark.parametrize("engine", ["sqlite", "postgresql"])
async def test_killed_at(point: str, engine: Engine, tmp_path: Path, databases: Databases) -> None:
    async with databases.fresh(engine) as url:
        env = {"MODELYARD_FAILPOINT": point, "MODELYARD_HOOKS__POLL_SECONDS": "0.3", **PATIENT}
        server = running_server(
            tmp_path / "server", database_url=url if engine == "postgresql" else "", env=env
        )
        yard = await Yard.open(server, tmp_path / "clients")
        path, work = await new_work(yard)
        await asyncio.to_thread(server.start)
        try:
            await asyncio.to_thread(work.commit, {FILE: FINETUNE, "README.md": CARD, "data/1": "x"})
            await asyncio.to_thread(work.run, "push", yard.url(path), "main")
            assert await asyncio.to_thread(server.wait, timeout=60) == -signal.SIGKILL
            async with server.services() as services, services.database.read() as session:
                written = list(await session.scalars(select(TriggerRequest.id)))
            assert len(written) == (point == "trigger.after-commit")
            del env["MODELYARD_FAILPOINT"]
            await asyncio.to_thread(server.restart, env=env)
            async with server.services() as services, asyncio.timeout(60):
                while await services.pipeline.queue_length():  # noqa: ASYNC110 - another process empties it
                    await asyncio.sleep(0.05)
            (request,) = await requests_of(yard, path)
            (event,) = await events_of(server)
            assert event["request_id"] == request["id"]
            assert written in ([], [request["id"]])
        finally:
            server.stop()
