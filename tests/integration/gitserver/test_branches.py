"""Branches and tags made by the server, as git sees them afterwards."""

import asyncio
from datetime import UTC, datetime
from pathlib import Path

import pytest

from core.errors import (
    AlreadyExists,
    InvalidName,
    PushRefused,
    RefConflict,
    RevisionNotFound,
    StaleParent,
)
from core.models import BranchRule
from core.repositories import RepositoryInfo
from gitserver.branches import DefaultBranch
from gitserver.identities import Identity, InvalidMessage
from tests.support.git_world import ACTOR, GitWorld, git


def oid_of(where: Path, revision: str) -> str:
    return git(where, "rev-parse", revision).decode().strip()


async def test_create_and_delete(
    world: GitWorld, repository: RepositoryInfo, sample: Path, tmp_path: Path
) -> None:
    for revision in ("main", "again", oid_of(sample, "side")[:9]):
        oid = await world.branches.create(repository, ACTOR, "new/branch", revision)
        assert oid == oid_of(sample, f"{revision}^{{commit}}")
        clone = await world.clone(repository, tmp_path / f"clone-{revision}")
        assert oid_of(clone, "refs/heads/new/branch") == oid
        await world.branches.delete(repository, ACTOR, "new/branch", expected=oid)
        with pytest.raises(RevisionNotFound):
            await world.reader.branch(repository.id, "new/branch")


async def test_refusals(world: GitWorld, repository: RepositoryInfo, sample: Path) -> None:
    before = (await world.snapshots.state(repository.id)).state
    with pytest.raises(AlreadyExists):
        await world.branches.create(repository, ACTOR, "side", "main")
    with pytest.raises(RefConflict, match="conflicts"):
        await world.branches.create(repository, ACTOR, "topic", "main")
    with pytest.raises(RefConflict, match="conflicts"):
        await world.branches.create(repository, ACTOR, "side/x", "main")
    for name in ("", "a..b", "-x", "x.lock", "HEAD", "a\nb"):
        with pytest.raises(InvalidName):
            await world.branches.create(repository, ACTOR, name, "main")
        with pytest.raises(InvalidName):
            await world.branches.rename(repository, ACTOR, "side", name)
    for revision in ("nothing", "tree-tag", "blob-tag", "--all"):
        with pytest.raises(RevisionNotFound):
            await world.branches.create(repository, ACTOR, "x", revision)
    with pytest.raises(DefaultBranch):
        await world.branches.delete(repository, ACTOR, "main")
    with pytest.raises(DefaultBranch):
        await world.branches.rename(repository, ACTOR, "main", "trunk")
    for call in (world.branches.delete, world.branches.delete_tag):
        with pytest.raises(RevisionNotFound):
            await call(repository, ACTOR, "nothing")
    with pytest.raises(StaleParent):
        await world.branches.delete(repository, ACTOR, "side", expected=oid_of(sample, "main"))
    assert (await world.snapshots.state(repository.id)).state == before


async def test_rename(world: GitWorld, repository: RepositoryInfo, sample: Path, tmp_path: Path) -> None:
    await world.branches.rename(repository, ACTOR, "side", "side/deeper")
    await world.branches.rename(repository, ACTOR, "topic/one", "moved")
    with pytest.raises(AlreadyExists):
        await world.branches.rename(repository, ACTOR, "topic/two", "moved")
    clone = await world.clone(repository, tmp_path / "clone")
    names = git(clone, "for-each-ref", "--format=%(refname:lstrip=2)", "refs/heads").decode().split()
    assert names == ["main", "moved", "orphan", "side/deeper", "topic/two"]
    assert oid_of(clone, "side/deeper") == oid_of(sample, "side")


async def test_tags(world: GitWorld, repository: RepositoryInfo, sample: Path, tmp_path: Path) -> None:
    light = await world.branches.create_tag(repository, ACTOR, "r/1", "main")
    tagger = Identity("Ann", "ann@example.org", datetime(2024, 2, 3, 4, 5, 6, tzinfo=UTC))
    heavy = await world.branches.create_tag(
        repository, ACTOR, "r/2", "side", message="release\n\nnotes", tagger=tagger
    )
    of_tree = await world.branches.create_tag(repository, ACTOR, "r/3", "tree-tag", message="a tree")
    clone = await world.clone(repository, tmp_path / "clone")
    assert [oid_of(clone, name) for name in ("r/1", "r/2", "r/3")] == [light, heavy, of_tree]
    assert light == oid_of(sample, "main")
    assert git(clone, "cat-file", "-t", "r/2") == b"tag\n"
    assert oid_of(clone, "r/2^{commit}") == oid_of(sample, "side")
    assert oid_of(clone, "r/3^{tree}") == oid_of(sample, "main^{tree}")
    shown = git(clone, "for-each-ref", "--format=%(taggername)|%(taggeremail)|%(contents)", "refs/tags/r/2")
    assert shown.decode().strip() == "Ann|<ann@example.org>|release\n\nnotes"
    state = await world.snapshots.state(repository.id)
    assert state.refs["refs/tags/r/2"].peeled == oid_of(sample, "side")
    assert state.refs["refs/tags/r/1"].peeled is None
    made = await world.reader.tag(repository.id, "r/3")
    assert made.tagger is not None
    assert made.tagger.email == "ann@users.noreply.modelyard"
    with pytest.raises(AlreadyExists):
        await world.branches.create_tag(repository, ACTOR, "v1", "main")
    with pytest.raises(InvalidName):
        await world.branches.create_tag(repository, ACTOR, "a..b", "main")
    with pytest.raises(InvalidMessage):
        await world.branches.create_tag(repository, ACTOR, "x", "main", message=" ")
    await world.branches.delete_tag(repository, ACTOR, "r/2", expected=heavy)
    assert "r/2" not in [tag.name for tag in await world.reader.tags(repository.id)]


async def test_branch_rules(world: GitWorld, repository: RepositoryInfo) -> None:
    async with world.database.transaction() as session:
        session.add(BranchRule(repository_id=repository.id, pattern="side"))
        session.add(BranchRule(repository_id=repository.id, pattern="release/*", pushers=["carol"]))
    before = (await world.snapshots.state(repository.id)).state
    with pytest.raises(PushRefused, match="may not be deleted"):
        await world.branches.delete(repository, ACTOR, "side")
    with pytest.raises(PushRefused, match="may not be deleted"):
        await world.branches.rename(repository, ACTOR, "side", "x")
    with pytest.raises(PushRefused, match="chosen users"):
        await world.branches.create(repository, ACTOR, "release/1", "main")
    assert (await world.snapshots.state(repository.id)).state == before


async def test_one_of_many_creates(world: GitWorld, repository: RepositoryInfo) -> None:
    results = await asyncio.gather(
        *(world.branches.create(repository, ACTOR, "new", revision) for revision in ["main", "side"] * 4),
        return_exceptions=True,
    )
    [winner] = [one for one in results if isinstance(one, str)]
    assert all(isinstance(one, AlreadyExists | RefConflict) for one in results if one is not winner)
    assert (await world.reader.branch(repository.id, "new")).oid == winner
