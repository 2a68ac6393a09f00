"""Nobody pushes a change to what somebody else has locked."""

from collections.abc import AsyncIterator, Mapping
from pathlib import Path

import pytest

from core.access import SYSTEM, Actor, ActorKind
from core.database import Database
from core.errors import PushRefused
from core.models import Account, AccountKind, Collaborator, Role
from core.repositories import RepositoryInfo
from gitserver.commits import Delete, Move, Put
from lfs.locks import Locks
from modelyard.lock_policy import LockedPaths
from tests.support.git_pushes import push
from tests.support.git_world import ACTOR, GitWorld, git, open_world

MAIN, SIDE = "refs/heads/main", "refs/heads/side"
BOB = Actor(ActorKind.USER, "bob", user_id=2, credential="password")


@pytest.fixture
async def world(database: Database, tmp_path: Path) -> AsyncIterator[GitWorld]:
    async with open_world(database, tmp_path) as opened:
        opened.policies.append(LockedPaths(opened.git, Locks(database)))
        yield opened
        assert opened.leftovers() == []


@pytest.fixture
async def repository(world: GitWorld) -> RepositoryInfo:
    """Of ann; bob may write."""
    made = await world.repository()
    async with world.database.transaction() as session:
        session.add(Account(id=2, kind=AccountKind.USER, name="bob"))
        await session.flush()
        session.add(Collaborator(repository_id=made.id, user_id=2, role=Role.WRITE))
    return made


@pytest.fixture
def work(tmp_path: Path) -> Path:
    path = tmp_path / "work"
    path.mkdir()
    git(path, "init", "-q", "-b", "main", ".")
    return path


def commit(work: Path, files: Mapping[str, str], message: str = "m") -> str:
    for name, content in files.items():
        path = work / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    git(work, "add", "-A")
    git(work, "commit", "-q", "-m", message)
    return git(work, "rev-parse", "HEAD").decode().strip()


async def test_somebody_else_s_lock(world: GitWorld, repository: RepositoryInfo, work: Path) -> None:
    locks = Locks(world.database)
    commit(work, {"w/a.bin": "1", "free": "1", "w/a.bin.bak": "1"})
    assert (await push(world, repository, work, [MAIN])).ok
    lock = await locks.create(repository.id, BOB, "w/a.bin", None)
    commit(work, {"free": "2", "w/a.bin.bak": "2"})
    assert (await push(world, repository, work, [MAIN])).ok
    commit(work, {"w/a.bin": "2"})
    pushed = await push(world, repository, work, [MAIN])
    assert pushed.report.refs == {MAIN: "w/a.bin is locked by bob"}
    assert pushed.remote == ["w/a.bin is locked by bob"]
    commit(work, {"w/a.bin": "1"})  # undone: it was touched all the same
    assert not (await push(world, repository, work, [MAIN])).ok
    assert (await push(world, repository, work, [MAIN], actor=BOB)).ok
    commit(work, {"w/a.bin": "3"})
    assert not (await push(world, repository, work, [MAIN])).ok
    await locks.unlock(repository.id, BOB, lock.id, force=False, may_force=False)
    assert (await push(world, repository, work, [MAIN])).ok


async def test_a_lock_of_another_repository(world: GitWorld, repository: RepositoryInfo, work: Path) -> None:
    other = await world.repository(name="other")
    await Locks(world.database).create(other.id, BOB, "a.bin", None)
    commit(work, {"a.bin": "1"})
    pushed = await push(world, repository, work, [MAIN])
    assert pushed.ok
    assert pushed.remote == []


