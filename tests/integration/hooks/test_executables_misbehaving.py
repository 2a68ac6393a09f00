"""The operator's hook programs when they misbehave, or are not safe to run."""

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from core.models import Transport, now
from core.repositories import RepositoryInfo
from gitserver.commits import Put
from gitserver.updates import RefUpdate
from hooks.executables import ExecutablePolicy, ProgramsUnusable
from hooks.programs import problems
from hooks.received import ReceivedPush
from tests.support import children
from tests.support.database import Databases
from tests.support.git_pushes import push
from tests.support.git_world import ACTOR, GitWorld
from tests.support.hook_programs import (
    IMPATIENT,
    MAIN,
    Hooks,
    after,
    commit,
    hooked_world,
    new_work,
    publish,
    received,
)
from tests.support.processes import processes, wait_until
from tests.support.wire import ZERO


@pytest.fixture
def hooks(tmp_path: Path) -> Hooks:
    return Hooks(tmp_path / "hooks")


@pytest.fixture
async def world(databases: Databases, tmp_path: Path, hooks: Hooks) -> AsyncIterator[GitWorld]:
    async with hooked_world(databases, tmp_path, hooks) as opened:
        yield opened


@pytest.fixture
async def repository(world: GitWorld) -> RepositoryInfo:
    return await world.repository()


@pytest.fixture
def work(tmp_path: Path) -> Path:
    return new_work(tmp_path / "work")


# -- programs that misbehave -------------------------------------------------------------------------


@pytest.mark.parametrize("moment", ["pre-receive", "update", "post-receive"])
async def test_too_slow(
    world: GitWorld, repository: RepositoryInfo, hooks: Hooks, work: Path, moment: str
) -> None:
    """It and what it started are dead afterwards; what it said is told."""
    new = await publish(world, repository, work)
    pids = hooks.path / "pids"
    hooks.write(moment, f"sleep 300 & echo $$ $! > {pids}; echo begun; printf half; sleep 300")
    async with asyncio.timeout(60):
        if moment == "post-receive":
            lines = await after(world, hooks, received(repository, new), settings=IMPATIENT)
            assert lines == ["begun", "half", "post-receive hook: it took longer than 5 seconds"]
        else:
            world.last[:] = [ExecutablePolicy(hooks.path, IMPATIENT)]
            commit(work, "second")
            outcome = await push(world, repository, work, [MAIN])
            assert outcome.report.refs == {MAIN: f"{moment} hook declined: it took longer than 5 seconds"}
            assert outcome.remote == ["begun", "half"]
    started = set(map(int, pids.read_text().split()))
    assert len(started) == 2
    await asyncio.to_thread(wait_until, lambda: not started & processes().keys(), "their end")


async def test_cancelled(world: GitWorld, repository: RepositoryInfo, hooks: Hooks, work: Path) -> None:
    before = children.running()
    new = await publish(world, repository, work)
    hooks.write("post-receive", f"touch {hooks.path}/begun; sleep 60")
    running = asyncio.ensure_future(after(world, hooks, received(repository, new)))
    while not (hooks.path / "begun").exists():  # noqa: ASYNC110 - a shell tells nobody
        await asyncio.sleep(0.01)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert children.running().keys() <= before.keys()


async def test_what_is_left_in_the_background_is_not_waited_for(
    world: GitWorld, repository: RepositoryInfo, hooks: Hooks, work: Path
) -> None:
    new = await publish(world, repository, work)
    go_on, ended = hooks.path / "go-on", hooks.path / "ended"
    waiting = f"until [ -e {go_on} ]; do sleep 0.1; done; touch {ended}"
    hooks.write("post-receive", f"echo begun; ({waiting}) & echo left")
    assert await after(world, hooks, received(repository, new)) == ["begun", "left"]
    assert not ended.exists()
    go_on.touch()
    await asyncio.to_thread(wait_until, ended.exists, "it goes on")


async def test_much_output_is_cut(
    world: GitWorld, repository: RepositoryInfo, hooks: Hooks, work: Path
) -> None:
    hooks.write("pre-receive", "yes | head -n 1000000; printf '\\033[31mred\\r\\n' >&2")
    hooks.write("pre-receive.d/long", "head -c 20000000 /dev/zero | tr '\\0' x; echo; printf end")
    outcome = await push(world, repository, work, [MAIN])
    assert outcome.ok
    assert outcome.remote.count("y") in (99, 100)
    assert "... and 999901 more lines of pre-receive" in outcome.remote
    assert outcome.remote[-2] == "x" * 997 + "..."
    assert outcome.remote[-1] == "end"


async def test_terminals_are_safe(
    world: GitWorld, repository: RepositoryInfo, hooks: Hooks, work: Path
) -> None:
    hooks.write("pre-receive", "printf '\\033[31mred\\r\\n\\377\\n'")
    assert (await push(world, repository, work, [MAIN])).remote == ["\\x1b[31mred", "\ufffd"]


