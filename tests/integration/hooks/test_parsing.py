"""Files are parsed in threads, once for each content, whoever has it and whichever process asks."""

import asyncio
import hashlib
import json
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from sqlalchemy import update

from core.models import ParsedFile
from hooks import parsing
from hooks.errors import ContentMissing
from hooks.formats import registry
from hooks.formats.parsed import Finding, Parsed, Severity
from hooks.formats.registry import Format
from hooks.formats.source import Source, SourceUnreadable
from hooks.parsing import FAILED, Parsing, Understood
from tests.support.hooks_world import HooksWorld, pointer_to
from tests.support.model_files import llama_tensors, raw_safetensors, write_safetensors

CONFIG = json.dumps({"architectures": ["LlamaForCausalLM"], "hidden_size": 8}).encode()


@pytest.fixture
def weights(tmp_path: Path) -> bytes:
    return write_safetensors(tmp_path / "model.safetensors", llama_tensors()).read_bytes()


async def parse(
    world: HooksWorld, commit: str, path: str, *, by: Parsing | None = None, remember: bool = True
) -> Understood | None:
    async with world.trees.open(world.repository.id, commit) as tree:
        return await (by or world.parsing).parse(tree, tree.files[path], remember=remember)


async def metadata(world: HooksWorld, commit: str, path: str, *, by: Parsing | None = None) -> object:
    found = await parse(world, commit, path, by=by)
    assert found is not None
    return found[1].metadata


async def test_the_same_in_git_and_in_large_files(stored: HooksWorld, weights: bytes) -> None:
    commit = await stored.commit(
        {"a.safetensors": weights, "config.json": CONFIG}, lfs={"b.safetensors": weights}
    )
    first = await metadata(stored, commit, "a.safetensors")
    assert isinstance(first, dict)
    assert first["parameters_total"] == sum(tensor.size for tensor in llama_tensors().values())
    assert await metadata(stored, commit, "b.safetensors") == first
    assert await parse(stored, commit, "config.json") is not None
    # Two contents by name: that of an LFS object, and that of a blob.
    assert {row.parser for row in await stored.parsed_files()} == {"safetensors", "config"}
    assert len(await stored.parsed_files()) == 3


async def test_a_content_is_parsed_once(world: HooksWorld, weights: bytes) -> None:
    commit = await world.commit(
        {"config.json": CONFIG}, lfs={f"{number}/model.safetensors": weights for number in range(3)}
    )
    async with world.trees.open(world.repository.id, commit) as tree:
        files = list(tree.files.values())
        answers = [one async for one in world.parsing.parse_each(tree, files, remember=True)]
        assert [file.path for file, _ in answers] == list(tree.files)
    assert world.parsing.runs == 2
    later = world.new_parsing()
    try:
        assert await metadata(world, commit, "1/model.safetensors", by=later)
        assert await metadata(world, commit, "config.json", by=later)
        assert later.runs == 0
    finally:
        await later.close()


async def test_a_gate_writes_nothing_and_spares_the_work_that_follows(
    world: HooksWorld, weights: bytes
) -> None:
    commit = await world.commit(lfs={"model.safetensors": weights})
    first = await parse(world, commit, "model.safetensors", remember=False)
    assert await world.parsed_files() == []
    assert await parse(world, commit, "model.safetensors") == first
    assert world.parsing.runs == 1
    assert [row.parser for row in await world.parsed_files()] == ["safetensors"]


async def test_knowing_an_oid_tells_nothing(world: HooksWorld, weights: bytes) -> None:
    commit = await world.commit(lfs={"model.safetensors": weights})
    await parse(world, commit, "model.safetensors")
    thief = await world.new_repository("thief")
    stolen = await world.commit({"model.safetensors": pointer_to(weights)}, repository=thief)
    async with world.trees.open(thief.id, stolen) as tree:
        with pytest.raises(ContentMissing):
            await world.parsing.parse(tree, tree.files["model.safetensors"], remember=True)


