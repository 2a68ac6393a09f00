"""Many clients at once: one winner per ref (invariant I3), and maintenance that nobody notices."""

import asyncio
from collections.abc import Awaitable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import pytest
from aiohttp import ClientSession

from core.access import SYSTEM, Permission
from core.names import parse_address
from core.repositories import RepositoryInfo
from gitserver.repack import RepackReport
from modelyard.services import Services
from tests.support.api import Caller, commit
from tests.support.database import Databases
from tests.support.git import Git, Result
from tests.support.program import start_forkserver
from tests.support.server import running_server
from tests.support.soundness import assert_sound, refs_of
from tests.support.wire import ZERO, PackBuilder, push_request, read_report, simple_commit
from tests.support.yard import Yard

T = TypeVar("T")

MAIN = "refs/heads/main"
PUSHERS = 8


def _id(parameter: tuple[str, int]) -> str:
    return "{}-{}".format(*parameter)


@pytest.fixture(scope="module", autouse=True)
def forkserver() -> None:
    start_forkserver()


@pytest.fixture(
    scope="module",
    params=[("sqlite", 1), ("sqlite", 2), ("postgresql", 2)],
    ids=_id,
)
def crowded(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, databases: Databases
) -> Iterator[Yard]:
    """A server of one and of two workers."""
    engine, workers = request.param
    folder = tmp_path_factory.mktemp("crowd")
    with asyncio.Runner() as runner:
        database = databases.fresh(engine)
        url = runner.run(database.__aenter__())
        server = running_server(
            folder / "server", database_url=url if engine == "postgresql" else "", workers=workers
        )
        with server:
            yield runner.run(Yard.open(server, folder / "clients"))
        runner.run(database.__aexit__(None, None, None))


@dataclass
class Meeting:
    """One repository with one commit, and clones of it that have something to push."""

    yard: Yard
    path: str
    head: str

    @classmethod
    async def call(cls, yard: Yard) -> "Meeting":
        path = await yard.new_repository()
        work = yard.git(yard.new_folder())
        await asyncio.to_thread(work, "init", "-q", ".")
        head = await asyncio.to_thread(work.commit, {"a": "1\n"})
        await asyncio.to_thread(work, "push", "-q", yard.url(path), "main")
        return cls(yard, path, head)

    def address(self, number: int) -> str:
        """HTTP and SSH in turn."""
        return self.yard.ssh_url(self.path) if number % 2 else self.yard.url(self.path)

    async def clones(self) -> list[tuple[Git, str]]:
        """Clones that are one commit ahead, each with another one; and these commits."""
        made = []
        for number in range(PUSHERS):
            work = self.yard.git(self.yard.new_folder())
            await asyncio.to_thread(work, "clone", "-q", self.address(number), ".")
            made.append((work, await asyncio.to_thread(work.commit, {f"f{number}": "x\n"})))
        return made

    async def refs(self) -> dict[str, str]:
        return await refs_of(self.yard.server, self.path)

    async def settled(self) -> Git:
        """Nothing is left behind, and a new clone is sound."""
        await self.yard.quiet()
        copy = self.yard.git(self.yard.new_folder())
        await asyncio.to_thread(copy, "clone", "-q", "--mirror", self.address(0), ".")
        await asyncio.to_thread(copy, "fsck", "--strict", "--no-dangling")
        return copy


async def test_eight_clients_push_to_one_branch(crowded: Yard) -> None:
    meeting = await Meeting.call(crowded)
    clones = await meeting.clones()
    outcomes = await _together(
        asyncio.to_thread(work.run, "push", meeting.address(number), "main")
        for number, (work, _) in enumerate(clones)
    )
    winners = [tip for outcome, (_, tip) in zip(outcomes, clones, strict=True) if outcome.status == 0]
    assert len(winners) == 1, [outcome.output for outcome in outcomes]
    losers = [outcome.output for outcome in outcomes if outcome.status != 0]
    assert all("rejected]" in output and "fetch first" in output for output in losers), losers
    assert await meeting.refs() == {MAIN: winners[0]}
    await meeting.settled()


