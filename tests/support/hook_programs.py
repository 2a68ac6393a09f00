"""The operator's hook programs: writing them, and pushing past and through them."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from core.database import Database
from core.models import Transport, now
from core.repositories import RepositoryInfo
from core.settings import HooksSettings
from gitserver.updates import RefUpdate
from hooks.executables import ExecutablePolicy, RunExecutables
from hooks.received import ReceivedPush, Report
from tests.support.database import Databases
from tests.support.git_pushes import push
from tests.support.git_world import GitWorld, git, open_world
from tests.support.wire import ZERO

MAIN, SIDE = "refs/heads/main", "refs/heads/side"
SETTINGS = HooksSettings(timeout_seconds=60)
IMPATIENT = HooksSettings(timeout_seconds=5)


class Hooks:
    """The directory of programs."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.mkdir()

    def write(self, name: str, script: str, *, mode: int = 0o755, shell: str = "#!/bin/sh\n") -> Path:
        path = self.path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"{shell}{script}\n")
        path.chmod(mode)
        return path


@asynccontextmanager
async def hooked_world(databases: Databases, root: Path, hooks: Hooks) -> AsyncIterator[GitWorld]:
    """A Git engine on SQLite whose last policy is that of the programs."""
    async with databases.fresh("sqlite") as url:
        database = Database(url)
        async with open_world(database, root) as opened:
            opened.last.append(ExecutablePolicy(hooks.path, SETTINGS))
            yield opened
            assert opened.leftovers() == []
        await database.close()


def new_work(path: Path) -> Path:
    """A repository of a person, with one commit on both branches."""
    path.mkdir()
    git(path, "init", "-q", "-b", "main", ".")
    commit(path, "first")
    git(path, "branch", "side")
    return path


def commit(work: Path, text: str) -> str:
    """A commit on the branch that is checked out, by its oid."""
    (work / "file").write_text(f"{text}\n")
    git(work, "add", "-A")
    git(work, "commit", "-q", "-m", text)
    return git(work, "rev-parse", "HEAD").decode().strip()


def received(repository: RepositoryInfo, new: str, old: str = ZERO) -> ReceivedPush:
    """A push of `main`, as the pipeline has it."""
    update = RefUpdate(MAIN, old, new)
    return ReceivedPush(7, repository, "ann", 1, Transport.SSH, (update,), ("a=b", "c d"), False, now())


async def after(
    world: GitWorld, hooks: Hooks, one: ReceivedPush, *, settings: HooksSettings = SETTINGS
) -> list[str]:
    """Runs the post-receive programs; returns what whoever pushed would read."""
    report = Report()
    await RunExecutables(hooks.path, world.snapshots, settings).run(one, report)
    return list(report.lines)


async def publish(world: GitWorld, repository: RepositoryInfo, work: Path) -> str:
    """Both branches at the same commit, past the hooks."""
    policies = world.last.copy()
    world.last.clear()
    assert (await push(world, repository, work, [MAIN, SIDE])).ok
    world.last.extend(policies)
    return git(work, "rev-parse", "HEAD").decode().strip()
