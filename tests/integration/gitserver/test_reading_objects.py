"""Trees, blobs and revisions: everything is compared with what git prints for the same repository."""

import asyncio
from pathlib import Path

import pytest

from core.errors import EntryNotFound, RangeNotSatisfiable, RevisionNotFound
from core.models import ObjectFormat
from core.repositories import RepositoryInfo
from gitserver.objects import Header, Kind, ObjectCache, PackSet
from gitserver.reading import Reader
from gitserver.revisions import AmbiguousRevision, resolve
from gitserver.snapshots import Snapshot
from gitserver.trees import EntryKind, TreePage
from tests.support.git_world import GitWorld, git
from tests.support.sample_repositories import build_sample

FORMATS = list(ObjectFormat)
NO_ENTRIES = ["nothing", "data/nothing", "a.txt/below", "..", "data/../run.sh", "a//inside", "\ud800", "x\0y"]
NO_REVISIONS = [
    *"nothing --all -h --output=/tmp/x main~1 main^ main^{tree} main@{0} @ :/first main:a main..side".split(),
    *"refs/heads refs/heads/ heads/main refs/heads/nothing ^main 0000000 1234567 abc".split(),
    *("0" * 40, "0" * 64, "", "-", "main ", " main", "main\0", "main\n", "x" * 5000, "\ud800", "\u212a"),
]


def commits_of(sample: Path) -> list[str]:
    return git(sample, "rev-list", "--all", "--date-order").decode().split()


def lines_of(page: TreePage) -> list[bytes]:
    """A listing in the words of `git ls-tree -l -z`."""
    kinds = {EntryKind.SYMLINK: "blob"}
    return [
        b"%s %s %s %s\t%s"
        % (
            entry.mode.encode(),
            kinds.get(entry.kind, entry.kind.value).encode(),
            entry.oid.encode(),
            str("-" if entry.size is None else entry.size).rjust(7).encode(),
            entry.raw_path,
        )
        for entry in page.entries
    ]


async def all_pages(
    reader: Reader, repository_id: str, revision: str, path: str, recursive: bool
) -> list[bytes]:
    found, after = [], b""
    while True:
        page = await reader.tree(repository_id, revision, path, recursive=recursive, limit=2, after=after)
        assert len(page.entries) <= 2
        found += lines_of(page)
        if page.after is None:
            return found
        after = page.after


@pytest.mark.parametrize("ref_deltas", [False, True])
@pytest.mark.parametrize("object_format", FORMATS)
def test_kinds_and_sizes_of_all_objects(
    tmp_path: Path, object_format: ObjectFormat, ref_deltas: bool
) -> None:
    bare = build_sample(tmp_path, object_format, ref_deltas=ref_deltas)
    listed = git(bare, "cat-file", "--batch-all-objects", "--batch-check").decode().splitlines()
    deltas = git(bare, "cat-file", "--batch-all-objects", "--batch-check=%(deltabase)").decode().split()
    assert any(base.strip("0") for base in deltas)
    packs = PackSet(bare / "objects", object_format)
    try:
        for line in listed:
            oid, kind, size = line.split()
            assert packs.header(oid) == Header(Kind(kind), int(size))
            if kind != "blob":
                assert packs.read(oid, Kind(kind)) == git(bare, "cat-file", kind, oid)
        assert packs.header("f" * packs.format.hex_length) is None
    finally:
        packs.close()


async def test_every_tree_equals_git(world: GitWorld, repository: RepositoryInfo, sample: Path) -> None:
    for commit in commits_of(sample):
        for recursive, options in ((False, []), (True, ["-r", "-t"])):
            page = await world.reader.tree(repository.id, commit, recursive=recursive)
            expected = git(sample, "ls-tree", "-l", "-z", "--full-tree", *options, commit)
            assert lines_of(page) == expected.split(b"\0")[:-1]
            assert page.after is None
            assert page.oid == git(sample, "rev-parse", f"{commit}^{{tree}}").decode().strip()


@pytest.mark.parametrize("recursive", [False, True])
@pytest.mark.parametrize("path", ["", "data", "data/deep/"])
async def test_pages_add_up(world: GitWorld, repository: RepositoryInfo, path: str, recursive: bool) -> None:
    whole = await world.reader.tree(repository.id, "main", path, recursive=recursive)
    assert await all_pages(world.reader, repository.id, "main", path, recursive) == lines_of(whole)


async def test_page_that_ends_exactly_is_the_last(world: GitWorld, repository: RepositoryInfo) -> None:
    whole = await world.reader.tree(repository.id, "main")
    page = await world.reader.tree(repository.id, "main", limit=len(whole.entries))
    assert page == whole
    assert page.after is None