async def test_eight_writers_who_all_saw_the_same_tip(crowded: Yard) -> None:
    """By hand, so that no client sees the winner in time: HTTP, SSH and the commit API share the branch."""
    meeting = await Meeting.call(crowded)
    tips, bodies = [], []
    for number in range(6):
        pack = PackBuilder()
        tips.append(simple_commit(pack, content=f"{number}\n".encode(), parents=[meeting.head]))
        bodies.append(push_request([(meeting.head, tips[-1], MAIN)], pack.build()))
    async with ClientSession() as session:
        caller = Caller(session, crowded.server.http, {"Authorization": f"Bearer {crowded.secret}"})
        api = f"/repositories/models/{meeting.path}/commits"
        change = {"action": "put", "path": "api", "content": "x"}
        wish = {"branch": "main", "message": "m", "parent": meeting.head, "operations": [change]}
        answers, replies = await asyncio.gather(
            _together(
                crowded.post(meeting.path, "git-receive-pack", body)
                if number % 2
                else crowded.ssh_raw(f"git-receive-pack '{meeting.path}'", body)
                for number, body in enumerate(bodies)
            ),
            _together(caller("POST", api, wish) for _ in range(2)),
        )
    reports = [read_report(answer.body) for answer in answers]
    won = [tip for report, tip in zip(reports, tips, strict=True) if report.ok]
    won += [reply.json["oid"] for reply in replies if reply.status == 201]
    assert len(won) == 1, (reports, replies)
    assert all(report.ok or "fetch first" in report.refs[MAIN] for report in reports), reports
    assert all(reply.status == 201 or reply.code == "stale_parent" for reply in replies), replies
    assert await meeting.refs() == {MAIN: won[0]}
    await meeting.settled()


async def test_eight_clients_push_to_eight_branches(crowded: Yard) -> None:
    meeting = await Meeting.call(crowded)
    clones = await meeting.clones()
    await _together(
        asyncio.to_thread(work, "push", "-q", meeting.address(number), f"main:b{number}")
        for number, (work, _) in enumerate(clones)
    )
    expected = {f"refs/heads/b{number}": tip for number, (_, tip) in enumerate(clones)}
    assert await meeting.refs() == {MAIN: meeting.head, **expected}
    await meeting.settled()


async def test_commits_without_a_parent_all_land_beside_pushes(crowded: Yard) -> None:
    """Without an expected parent the API builds on whatever is there, so nobody loses."""
    meeting = await Meeting.call(crowded)
    clones = await meeting.clones()
    async with ClientSession() as session:
        caller = Caller(session, crowded.server.http, {"Authorization": f"Bearer {crowded.secret}"})
        repository = f"/repositories/models/{meeting.path}"
        await asyncio.gather(
            _together(
                commit(caller, repository, {f"api{number}": b"x"}, f"commit {number}")
                for number in range(PUSHERS)
            ),
            _together(
                asyncio.to_thread(work, "push", "-q", meeting.address(number), f"main:b{number}")
                for number, (work, _) in enumerate(clones)
            ),
        )
    copy = await meeting.settled()
    files = (await asyncio.to_thread(copy, "ls-tree", "--name-only", "main")).splitlines()
    assert files == ["a", *(f"api{number}" for number in range(PUSHERS))]
    assert len(await meeting.refs()) == 1 + PUSHERS


