"""How commits made by the server land: races, protected branches, and objects that go away meanwhile."""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path

import pytest
from sqlalchemy import update

from core.access import Actor, ActorKind
from core.database import Database
from core.errors import (
    ModelyardError,
    PushRefused,
    StaleParent,
)
from core.models import Account, AccountKind, BranchRule, Collaborator, ObjectFormat, Repository, Role
from core.repositories import RepositoryInfo
from gitserver.commits import Committed, Operation, Put
from gitserver.policy import ProposedPush
from gitserver.updates import RefUpdate
from tests.support.git_world import ACTOR, GitWorld, git, open_world

FORMATS = list(ObjectFormat)


async def commit(
    world: GitWorld, repository: RepositoryInfo, *operations: Operation, branch: str = "main"
) -> Committed:
    return await world.committer.commit(repository, ACTOR, branch, operations, "a message")


async def pieces(*parts: bytes) -> AsyncIterator[bytes]:
    for part in parts:
        yield part


async def test_expected_parent_has_one_winner(
    world: GitWorld, repository: RepositoryInfo, sample: Path
) -> None:
    parent = git(sample, "rev-parse", "main").decode().strip()
    committers = [world.committer, world.another_committer()]
    results = await asyncio.gather(
        *(
            committers[number % 2].commit(
                repository, ACTOR, "main", [Put(f"{number}", b"x")], "m", parent=parent
            )
            for number in range(8)
        ),
        return_exceptions=True,
    )
    [winner] = [one for one in results if isinstance(one, Committed)]
    assert winner.parent == parent
    assert [type(one) for one in results if one is not winner] == [StaleParent] * 7
    assert (await world.reader.branch(repository.id, "main")).oid == winner.oid


@pytest.mark.parametrize("object_format", FORMATS)
async def test_without_parent_all_land(world: GitWorld, tmp_path: Path, object_format: ObjectFormat) -> None:
    repository = await world.repository(object_format)  # empty: the first commit is raced for, too
    committers = [world.another_committer() for _ in range(3)]
    results = await asyncio.gather(
        *(
            committers[number % 3].commit(
                repository, ACTOR, "main", [Put(f"{number}", pieces(b"%d" % number))], f"m {number}"
            )
            for number in range(12)
        )
    )
    clone = await world.clone(repository, tmp_path / "clone")
    assert set(git(clone, "rev-list", "main").decode().split()) == {one.oid for one in results}
    assert git(clone, "rev-list", "--count", "--min-parents=2", "main") == b"0\n"
    names = git(clone, "ls-tree", "--name-only", "main").decode().split()
    assert sorted(names, key=int) == [str(number) for number in range(12)]


async def test_protected_branch(world: GitWorld, repository: RepositoryInfo) -> None:
    async with world.database.transaction() as session:
        session.add(BranchRule(repository_id=repository.id, pattern="main", pushers=["carol"]))
        session.add(Account(id=2, kind=AccountKind.USER, name="carol"))
        await session.flush()
        session.add(Collaborator(repository_id=repository.id, user_id=2, role=Role.WRITE))
    with pytest.raises(PushRefused, match="protected branch"):
        await commit(world, repository, Put("x", b"1"))
    carol = Actor(ActorKind.USER, "carol", user_id=2)
    done = await world.committer.commit(repository, carol, "main", [Put("x", b"1")], "m")
    assert (await world.reader.commit(repository.id, done.oid)).author.name == "carol"


class Pruner:
    """Pretends that objects are dropped while commits are checked, as often as it is told."""

    def __init__(self, database: Database, times: int) -> None:
        self.database = database
        self.times = times
        self.seen: list[str] = []

    async def before_pack(
        self, repository: RepositoryInfo, actor: Actor, updates: Sequence[RefUpdate]
    ) -> Mapping[str, str]:
        return {}

    async def check(self, push: ProposedPush) -> Mapping[str, str]:
        self.seen += [*push.options, push.updates[0].new]
        if self.times:
            self.times -= 1
            async with self.database.transaction() as session:
                await session.execute(
                    update(Repository).values(
                        prune_epoch=Repository.prune_epoch + 1, state=self.seen[-1][:32]
                    )
                )
        return {}


@pytest.mark.parametrize(("times", "lands"), [(2, True), (100, False)])
async def test_prune_between_check_and_commit(
    sqlite: Database, tmp_path: Path, times: int, lands: bool
) -> None:
    pruner = Pruner(sqlite, times)
    async with open_world(sqlite, tmp_path, policies=[pruner]) as world:
        repository = await world.repository()
        call = world.committer.commit(repository, ACTOR, "main", [Put("x", b"1")], "m", options=["a=b"])
        if lands:
            done = await call
            assert pruner.seen == ["a=b", done.oid] * 3
        else:
            with pytest.raises(ModelyardError, match="being cleaned") as caught:
                await call
            assert caught.value.status == 503
            assert (await world.snapshots.state(repository.id)).refs == {}
        assert world.leftovers() == []