async def test_names_that_are_not_utf8(world: GitWorld, repository: RepositoryInfo) -> None:
    page = await world.reader.tree(repository.id, "main")
    [entry] = [one for one in page.entries if one.raw_path == b"caf\xe9.bin"]
    assert entry.path == entry.name == "caf\ufffd.bin"
    for path in ("caf\udce9.bin", b"caf\xe9.bin"):
        assert await world.reader.entry(repository.id, "main", path) == entry
        async with (
            world.reader.blob(repository.id, "main", path) as blob,
            blob.open() as chunks,
        ):
            assert b"".join([chunk async for chunk in chunks]) == b"latin"
    with pytest.raises(EntryNotFound):
        await world.reader.entry(repository.id, "main", "caf\ufffd.bin")


async def test_kinds_of_entries(world: GitWorld, repository: RepositoryInfo) -> None:
    kinds = {
        "link": EntryKind.SYMLINK,
        "run.sh": EntryKind.BLOB,
        "sub": EntryKind.COMMIT,
        "data/deep": EntryKind.TREE,
        "": EntryKind.TREE,
    }
    for path, kind in kinds.items():
        entry = await world.reader.entry(repository.id, "light", path)
        assert entry.kind is kind
        assert entry.executable == (path == "run.sh")
        assert (entry.size is None) == (kind in {EntryKind.TREE, EntryKind.COMMIT})


async def test_paths_without_an_entry(world: GitWorld, repository: RepositoryInfo) -> None:
    for path in NO_ENTRIES:
        for call in (world.reader.entry, world.reader.tree):
            with pytest.raises(EntryNotFound):
                await call(repository.id, "light", path)
    # Slashes around a path do not matter; still a file is no directory.
    assert (await world.reader.entry(repository.id, "light", "/run.sh/")).kind is EntryKind.BLOB
    with pytest.raises(EntryNotFound):
        await world.reader.tree(repository.id, "light", "run.sh")


async def test_every_blob_and_ranges(world: GitWorld, repository: RepositoryInfo, sample: Path) -> None:
    page = await world.reader.tree(repository.id, "light", recursive=True)
    for entry in page.entries:
        if entry.size is None:
            with pytest.raises(EntryNotFound):
                async with world.reader.blob(repository.id, "light", entry.raw_path):
                    pass
            continue
        content = git(sample, "cat-file", "blob", entry.oid)
        async with world.reader.blob(repository.id, "light", entry.raw_path) as blob:
            assert (blob.size, blob.oid) == (len(content), entry.oid)
            middle = len(content) // 2
            for offset, length in ((0, None), (0, 0), (0, 3), (middle, 5), (middle, None), (0, 10**9)):
                if offset and offset >= len(content):
                    continue
                async with blob.open(offset, length) as chunks:
                    got = b"".join([chunk async for chunk in chunks])
                assert got == content[offset : None if length is None else offset + length]
            with pytest.raises(RangeNotSatisfiable):
                async with blob.open(len(content) + 1):
                    pass


async def test_blob_left_in_the_middle_ends_its_child(world: GitWorld, tmp_path: Path) -> None:
    work = tmp_path / "work"
    git(tmp_path, "init", "-q", "-b", "main", work)
    (work / "big").write_bytes(b"x" * 64 * 1024**2)
    git(work, "add", ".")
    git(work, "commit", "-q", "-m", "big")
    git(tmp_path, "clone", "-q", "--mirror", f"file://{work}", tmp_path / "bare")
    repository = await world.adopt(tmp_path / "bare")
    async with world.reader.blob(repository.id, "main", "big") as blob, blob.open(1) as chunks:
        assert set(await anext(chunks)) == {ord("x")}
    # The fixture `no_child_left_behind` fails this test if git still waits to write.


async def test_revisions_equal_git(world: GitWorld, repository: RepositoryInfo, sample: Path) -> None:
    names = ["main", "side", "topic/one", "light", "v1", "again", "HEAD", "tree-tag", "blob-tag"]
    names += ["refs/heads/main", "refs/tags/v1", "refs/tags/again"]
    oids = commits_of(sample)
    names += [oid[:length] for oid in oids for length in (7, 8, 11, len(oid))]
    names += [oids[0].upper(), git(sample, "rev-parse", "v1").decode().strip()]
    for name in names:
        found = await world.reader.resolve(repository.id, name)
        assert found.oid == git(sample, "rev-parse", f"{name}^{{}}").decode().strip()
        assert found.kind == git(sample, "cat-file", "-t", f"{name}^{{}}").decode().strip()
        assert found.exact == (len(name) == len(oids[0]))
    assert (await world.reader.resolve(repository.id, "HEAD")).ref == "refs/heads/main"
    assert (await world.reader.resolve(repository.id, "v1")).ref == "refs/tags/v1"
    assert (await world.reader.resolve(repository.id, oids[0][:9])).ref is None