@pytest.mark.slow
@pytest.mark.parametrize("crowded", [("sqlite", 2), ("postgresql", 2)], indirect=True, ids=_id)
async def test_two_hundred_rounds_of_push_fetch_and_maintenance(crowded: Yard) -> None:
    """Four clients push, force-push and fetch; all the while the repository is repacked in every way."""
    rounds, clients = 50, 4
    meeting = await Meeting.call(crowded)

    def work_on(number: int) -> list[Result]:
        """Returns what failed."""
        work = crowded.git(crowded.new_folder())
        work("clone", "-q", meeting.address(number), ".")
        work("checkout", "-q", "-b", f"c{number}")
        failures = []

        def must(*arguments: str, cwd: Git = work) -> None:
            outcome = cwd.run(*arguments)
            if outcome.status != 0:
                failures.append(outcome)

        for turn in range(rounds):
            address = meeting.address(number + turn)
            (work.cwd / f"f{number}").write_text(f"{turn}\n" * 20)
            work("add", "-A")
            # Every fourth commit replaces the one before, which nothing reaches then.
            amend = ["--amend"] if turn % 4 == 3 else []
            work("commit", "-q", "-m", f"{number}.{turn}", *amend)
            must("push", "-q", "--force", address, f"c{number}")
            must("fetch", "-q", address, "+refs/heads/*:refs/remotes/all/*")
            if turn % 10 == 9:
                copy = work.at(crowded.new_folder())
                must("clone", "-q", "--mirror", address, ".", cwd=copy)
                must("fsck", "--strict", "--no-dangling", cwd=copy)
        must("fsck", "--strict", "--no-dangling")
        return failures

    async with crowded.server.services() as services:
        address = parse_address(meeting.path)
        repository = await services.repositories.open(SYSTEM, address, Permission.WRITE)
        stop = asyncio.Event()
        maintenance = asyncio.create_task(_maintain(services, repository, stop))
        try:
            failed = await _together(asyncio.to_thread(work_on, number) for number in range(clients))
        finally:
            stop.set()
            reports = await maintenance
    assert failed == [[]] * clients
    assert sum(report is not None for report in reports) >= 6, "maintenance must have been at work"
    assert {report.full for report in reports if report} == {True, False}
    assert await meeting.refs() == {
        MAIN: meeting.head,
        **{name: oid for name, oid in (await meeting.refs()).items() if name.startswith("refs/heads/c")},
    }
    await meeting.settled()
    assert not [line for line in crowded.server.log() if line.get("level") in ("error", "critical")]


async def _maintain(
    services: Services, repository: RepositoryInfo, stop: asyncio.Event
) -> list[RepackReport | None]:
    """Repacks geometrically, fully and with pruning in turn, and sweeps what that leaves."""
    reports: list[RepackReport | None] = []
    while not stop.is_set():
        turn = len(reports) % 4
        reports.append(await services.maintenance.run(repository.id, full=turn in (1, 3), prune=turn == 3))
        await services.sweeper.sweep(grace_seconds=0)
        await asyncio.sleep(0.2)
    return reports


async def test_what_a_prune_drops_is_never_named_by_a_ref(tmp_path: Path) -> None:
    """A push that names an old commit races the prune that drops it: it lands whole or is refused."""
    env = {"MODELYARD_MAINTENANCE__UNREACHABLE_DAYS": "0"}
    async with running_server(tmp_path / "server", env=env) as server:
        yard = await Yard.open(server, tmp_path / "clients")
        meeting = await Meeting.call(yard)
        async with server.services() as services:
            repository = await services.repositories.open(
                SYSTEM, parse_address(meeting.path), Permission.WRITE
            )
            for number in range(10):
                pack = PackBuilder()
                old = simple_commit(pack, content=f"old {number}\n".encode(), parents=[meeting.head])
                gone, back = "refs/heads/gone", f"refs/heads/back{number}"
                for body in (
                    push_request([(ZERO, old, gone)], pack.build()),
                    push_request([(old, ZERO, gone)]),
                ):
                    assert read_report((await yard.post(meeting.path, "git-receive-pack", body)).body).ok
                again = push_request([(ZERO, old, back)], PackBuilder().build())
                prune = services.maintenance.run(repository.id, full=True, prune=True)
                push = yard.post(meeting.path, "git-receive-pack", again)
                if number == 0:
                    await prune
                    answer = await push
                elif number == 1:
                    answer = await push
                    await prune
                else:  # and ever later, so that they meet at every step
                    answer, _ = await asyncio.gather(push, _later((number - 2) * 0.04, prune))
                report = read_report(answer.body)
                assert number > 1 or report.ok == (number == 1)
                assert report.ok or report.refs[back] == "missing necessary objects", report
                assert (back in await meeting.refs()) == report.ok
                assert await services.fsck.check(repository) == []
        await assert_sound(server)


async def _later(seconds: float, work: Awaitable[T]) -> T:
    await asyncio.sleep(seconds)
    return await work


async def _together(jobs: Iterable[Awaitable[T]]) -> list[T]:
    return list(await asyncio.gather(*jobs))
