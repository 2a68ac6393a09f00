"""The blobs that a push adds, those that a repository reaches, and what commits touch."""

import asyncio
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from core.access import Actor
from core.models import Ref
from core.repositories import RepositoryInfo
from gitserver.listings import ObjectsUnreadable
from gitserver.policy import ProposedPush
from gitserver.process import GitRunner
from gitserver.publish import advance, lock_repository
from gitserver.reachable import reachable_blobs
from gitserver.small_blobs import new_blobs
from gitserver.touches import changed_paths
from gitserver.updates import RefUpdate
from tests.support.git_pushes import push, push_pack
from tests.support.git_world import GitWorld, git
from tests.support.wire import PackBuilder, commit_body, oid_of, tree_body, varint

MAIN = "refs/heads/main"


class Watch:
    """A policy that notes what it sees and refuses nothing."""

    def __init__(self, git: GitRunner, *, max_bytes: int = 1000, among: Sequence[str] = ()) -> None:
        self._git = git
        self._max = max_bytes
        self._among = among
        self.blobs: list[tuple[str, bytes]] = []
        self.changed: list[str] = []

    async def before_pack(
        self, repository: RepositoryInfo, actor: Actor, updates: Sequence[RefUpdate]
    ) -> Mapping[str, str]:
        return {}

    async def check(self, push: ProposedPush) -> Mapping[str, str]:
        async with new_blobs(self._git, push.quarantine, max_bytes=self._max) as blobs:
            self.blobs = [(blob.path, blob.data) async for blob in blobs]
        async with changed_paths(self._git, push.quarantine, push.updates, among=self._among) as paths:
            self.changed = [path async for path in paths]
        return {}


@pytest.fixture
def watch(world: GitWorld) -> Watch:
    policy = Watch(world.git)
    world.policies.append(policy)
    return policy


class Work:
    """A client's repository, written without a working tree, so that any path will do."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.mkdir()
        git(path, "init", "-q", "--bare", "-b", "main", ".")

    def commit(
        self, files: Mapping[bytes, bytes | None], *, branch: str = "main", merge: Sequence[str] = ()
    ) -> str:
        """Commits on a branch; None deletes. `merge` are further parents."""
        head = f"commit refs/heads/{branch}\ncommitter B <b@x> 1600000000 +0000\ndata 1\nm\n".encode()
        tip = git(self.path, "rev-parse", "-q", "--verify", f"refs/heads/{branch}", check=False).decode()
        if tip:
            head += f"from {tip.strip()}\n".encode()
        head += b"".join(b"merge %s\n" % one.encode() for one in merge)
        for path, data in files.items():
            quoted = b'"' + b"".join(b"\\%03o" % byte for byte in path) + b'"'
            if data is None:
                head += b"D %s\n" % quoted
            else:
                head += b"M 100644 inline %s\ndata %d\n%s\n" % (quoted, len(data), data)
        git(self.path, "fast-import", "--quiet", data=head)
        return git(self.path, "rev-parse", branch).decode().strip()


@pytest.fixture
def work(tmp_path: Path) -> Work:
    return Work(tmp_path / "work")


async def test_only_what_is_new_and_small(world: GitWorld, watch: Watch, work: Work) -> None:
    repository = await world.repository()
    work.commit({b"old": b"old", b"big": b"x" * 1001, b"edge": b"y" * 1000})
    assert (await push(world, repository, work.path, [MAIN])).ok
    assert dict(watch.blobs) == {"old": b"old", "edge": b"y" * 1000}
    work.commit({b"new": b"new", b"copy of old": b"old", b"empty": b""})
    assert (await push(world, repository, work.path, [MAIN])).ok
    assert dict(watch.blobs) == {"new": b"new", "empty": b""}
    git(work.path, "tag", "again", "main~1")
    assert (await push(world, repository, work.path, ["refs/tags/again"])).ok
    assert watch.blobs == []
    assert (await push(world, repository, work.path, [":refs/tags/again"])).ok
    assert watch.blobs == []


async def test_what_only_lay_about_is_new_again(world: GitWorld, watch: Watch, work: Work) -> None:
    """Its objects are stored, but nothing reaches them: the blob is new, though nothing is sent."""
    repository = await world.repository()
    work.commit({b"base": b"base"})
    work.commit({b"side": b"side"}, branch="side")
    assert (await push(world, repository, work.path, [MAIN, "refs/heads/side"])).ok
    assert (await push(world, repository, work.path, [":refs/heads/side"])).ok
    assert (await push(world, repository, work.path, ["refs/heads/side"])).ok
    assert watch.blobs == [("side", b"side")]


HOSTILE = [
    b" leading",
    b"trailing ",
    b"tab\there",
    b'quote"',
    b"back\\slash",
    b"caf\xe9",
    b"\xff\xfe/\x80",
    "größe/日本".encode(),
    b"-option",
    b"a missing",
    b"\x1b[31mred",
    b"cr\rhere",
]


async def test_hostile_paths(world: GitWorld, watch: Watch, work: Work) -> None:
    repository = await world.repository()
    work.commit({path: b"%d" % number for number, path in enumerate(HOSTILE)})
    assert (await push(world, repository, work.path, [MAIN])).ok
    wanted = {path.decode("utf-8", "surrogateescape"): b"%d" % number for number, path in enumerate(HOSTILE)}
    assert dict(watch.blobs) == wanted
    assert sorted(watch.changed) == sorted(wanted)


async def test_line_feeds_in_paths(world: GitWorld, watch: Watch, work: Work) -> None:
    """Git's list ends such a path early; no object is lost or confused by that."""
    repository = await world.repository()
    fake = f"x\n{'0' * 40} fake".encode()
    files = {b"a\nb": b"1", b"d\nir/f": b"2", fake: b"3", b"\n": b"4", b"plain": b"5", b"e\n": b"6"}
    work.commit(files)
    assert (await push(world, repository, work.path, [MAIN])).ok
    assert sorted(data for _, data in watch.blobs) == [b"%d" % number for number in range(1, 7)]
    assert dict(watch.blobs)["plain"] == b"5"
    assert set(watch.changed) == {path.decode() for path in files}  # exact, line feeds and all