async def test_input_that_nobody_reads(hooks: Hooks, world: GitWorld, repository: RepositoryInfo) -> None:
    await world.committer.commit(repository, ACTOR, "main", [Put("a", b"1")], "first")
    hooks.write("post-receive.d/1", "echo blind")
    hooks.write("post-receive.d/2", "exec <&-; sleep 0.2; echo closed")
    hooks.write("post-receive.d/3", "wc -l")
    updates = tuple(RefUpdate(f"refs/heads/b{number}", ZERO, "1" * 40) for number in range(10_000))
    one = ReceivedPush(7, repository, "ann", 1, Transport.SSH, updates, (), False, now())
    assert await after(world, hooks, one) == ["blind", "closed", "10000"]


@pytest.mark.parametrize("shell", ["#!/no/such/interpreter\n", "\x7fELF"])
async def test_cannot_be_started(
    world: GitWorld, repository: RepositoryInfo, hooks: Hooks, work: Path, shell: str
) -> None:
    hooks.write("pre-receive", "", shell=shell)
    outcome = await push(world, repository, work, [MAIN])
    assert outcome.report.refs[MAIN].startswith("pre-receive hook declined: it cannot be started: ")


async def test_options_that_no_environment_can_hold(
    world: GitWorld, repository: RepositoryInfo, hooks: Hooks, work: Path
) -> None:
    hooks.write("pre-receive", 'echo "$GIT_PUSH_OPTION_0"')
    outcome = await push(world, repository, work, [MAIN], options=["a\0b"])
    assert outcome.ok
    assert outcome.remote == ["a\ufffdb"]


# -- programs that must not be run -------------------------------------------------------------------


def break_mode(hooks: Hooks) -> str:
    path = hooks.write("pre-receive.d/bad", "echo ran", mode=0o757)
    return f"{path} can be written by everybody; chmod o-w it"


def break_executable(hooks: Hooks) -> str:
    path = hooks.write("pre-receive.d/bad", "echo ran", mode=0o644)
    return f"{path} is not executable; chmod +x it, or take it away"


def break_directory(hooks: Hooks) -> str:
    directory = hooks.write("pre-receive.d/good", "echo ran").parent
    directory.chmod(0o777)
    return f"{directory} can be written by everybody; chmod o-w it"


def break_top(hooks: Hooks) -> str:
    hooks.path.chmod(0o777)
    return f"{hooks.path} can be written by everybody; chmod o-w it"


def break_link(hooks: Hooks) -> str:
    hooks.write("pre-receive", "echo ran").rename(hooks.path / "elsewhere")
    (hooks.path / "pre-receive").symlink_to(hooks.path / "nowhere")
    return f"{hooks.path / 'pre-receive'} cannot be read: No such file or directory"


def break_kind(hooks: Hooks) -> str:
    (hooks.path / "pre-receive").mkdir()
    return f"{hooks.path / 'pre-receive'} is no file; take it away"


BREAKS = [break_mode, break_executable, break_directory, break_top, break_link, break_kind]


@pytest.mark.parametrize("breaks", BREAKS, ids=lambda one: one.__name__)
async def test_unsafe(
    world: GitWorld,
    repository: RepositoryInfo,
    hooks: Hooks,
    work: Path,
    breaks: Callable[[Hooks], str],
) -> None:
    """Found at the start and by the doctor; until it is mended, pushes are refused, and nothing is run."""
    hooks.write("pre-receive.d/10-good", "echo ran")
    assert problems(hooks.path) == []
    await assert_refused(world, repository, hooks, work, breaks(hooks))


async def test_of_somebody_else(
    world: GitWorld, repository: RepositoryInfo, hooks: Hooks, work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only root can give files away; that this one is given away, its status says to everybody."""
    path = hooks.write("pre-receive", "echo ran")
    stat = Path.stat

    def given_away(one: Path, *, follow_symlinks: bool = True) -> os.stat_result:
        status = stat(one, follow_symlinks=follow_symlinks)
        if one != path:
            return status
        mode, inode, device, links, _, *rest = status
        return os.stat_result((mode, inode, device, links, 12345, *rest))

    assert problems(hooks.path) == []
    monkeypatch.setattr(Path, "stat", given_away)
    problem = f"{path} belongs to the user id 12345; it must belong to root or to the server's user"
    await assert_refused(world, repository, hooks, work, problem)


async def assert_refused(
    world: GitWorld, repository: RepositoryInfo, hooks: Hooks, work: Path, problem: str
) -> None:
    assert problems(hooks.path) == [problem]
    outcome = await push(world, repository, work, [MAIN])
    reason = "the hook programs of this server are out of order; tell its operator"
    assert outcome.report.refs == {MAIN: reason}
    assert outcome.remote == []


async def test_unsafe_afterwards(world: GitWorld, repository: RepositoryInfo, hooks: Hooks) -> None:
    hooks.write("post-receive.d/10", "echo ran")
    hooks.write("post-receive.d/20", "echo ran", mode=0o644)
    with pytest.raises(ProgramsUnusable):
        await after(world, hooks, received(repository, ZERO))


def test_no_directory(tmp_path: Path) -> None:
    assert problems(tmp_path / "nowhere") == [f"{tmp_path / 'nowhere'} is no directory"]
