"""The files of one commit: listed, pointers resolved, and read without ever being brought here as a whole."""

import asyncio
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest
from onnx import helper, numpy_helper

from core.access import SYSTEM, Actor
from core.errors import RevisionNotFound
from core.repositories import RepositoryInfo
from gitserver.commits import Put
from gitserver.policy import ProposedPush
from gitserver.process import GitRunner, running_children
from gitserver.queries import TooExpensive
from gitserver.updates import RefUpdate
from hooks import sources, tree_listing
from hooks.errors import ContentMissing
from hooks.formats.source import Source, SourceUnreadable, TooMuchRead
from hooks.trees import Changes, Tree, TreeFile, Trees
from tests.support.git_world import git
from tests.support.hooks_world import HooksWorld, pointer_to
from tests.support.lfs_world import oid_of
from tests.support.streams import noise

WEIGHTS = noise(900_000)


async def read(source: Source, offset: int, length: int) -> bytes:
    return await asyncio.to_thread(source.read, offset, length)


async def test_lists_what_matters_and_resolves_pointers(world: HooksWorld) -> None:
    commit = await world.commit(
        {
            "config.json": b"{}",
            "README.md": b"# hi\n",
            "docs/README.md": b"not the card\n",
            "src/train.py": b"pass\n",
            ".modelyard.toml": b"",
            "old.pkl": b"\x80\x04.",
            "small.bin": b"tiny",
        },
        lfs={"a/model.safetensors": WEIGHTS},
    )
    async with world.trees.open(world.repository.id, commit) as tree:
        assert list(tree.files) == [
            ".modelyard.toml",
            "README.md",
            "a/model.safetensors",
            "config.json",
            "old.pkl",
            "small.bin",
        ]
        model = tree.files["a/model.safetensors"]
        assert (model.size, model.lfs) == (len(WEIGHTS), oid_of(WEIGHTS))
        assert model.digest == f"sha256:{oid_of(WEIGHTS)}"
        config = tree.files["config.json"]
        assert (config.size, config.lfs, config.digest) == (2, None, f"git:{config.blob}")
        assert (tree.files_total, tree.cut) == (6, False)
        assert tree.commit == commit


async def test_reads_ranges_of_large_files(stored: HooksWorld) -> None:
    commit = await stored.commit(lfs={"model.safetensors": WEIGHTS})
    async with stored.trees.open(stored.repository.id, commit) as tree:
        async with tree.source(tree.files["model.safetensors"], 10**6) as source:
            assert source.size == len(WEIGHTS)
            assert await read(source, 0, 8) == WEIGHTS[:8]
            assert await read(source, 8, 3000) == WEIGHTS[8:3008]
            end = sources.BLOCK_BYTES
            assert await read(source, end - 1, 2) == WEIGHTS[end - 1 : end + 1]
            assert await read(source, len(WEIGHTS) - 3, 100) == WEIGHTS[-3:]
            assert await read(source, len(WEIGHTS), 100) == b""
            assert await read(source, 10**12, 100) == b""
        assert stored.counting.requests == 3
        assert stored.counting.bytes <= 3 * sources.BLOCK_BYTES