async def test_tags_of_blobs_and_trees(world: GitWorld, watch: Watch, work: Work) -> None:
    repository = await world.repository()
    blob = git(work.path, "hash-object", "-w", "--stdin", data=b"bare").decode().strip()
    inner = git(work.path, "hash-object", "-w", "--stdin", data=b"in tree").decode().strip()
    tree = git(work.path, "mktree", data=f"100644 blob {inner}\tfile\n".encode()).decode().strip()
    git(work.path, "tag", "-a", "-m", "x", "blob", blob)
    git(work.path, "tag", "tree", tree)
    assert (await push(world, repository, work.path, ["refs/tags/blob", "refs/tags/tree"])).ok
    assert sorted(data for _, data in watch.blobs) == [b"bare", b"in tree"]


async def test_a_broken_ref_beside_a_good_one(world: GitWorld, watch: Watch, work: Work) -> None:
    """The list is of what may land, not of what was refused before."""
    repository = await world.repository()
    work.commit({b"good": b"good"})
    git(work.path, "update-ref", "refs/heads/good", "main")
    blob = git(work.path, "hash-object", "-w", "--stdin", data=b"no commit").decode().strip()
    (work.path / "refs" / "heads" / "bad").write_text(blob + "\n")
    pushed = await push(world, repository, work.path, ["refs/heads/bad", "refs/heads/good"])
    assert pushed.report.refs["refs/heads/good"] == "ok"
    assert "must name a commit" in pushed.report.refs["refs/heads/bad"]
    assert watch.blobs == [("good", b"good")]


async def test_directories_that_hold_each_other(world: GitWorld, work: Work) -> None:
    """Ten levels of ten: ten thousand million paths, in a pack of a few hundred bytes."""
    repository = await world.repository()
    oid = git(work.path, "hash-object", "-w", "--stdin", data=b"bomb").decode().strip()
    kind = "100644 blob"
    for _ in range(10):
        rows = "".join(f"{kind} {oid}\t{number}\n" for number in range(10))
        oid, kind = git(work.path, "mktree", data=rows.encode()).decode().strip(), "040000 tree"
    commit = git(work.path, "commit-tree", "-m", "x", oid).decode().strip()
    git(work.path, "update-ref", MAIN, commit)
    watch = Watch(world.git, among=["0/1/2/3/4/5/6/7/8/9", "locked"])
    world.policies.append(watch)
    async with asyncio.timeout(30):
        assert (await push(world, repository, work.path, [MAIN])).ok
    assert watch.blobs == [("0/" * 9 + "0", b"bomb")]
    assert watch.changed == ["0/1/2/3/4/5/6/7/8/9"]


async def test_a_small_blob_on_a_huge_base(world: GitWorld, watch: Watch) -> None:
    """Each of a thousand such deltas would cost the memory and time of its base."""
    repository = await world.repository()
    size = 100 * 1024**2
    pack = PackBuilder()
    base = pack.add("blob", bytes(size))
    pack.add_ref_delta(base, varint(size) + varint(100) + b"\x90\x64")  # copy 100 bytes from the start
    small = oid_of("blob", bytes(100))
    tree = pack.add("tree", tree_body([("100644", "base", base), ("100644", "small", small)]))
    tip = pack.add("commit", commit_body(tree))
    pushed = await push_pack(world, repository, [("0" * 40, tip, MAIN)], pack.build())
    assert pushed.report.refs == {MAIN: f"object {small} cannot be read"}
    assert (await world.snapshots.state(repository.id)).refs == {}


