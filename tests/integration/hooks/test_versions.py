"""Commits are understood, once, whoever asks; and anew when something is better known."""

import asyncio
import json
import threading
from collections.abc import Mapping
from pathlib import Path

import msgspec
import numpy as np
import pytest
from sqlalchemy import update

from core.errors import RepositoryNotFound, RevisionNotFound
from core.models import ModelVersion, RepositoryFacet, RepositoryType
from hooks import parsed_files, version
from hooks.errors import ContentUnavailable
from hooks.formats.parsed import Parsed, Severity
from hooks.summary import Summary, summarise
from hooks.version import MISSING
from hooks.version_lines import describe, shorten
from hooks.versions import Version, Versions
from tests.support.hooks_world import HooksWorld, pointer_to
from tests.support.model_files import CONFIG, write_safetensors
from tests.support.small_model import CARD, PARAMETERS, commit_small_model, small_weights

CREATED = "model.version.created"


@pytest.fixture
def weights(tmp_path: Path) -> bytes:
    return small_weights(tmp_path)


@pytest.fixture
async def commit(world: HooksWorld, weights: bytes) -> str:
    return await commit_small_model(world, weights)


async def test_understands_a_commit(world: HooksWorld, commit: str, weights: bytes) -> None:
    made = await world.understand(commit)
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
    assert await world.understand(commit) == made
    assert world.parsing.runs == 3
    [row] = await world.stored_versions()
    assert (row.commit, row.announced) == (commit, False)


async def test_looking_stores_no_version(world: HooksWorld, commit: str) -> None:
    looked = await world.versions.look(world.repository.id, commit)
    assert not looked.stored
    assert await world.stored_versions() == []
    assert len(await world.parsed_files()) == 3
    again = await world.versions.look(world.repository.id, commit)
    assert (again, world.parsing.runs) == (looked, 3)


async def test_the_same_model_by_large_files_or_not(world: HooksWorld, commit: str, weights: bytes) -> None:
    other = await world.new_repository("other")
    files = {"README.md": CARD, "config.json": json.dumps(CONFIG).encode(), "model.safetensors": weights}
    same = await world.commit(files, repository=other)
    one = await world.understand(commit)
    two = await world.understand(same, repository=other)
    assert (one.summary, one.findings) == (two.summary, two.findings)


async def test_many_ask_at_once(world: HooksWorld, commit: str) -> None:
    """Here and in another process, which may be first: nobody parses a file twice."""
    elsewhere = world.new_parsing()
    found = await asyncio.gather(
        *(world.understand(commit) for _ in range(10)),
        Versions(world.database, world.trees, elsewhere).look(world.repository.id, commit),
    )
    assert len({(one.commit, one.summary.parameters) for one in found}) == 1
    assert max(world.parsing.runs, elsewhere.runs) <= 3 <= world.parsing.runs + elsewhere.runs
    assert len(await world.stored_versions()) == 1


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
    assert ("license", "apache-2.0") in await world.facets()
    [row] = await world.stored_versions()
    assert (row.version, row.announced) == (version.VERSION, True)
    assert len(await world.events(CREATED)) == 1


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
    again = await world.understand(commit)
    assert again.is_whole
    assert again.summary.parameters == PARAMETERS
    [row] = await world.stored_versions()
    assert row.summary["parameters"] == PARAMETERS
    assert row.announced


async def test_nothing_is_stored_while_the_store_is_away(world: HooksWorld, commit: str) -> None:
    await world.lfs.store.close()
    with pytest.raises(ContentUnavailable):
        await world.received(world.metadata)
    assert await world.stored_versions() == []
    assert await world.events(CREATED) == []


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
    monkeypatch.setattr(version, "_FIRST", 2)
    made = await world.versions.look(world.repository.id, commit)
    assert made.summary.parameters == PARAMETERS


async def test_what_many_files_say_is_bounded(world: HooksWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    """However much it is, it takes no more memory than that until it is summed up."""
    kept: list[int] = []

    def weigh(files: Mapping[str, tuple[str, Parsed]], kind: RepositoryType) -> Summary:
        kept.append(sum(len(msgspec.json.encode(parsed.metadata)) for _, parsed in files.values()))
        return summarise(files, kind)

    monkeypatch.setattr(version, "summarise", weigh)
    row = ",".join(f"column_{number}" for number in range(2000)).encode()
    files = {f"{number:03}.csv": row + b"_%d\n" % number + b"1," * 1999 + b"1\n" for number in range(120)}
    repository = await world.new_repository("wide", kind=RepositoryType.DATASET)
    commit = await world.commit({**files, "README.md": CARD}, repository=repository)
    made = await world.versions.look(repository.id, commit)
    assert kept[0] <= 5 * 1024**2
    assert (made.summary.rows, made.summary.licenses) == (120, ("apache-2.0",))
    assert len(made.summary.columns) == 500


async def test_content_beyond_measure_is_told_of(world: HooksWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(version, "_DETAIL_BYTES", 0)
    monkeypatch.setattr(version, "_MOST_BYTES", 1500)
    commit = await world.commit({f"{number}/config.json": b"{}" for number in range(9)} | {"README.md": CARD})
    made = await world.versions.look(world.repository.id, commit)
    assert made.summary.licenses == ("apache-2.0",)
    [told] = [one for one in made.findings if one.code == "more-content"]
    assert "more files say too much" in told.message


async def test_missing_content_is_remembered_beyond_all_findings(
    world: HooksWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise the version would never be understood better."""
    monkeypatch.setattr(version, "_MAX_FINDINGS", 3)
    broken = {f"{number}/config.json": b"{" for number in range(5)}
    await world.commit({**broken, "z.safetensors": pointer_to(b"never uploaded")})
    await world.received(world.metadata)
    [row] = await world.stored_versions()
    made = await world.versions.look(world.repository.id, row.commit)
    assert not made.is_whole
    assert [one.code for one in made.findings] == [MISSING, "json-invalid", "json-invalid", "more-findings"]
    assert "3 more" in made.findings[-1].message


async def test_large_answers_hold_nobody_up(
    world: HooksWorld, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Long lists are decoded beside the event loop, and only for those who want them."""
    tensors = {f"model.layers.{number}.weight": np.zeros(1, np.float32) for number in range(2000)}
    weights = write_safetensors(tmp_path / "many.safetensors", tensors).read_bytes()
    await world.commit(lfs={"many.safetensors": weights})
    await world.received(world.metadata)
    [row] = await world.stored_versions()
    decoder = Watched()
    monkeypatch.setattr(parsed_files, "_decoder", decoder)
    fresh = world.new_parsing(cache_bytes=0)
    try:
        versions = Versions(world.database, world.trees, fresh)
        made = await versions.look(world.repository.id, row.commit)
        [brief] = [parsed.metadata async for _, parsed in versions.parsed(made, made.files)]
        assert decoder.threads == []
        [whole] = [parsed.metadata async for _, parsed in versions.parsed(made, made.files, lists=True)]
    finally:
        await fresh.close()
    assert brief is not None
    assert whole is not None
    assert set(whole) - set(brief) == {"tensors"}
    assert (brief["tensors_total"], len(whole["tensors"])) == (2000, 2000)
    assert len(decoder.threads) == 1
    assert decoder.threads[0] is not threading.current_thread()
    assert fresh.runs == 0


class Watched:
    """Decodes, and notes in which thread."""

    def __init__(self) -> None:
        self.threads: list[threading.Thread] = []

    def decode(self, data: bytes) -> Parsed:
        self.threads.append(threading.current_thread())
        return msgspec.json.decode(data, type=Parsed)


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
