"""Pushes whose report nobody need wait for, each compared with what the steps do say of it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from sqlalchemy import update

from core.access import SYSTEM, Actor
from core.database import Database
from core.errors import Unavailable
from core.models import ModelVersion, RepositoryType, RequestKind
from core.names import Address
from core.repositories import RepositoryInfo
from core.settings import HooksSettings
from gitserver.policy import ProposedPush
from gitserver.queries import TooExpensive
from gitserver.updates import RefUpdate
from hooks.pipeline import Pipeline
from hooks.plain_pushes import PlainPushes
from hooks.received import PostReceiveStep
from hooks.trees import Changes
from hooks.triggers.spec import RuleSpec
from tests.support.hooks_world import HooksWorld
from tests.support.push_queue import running
from tests.support.tensor_world import TensorWorld
from tests.support.triggers import FILE, Rig, rule

CARD = b"---\nlicense: mit\n---\n"
ZEROS = "0" * 40


class Asked:
    """A policy that asks about every push, and refuses nothing."""

    def __init__(self, world: HooksWorld) -> None:
        self.world = world
        self.ask = PlainPushes(world.database, world.trees).includes
        self.pretend: Callable[[ProposedPush], ProposedPush] = lambda push: push
        self.answers: list[bool] = []
        world.git.policies.append(self)
        self._rig = Rig(world)
        self._steps: list[PostReceiveStep] = [world.metadata, TensorWorld(world).step]

    async def before_pack(
        self, repository: RepositoryInfo, actor: Actor, updates: Sequence[RefUpdate]
    ) -> Mapping[str, str]:
        return {}

    async def check(self, push: ProposedPush) -> Mapping[str, str]:
        self.answers.append(await self.ask(self.pretend(push)))
        return {}

    async def commit(self, files: Mapping[str, bytes]) -> bool:
        """Whether the push of a commit is plain."""
        await self.world.commit(files)
        lines = [line for step in self._steps for line in await self.world.received(step)]
        lines += await self._rig.run()
        answer = self.answers.pop()
        assert not (answer and lines), f"somebody would have heard {lines}"
        return answer


@pytest.fixture
def asked(world: HooksWorld) -> Asked:
    return Asked(world)


async def test_code_after_code(asked: Asked) -> None:
    assert not await asked.commit({"train.py": b"1"})  # nobody knows what was there before
    assert await asked.commit({"train.py": b"2"})
    assert await asked.commit({"src/train.py": b"3", "notes.txt": b"4"})


async def test_files_that_mean_something_come_and_stay(asked: Asked) -> None:
    await asked.commit({"train.py": b"1"})
    assert not await asked.commit({"README.md": CARD})
    assert not await asked.commit({"train.py": b"2"})  # what the card says is told every time


@pytest.mark.parametrize("path", ["model.safetensors", "weights/x.pkl", FILE, "data/train.jsonl"])
async def test_what_means_something(asked: Asked, path: str) -> None:
    await asked.commit({"train.py": b"1"})
    assert not await asked.commit({path: b""})


async def test_rules(asked: Asked) -> None:
    await asked.commit({"train.py": b"1"})
    assert await asked.commit({"train.py": b"2"})
    await asked.commit({FILE: rule("always").encode()})
    assert not await asked.commit({"train.py": b"3"})


async def test_rules_made_over_rest(asked: Asked) -> None:
    await asked.commit({"train.py": b"1"})
    assert await asked.commit({"train.py": b"2"})
    address = Address(RepositoryType.MODEL, "ann", "model")
    await Rig(asked.world).rules.add(SYSTEM, address, RuleSpec(name="always", run=RequestKind.TRAINING))
    assert not await asked.commit({"train.py": b"3"})


async def test_what_is_no_move_of_one_branch(asked: Asked) -> None:
    await asked.commit({"train.py": b"1"})
    others: list[Callable[[RefUpdate], list[RefUpdate]]] = [
        lambda one: [replace(one, name="refs/tags/v1")],
        lambda one: [replace(one, name="refs/notes/x")],
        lambda one: [replace(one, old=ZEROS)],
        lambda one: [replace(one, new=ZEROS)],
        lambda one: [one, replace(one, name="refs/heads/other")],
        lambda one: [],
    ]
    for number, other in enumerate(others):

        def pretend(
            push: ProposedPush, other: Callable[[RefUpdate], list[RefUpdate]] = other
        ) -> ProposedPush:
            return replace(push, updates=other(*push.updates))

        asked.pretend = pretend
        assert not await asked.commit({"train.py": b"no %d" % number})
        asked.pretend = lambda push: push
        assert await asked.commit({"train.py": b"yes %d" % number})


async def test_what_is_no_file_in_the_place_of_the_rules(asked: Asked) -> None:
    await asked.commit({"train.py": b"1"})
    assert not await asked.commit({f"{FILE}/x": b"2"})


async def test_what_was_not_looked_at_whole(asked: Asked) -> None:
    await asked.commit({"train.py": b"1"})
    finding = {"severity": "info", "code": "more-files", "message": "1 more files are not looked at"}
    async with asked.world.database.transaction() as session:
        await session.execute(update(ModelVersion).values(findings=[finding]))
    assert not await asked.commit({"train.py": b"2"})


async def test_push_options(asked: Asked) -> None:
    await asked.commit({"train.py": b"1"})
    asked.pretend = lambda push: replace(push, options=("run=train",))
    assert not await asked.commit({"train.py": b"2"})


async def test_what_another_version_of_the_code_understood(asked: Asked) -> None:
    await asked.commit({"train.py": b"1"})
    async with asked.world.database.transaction() as session:
        await session.execute(update(ModelVersion).values(version=1))
    assert not await asked.commit({"train.py": b"2"})


@pytest.mark.parametrize("error", [TooExpensive("too many"), Unavailable("away"), TimeoutError()])
async def test_who_cannot_tell_says_no(
    asked: Asked, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    async def fail(*_: object) -> Changes:
        raise error

    await asked.commit({"train.py": b"1"})
    monkeypatch.setattr(asked.world.trees, "proposed_changes", fail)
    assert not await asked.commit({"train.py": b"2"})


async def test_without_a_database(asked: Asked, tmp_path: Path) -> None:
    await asked.commit({"train.py": b"1"})
    away = Database(f"sqlite+aiosqlite:///{tmp_path}/nowhere/at/all.db")
    asked.ask = PlainPushes(away, asked.world.trees).includes
    assert not await asked.commit({"train.py": b"2"})
    await away.close()


async def test_many_changes(asked: Asked, monkeypatch: pytest.MonkeyPatch) -> None:
    async def some(*_: object) -> Changes:
        return Changes(["train.py"], cut=True)

    await asked.commit({"train.py": b"1"})
    monkeypatch.setattr(asked.world.trees, "proposed_changes", some)
    assert not await asked.commit({"train.py": b"2"})


async def test_the_pipeline_reports_on_all_others(asked: Asked) -> None:
    plain = PlainPushes(asked.world.database, asked.world.trees)
    knowing = Pipeline(asked.world.database, [], HooksSettings(), plain=plain)
    others = Pipeline(asked.world.database, [], HooksSettings())
    silent = Pipeline(asked.world.database, [], HooksSettings(report_seconds=0), plain=plain)
    stopped = Pipeline(asked.world.database, [], HooksSettings())
    await asked.commit({"train.py": b"1"})
    async with running(knowing, others, silent):
        for number, (path, pipeline, reports) in enumerate(
            [
                ("train.py", knowing, False),
                ("train.py", others, True),
                ("train.py", silent, False),
                ("train.py", stopped, False),
                ("config.json", silent, False),
                ("config.json", knowing, True),
            ]
        ):
            asked.ask = pipeline.reports
            await asked.world.commit({path: b"%d" % (2 + number)})
            await asked.world.received(asked.world.metadata)
            assert asked.answers.pop() is reports, number