async def test_changed_paths_of_merges(world: GitWorld, watch: Watch, work: Work) -> None:
    repository = await world.repository()
    work.commit({b"a": b"1", b"b": b"1", b"gone": b"1"})
    base = work.commit({})
    git(work.path, "update-ref", "refs/heads/theirs", base)
    theirs = work.commit({b"b": b"2", b"only theirs": b"1"}, branch="theirs")
    assert (await push(world, repository, work.path, [MAIN, "refs/heads/theirs"])).ok
    work.commit({b"a": b"2", b"gone": None})
    work.commit({b"b": b"2", b"only theirs": b"1", b"evil": b"1"}, merge=[theirs])
    assert (await push(world, repository, work.path, [MAIN])).ok
    assert sorted(watch.changed) == ["a", "evil", "gone"]


async def test_changed_paths_see_what_was_undone(world: GitWorld, work: Work) -> None:
    repository = await world.repository()
    work.commit({b"dir/f": b"1", b"dir": None, b"other": b"1"})
    watch = Watch(world.git, among=["dir/f"])
    world.policies.append(watch)
    work.commit({b"dir/f": b"1"})
    assert (await push(world, repository, work.path, [MAIN])).ok
    work.commit({b"dir/f": b"2", b"other": b"2"})
    work.commit({b"dir/f": b"1", b"other": b"3"})
    assert (await push(world, repository, work.path, [MAIN])).ok
    assert watch.changed == ["dir/f", "dir/f"]


async def reached(
    world: GitWorld, repository: RepositoryInfo, *tips: str
) -> tuple[dict[str, bytes], frozenset[str]]:
    async with reachable_blobs(
        world.git, world.snapshots, repository.id, max_bytes=100, further_tips=tips
    ) as found:
        state = await world.snapshots.state(repository.id)
        assert (found.state.version, found.state.state) == (state.version, state.state)
        return {blob.path: blob.data async for blob in found.blobs}, found.gone


async def test_reachable(world: GitWorld, work: Work) -> None:
    repository = await world.repository()
    assert await reached(world, repository, "0" * 40) == ({}, frozenset())
    work.commit({b"a": b"old", b"big": b"x" * 101})
    work.commit({b"a": b"new", b"b": b"1"})
    kept = work.commit({b"kept": b"kept"}, branch="side")
    assert (await push(world, repository, work.path, [MAIN, "refs/heads/side"])).ok
    assert (await push(world, repository, work.path, [":refs/heads/side"])).ok
    async with reachable_blobs(world.git, world.snapshots, repository.id, max_bytes=100) as found:
        assert sorted([blob.data async for blob in found.blobs]) == [b"1", b"new", b"old"]
    blobs, gone = await reached(world, repository, kept, "1" * 40)
    assert blobs["kept"] == b"kept"
    assert gone == {"1" * 40}
    assert world.leftovers() == []


# A git that knows how large everything is, and no more.
_INFO = "while read verb oid; do case $verb in info) echo $oid blob 1 ;; contents) {} ;; esac; done"


async def test_reachable_fails_closed(world: GitWorld, work: Work, tmp_path: Path) -> None:
    """Whatever git cannot read, nothing may be taken for unreachable."""
    repository = await world.repository()
    work.commit({b"a": b"1"})
    work.commit({b"b": b"2"})
    assert (await push(world, repository, work.path, [MAIN])).ok
    for command, action in [
        ("rev-list", "exit 1"),
        ("rev-list", "kill -9 $$"),
        ("--batch-check=%(objectname)", "echo nonsense; exit 0"),
        ("--batch-check=%(objectname)", "exit 1"),
        ("--batch-command", "exit 0"),
        ("--batch-command", "echo blob 1; exit 1"),
        ("--batch-command", _INFO.format("exit 0")),
        ("--batch-command", _INFO.format("echo $oid missing; cat >/dev/null")),
        ("--batch-command", _INFO.format("echo $oid blob 2; echo; exit 0")),
    ]:
        program = tmp_path / "git"
        program.write_text(f'#!/bin/sh\ncase " $* " in *" {command}"*) {action};; esac\nexec git "$@"\n')
        program.chmod(0o755)
        world.git = GitRunner(str(program))
        with pytest.raises(ObjectsUnreadable):
            await reached(world, repository, "1" * 40)
    world.git = GitRunner()
    assert (await reached(world, repository))[0] == {"a": b"1", "b": b"2"}


async def test_a_ref_without_its_object_is_noticed(world: GitWorld, work: Work) -> None:
    """Git's own `--all` would pass over it."""
    repository = await world.repository()
    work.commit({b"a": b"1"})
    assert (await push(world, repository, work.path, [MAIN])).ok
    async with world.database.transaction() as session:
        session.add(Ref(repository_id=repository.id, name="refs/heads/side", oid="1" * 40))
        advance(await lock_repository(session, repository.id))
    with pytest.raises(ObjectsUnreadable, match="1111"):
        await reached(world, repository)
