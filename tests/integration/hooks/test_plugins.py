"""Plug-ins, installed as packages are: what they may do, and that where they fail nothing is accepted."""

import asyncio
import sys
from collections.abc import Iterator
from pathlib import Path
from textwrap import indent

import pytest

from core.access import SYSTEM, Permission
from core.errors import PushRefused, SettingsError
from core.names import parse_address
from core.repositories import RepositoryInfo
from core.settings import HooksSettings, ServerSettings, Settings
from gitserver.commits import Put
from modelyard.services import Services, open_services
from tests.support.plugins import install_plugin
from tests.support.push_queue import change_task, running, tasks

POLICY = """
import asyncio

class Policy:
    async def before_pack(self, repository, actor, updates):
        return {one.name: "no such branch\\n\\x1b[2J" for one in updates if one.name == "refs/heads/bad"}

    async def check(self, push):
%s

def hooks(context):
    yield Policy()
"""

STEP = """
import asyncio

class Step:
    name = "%s"

    async def run(self, push, report):
        report.say(f"{self.name}: {push.repository.path} by {push.actor}")
%s

def hooks(context):
    assert context.contract == 1
    assert context.settings.hooks.timeout_seconds == 1
    assert context.trees
    return [Step()]
"""


def policy(check: str) -> str:
    return POLICY % indent(check, " " * 8)


def step(name: str, run: str = "pass") -> str:
    return STEP % (name, indent(run, " " * 8))


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    path = tmp_path / "site"
    path.mkdir()
    monkeypatch.syspath_prepend(str(path))
    yield path
    for module in [name for name in sys.modules if name.startswith("plugin_")]:
        del sys.modules[module]


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(
        server=ServerSettings(data=str(tmp_path / "data")),
        hooks=HooksSettings(timeout_seconds=1, poll_seconds=3600.0),
    )


async def new_repository(services: Services) -> RepositoryInfo:
    await services.accounts.create_user(SYSTEM, "ann", password="correct horse battery")
    address = parse_address("ann/model")
    await services.repositories.create(SYSTEM, address)
    return await services.repositories.open(SYSTEM, address, Permission.WRITE)


async def commit(services: Services, repository: RepositoryInfo, branch: str = "main") -> tuple[str, ...]:
    made = await services.committer.commit(repository, SYSTEM, branch, [Put("a", b"1")], "m")
    return tuple(made.messages)


async def test_policies_refuse_and_tell(site: Path, settings: Settings) -> None:
    install_plugin(
        site,
        "acme",
        policy(
            """
            push.say(f"{push.transport} {len(push.updates)}")
            if "stop" in push.options:
                return {one.name: "stopped" for one in push.updates} | {"refs/heads/none": "?"}
            return {}
            """.strip().replace("\n            ", "\n")
        ),
    )
    async with open_services(settings) as services:
        repository = await new_repository(services)
        assert "api 1" in await commit(services, repository)
        with pytest.raises(PushRefused, match=r"refs/heads/bad: no such branch\\x0a\\x1b\[2J"):
            await services.committer.commit(repository, SYSTEM, "bad", [Put("b", b"1")], "m", start="main")
        with pytest.raises(PushRefused, match="refs/heads/main: stopped") as caught:
            await services.committer.commit(
                repository, SYSTEM, "main", [Put("b", b"1")], "m", options=["stop"]
            )
        assert "api 1" in str(caught.value.fields["messages"])


@pytest.mark.parametrize(
    "check",
    [
        "raise ValueError('hunter2')",
        "await asyncio.sleep(60)",
        "raise asyncio.CancelledError",
        "future = asyncio.get_running_loop().create_future(); future.cancel(); await future",
        "return None",
        "return ['refs/heads/main']",
    ],
)
async def test_what_fails_refuses(site: Path, settings: Settings, check: str) -> None:
    install_plugin(site, "acme", policy(check))
    async with open_services(settings) as services:
        repository = await new_repository(services)
        with pytest.raises(PushRefused, match=r"^refs/heads/main: plug-in acme failed$"):
            await commit(services, repository)
        assert not (await services.snapshots.state(repository.id)).refs


