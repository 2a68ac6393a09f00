"""Pushes are told of once, and their default branches make up what repositories are searched by."""

import asyncio
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import pytest
from sqlalchemy import delete, update
from sqlalchemy.ext.asyncio import AsyncSession

from core.access import SYSTEM
from core.models import PostReceiveTask, Push, RepositoryType
from gitserver.commits import Delete
from hooks import version_step
from hooks.heads import Heads
from hooks.version import Version
from hooks.version_step import UnderstandVersions
from hooks.versions import Versions
from tests.support.dataset_files import csv, dataset, parquet
from tests.support.git_world import git
from tests.support.hooks_world import HooksWorld
from tests.support.model_files import write_adapter
from tests.support.small_model import CARD, PARAMETERS, commit_small_model, small_weights

CREATED, UPDATED = "model.version.created", "model.metadata.updated"


@pytest.fixture
def weights(tmp_path: Path) -> bytes:
    return small_weights(tmp_path)


@pytest.fixture
async def commit(world: HooksWorld, weights: bytes) -> str:
    return await commit_small_model(world, weights)


async def test_a_push_is_told_of_once(world: HooksWorld, commit: str) -> None:
    lines = await world.received(world.metadata)
    assert await world.received(world.metadata) == lines
    assert lines[0] == f"Model: LlamaForCausalLM, {PARAMETERS / 1000:.1f} K parameters (F32), apache-2.0"
    [event] = await world.events(CREATED)
    assert event.repository_id == world.repository.id
    assert event.payload["commit"] == commit
    assert event.payload["ref"] == "refs/heads/main"
    assert event.payload["actor"] == "system"
    assert event.payload["push_id"] == 1
    assert event.payload["summary"]["parameters"] == PARAMETERS
    assert event.payload["findings"] == []
    assert await world.events(UPDATED) == []
    assert await world.head() == (commit, PARAMETERS)
    found = await world.facets()
    assert {
        ("license", "apache-2.0"),
        ("task", "text-generation"),
        ("architecture", "llamaforcausallm"),
        ("dtype", "f32"),
        ("base_model", "tiny/base"),
        ("language", "en"),
    } <= found


async def test_many_processes_tell_of_it_once(world: HooksWorld, commit: str) -> None:
    async def another() -> None:
        parsing = world.new_parsing()
        try:
            made = Versions(world.database, world.trees, parsing)
            await world.received(UnderstandVersions(world.database, made, world.git.reader))
        finally:
            await parsing.close()

    async with asyncio.TaskGroup() as group:
        for _ in range(4):
            group.create_task(another())
        group.create_task(world.heads.catch_up())
    assert len(await world.events(CREATED)) == 1
    assert len(await world.stored_versions()) == 1


async def test_what_was_looked_at_before_is_told_of_all_the_same(world: HooksWorld, commit: str) -> None:
    await world.understand(commit)
    assert await world.events(CREATED) == []
    await world.received(world.metadata)
    assert len(await world.events(CREATED)) == 1


async def test_metadata_that_changed_is_told_of(world: HooksWorld, commit: str) -> None:
    await world.received(world.metadata)
    await world.commit({"train.py": b"pass # more\n"})
    await world.received(world.metadata)
    assert await world.events(UPDATED) == []
    third = await world.commit({"README.md": CARD.replace(b"apache-2.0", b"mit")})
    await world.received(world.metadata)
    [event] = await world.events(UPDATED)
    assert event.payload["commit"] == third
    assert event.payload["changes"]["licenses"] == {"before": ["apache-2.0"], "after": ["mit"]}
    assert set(event.payload["changes"]) == {"licenses"}
    assert ("license", "mit") in await world.facets()
    assert ("license", "apache-2.0") not in await world.facets()
    assert len(await world.events(CREATED)) == 3


