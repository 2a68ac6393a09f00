"""Commits made by the server: the tree is the one git makes of the same edit, and fsck finds nothing."""

import os
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime
from pathlib import Path

import pytest
from sqlalchemy import select

from core.database import Database
from core.errors import (
    AlreadyExists,
    EntryNotFound,
    InvalidName,
    ModelyardError,
    PayloadTooLarge,
    PushRefused,
    RefConflict,
    RevisionNotFound,
    StaleParent,
)
from core.models import ObjectFormat, Pack, PackKind, Push, Transport
from core.repositories import RepositoryInfo
from core.settings import GitSettings
from gitserver.commits import Committed, Delete, Move, NothingToCommit, Operation, Put
from gitserver.edits import PathConflict
from gitserver.identities import Identity, InvalidIdentity, InvalidMessage
from gitserver.paths import InvalidPath
from tests.support.git_world import ACTOR, GitWorld, git, open_world

FORMATS = list(ObjectFormat)
SMALL = GitSettings(max_object_bytes=1024**2, max_pack_bytes=3 * 1024**2)


async def commit(
    world: GitWorld, repository: RepositoryInfo, *operations: Operation, branch: str = "main"
) -> Committed:
    return await world.committer.commit(repository, ACTOR, branch, operations, "a message")


async def pieces(*parts: bytes) -> AsyncIterator[bytes]:
    for part in parts:
        yield part


def run(work: Path, script: str) -> None:
    """Edits a work tree by hand and stages everything."""
    for line in script.strip().splitlines():
        words = line.split()
        if words[0] == "write":
            (work / words[1]).parent.mkdir(parents=True, exist_ok=True)
            (work / words[1]).unlink(missing_ok=True)
            (work / words[1]).write_text(words[2])
        elif words[0] == "mkdir":
            (work / words[1]).mkdir()
        elif words[0] == "chmod":
            (work / words[2]).chmod(int(words[1], 8))
        else:
            git(work, *words)
    git(work, "add", "-A", "--", ":!sub")


@pytest.mark.parametrize(
    ("operations", "script"),
    [
        ([Put("new.txt", b"1")], "write new.txt 1"),
        ([Put("x/y/z/new.txt", b"1")], "write x/y/z/new.txt 1"),
        ([Put("run.sh", b"#!")], "write run.sh #!\nchmod 755 run.sh"),
        ([Put("run.sh", b"#!", executable=False)], "write run.sh #!"),
        ([Put("a.txt", b"#!", executable=True)], "write a.txt #!\nchmod 755 a.txt"),
        ([Put("link", b"file")], "write link file"),
        ([Delete("empty")], "rm -q empty"),
        ([Delete("a/inside")], "rm -q a/inside"),
        ([Delete("data/deep", recursive=True)], "rm -q -r data/deep"),
        ([Delete("sub")], "rm -q --cached sub"),
        ([Move("a.txt", "b/c.txt")], "mkdir b\nmv a.txt b/c.txt"),
        ([Move("data", "moved")], "mv data moved"),
        ([Move("link", "data/link")], "mv link data/link"),
        (
            [Put("n", b"1"), Move("n", "m"), Delete("a", recursive=True), Put("a", b"now")],
            "write m 1\nrm -q -r a\nwrite a now",
        ),
        (
            [Move("data/deep", "d"), Delete("data", recursive=True), Put("data/one", b"1")],
            "mv data/deep d\nrm -q -r data\nwrite data/one 1",
        ),
        ([Put("a-b", b"1"), Put("a!", b"2"), Put("a/z", b"3")], "write a-b 1\nwrite a! 2\nwrite a/z 3"),
    ],
    ids=str,
)
async def test_tree_equals_git(
    world: GitWorld, sample: Path, tmp_path: Path, operations: Sequence[Operation], script: str
) -> None:
    work = tmp_path / "work"
    git(tmp_path, "clone", "-q", "-b", "main", sample, work)
    git(work, "checkout", "-q", "-B", "main", "light")
    bare = tmp_path / "bare"
    git(tmp_path, "clone", "-q", "--bare", f"file://{work}", bare)
    git(bare, "repack", "-q", "-a", "-d")
    repository = await world.adopt(bare)
    run(work, script)
    expected = git(work, "write-tree").decode().strip()
    done = await commit(world, repository, *operations)
    assert done.tree == expected
    clone = await world.clone(repository, tmp_path / "clone")
    assert git(clone, "rev-parse", "main", "main^{tree}", "main^").decode().split() == [
        done.oid,
        expected,
        git(bare, "rev-parse", "main").decode().strip(),
    ]
    assert done.parent == git(bare, "rev-parse", "main").decode().strip()


