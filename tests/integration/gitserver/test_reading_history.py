"""History, comparisons, archives, branches and tags: compared with git and with other readers."""

import io
import stat
import tarfile
import zipfile
from datetime import datetime
from pathlib import Path

import pytest

from core.errors import EntryNotFound, RepositoryNotFound, RevisionNotFound
from core.repositories import RepositoryInfo
from gitserver.archives import ArchiveFormat
from gitserver.diffs import Changes, FileChange
from gitserver.history import parse_signature
from gitserver.objects import Kind
from tests.support.git_world import GitWorld, git

NAMES = {"A": "added", "D": "deleted", "M": "modified", "R": "renamed", "T": "type_changed"}


def commits_of(sample: Path, *arguments: str | bytes) -> list[str]:
    return git(sample, "rev-list", *arguments).decode().split()


def text(raw: bytes) -> str:
    return raw.decode("utf-8", "replace")


async def test_every_commit_equals_git(world: GitWorld, repository: RepositoryInfo, sample: Path) -> None:
    layout = "%H%x00%T%x00%P%x00%an%x00%ae%x00%aI%x00%cn%x00%ce%x00%cI%x00%B%x00%s"
    for oid in commits_of(sample, "--all"):
        shown = git(sample, "log", "-1", "--encoding=UTF-8", f"--format={layout}", oid)
        fields = text(shown.removesuffix(b"\n")).split("\0")
        commit = await world.reader.commit(repository.id, oid)
        assert [commit.oid, commit.tree, " ".join(commit.parents)] == fields[:3]
        for person, (name, email, when) in (
            (commit.author, fields[3:6]),
            (commit.committer, fields[6:9]),
        ):
            assert (person.name, person.email) == (name, email)
            assert person.when.isoformat() == datetime.fromisoformat(when).isoformat()
        assert commit.message.strip("\n") == fields[9].strip("\n")
        assert commit.summary == fields[10]
    latin = await world.reader.commit(repository.id, "main")
    assert latin.summary == "caf\u00e9"
    first = await world.reader.commit(repository.id, "light")
    assert first.author.when.isoformat() == "2024-05-06T01:00:00+05:30"


async def test_history_equals_git(world: GitWorld, repository: RepositoryInfo, sample: Path) -> None:
    for revision in ("main", "side", "orphan", "v1", "again"):
        found = await world.reader.commits(repository.id, revision)
        assert [commit.oid for commit in found] == commits_of(sample, revision)
    whole = commits_of(sample, "main")
    page = await world.reader.commits(repository.id, "main", limit=2, skip=1)
    assert [commit.oid for commit in page] == whole[1:3]
    assert await world.reader.commits(repository.id, "main", skip=len(whole)) == []


@pytest.mark.parametrize("path", ["data/numbers.txt", "data", "one.md", b"caf\xe9.bin", "tab\tand\nnewline"])
async def test_history_of_a_path(
    world: GitWorld, repository: RepositoryInfo, sample: Path, path: str | bytes
) -> None:
    found = await world.reader.commits(repository.id, "main", path=path)
    assert [commit.oid for commit in found] == commits_of(sample, "main", "--", path)
    assert found


@pytest.mark.parametrize("path", [":(exclude)data", "*.md", "--all", ":/", "[a-z]"])
async def test_paths_are_taken_literally(world: GitWorld, repository: RepositoryInfo, path: str) -> None:
    assert await world.reader.commits(repository.id, "main", path=path) == []


async def test_history_of_an_impossible_path(world: GitWorld, repository: RepositoryInfo) -> None:
    with pytest.raises(EntryNotFound):
        await world.reader.commits(repository.id, "main", path="a\0b")


def changes_by_git(sample: Path, old: str, new: str) -> list[FileChange]:
    """Read from two other outputs than the one the server reads."""
    names = git(sample, "diff", "-M", "-z", "--name-status", old, new).split(b"\0")[:-1]
    counts = git(sample, "diff", "-M", "-z", "--numstat", old, new).split(b"\0")[:-1]
    found = []
    while names:
        letter = chr(names.pop(0)[0])
        before = after = names.pop(0)
        additions, deletions, path = counts.pop(0).split(b"\t", 2)
        if letter == "R":
            after = names.pop(0)
            counts[:2] = []
        else:
            assert path == after
        sides: list[tuple[str | None, str | None, str | None]] = []
        for side, commit, name in (("old", old, before), ("new", new, after)):
            if (side, letter) in {("old", "A"), ("new", "D")}:
                sides.append((None, None, None))
                continue
            mode, _, oid = git(sample, "ls-tree", "--full-tree", commit, b":(literal)" + name).split()[:3]
            sides.append((text(name), mode.decode(), oid.decode()))
        binary = additions == b"-"
        found.append(
            FileChange(
                status=NAMES[letter],
                old_path=sides[0][0],
                new_path=sides[1][0],
                old_mode=sides[0][1],
                new_mode=sides[1][1],
                old_oid=sides[0][2],
                new_oid=sides[1][2],
                additions=None if binary else int(additions),
                deletions=None if binary else int(deletions),
                binary=binary,
            )
        )
    return found