async def test_what_is_no_revision(world: GitWorld, repository: RepositoryInfo) -> None:
    for revision in NO_REVISIONS:
        for call in (world.reader.resolve, world.reader.commits, world.reader.tree):
            with pytest.raises(RevisionNotFound) as caught:
                await call(repository.id, revision)
            assert caught.value.message.isascii()
            assert len(caught.value.message) < 1500


async def test_branch_comes_before_tag_and_digits(world: GitWorld, sample: Path, tmp_path: Path) -> None:
    bare = tmp_path / "bare"
    git(tmp_path, "clone", "-q", "--mirror", sample, bare)
    side, main = git(bare, "rev-parse", "side", "main").decode().split()
    git(bare, "update-ref", "refs/heads/both", side)
    git(bare, "update-ref", "refs/tags/both", main)
    git(bare, "update-ref", f"refs/heads/{main[:8]}", side)
    repository = await world.adopt(bare)
    assert (await world.reader.resolve(repository.id, "both")).oid == side
    assert (await world.reader.resolve(repository.id, "refs/tags/both")).oid == main
    assert (await world.reader.resolve(repository.id, main[:8])).oid == side
    assert (await world.reader.resolve(repository.id, main)).oid == main


async def test_ambiguous_digits(world: GitWorld, repository: RepositoryInfo, sample: Path) -> None:
    one, two = commits_of(sample)[:2]

    class Twins(PackSet):
        def starting_with(self, prefix: str) -> set[str]:
            return {one, two, git(sample, "rev-parse", "main^{tree}").decode().strip()}

    async with world.snapshots.open(repository.id) as snapshot:
        packs = Twins(snapshot.objects, snapshot.object_format)
        try:
            with pytest.raises(AmbiguousRevision, match="2 revisions"):
                resolve(packs, snapshot, "1234567")
        finally:
            packs.close()


async def test_trees_and_blobs_as_revisions(
    world: GitWorld, repository: RepositoryInfo, sample: Path
) -> None:
    by_tag = await world.reader.tree(repository.id, "tree-tag")
    assert by_tag == await world.reader.tree(
        repository.id, git(sample, "rev-parse", "main^{tree}").decode().strip()
    )
    for call in (world.reader.commits, world.reader.commit, world.reader.changes):
        with pytest.raises(RevisionNotFound, match="is a tree, not a commit"):
            await call(repository.id, "tree-tag")
    with pytest.raises(RevisionNotFound, match="has no files"):
        await world.reader.tree(repository.id, "blob-tag")


@pytest.mark.parametrize("object_format", FORMATS)
async def test_empty_repository(world: GitWorld, object_format: ObjectFormat) -> None:
    repository = await world.repository(object_format)
    assert await world.reader.branches(repository.id) == []
    assert await world.reader.tags(repository.id) == []
    for revision in ("HEAD", "main", "1234567"):
        with pytest.raises(RevisionNotFound):
            await world.reader.tree(repository.id, revision)


async def test_cache_closes_packs_of_old_snapshots(
    world: GitWorld, repository: RepositoryInfo, tmp_path: Path
) -> None:
    cache = ObjectCache(max_open_packs=2)
    kept = []

    def remember(packs: PackSet) -> int:
        kept.append(packs)
        return len(packs)

    async with world.snapshots.open(repository.id) as snapshot:
        copies = []
        for number in range(8):  # of four repositories, two snapshots each
            copy = Snapshot(tmp_path / f"repository-{number // 2}" / f"{number}", snapshot.state)
            copy.path.mkdir(parents=True)
            (copy.path / "objects").symlink_to(snapshot.objects)
            copies.append(copy)
        sizes = await asyncio.gather(*(cache.read(copy, remember) for copy in copies * 5))
        assert set(sizes) == {1}
        assert 1 <= len({packs for packs in kept if len(packs)}) <= 2
        await cache.read(copies[0], remember)
        await cache.read(copies[1], remember)
        assert not len(kept[-2])  # superseded by the next snapshot of its repository
    await cache.close()
    assert not any(len(packs) for packs in kept)
