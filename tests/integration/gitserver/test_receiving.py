"""The push below its faces, with a git that is slow or dies: what the client is told, and when."""

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from core.access import Actor, ActorKind
from core.database import Database
from core.models import Transport
from core.settings import GitSettings
from gitserver.landing import Lander
from gitserver.policy import ProposedPush
from gitserver.process import GitRunner
from gitserver.receive import PushSource, Receiver
from gitserver.updates import RefUpdate
from tests.support.git_world import ACTOR, GitWorld, open_world
from tests.support.wire import ZERO, PackBuilder, push_request, read_report, simple_commit

MAIN = "refs/heads/main"


class Stream:
    """The client's bytes, and the answer."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self.answer = b""

    async def read(self, n: int) -> bytes:
        chunk, self._data = self._data[:n], self._data[n:]
        return chunk

    async def write(self, data: bytes) -> None:
        self.answer += data


def a_push(capabilities: str) -> bytes:
    pack = PackBuilder()
    tip = simple_commit(pack)
    return push_request([(ZERO, tip, MAIN)], pack.build(), capabilities=capabilities)


def a_git(folder: Path, command: str, action: str) -> GitRunner:
    """The real git, but for one command."""
    program = folder / "git"
    program.write_text(f'#!/bin/sh\ncase " $* " in *" {command} "*) {action};; esac\nexec git "$@"\n')
    program.chmod(0o755)
    return GitRunner(str(program))


async def receive(world: GitWorld, git: GitRunner, stream: Stream, *, stateless: bool = True) -> str:
    repository = await world.repository()
    receiver = Receiver(world.snapshots, Lander(world.publisher, git, world.policies), git, world.settings)
    await receiver.receive(PushSource(repository, ACTOR, Transport.HTTP, stateless), stream, stream)
    return repository.id


@pytest.mark.parametrize("stateless", [True, False])
@pytest.mark.parametrize("quiet", [True, False])
async def test_the_client_hears_us_while_deltas_are_resolved(
    sqlite: Database, tmp_path: Path, stateless: bool, quiet: bool
) -> None:
    """A proxy closes what is silent for a minute; resolving the deltas of a large pack takes many."""
    settings = GitSettings(keepalive_seconds=0.1)
    heard = tmp_path / "heard"
    slow = a_git(
        tmp_path,
        "index-pack",
        f'git "$@"; status=$?; until [ -e {heard} ]; do sleep 0.1; done; exit $status',
    )

    class Listening(Stream):
        async def write(self, data: bytes) -> None:
            await super().write(data)
            if self.answer.count(b"0005\x02") >= 5:
                heard.touch()

    stream = Listening(a_push("report-status side-band-64k" + (" quiet" if quiet else "")))
    async with open_world(sqlite, tmp_path / "world", settings=settings) as world, asyncio.timeout(60):
        await receive(world, slow, stream, stateless=stateless)
    assert read_report(stream.answer).ok


async def test_a_push_that_landed_is_never_reported_as_too_late(
    sqlite: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The time limit struck during the commit: the client was told `ng timeout`, and the ref was there."""
    async with open_world(sqlite, tmp_path / "world", settings=GitSettings(receive_seconds=5)) as world:
        real = world.publisher.store_pack

        async def slow(*arguments: Any) -> Any:
            await asyncio.sleep(5.5)
            return await real(*arguments)

        monkeypatch.setattr(world.publisher, "store_pack", slow)
        stream = Stream(a_push("report-status side-band-64k"))
        repository_id = await receive(world, world.git, stream)
        assert read_report(stream.answer).ok
        assert MAIN in (await world.snapshots.state(repository_id)).refs


async def test_a_slow_client_is_too_late(
    sqlite: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Stalling(Stream):
        async def read(self, n: int) -> bytes:
            if chunk := await super().read(min(n, 300)):
                return chunk
            await asyncio.sleep(0.2)
            return b"x"

    monkeypatch.setattr("gitserver.receive._LINGER_SECONDS", 0.5)
    async with open_world(sqlite, tmp_path / "world", settings=GitSettings(receive_seconds=1)) as world:
        stalling = Stalling(a_push("report-status side-band-64k")[:320])
        repository_id = await receive(world, world.git, stalling, stateless=False)
        assert read_report(stalling.answer).refs == {MAIN: "timeout"}
        assert (await world.snapshots.state(repository_id)).refs == {}


@pytest.mark.parametrize("command", ["cat-file", "rev-list"])
async def test_a_killed_check_is_our_fault_and_not_the_clients(
    sqlite: Database, tmp_path: Path, command: str
) -> None:
    """Out of memory, a check was killed: the client was told that it had not sent its objects."""
    dying = a_git(tmp_path, command, "kill -9 $$")
    stream = Stream(a_push("report-status side-band-64k"))
    async with open_world(sqlite, tmp_path / "world") as world:
        repository_id = await receive(world, dying, stream)
        assert (await world.snapshots.state(repository_id)).refs == {}
    told = read_report(stream.answer).refs[MAIN]
    assert told != "ok"
    assert "missing necessary objects" not in told


async def test_a_token_revoked_during_a_push_lands_nothing(sqlite: Database, tmp_path: Path) -> None:
    """What is taken away while the pack comes in must not land hours later."""
    actor = Actor(ActorKind.USER, "ann", user_id=1, credential="token:99")
    async with open_world(sqlite, tmp_path / "world") as world:
        repository = await world.repository()
        lander = Lander(world.publisher, world.git, world.policies)
        receiver = Receiver(world.snapshots, lander, world.git, world.settings)
        stream = Stream(a_push("report-status side-band-64k"))
        await receiver.receive(PushSource(repository, actor, Transport.HTTP, True), stream, stream)
        assert "revoked" in read_report(stream.answer).refs[MAIN]
        assert (await world.snapshots.state(repository.id)).refs == {}


class Reporter:
    """A `PostReceive` with a line about each push, if it is asked."""

    def __init__(self, reports: bool | Exception) -> None:
        self._reports = reports
        self.asked: list[Sequence[RefUpdate]] = []

    async def reports(self, push: ProposedPush) -> bool:
        self.asked.append(push.updates)
        if isinstance(self._reports, Exception):
            raise self._reports
        return self._reports

    async def received(self, push_id: int) -> Sequence[str]:
        return (f"this was push {push_id}",)


@pytest.mark.parametrize("reports", [True, False, ValueError("a bug")])
async def test_only_reports_that_say_something_are_waited_for(
    sqlite: Database, tmp_path: Path, reports: bool | Exception
) -> None:
    async with open_world(sqlite, tmp_path) as world:
        repository, reporter = await world.repository(), Reporter(reports)
        lander = Lander(world.publisher, world.git, world.policies)
        receiver = Receiver(world.snapshots, lander, world.git, world.settings, reporter)
        stream = Stream(a_push("report-status side-band-64k"))
        await receiver.receive(PushSource(repository, ACTOR, Transport.HTTP, True), stream, stream)
        assert read_report(stream.answer).ok
        assert (b"this was push 1" in stream.answer) == bool(reports)
        assert [[one.name for one in updates] for updates in reporter.asked] == [[MAIN]]