@pytest.mark.parametrize("object_format", FORMATS)
async def test_first_commit_of_a_repository(
    world: GitWorld, tmp_path: Path, object_format: ObjectFormat
) -> None:
    repository = await world.repository(object_format)
    author = Identity("Ann \u00c4", "ann@example.org", datetime(2024, 2, 3, 4, 5, 6, tzinfo=UTC))
    done = await world.committer.commit(
        repository,
        ACTOR,
        "main",
        [Put("README.md", b"hello\n"), Put("w/model.bin", pieces(b"a" * 5, b"", b"b" * 5))],
        "first\r\n\r\nbody",
        author=author,
    )
    assert done.parent is None
    clone = await world.clone(repository, tmp_path / "clone")
    shown = git(clone, "log", "-1", "--format=%an|%ae|%aI|%cn|%ce|%B", "main").decode()
    assert shown.strip() == (
        "Ann \u00c4|ann@example.org|2024-02-03T04:05:06+00:00|ann|ann@users.noreply.modelyard|first\n\nbody"
    )
    assert git(clone, "show", "main:w/model.bin") == b"aaaaabbbbb"
    async with world.database.read() as session:
        [push] = await session.scalars(select(Push))
        [pack] = await session.scalars(select(Pack))
    assert (push.transport, push.actor) == (Transport.API, "ann")
    assert push.updates == [{"ref": "refs/heads/main", "old": "0" * len(done.oid), "new": done.oid}]
    assert pack.kind is PackKind.COMMIT
    assert sorted(pack.suffixes) == ["idx", "pack", "rev"]
    assert pack.objects == 5


@pytest.mark.parametrize("object_format", FORMATS)
async def test_big_content_is_streamed(world: GitWorld, tmp_path: Path, object_format: ObjectFormat) -> None:
    part = os.urandom(1024**2)
    repository = await world.repository(object_format)
    await commit(world, repository, Put("big", pieces(*[part] * 24)))
    async with world.reader.blob(repository.id, "main", "big") as blob, blob.open(5) as chunks:
        assert blob.size == 24 * 1024**2
        assert b"".join([chunk async for chunk in chunks]) == (part * 24)[5:]
    # The same content once more travels and is stored once.
    await commit(world, repository, Put("copy", pieces(*[part] * 24)))
    async with world.database.read() as session:
        sizes = [pack.bytes for pack in await session.scalars(select(Pack).order_by(Pack.id))]
    assert sizes[0] > 24 * 1024**2
    assert sizes[1] < 10_000


async def test_new_branch_from_a_revision(
    world: GitWorld, repository: RepositoryInfo, sample: Path, tmp_path: Path
) -> None:
    done = await world.committer.commit(
        repository, ACTOR, "feature/x", [Put("x", b"1")], "on a branch", start="v1"
    )
    assert done.parent == git(sample, "rev-parse", "v1^{commit}").decode().strip()
    clone = await world.clone(repository, tmp_path / "clone")
    assert git(clone, "rev-parse", "feature/x").decode().strip() == done.oid
    with pytest.raises(AlreadyExists):
        await world.committer.commit(repository, ACTOR, "side", [Put("x", b"1")], "m", start="v1")
    with pytest.raises(RevisionNotFound, match="where it shall start"):
        await commit(world, repository, Put("x", b"1"), branch="nothing")
    with pytest.raises(RevisionNotFound):
        await world.committer.commit(repository, ACTOR, "y", [Put("x", b"1")], "m", start="nothing")
    with pytest.raises(RefConflict, match="conflicts"):
        await world.committer.commit(repository, ACTOR, "main/x", [Put("x", b"1")], "m", start="v1")
    with pytest.raises(StaleParent):
        await world.committer.commit(
            repository, ACTOR, "z", [Put("x", b"1")], "m", start="v1", parent=done.oid
        )


