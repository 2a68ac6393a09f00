"""Commits are understood once, told of once, and make up what repositories are searched by."""

import asyncio
import json
from pathlib import Path

import pytest
from sqlalchemy import delete, select, update

from core.access import SYSTEM
from core.errors import RepositoryNotFound, RevisionNotFound
from core.models import (
    ModelVersion,
    PostReceiveTask,
    Push,
    RepositoryFacet,
    RepositoryHead,
    RepositoryType,
)
from core.opening import RepositoryInfo
from gitserver.commits import Delete
from hooks import version, version_step
from hooks.errors import ContentUnavailable
from hooks.formats.parsed import Severity
from hooks.heads import Heads
from hooks.version_lines import describe, shorten
from hooks.version_step import UnderstandVersions
from hooks.versions import Version, Versions
from tests.support.dataset_files import csv, dataset, parquet
from tests.support.git_world import git
from tests.support.hooks_world import HooksWorld, pointer_to
from tests.support.model_files import CONFIG, llama_tensors, write_adapter, write_safetensors

CARD = b"""---
license: apache-2.0
language: en
pipeline_tag: text-generation
base_model: Tiny/Base
---
# Tiny
"""
PARAMETERS = sum(tensor.size for tensor in llama_tensors().values())
CREATED, UPDATED = "model.version.created", "model.metadata.updated"


@pytest.fixture
def weights(tmp_path: Path) -> bytes:
    return write_safetensors(tmp_path / "model.safetensors", llama_tensors()).read_bytes()


@pytest.fixture
async def commit(world: HooksWorld, weights: bytes) -> str:
    """A small model, on `main`."""
    files = {"README.md": CARD, "config.json": json.dumps(CONFIG).encode(), "train.py": b"pass\n"}
    return await world.commit(files, lfs={"model.safetensors": weights})


async def facets(world: HooksWorld, repository: RepositoryInfo | None = None) -> set[tuple[str, str]]:
    where = RepositoryFacet.repository_id == (repository or world.repository).id
    async with world.database.read() as session:
        rows = await session.execute(select(RepositoryFacet.kind, RepositoryFacet.value).where(where))
        return {(kind, value) for kind, value in rows}


async def head(world: HooksWorld) -> tuple[str, int | None] | None:
    async with world.database.read() as session:
        row = await session.get(RepositoryHead, world.repository.id)
        return None if row is None else (row.commit, row.parameters)


async def stored(world: HooksWorld) -> list[ModelVersion]:
    async with world.database.read() as session:
        return list(await session.scalars(select(ModelVersion).order_by(ModelVersion.created_at)))


async def test_understands_a_commit(world: HooksWorld, commit: str, weights: bytes) -> None:
    made = await world.versions.understand(world.repository.id, commit)
    assert (made.commit, made.type, made.stored) == (commit, RepositoryType.MODEL, True)
    assert [(file.path, file.parser) for file in made.files] == [
        ("README.md", "card"),
        ("config.json", "config"),
        ("model.safetensors", "safetensors"),
    ]
    assert made.files[2].size == len(weights)
    assert made.files[2].digest.startswith("sha256:")
    assert made.summary.parameters == PARAMETERS
    assert made.summary.architectures == ("LlamaForCausalLM",)
    assert made.summary.licenses == ("apache-2.0",)
    assert await world.versions.understand(world.repository.id, commit) == made
    assert world.parsing.runs == 3
    [row] = await stored(world)
    assert (row.commit, row.announced) == (commit, False)


async def test_looking_stores_no_version(world: HooksWorld, commit: str) -> None:
    looked = await world.versions.look(world.repository.id, commit)
    assert not looked.stored
    assert await stored(world) == []
    assert len(await world.parsed_files()) == 3
    again = await world.versions.look(world.repository.id, commit)
    assert (again, world.parsing.runs) == (looked, 3)