async def test_changes_of_every_commit(world: GitWorld, repository: RepositoryInfo, sample: Path) -> None:
    seen = set()
    empty = git(sample, "hash-object", "-t", "tree", "/dev/null").decode().strip()
    for oid in commits_of(sample, "--all"):
        parents = git(sample, "log", "-1", "--format=%P", oid).decode().split()
        found = await world.reader.changes(repository.id, oid)
        assert found == Changes(
            changes_by_git(sample, parents[0] if parents else empty, oid), truncated=False
        )
        seen |= {change.status for change in found.files}
    assert seen == set(NAMES.values())


async def test_changes_are_cut(world: GitWorld, repository: RepositoryInfo) -> None:
    whole = await world.reader.changes(repository.id, "light")
    cut = await world.reader.changes(repository.id, "light", limit=3)
    assert cut.truncated
    assert [change.new_path for change in cut.files] == [change.new_path for change in whole.files[:3]]
    assert all(change.additions is None and not change.binary for change in cut.files)
    exact = await world.reader.changes(repository.id, "light", limit=len(whole.files))
    assert exact == whole


@pytest.mark.parametrize(
    ("base", "head"), [("main", "side"), ("side", "main"), ("light", "main"), ("main", "main")]
)
async def test_comparison(
    world: GitWorld, repository: RepositoryInfo, sample: Path, base: str, head: str
) -> None:
    found = await world.reader.compare(repository.id, base, head)
    assert found.merge_base == git(sample, "merge-base", base, head).decode().strip()
    assert found.ahead == len(commits_of(sample, f"{base}..{head}"))
    assert found.behind == len(commits_of(sample, f"{head}..{base}"))
    assert [commit.oid for commit in found.commits] == commits_of(sample, f"{base}..{head}")
    assert found.changes.files == changes_by_git(sample, found.merge_base, head)
    async with world.reader.patch(repository.id, base, head) as patch:
        shown = b"".join([chunk async for chunk in patch.chunks()])
    assert shown == git(sample, "diff", "--full-index", f"{base}...{head}")
    assert not patch.truncated


async def test_unrelated_histories(world: GitWorld, repository: RepositoryInfo, sample: Path) -> None:
    found = await world.reader.compare(repository.id, "main", "orphan", limit=1)
    assert found.merge_base is None
    assert (found.ahead, found.behind) == (1, len(commits_of(sample, "main")))
    assert found.changes.files == changes_by_git(sample, "main", "orphan")


async def test_patch_of_one_commit_applies(
    world: GitWorld, repository: RepositoryInfo, sample: Path, tmp_path: Path
) -> None:
    async with world.reader.patch(repository.id, None, "v1") as patch:
        shown = b"".join([chunk async for chunk in patch.chunks()])
    clone = tmp_path / "clone"
    git(tmp_path, "clone", "-q", sample, clone)
    git(clone, "checkout", "-q", "light")
    git(clone, "apply", "--index", "-", data=shown)
    assert git(clone, "write-tree") == git(sample, "rev-parse", "v1^{tree}")


async def test_patch_is_cut(world: GitWorld, repository: RepositoryInfo) -> None:
    async with world.reader.patch(repository.id, None, "light", max_bytes=1000) as patch:
        shown = b"".join([chunk async for chunk in patch.chunks()])
    assert len(shown) == 1000
    assert patch.truncated
    async with world.reader.patch(repository.id, None, "side", path="side.txt") as patch:
        assert b"".join([chunk async for chunk in patch.chunks()]).count(b"diff --git") == 1


async def archive_of(
    world: GitWorld, repository: RepositoryInfo, revision: str, kind: ArchiveFormat
) -> tuple[str, bytes]:
    async with world.reader.archive(repository.id, revision, kind, name="model") as archive:
        return archive.file_name, b"".join([chunk async for chunk in archive.chunks])