async def test_files_of_no_format_are_passed_over(world: HooksWorld) -> None:
    commit = await world.commit({"old.pkl": b"\x80\x04.", ".modelyard.toml": b""})
    assert await parse(world, commit, "old.pkl") is None
    assert world.parsing.runs == 0


async def test_a_newer_parser_parses_again_and_replaces(
    world: HooksWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit = await world.commit({"config.json": CONFIG})
    await parse(world, commit, "config.json")
    newer = replace(config_format(), version=config_format().version + 1)
    monkeypatch.setattr(registry, "_BY_NAME", {"config.json": newer})
    await parse(world, commit, "config.json")
    assert world.parsing.runs == 2
    [row] = await world.parsed_files()
    assert row.version == newer.version


async def test_two_processes_may_parse_the_same_at_once(world: HooksWorld, weights: bytes) -> None:
    files = {f"{number}.csv": b"a,b\n%d,1\n" % number for number in range(40)}
    commit = await world.commit(files, lfs={"model.safetensors": weights})
    others = [world.new_parsing() for _ in range(3)]

    async def read_all(by: Parsing) -> list[object]:
        async with world.trees.open(world.repository.id, commit) as tree:
            each = by.parse_each(tree, list(tree.files.values()), remember=True)
            return [(file.path, answer) async for file, answer in each]

    try:
        found = await asyncio.gather(*map(read_all, others))
    finally:
        for other in others:
            await other.close()
    assert len(found[0]) == 41
    assert found[0] == found[1] == found[2]
    assert len(await world.parsed_files()) == 41


async def test_what_is_stored_is_believed(world: HooksWorld) -> None:
    commit = await world.commit({"config.json": CONFIG})
    await parse(world, commit, "config.json")
    async with world.database.transaction() as session:
        await session.execute(
            update(ParsedFile).values(
                metadata_={"model_type": "stored"},
                findings=[{"severity": "warning", "code": "x", "message": "y", "path": "", "line": 3}],
            )
        )
    other = world.new_parsing()
    try:
        found = await parse(world, commit, "config.json", by=other)
    finally:
        await other.close()
    assert found is not None
    assert found[1] == Parsed({"model_type": "stored"}, (Finding(Severity.WARNING, "x", "y", line=3),))


async def test_memory_is_bounded(world: HooksWorld) -> None:
    files = {f"{number}.csv": b"a,b\n%d,1\n" % number for number in range(40)}
    commit = await world.commit(files)
    small = world.new_parsing(cache_bytes=1000)
    try:
        for _ in range(2):
            for path in files:
                assert await metadata(world, commit, path, by=small)
        assert small.runs == 40
        assert small._files._bytes <= 1000
    finally:
        await small.close()


Parse = Callable[[Source], Parsed]


def config_format() -> Format:
    return next(one for one in registry.FORMATS if one.name == "config")


def replace_parser(monkeypatch: pytest.MonkeyPatch, parse: Parse) -> Format:
    """Makes `config.json` be parsed by something else."""
    changed = replace(config_format(), parse=parse)
    monkeypatch.setattr(registry, "_BY_NAME", {"config.json": changed})
    return changed


def broken(_source: Source) -> Parsed:
    raise RuntimeError("a bug")


def greedy(_source: Source) -> Parsed:
    raise MemoryError


def verbose(_source: Source) -> Parsed:
    return Parsed({"a": "x" * 5_000_000})


def unstorable(_source: Source) -> Parsed:
    return Parsed({"a": object()})


@pytest.mark.parametrize("parser", [broken, greedy, verbose, unstorable])
async def test_a_broken_parser_is_a_finding(
    world: HooksWorld, monkeypatch: pytest.MonkeyPatch, parser: Parse, capsys: pytest.CaptureFixture[str]
) -> None:
    commit = await world.commit({"config.json": CONFIG})
    replace_parser(monkeypatch, parser)
    found = await parse(world, commit, "config.json")
    assert found is not None
    assert found[1].metadata is None
    assert [one.code for one in found[1].findings] == [FAILED]
    assert "parser." in capsys.readouterr().out
    # The next process, with a better parser, will not be told of it.
    assert await world.parsed_files() == []


async def test_a_parser_that_never_ends_is_given_up(
    world: HooksWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended = False

    def endless(source: Source) -> Parsed:
        nonlocal ended
        time.sleep(1.5)
        ended = True
        return Parsed({})

    monkeypatch.setattr(parsing, "_OWN_SECONDS", 0.3)
    replace_parser(monkeypatch, endless)
    commit = await world.commit({"config.json": CONFIG})
    found = await parse(world, commit, "config.json")
    assert found is not None
    assert [one.code for one in found[1].findings] == [FAILED]
    assert not ended


async def test_files_that_parsers_are_stuck_in_keep_nobody_waiting(
    world: HooksWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where no thread is left, whoever asks is told so, and may try again."""
    released = threading.Event()

    def endless(source: Source) -> Parsed:
        released.wait(300)
        return Parsed({})

    monkeypatch.setattr(parsing, "_OWN_SECONDS", 0.1)
    monkeypatch.setattr(parsing, "_READING_SECONDS", 0.1)
    replace_parser(monkeypatch, endless)
    commit = await world.commit({f"{number}/config.json": b'{"a": %d}' % number for number in range(5)})
    async with asyncio.timeout(60), world.trees.open(world.repository.id, commit) as tree:
        each = world.parsing.parse_each(tree, list(tree.files.values()), remember=False)
        answers = [answer async for _, answer in each]
    released.set()
    busy = [str(answer) for answer in answers if isinstance(answer, SourceUnreadable)]
    assert busy == ["every parser is busy"] * 3


async def test_waiting_for_bytes_is_not_held_against_a_parser(
    world: HooksWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parsing, "_OWN_SECONDS", 0.3)
    commit = await world.commit(lfs={"config.json": CONFIG + b" " * 2000})
    world.counting.pause = 1.6
    assert await metadata(world, commit, "config.json")


async def test_bytes_that_never_come_are_given_up(world: HooksWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parsing, "_READING_SECONDS", 0.3)
    commit = await world.commit(lfs={"config.json": CONFIG + b" " * 2000})
    world.counting.pause = 60
    with pytest.raises(SourceUnreadable):
        await parse(world, commit, "config.json")
    assert await world.parsed_files() == []


async def test_nothing_is_concluded_from_a_store_that_is_away(world: HooksWorld, weights: bytes) -> None:
    commit = await world.commit(lfs={"model.safetensors": weights})
    await world.lfs.store.close()
    with pytest.raises(SourceUnreadable):
        await parse(world, commit, "model.safetensors")
    assert await world.parsed_files() == []


async def test_twenty_gigabytes_cost_a_few_kilobytes(world: HooksWorld) -> None:
    size = 20 * 1024**3
    header = {"w": {"dtype": "F32", "shape": [size // 4], "data_offsets": [0, size]}}
    head = raw_safetensors(header)
    oid = hashlib.sha256(head).hexdigest()  # nobody can hash this many zeros in a test
    await world.adopt_sparse(oid, len(head) + size, head)
    pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:%s\nsize %d\n"
    commit = await world.commit({"model.safetensors": pointer % (oid.encode(), len(head) + size)})
    found = await parse(world, commit, "model.safetensors")
    assert found is not None
    assert found[1].findings == ()
    assert found[1].metadata is not None
    assert found[1].metadata["parameters"] == {"F32": size // 4}
    assert 0 < world.counting.bytes < 1024**2


async def test_cancelling_leaves_no_thread_that_reads(world: HooksWorld, weights: bytes) -> None:
    commit = await world.commit(lfs={"model.safetensors": weights})
    world.counting.pause = 60
    task = asyncio.ensure_future(parse(world, commit, "model.safetensors"))
    while not world.counting.requests:  # noqa: ASYNC110 - nothing tells
        await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await asyncio.wait_for(world.parsing.close(), 30)