async def test_other_branches_and_tags_are_understood_and_not_searched_by(
    world: HooksWorld, commit: str, tmp_path: Path
) -> None:
    await world.received(world.metadata)
    await world.git.branches.create(world.repository, SYSTEM, "next", commit)
    side = await world.commit({"README.md": b"---\nlicense: mit\n---\n"}, branch="next")
    assert (await world.received(world.metadata))[0].startswith("Model: ")
    assert [event.payload["commit"] for event in await world.events(CREATED)] == [commit, side]
    assert ("license", "mit") not in await world.facets()
    await world.point("refs/tags/v1", side)
    await world.received(world.metadata)
    assert len(await world.events(CREATED)) == 2


async def test_annotated_tags_name_their_commits(world: HooksWorld, tmp_path: Path) -> None:
    work = tmp_path / "work"
    git(tmp_path, "init", "-q", "-b", "main", work)
    (work / "README.md").write_bytes(CARD)
    git(work, "add", ".")
    git(work, "commit", "-qm", "card")
    git(work, "tag", "-am", "one", "v1")
    git(work, "tag", "-am", "tree", "odd", "HEAD^{tree}")
    git(work, "checkout", "-q", "--detach")
    git(work, "branch", "-D", "main")
    git(work, "repack", "-adq")
    repository = await world.git.adopt(work / ".git", name="tagged")
    await world.received(world.metadata)
    [event] = await world.events(CREATED)
    assert event.payload["commit"] == git(work, "rev-parse", "HEAD").decode().strip()
    assert event.payload["ref"] == "refs/tags/v1"
    assert await world.facets(repository) == set()


async def test_a_late_push_does_not_turn_back_what_is_searched(world: HooksWorld, commit: str) -> None:
    second = await world.commit({"README.md": CARD.replace(b"apache-2.0", b"mit")})
    await world.received(world.metadata, 2)
    await world.received(world.metadata, 1)
    assert await world.head() == (second, PARAMETERS)
    assert ("license", "mit") in await world.facets()
    assert len(await world.events(CREATED)) == 2


async def test_commits_that_are_gone_are_passed_over(world: HooksWorld, commit: str) -> None:
    async with world.database.transaction() as session:
        await session.execute(
            update(Push).values(updates=[{"ref": "refs/heads/x", "old": "0" * 40, "new": "2" * 40}])
        )
    assert await world.received(world.metadata) == ()
    assert await world.events(CREATED) == []


async def test_another_default_branch_is_followed(world: HooksWorld, commit: str) -> None:
    await world.received(world.metadata)
    await world.git.branches.create(world.repository, SYSTEM, "next", commit)
    await world.received(world.metadata)
    side = await world.commit({"README.md": b"---\nlicense: mit\n---\n"}, branch="next")
    await world.received(world.metadata)
    assert await world.heads.catch_up() == 0
    await world.lfs.core.repositories.update(SYSTEM, world.repository.address, default_branch="next")
    heads = Heads(world.database, world.versions, poll_seconds=3600)
    running = asyncio.ensure_future(heads.run_forever())
    try:
        heads.hint(world.repository.id)
        async with asyncio.timeout(60):
            while (await world.head() or ("",))[0] != side:  # noqa: ASYNC110 - nothing tells
                await asyncio.sleep(0.02)
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
    assert ("license", "mit") in await world.facets()