BAD_AUTHORS = [
    Identity("", "a@b"),
    Identity("a", ""),
    Identity("a <b", "a@b"),
    Identity("a", "a@b>"),
    Identity("a\nb", "a@b"),
    Identity("a", "a\0b"),
    Identity("x" * 300, "a@b"),
    Identity("\ud800", "a@b"),
    Identity("a", "a@b", datetime(1960, 1, 1, tzinfo=UTC)),
    Identity("a", "a@b", datetime(2024, 1, 1)),  # noqa: DTZ001 - a naive time is the case
]
REFUSED: list[tuple[list[Operation], type[ModelyardError]]] = [
    ([], NothingToCommit),
    ([Put("empty", b"")], NothingToCommit),
    ([Put("new", b"1"), Delete("new")], NothingToCommit),
    ([Move("a.txt", "x"), Move("x", "a.txt")], NothingToCommit),
    ([Put("a/../b", b"")], InvalidPath),
    ([Put(".GIT/config", b"")], InvalidPath),
    ([Move("a.txt", ".git/hooks/x")], InvalidPath),
    ([Put("a", b"1")], PathConflict),
    ([Put("a.txt/below", b"1")], PathConflict),
    ([Put("link/below", b"1")], PathConflict),
    ([Put("sub/below", b"1")], PathConflict),
    ([Put("sub", b"1")], PathConflict),
    ([Put("new/x", b"1"), Put("new", b"1")], PathConflict),
    ([Move("a.txt", "run.sh")], PathConflict),
    ([Move("a.txt", "data")], PathConflict),
    ([Move("a.txt", "run.sh/below")], PathConflict),
    ([Move("data", "a0")], PathConflict),
    ([Delete("data")], PathConflict),
    ([Delete("nothing")], EntryNotFound),
    ([Delete("a.txt/below")], EntryNotFound),
    ([Delete("", recursive=True)], EntryNotFound),
    ([Delete("empty"), Delete("empty")], EntryNotFound),
    ([Delete("a/inside"), Delete("a", recursive=True)], EntryNotFound),
    ([Move("nothing", "x")], EntryNotFound),
    ([Move("a", "x"), Delete("a", recursive=True)], EntryNotFound),
    ([Put(".gitmodules", b'[submodule "x"]\n\tpath = x\n\turl = -upload\n')], PushRefused),
    ([Put(str(number), b"") for number in range(10_001)], PayloadTooLarge),
]


async def test_refused_and_nothing_changed(world: GitWorld, repository: RepositoryInfo) -> None:
    await world.branches.create(repository, ACTOR, "first", "light")
    before = await world.snapshots.state(repository.id)
    for operations, error in REFUSED:
        with pytest.raises(ModelyardError) as caught:
            await commit(world, repository, *operations, branch="first")
        assert type(caught.value) is error, operations[:3]
    after = await world.snapshots.state(repository.id)
    assert (after.state, after.refs) == (before.state, before.refs)


async def test_odd_names_can_be_moved_away_and_deleted(
    world: GitWorld, repository: RepositoryInfo, tmp_path: Path
) -> None:
    await commit(world, repository, Move("caf\udce9.bin", "caf\u00e9.bin"), Delete("tab\tand\nnewline"))
    clone = await world.clone(repository, tmp_path / "clone")
    names = git(clone, "ls-tree", "-z", "--name-only", "main").split(b"\0")
    assert "caf\u00e9.bin".encode() in names
    assert b"caf\xe9.bin" not in names
    assert b"tab\tand\nnewline" not in names


async def test_everything_may_be_deleted(world: GitWorld, repository: RepositoryInfo, tmp_path: Path) -> None:
    page = await world.reader.tree(repository.id, "orphan")
    await commit(world, repository, *(Delete(one.path) for one in page.entries), branch="orphan")
    clone = await world.clone(repository, tmp_path / "clone")
    assert git(clone, "ls-tree", "orphan") == b""


async def test_texts_that_cannot_stand_in_a_commit(world: GitWorld, repository: RepositoryInfo) -> None:
    call, put = world.committer.commit, [Put("x", b"")]
    for message in ("", " \n\t ", "a\0b", "\ud800", "x" * 70_000):
        with pytest.raises(InvalidMessage):
            await call(repository, ACTOR, "main", put, message)
    for branch in ("", "a..b", "-x", "a b", "x.lock", "HEAD", "a/"):
        with pytest.raises(InvalidName):
            await call(repository, ACTOR, branch, put, "m")
    for author in BAD_AUTHORS:
        with pytest.raises(InvalidIdentity):
            await call(repository, ACTOR, "main", put, "m", author=author)


@pytest.mark.parametrize(
    "operations",
    [
        [Put("big", b"x" * (1024**2 + 1))],
        [Put("big", pieces(*[b"x" * 1000] * 2000))],
        [Put(f"big-{number}", bytes([number]) * 1024**2) for number in range(4)],
    ],
    ids=["bytes", "stream", "sum"],
)
async def test_limits(sqlite: Database, tmp_path: Path, operations: Sequence[Operation]) -> None:
    async with open_world(sqlite, tmp_path, settings=SMALL) as world:
        repository = await world.repository()
        with pytest.raises(PayloadTooLarge):
            await commit(world, repository, *operations)
        assert world.leftovers() == []


async def test_broken_stream_changes_nothing(world: GitWorld, repository: RepositoryInfo) -> None:
    async def broken() -> AsyncIterator[bytes]:
        yield b"some"
        raise ConnectionResetError("gone")

    before = await world.snapshots.state(repository.id)
    with pytest.raises(ConnectionResetError):
        await commit(world, repository, Put("x", broken()))
    assert (await world.snapshots.state(repository.id)).state == before.state