async def test_archives(world: GitWorld, repository: RepositoryInfo, sample: Path) -> None:
    listed = git(sample, "ls-tree", "-r", "-z", "main").split(b"\0")[:-1]
    expected = {}
    for line in listed:
        meta, path = line.split(b"\t", 1)
        mode, kind, oid = meta.decode().split()
        if kind == "blob":
            expected[text(path)] = (mode, git(sample, "cat-file", "blob", oid))
    name, content = await archive_of(world, repository, "main", ArchiveFormat.TAR_GZ)
    assert name == "model-main.tar.gz"
    with tarfile.open(fileobj=io.BytesIO(content)) as archive:
        found = {}
        for member in archive.getmembers():
            if member.isdir():
                continue
            file = archive.extractfile(member)
            assert file is not None
            mode = "100755" if member.mode & 0o100 else "100644"
            path = member.name.encode("utf-8", "surrogateescape")
            found[text(path).removeprefix("model-main/")] = (mode, file.read())
    assert found == expected
    name, content = await archive_of(world, repository, "v1", ArchiveFormat.ZIP)
    assert name == "model-v1.zip"
    with zipfile.ZipFile(io.BytesIO(content)) as zipped:
        assert zipped.testzip() is None
        links = [one for one in zipped.infolist() if stat.S_ISLNK(one.external_attr >> 16)]
        assert [zipped.read(one) for one in links] == [b"a.txt"]


async def test_archive_names_are_safe(world: GitWorld, repository: RepositoryInfo, sample: Path) -> None:
    name, _ = await archive_of(world, repository, "topic/one", ArchiveFormat.ZIP)
    assert name == "model-topic-one.zip"
    oid = commits_of(sample, "main")[0]
    name, content = await archive_of(world, repository, oid, ArchiveFormat.ZIP)
    assert name == f"model-{oid[:12]}.zip"
    with zipfile.ZipFile(io.BytesIO(content)) as zipped:
        assert zipped.comment.decode() == oid
    name, _ = await archive_of(world, repository, "tree-tag", ArchiveFormat.TAR_GZ)
    assert name == "model-tree-tag.tar.gz"
    with pytest.raises(RevisionNotFound, match="has no files"):
        await archive_of(world, repository, "blob-tag", ArchiveFormat.ZIP)


async def test_branches_and_tags(world: GitWorld, repository: RepositoryInfo, sample: Path) -> None:
    layout = "--format=%(refname:lstrip=2) %(objectname)"
    rows = git(sample, "for-each-ref", layout, "refs/heads").decode().splitlines()
    found = await world.reader.branches(repository.id)
    assert [f"{one.name} {one.oid}" for one in found] == rows
    assert [one.name for one in found if one.is_default] == ["main"]
    assert await world.reader.branches(repository.id, limit=2, after=found[0].name) == found[1:3]
    assert await world.reader.branch(repository.id, "side") in found
    tags = {tag.name: tag for tag in await world.reader.tags(repository.id)}
    rows = git(sample, "for-each-ref", layout, "refs/tags").decode().splitlines()
    assert [f"{one.name} {one.oid}" for one in tags.values()] == rows
    for tag in tags.values():
        assert tag.target == git(sample, "rev-parse", f"{tag.name}^{{}}").decode().strip()
        assert await world.reader.tag(repository.id, tag.name) == tag
    assert tags["light"].message is None
    assert tags["v1"].message == "version one\n\nnotes\n"
    assert tags["v1"].tagger is not None
    assert tags["v1"].tagger.email == "bob@example.org"
    assert tags["tree-tag"].target_kind is Kind.TREE
    assert tags["blob-tag"].target_kind is Kind.BLOB
    for call in (world.reader.branch, world.reader.tag):
        with pytest.raises(RevisionNotFound):
            await call(repository.id, "nothing")


async def test_missing_repository(world: GitWorld) -> None:
    with pytest.raises(RepositoryNotFound):
        await world.reader.resolve("0" * 32, "main")


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (b"A B <a@b> 1700000000 -0130", ("A B", "a@b", "2023-11-14T20:43:20-01:30")),
        (b"<a@b> 0 +0000", ("", "a@b", "1970-01-01T00:00:00+00:00")),
        (b"no address at all", ("no address at all", "", "1970-01-01T00:00:00+00:00")),
        (b"x <y> 99999999999999999999 +0000", ("x", "y", "1970-01-01T00:00:00+00:00")),
        (b"x <y> 5 +9999", ("x", "y", "1970-01-01T00:00:00+00:00")),
        (b"x <y", ("x", "y", "1970-01-01T00:00:00+00:00")),
        (b"", ("", "", "1970-01-01T00:00:00+00:00")),
    ],
)
def test_strange_signatures(line: bytes, expected: tuple[str, str, str]) -> None:
    found = parse_signature(line)
    assert (found.name, found.email, found.when.isoformat()) == expected