async def test_reads_no_more_than_it_may(stored: HooksWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    data = noise(3_000_000)
    commit = await stored.commit({"b.safetensors": data}, lfs={"a.safetensors": data})
    async with stored.trees.open(stored.repository.id, commit) as tree:
        for file in tree.files.values():
            async with tree.source(file, 1_500_000) as source:
                assert await read(source, 0, 1_200_000) == data[:1_200_000]
                with pytest.raises(TooMuchRead):
                    await read(source, 2_000_000, 400_000)
        # Many small reads all over the file cost whole blocks, and those are limited, too.
        monkeypatch.setattr(sources, "_WIDENED", 20 * sources.BLOCK_BYTES)
        async with tree.source(tree.files["a.safetensors"], 100_000) as source:
            with pytest.raises(TooMuchRead):
                await asyncio.to_thread(lambda: [source.read(at, 1) for at in range(0, len(data), 100_000)])


@pytest.mark.parametrize("size", [10, 1024**2, 1024**2 + 1, 5_000_000])
async def test_reads_blobs_that_are_not_in_lfs(world: HooksWorld, size: int) -> None:
    data = noise(size)
    commit = await world.commit({"model.gguf": data})
    async with (
        world.trees.open(world.repository.id, commit) as tree,
        tree.source(tree.files["model.gguf"], 2 * size) as source,
    ):
        assert await read(source, size - 5, 10) == data[-5:]
        assert await read(source, size, 10) == await read(source, 10**18, 10) == b""
        assert await read(source, 2, size // 2) == data[2 : 2 + size // 2]
        assert await read(source, 0, 4) == data[:4]
    assert running_children() == 0


async def test_does_not_inflate_without_end(world: HooksWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "REACH_BYTES", 2_000_000)
    data = noise(3_000_000)
    commit = await world.commit({"model.gguf": data})
    async with (
        world.trees.open(world.repository.id, commit) as tree,
        tree.source(tree.files["model.gguf"], 10**6) as source,
    ):
        assert await read(source, 0, 100) == data[:100]
        with pytest.raises(ContentMissing, match="LFS"):
            await read(source, len(data) - 100, 100)


async def test_an_object_is_reached_through_its_own_repository_only(world: HooksWorld) -> None:
    await world.lfs.upload(WEIGHTS, repository=await world.new_repository("other"))
    commit = await world.commit({"model.safetensors": pointer_to(WEIGHTS)})
    async with world.trees.open(world.repository.id, commit) as tree:
        file = tree.files["model.safetensors"]
        assert file.lfs == oid_of(WEIGHTS)
        assert not tree.has(file)
        with pytest.raises(ContentMissing):
            async with tree.source(file, 100):
                pass
    await world.lfs.upload(WEIGHTS)
    async with world.trees.open(world.repository.id, commit) as tree:
        assert tree.has(tree.files["model.safetensors"])


async def test_a_pointer_that_lies_about_the_size_leads_nowhere(world: HooksWorld) -> None:
    await world.lfs.upload(WEIGHTS)
    text = pointer_to(WEIGHTS).replace(b"size 900000", b"size 900001")
    commit = await world.commit({"model.safetensors": text})
    async with world.trees.open(world.repository.id, commit) as tree:
        assert not tree.has(tree.files["model.safetensors"])


async def test_reads_whole_small_files(world: HooksWorld) -> None:
    commit = await world.commit({"config.json": b'{"a": 1}'}, lfs={"README.md": b"# card\n"})
    async with world.trees.open(world.repository.id, commit) as tree:
        assert await tree.read("config.json", 100) == b'{"a": 1}'
        assert await tree.read("README.md", 100) == b"# card\n"
        assert await tree.read("absent.json", 100) is None
        with pytest.raises(TooMuchRead):
            await tree.read("config.json", 7)


async def test_a_source_is_dead_after_its_block(stored: HooksWorld) -> None:
    commit = await stored.commit({"b.gguf": noise(2_000_000)}, lfs={"a.gguf": WEIGHTS})
    async with stored.trees.open(stored.repository.id, commit) as tree:
        for file in tree.files.values():
            async with tree.source(file, 10**6) as source:
                pass
            with pytest.raises(SourceUnreadable):
                await read(source, 0, 10)


async def test_a_store_that_is_away_is_no_fault_of_the_file(world: HooksWorld) -> None:
    commit = await world.commit(lfs={"a.gguf": WEIGHTS})
    async with world.trees.open(world.repository.id, commit) as tree:
        await world.lfs.store.close()
        async with tree.source(tree.files["a.gguf"], 10**6) as source:
            with pytest.raises(SourceUnreadable) as caught:
                await read(source, 0, 10)
    assert not isinstance(caught.value, ContentMissing)


async def test_an_object_that_got_shorter_is_not_believed(world: HooksWorld) -> None:
    commit = await world.commit(lfs={"a.gguf": WEIGHTS})
    row = await world.lfs.object(oid_of(WEIGHTS))
    assert row is not None
    await world.lfs.put(row.key, WEIGHTS[:1000])
    async with (
        world.trees.open(world.repository.id, commit) as tree,
        tree.source(tree.files["a.gguf"], 10**6) as source,
    ):
        with pytest.raises(SourceUnreadable):
            await read(source, 0, 2000)


async def test_whoever_leaves_takes_the_children_along(world: HooksWorld) -> None:
    commit = await world.commit({"config.json": b"{}", "b.gguf": noise(2_000_000)})
    entered = asyncio.Event()

    async def stay() -> None:
        async with world.trees.open(world.repository.id, commit) as tree:
            await tree.read("config.json", 10)
            async with tree.source(tree.files["b.gguf"], 100) as source:
                await read(source, 0, 10)
                entered.set()
                await asyncio.Event().wait()

    task = asyncio.ensure_future(stay())
    await entered.wait()
    assert running_children() == 2
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert running_children() == 0


async def test_a_cancelled_read_does_not_mix_up_the_next_one(world: HooksWorld) -> None:
    files = {f"{number}.jsonl": noise(900_000) for number in range(4)}
    commit = await world.commit(files)
    async with world.trees.open(world.repository.id, commit) as tree:
        for _ in range(5):
            task = asyncio.ensure_future(tree.read("0.jsonl", 10**6))
            await asyncio.sleep(0.001)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            assert await tree.read("1.jsonl", 10**6) == files["1.jsonl"]


async def test_many_read_at_once(world: HooksWorld) -> None:
    files = {f"{number}.jsonl": noise(50_000 + number) for number in range(30)}
    large = {f"{number}.gguf": noise(200_000 + number) for number in range(5)}
    commit = await world.commit(files, lfs=large)
    async with world.trees.open(world.repository.id, commit) as tree:
        found = await asyncio.gather(*(tree.read(path, 10**6) for path in (*files, *large)))
    assert found == [*files.values(), *large.values()]


async def test_unknown_commits_are_not_found(world: HooksWorld) -> None:
    await world.commit({"config.json": b"{}"})
    for oid in ("1" * 40, "0" * 40):
        with pytest.raises(RevisionNotFound):
            async with world.trees.open(world.repository.id, oid):
                pass


async def test_says_when_it_stops_counting(world: HooksWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tree_listing, "MAX_FILES", 3)
    commit = await world.commit({f"{number}.csv": b"a\n" for number in range(5)})
    async with world.trees.open(world.repository.id, commit) as tree:
        assert (len(tree.files), tree.files_total, tree.cut) == (3, 5, True)


async def test_paths_without_end_are_not_listed(world: HooksWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    commit = await world.commit({f"{'x' * 200}/{'y' * 200}/config.json": b"{}"})
    for bound in ("_MAX_TOKEN_BYTES", "_MAX_BYTES"):
        with monkeypatch.context() as patched:
            patched.setattr(tree_listing, bound, 100)
            patched.setattr(tree_listing, "CHUNK_BYTES", 300)
            with pytest.raises(TooExpensive):
                async with world.trees.open(world.repository.id, commit):
                    pass
    async with world.trees.open(world.repository.id, commit) as tree:
        assert len(tree.files) == 1


async def test_reads_an_onnx_file_of_many_large_tensors(stored: HooksWorld) -> None:
    """What lies between them is neither read nor counted against what may be read."""
    wanted = 400
    tensors = [numpy_helper.from_array(np.zeros(75_000, np.float32), f"w{one}") for one in range(wanted)]
    graph = helper.make_graph([], "g", [], [], initializer=tensors)
    commit = await stored.commit(lfs={"model.onnx": helper.make_model(graph).SerializeToString()})
    made = await stored.versions.look(stored.repository.id, commit)
    assert (made.summary.parameters, made.findings) == (wanted * 75_000, ())
    assert stored.counting.bytes < wanted * 75_000  # a quarter of it


async def test_symbolic_links_submodules_and_odd_names(world: HooksWorld, tmp_path: Path) -> None:
    work = tmp_path / "work"
    git(tmp_path, "init", "-q", "-b", "main", work)
    blob = git(work, "hash-object", "-w", "--stdin", data=b"{}").strip()
    lines = [
        b"120000 blob %s\tconfig.json\0" % blob,
        b"160000 commit %s\tsub.csv\0" % (b"1" * 40),
        b"100755 blob %s\trun\ttab.csv\0" % blob,
        b"100644 blob %s\t\xff.csv\0" % blob,
        b"100644 blob %s\t\\xff.csv\0" % blob,
        b"100644 blob %s\tnew\nline.csv\0" % blob,
    ]
    tree_oid = git(work, "mktree", "-z", "--missing", data=b"".join(lines)).decode().strip()
    oid = git(work, "commit-tree", tree_oid, "-m", "odd").decode().strip()
    git(work, "update-ref", "refs/heads/main", oid)
    git(work, "repack", "-adq")
    repository = await world.git.adopt(work / ".git", name="odd")
    async with world.trees.open(repository.id, oid) as tree:
        assert sorted(tree.files) == ["\\xff.csv", "\\xff.csv?3", "new\nline.csv", "run\ttab.csv"]
        for path in tree.files:
            assert await tree.read(path, 10) == b"{}"


async def test_changed_paths(world: HooksWorld) -> None:
    first = await world.commit({"a/config.json": b"{}", "b.txt": b"b"})
    second = await world.commit({"a/config.json": b"{ }", "c.txt": b"b"})
    every = await world.trees.changed(world.repository.id, None, second)
    assert (list(every.paths), every.cut) == (["a/config.json", "b.txt", "c.txt"], False)
    assert list((await world.trees.changed(world.repository.id, "0" * 40, first)).paths) == [
        "a/config.json",
        "b.txt",
    ]
    changed = await world.trees.changed(world.repository.id, first, second)
    assert list(changed.paths) == ["a/config.json", "c.txt"]
    with pytest.raises(RevisionNotFound):
        await world.trees.changed(world.repository.id, "1" * 40, second)


class Looking:
    """A policy that reads the proposed commit."""

    def __init__(self, world: HooksWorld) -> None:
        self._world = world
        self.seen: dict[str, bytes | None] = {}
        self.files: list[TreeFile] = []

    async def before_pack(
        self, repository: RepositoryInfo, actor: Actor, updates: Sequence[RefUpdate]
    ) -> Mapping[str, str]:
        return {}

    async def check(self, push: ProposedPush) -> Mapping[str, str]:
        async with self._world.trees.proposed(push, push.updates[0].new) as tree:
            self.files = list(tree.files.values())
            self.seen = await self._read(tree)
        return {one.name: "no" for one in push.updates}

    async def _read(self, tree: Tree) -> dict[str, bytes | None]:
        return {path: await tree.read(path, 10**7) for path in tree.files}


async def test_reads_what_is_only_proposed(world: HooksWorld) -> None:
    await world.commit({"config.json": b"{}"})
    await world.lfs.upload(WEIGHTS)
    policy = Looking(world)
    world.git.policies.append(policy)
    large = noise(2_000_000)
    puts = [Put("new.gguf", pointer_to(WEIGHTS)), Put("large.onnx", large), Put("card.csv", b"a,b\n")]
    with pytest.raises(Exception, match="no"):
        await world.git.committer.commit(world.repository, SYSTEM, "main", puts, "proposed")
    assert policy.seen == {
        "config.json": b"{}",
        "new.gguf": WEIGHTS,
        "large.onnx": large,
        "card.csv": b"a,b\n",
    }


class Comparing(Looking):
    """A policy that asks what changed, so many times."""

    def __init__(self, world: HooksWorld, trees: Trees, times: int) -> None:
        super().__init__(world)
        self._trees = trees
        self._times = times
        self.changes: list[Changes] = []

    async def check(self, push: ProposedPush) -> Mapping[str, str]:
        (update,) = push.updates
        for _ in range(self._times):
            self.changes.append(await self._trees.proposed_changes(push, update.old, update.new))
        return {}


@pytest.mark.parametrize(("times", "children"), [(1, 1), (2, 1), (3, 2)])
async def test_who_asks_second_what_a_push_changes_need_not_wait(
    world: HooksWorld, tmp_path: Path, times: int, children: int
) -> None:
    program, log = tmp_path / "noting-git", tmp_path / "noted"
    program.write_text(f'#!/bin/sh\necho "$1" >> {log}\nexec git "$@"\n')
    program.chmod(0o755)
    git = GitRunner(str(program))
    trees = Trees(git, world.git.snapshots, world.keeping.world.objects, world.stores)
    await world.commit({"a.txt": b"1"})
    policy = Comparing(world, trees, times)
    world.git.policies.append(policy)
    for number, path in enumerate(["b.txt", "c.txt"]):
        await world.commit({path: b"%d" % number})
        assert [list(one.paths) for one in policy.changes] == [[path]] * times
        policy.changes.clear()
    assert log.read_text().split() == ["diff-tree"] * children * 2


async def test_long_answers_are_not_kept(world: HooksWorld) -> None:
    await world.commit({"a.txt": b"1"})
    policy = Comparing(world, world.trees, 1)
    world.git.policies.append(policy)
    await world.commit({f"{number:0200}.txt": b"2" for number in range(400)})
    await world.commit({"b.txt": b"3"})
    assert [len(one.paths) for one in policy.changes] == [400, 1]
    assert [list(one.paths) for one in world.trees._asked.values()] == [["b.txt"]]