async def test_the_same_model_by_large_files_or_not(world: HooksWorld, commit: str, weights: bytes) -> None:
    other = await world.new_repository("other")
    files = {"README.md": CARD, "config.json": json.dumps(CONFIG).encode(), "model.safetensors": weights}
    same = await world.commit(files, repository=other)
    one = await world.versions.understand(world.repository.id, commit)
    two = await world.versions.understand(other.id, same)
    assert (one.summary, one.findings) == (two.summary, two.findings)


async def test_many_ask_at_once(world: HooksWorld, commit: str) -> None:
    found = await asyncio.gather(
        *(world.versions.understand(world.repository.id, commit) for _ in range(10)),
        *(Versions(world.database, world.trees, world.new_parsing()).look(world.repository.id, commit),),
    )
    assert len({(one.commit, one.summary.parameters) for one in found}) == 1
    assert world.parsing.runs == 3
    assert len(await stored(world)) == 1


async def test_what_is_not_there_is_not_found(world: HooksWorld, commit: str) -> None:
    with pytest.raises(RevisionNotFound):
        await world.versions.look(world.repository.id, "1" * 40)
    with pytest.raises(RepositoryNotFound):
        await world.versions.look("nowhere", commit)
    other = await world.new_repository("other")
    with pytest.raises(RevisionNotFound):
        await world.versions.look(other.id, commit)


async def test_another_version_of_the_code_understands_anew(world: HooksWorld, commit: str) -> None:
    await world.received(world.metadata)
    async with world.database.transaction() as session:
        await session.execute(update(ModelVersion).values(summary={"task": "stale"}))
        await session.execute(update(RepositoryFacet).values(kind="stale"))
    assert (await world.versions.look(world.repository.id, commit)).summary.task == "stale"
    assert await world.heads.catch_up() == 0
    async with world.database.transaction() as session:
        await session.execute(update(ModelVersion).values(version=ModelVersion.version - 1))
    assert (await world.versions.look(world.repository.id, commit)).summary.task == "text-generation"
    assert await world.heads.catch_up() == 1
    assert ("license", "apache-2.0") in await facets(world)
    [row] = await stored(world)
    assert (row.version, row.announced) == (version.VERSION, True)
    assert len(await world.events(CREATED)) == 1


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
    assert await head(world) == (commit, PARAMETERS)
    found = await facets(world)
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
    assert len(await stored(world)) == 1


async def test_what_was_looked_at_before_is_told_of_all_the_same(world: HooksWorld, commit: str) -> None:
    await world.versions.understand(world.repository.id, commit)
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
    assert ("license", "mit") in await facets(world)
    assert ("license", "apache-2.0") not in await facets(world)
    assert len(await world.events(CREATED)) == 3


async def test_other_branches_and_tags_are_understood_and_not_searched_by(
    world: HooksWorld, commit: str, tmp_path: Path
) -> None:
    await world.received(world.metadata)
    await world.git.branches.create(world.repository, SYSTEM, "next", commit)
    side = await world.commit({"README.md": b"---\nlicense: mit\n---\n"}, branch="next")
    assert (await world.received(world.metadata))[0].startswith("Model: ")
    assert [event.payload["commit"] for event in await world.events(CREATED)] == [commit, side]
    assert ("license", "mit") not in await facets(world)
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
    assert await facets(world, repository) == set()


async def test_a_late_push_does_not_turn_back_what_is_searched(world: HooksWorld, commit: str) -> None:
    second = await world.commit({"README.md": CARD.replace(b"apache-2.0", b"mit")})
    await world.received(world.metadata, 2)
    await world.received(world.metadata, 1)
    assert await head(world) == (second, PARAMETERS)
    assert ("license", "mit") in await facets(world)
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
        heads.hint()
        async with asyncio.timeout(20):
            while (await head(world) or ("",))[0] != side:  # noqa: ASYNC110 - nothing tells
                await asyncio.sleep(0.02)
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
    assert ("license", "mit") in await facets(world)


async def test_what_was_there_before_is_found(world: HooksWorld, commit: str) -> None:
    await world.new_repository("empty")
    async with world.database.transaction() as session:
        await session.execute(delete(PostReceiveTask))
    assert await world.heads.catch_up() == 1
    assert await head(world) == (commit, PARAMETERS)
    assert await world.events(CREATED) == []
    assert await world.heads.catch_up() == 0