async def test_whoever_leaves_is_not_taken_for_a_failure(site: Path, settings: Settings) -> None:
    install_plugin(site, "acme", policy("await asyncio.sleep(0.9); return {}"))
    async with open_services(settings) as services:
        repository = await new_repository(services)
        pushing = asyncio.ensure_future(commit(services, repository))
        await asyncio.sleep(0.5)
        pushing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await pushing


async def test_steps_run_in_the_order_of_the_names_of_plug_ins(site: Path, settings: Settings) -> None:
    install_plugin(site, "beta", step("first"))
    install_plugin(site, "acme-two", step("second"))
    async with open_services(settings) as services:
        repository = await new_repository(services)
        async with running(services.pipeline):
            await commit(services, repository)
            lines = await services.pipeline.received(1)
        assert [line for line in lines if "by system" in line] == [
            "second: ann/model by system",
            "first: ann/model by system",
        ]
        assert await tasks(services.database) == {}


@pytest.mark.parametrize(
    ("run", "reason"),
    [
        ("await asyncio.sleep(60)", "acme.index: it took longer than 1 seconds; it will be tried again"),
        ("raise asyncio.CancelledError", "acme.index: it was cancelled; it will be tried again"),
        ("raise ValueError('hunter2')", "acme.index: failed; it will be tried again"),
    ],
)
async def test_a_step_that_fails_is_tried_again(
    site: Path, settings: Settings, run: str, reason: str
) -> None:
    install_plugin(site, "acme", step("index", f"if not hasattr(self, 'ran'): self.ran = True; {run}"))
    async with open_services(settings) as services:
        repository = await new_repository(services)
        async with running(services.pipeline):
            await commit(services, repository)
            (push_id,) = await tasks(services.database)
            lines = await services.pipeline.received(push_id)
            assert [line for line in lines if "index" in line] == ["index: ann/model by system", reason]
            task = (await tasks(services.database))[push_id]
            assert "acme.index" not in task.done
        await change_task(services.database, push_id, due_at=task.due_at.replace(year=2020))
        assert await services.pipeline.run_due() == 1
        assert await tasks(services.database) == {}


UNUSABLE = {
    "import no_such_module": "ModuleNotFoundError: No module named 'no_such_module'",
    "def hooks(context): raise RuntimeError('needs contract 2')": "RuntimeError: needs contract 2",
    "import sys; sys.exit(3)": "SystemExit: 3",
    "def hooks(context)": "SyntaxError: ",
    "def other(context): return []": "AttributeError: ",
    "def hooks(context): return None": "TypeError: ",
    "def hooks(context): return [object()]": "has neither the methods of a policy",
    step("index").replace("Step()", "Step"): "has neither the methods of a policy",
    step("index").replace("[Step()]", "[Step(), Step()]"): "there are two steps called acme.index",
}


@pytest.mark.parametrize("source", UNUSABLE, ids=range(len(UNUSABLE)))
async def test_unusable(site: Path, settings: Settings, source: str) -> None:
    install_plugin(site, "acme", source)
    with pytest.raises(SettingsError) as caught:
        async with open_services(settings):
            pass
    assert caught.value.message.startswith("plug-in acme")
    assert UNUSABLE[source] in caught.value.message


async def test_other_groups_are_nobody_s_business(site: Path, settings: Settings) -> None:
    install_plugin(site, "acme", "raise RuntimeError", group="modelyard.other")
    async with open_services(settings):
        pass


async def test_unsafe_programs_stop_the_start(settings: Settings, tmp_path: Path) -> None:
    program = tmp_path / "hooks" / "pre-receive"
    program.parent.mkdir()
    program.write_text("#!/bin/sh\n")
    hooks = HooksSettings(directory=str(program.parent))
    with pytest.raises(SettingsError, match=r"^\[hooks\] directory: .*pre-receive is not executable"):
        async with open_services(Settings(server=settings.server, hooks=hooks)):
            pass