async def test_which_refs_and_what_else(world: GitWorld, repository: RepositoryInfo, work: Path) -> None:
    names = ["größe 1.bin", "-x", ":(glob)*", "*.bin", "dir/b.bin", "gone.bin"]
    first = commit(work, dict.fromkeys(names, "1"))
    assert (await push(world, repository, work, [MAIN])).ok
    locks = Locks(world.database)
    for name in names:
        await locks.create(repository.id, BOB, name, None)
    git(work, "branch", "side")
    git(work, "branch", "again", first)
    git(work, "checkout", "-q", "side")
    (work / "gone.bin").unlink()
    commit(work, dict.fromkeys(names[:-1], "2") | {"other.bin": "1"})
    git(work, "tag", "-a", "-m", "x", "v1")
    git(work, "checkout", "-q", "main")
    commit(work, {"plain": "1", "x.bin": "1"})
    pushed = await push(world, repository, work, [MAIN, SIDE, "refs/heads/again", "refs/tags/v1"])
    refused = "*.bin is locked by bob (and 5 more locked paths)"
    assert pushed.report.refs == {
        MAIN: "ok",
        SIDE: refused,
        "refs/heads/again": "ok",
        "refs/tags/v1": refused,
    }
    assert sorted(pushed.remote) == sorted(f"{name} is locked by bob" for name in names)
    assert (await push(world, repository, work, [":refs/heads/again"])).ok


async def test_merging_what_the_holder_pushed(
    world: GitWorld, repository: RepositoryInfo, work: Path
) -> None:
    commit(work, {"a.bin": "1", "b": "1"})
    git(work, "branch", "side")
    assert (await push(world, repository, work, [MAIN, SIDE])).ok
    await Locks(world.database).create(repository.id, BOB, "a.bin", None)
    commit(work, {"a.bin": "2"})
    assert (await push(world, repository, work, [MAIN], actor=BOB)).ok
    git(work, "checkout", "-q", "side")
    commit(work, {"b": "2"})
    git(work, "merge", "-q", "-m", "merge", "main")
    assert (await push(world, repository, work, [SIDE])).ok
    git(work, "checkout", "-q", "main")
    git(work, "merge", "-q", "--no-ff", "-m", "back", "side")
    assert (await push(world, repository, work, [MAIN])).ok
    # A merge with something of its own is a change.
    git(work, "checkout", "-q", "-b", "third", "side")
    commit(work, {"b": "3"})
    git(work, "merge", "-q", "--no-commit", "--no-ff", "main")
    commit(work, {"a.bin": "evil"})
    assert not (await push(world, repository, work, ["refs/heads/third"])).ok


async def test_who_is_bound(world: GitWorld, repository: RepositoryInfo, work: Path) -> None:
    await Locks(world.database).create(repository.id, ACTOR, "a.bin", None)
    commit(work, {"a.bin": "1"})
    key = Actor(ActorKind.DEPLOY_KEY, "ci", repository_id=repository.id, credential="password")
    for actor in (BOB, key):
        assert not (await push(world, repository, work, [MAIN], actor=actor)).ok
    assert (await push(world, repository, work, [MAIN], actor=SYSTEM)).ok
    commit(work, {"a.bin": "2"})
    assert (await push(world, repository, work, [MAIN], actor=ACTOR)).ok


async def test_commits_over_the_api(world: GitWorld, repository: RepositoryInfo) -> None:
    locks = Locks(world.database)
    await world.committer.commit(repository, ACTOR, "main", [Put("dir/a.bin", b"1")], "m")
    await locks.create(repository.id, BOB, "dir/a.bin", None)
    for operation in (Put("dir/a.bin", b"2"), Delete("dir", recursive=True), Move("dir", "elsewhere")):
        with pytest.raises(PushRefused, match=r"dir/a.bin is locked by bob") as caught:
            await world.committer.commit(repository, ACTOR, "main", [operation], "m")
        assert caught.value.fields["messages"] == ["dir/a.bin is locked by bob"]
    await world.committer.commit(repository, ACTOR, "main", [Put("dir/b.bin", b"2")], "m")
    await world.committer.commit(repository, BOB, "main", [Put("dir/a.bin", b"2")], "m")