async def test_what_is_queued_is_left_to_the_queue(world: HooksWorld, commit: str) -> None:
    assert await world.heads.catch_up() == 0
    assert await head(world) is None


async def test_missing_objects_are_a_finding_until_they_come(world: HooksWorld, weights: bytes) -> None:
    commit = await world.commit(
        {"README.md": CARD, "model.safetensors": pointer_to(weights), "config.json": b"{"}
    )
    lines = await world.received(world.metadata)
    assert any(line.startswith("warning: model.safetensors: ") for line in lines)
    assert any(line.startswith("error: config.json:1: ") for line in lines)
    looked = await world.versions.look(world.repository.id, commit)
    assert looked.stored
    assert not looked.is_whole
    assert looked.files[-1].parser is None
    await world.lfs.upload(weights)
    again = await world.versions.understand(world.repository.id, commit)
    assert again.is_whole
    assert again.summary.parameters == PARAMETERS
    [row] = await stored(world)
    assert row.summary["parameters"] == PARAMETERS
    assert row.announced


async def test_nothing_is_stored_while_the_store_is_away(world: HooksWorld, commit: str) -> None:
    await world.lfs.store.close()
    with pytest.raises(ContentUnavailable):
        await world.received(world.metadata)
    assert await stored(world) == []
    assert await world.events(CREATED) == []


async def test_findings_are_told_of_up_to_a_point(world: HooksWorld) -> None:
    await world.commit({f"{number:02}/config.json": b"{" for number in range(30)})
    lines = await world.received(world.metadata)
    assert len(lines) == 21
    assert all(line.startswith("error: ") for line in lines[:20])
    assert lines[20] == "and 10 more"


async def test_files_beyond_measure_are_counted(world: HooksWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(version, "MAX_FILES", 3)
    files = {f"{number}.csv": b"a\n1\n" for number in range(5)}
    commit = await world.commit({**files, "README.md": CARD, f"{'x' * 250}/" * 4 + "a.csv": b"a\n"})
    made = await world.versions.look(world.repository.id, commit)
    assert [file.path for file in made.files] == ["README.md", "0.csv", "1.csv"]
    assert [(one.severity, one.code) for one in made.findings if not one.path] == [
        (Severity.INFO, "more-files")
    ]
    assert "4 more files" in next(one.message for one in made.findings if not one.path)


async def test_long_lists_are_cut_and_not_counted_less(
    world: HooksWorld, commit: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(version, "_DETAIL_BYTES", 100)
    monkeypatch.setattr(version, "_LONG", 2)
    made = await world.versions.look(world.repository.id, commit)
    assert made.summary.parameters == PARAMETERS


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
    assert ("base_model", "tiny/base") in await facets(world)


async def test_a_push_that_only_deletes_says_nothing(world: HooksWorld, commit: str) -> None:
    await world.git.branches.create(world.repository, SYSTEM, "gone", commit)
    await world.point("refs/heads/gone", None)
    assert await world.received(world.metadata) == ()


async def test_everything_may_go(world: HooksWorld, commit: str) -> None:
    await world.received(world.metadata)
    paths = ("README.md", "config.json", "model.safetensors")
    await world.git.committer.commit(world.repository, SYSTEM, "main", [Delete(path) for path in paths], "go")
    assert await world.received(world.metadata) == ()
    assert await facets(world) == set()
    assert (await head(world) or ("", 1))[1] is None


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


def test_counts_as_people_say_them() -> None:
    assert [shorten(count) for count in (0, 999, 1000, 134_515_008, 7_241_732_096, 10**12)] == [
        "0",
        "999",
        "1.0 K",
        "134.5 M",
        "7.2 B",
        "1.0 T",
    ]


async def test_nothing_known_is_nothing_said(world: HooksWorld) -> None:
    commit = await world.commit({"train.py": b"pass\n"})
    made: Version = await world.versions.look(world.repository.id, commit)
    assert describe(made.type, made.summary) is None
    assert await world.received(world.metadata) == ()