async def test_a_fault_in_one_repository_keeps_no_other_waiting(
    world: HooksWorld, commit: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = await world.new_repository("other")
    await world.commit({"README.md": b"---\nlicense: mit\n---\n"}, repository=other)
    async with world.database.transaction() as session:
        await session.execute(delete(PostReceiveTask))
    look = world.versions.look

    async def faulty(repository_id: str, commit: str) -> Version:
        if repository_id == world.repository.id:
            raise ValueError("a bug")
        return await look(repository_id, commit)

    monkeypatch.setattr(world.versions, "look", faulty)
    assert await world.heads.catch_up() == 1
    assert ("license", "mit") in await world.facets(other)
    assert await world.heads.catch_up() == 0  # and the other one is not tried all the time


async def test_a_fault_while_catching_up_ends_nothing(
    world: HooksWorld, commit: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server ends when one of its workers does."""
    async with world.database.transaction() as session:
        await session.execute(delete(PostReceiveTask))
    read, faults = world.database.read, ["a bug"]

    def faulty() -> AbstractAsyncContextManager[AsyncSession]:
        if faults:
            raise ValueError(faults.pop())
        return read()

    monkeypatch.setattr(world.database, "read", faulty)
    running = asyncio.ensure_future(Heads(world.database, world.versions, poll_seconds=0.01).run_forever())
    try:
        async with asyncio.timeout(60):
            while faults or await world.head() is None:
                await asyncio.sleep(0.02)
                assert not running.done(), running.exception()
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


async def test_what_was_there_before_is_found(world: HooksWorld, commit: str) -> None:
    await world.new_repository("empty")
    async with world.database.transaction() as session:
        await session.execute(delete(PostReceiveTask))
    assert await world.heads.catch_up() == 1
    assert await world.head() == (commit, PARAMETERS)
    assert await world.events(CREATED) == []
    assert await world.heads.catch_up() == 0


async def test_what_is_queued_is_left_to_the_queue(world: HooksWorld, commit: str) -> None:
    assert await world.heads.catch_up() == 0
    assert await world.head() is None


async def test_findings_are_told_of_up_to_a_point(world: HooksWorld) -> None:
    await world.commit({f"{number:02}/config.json": b"{" for number in range(30)})
    lines = await world.received(world.metadata)
    assert len(lines) == 21
    assert all(line.startswith("error: ") for line in lines[:20])
    assert lines[20] == "and 10 more"


async def test_datasets(world: HooksWorld) -> None:
    repository = await world.new_repository("rows", kind=RepositoryType.DATASET)
    table = dataset(rows=100)
    await world.commit(
        {"README.md": b"---\nlicense: mit\n---\n", "data/test.csv": csv(table)},
        lfs={"data/train.parquet": parquet(table)},
        repository=repository,
    )
    lines = await world.received(world.metadata)
    assert lines[0].startswith("Dataset: 200 rows, ")
    assert lines[0].endswith(", mit")
    [event] = await world.events("dataset.version.created")
    assert event.payload["summary"]["rows"] == 200
    assert await world.events(CREATED) == []


async def test_adapters(world: HooksWorld, tmp_path: Path) -> None:
    write_adapter(tmp_path, "tiny/base")
    files = {"adapter_config.json": (tmp_path / "adapter_config.json").read_bytes()}
    weights = (tmp_path / "adapter_model.safetensors").read_bytes()
    await world.commit(files, lfs={"adapter_model.safetensors": weights})
    assert (await world.received(world.metadata))[0].startswith("Model: ")
    assert ("base_model", "tiny/base") in await world.facets()


async def test_a_push_that_only_deletes_says_nothing(world: HooksWorld, commit: str) -> None:
    await world.git.branches.create(world.repository, SYSTEM, "gone", commit)
    await world.point("refs/heads/gone", None)
    assert await world.received(world.metadata) == ()


async def test_everything_may_go(world: HooksWorld, commit: str) -> None:
    await world.received(world.metadata)
    paths = ("README.md", "config.json", "model.safetensors")
    await world.git.committer.commit(world.repository, SYSTEM, "main", [Delete(path) for path in paths], "go")
    assert await world.received(world.metadata) == ()
    assert await world.facets() == set()
    assert (await world.head() or ("", 1))[1] is None


async def test_a_mirror_is_not_understood_as_a_whole(
    world: HooksWorld, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(version_step, "_MAX_TIPS", 3)
    work = tmp_path / "work"
    git(tmp_path, "init", "-q", "-b", "zero", work)
    for number in range(6):
        (work / "README.md").write_bytes(CARD + b"%d\n" % number)
        git(work, "add", ".")
        git(work, "commit", "-qm", "card")
        git(work, "branch", "main" if number == 4 else f"b{number}")
    git(work, "repack", "-adq")
    await world.git.adopt(work / ".git", name="mirror")
    lines = await world.received(world.metadata)
    events = await world.events(CREATED)
    assert [event.payload["ref"].removeprefix("refs/heads/") for event in events] == ["main", "b0", "b1"]
    assert [line.partition(":")[0] for line in lines] == ["main", "b0", "b1"]
