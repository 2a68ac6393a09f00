"""Passes over a listing by several children of git."""

import asyncio
from collections.abc import Mapping
from contextlib import aclosing
from pathlib import Path

import pytest

from gitserver.listed_blobs import BlobPass, open_passes
from gitserver.listings import ObjectsUnreadable, list_all
from gitserver.process import GitRunner
from tests.support.git_world import git

FILES = 6000


@pytest.fixture
async def where(tmp_path: Path) -> Mapping[str, str]:
    """A repository with a commit of many files, listed in `listing` beside it."""
    path = tmp_path / "many.git"
    git(tmp_path, "init", "-q", "--bare", "-b", "main", path)
    head = b"commit refs/heads/main\ncommitter B <b@x> 1600000000 +0000\ndata 1\nm\n"
    files = (b"M 100644 inline d/%d\ndata 7\n%07d\n" % (number, number) for number in range(FILES))
    git(path, "fast-import", "--quiet", data=head + b"".join(files))
    tip = git(path, "rev-parse", "main").decode().strip()
    runner, environment = GitRunner(), {"GIT_DIR": str(path)}
    await list_all(runner, tmp_path / "listing", [tip], runner.environment(extra=environment))
    return environment


async def read(blobs: BlobPass) -> dict[bytes, bytes]:
    found: dict[bytes, bytes] = {}
    async with aclosing(blobs.batches()) as batches:
        async for batch in batches:
            async with aclosing(blobs.contents(batch)) as contents:
                async for some in contents:
                    found |= {blob.path: data for blob, data in some}
                    await asyncio.sleep(0)
    return found


async def test_each_blob_is_in_one_of_the_passes(where: Mapping[str, str], tmp_path: Path) -> None:
    commits: list[str] = []
    listing = tmp_path / "listing"
    async with open_passes(GitRunner(), listing, where, commit=commits.append, most=2) as passes:
        found = await asyncio.gather(*map(read, passes))
    assert len(found) == 2
    assert all(found)
    assert sum(map(len, found)) == FILES
    assert found[0] | found[1] == {b"d/%d" % number: b"%07d" % number for number in range(FILES)}
    assert len(commits) == 1


async def test_no_more_children_than_there_is_to_read(where: Mapping[str, str], tmp_path: Path) -> None:
    listing = tmp_path / "listing"
    lines = listing.read_bytes().splitlines(keepends=True)
    for kept, count in ((lines[-10:], 1), ([], 0)):
        listing.write_bytes(b"".join(kept))
        async with open_passes(GitRunner(), listing, where, most=2) as passes:
            assert len(passes) == count
            assert sum(len(found) for found in await asyncio.gather(*map(read, passes))) == len(kept)


async def test_what_is_missing_fails_whoever_comes_to_it(where: Mapping[str, str], tmp_path: Path) -> None:
    listing = tmp_path / "listing"
    with listing.open("ab") as file:
        file.write(b"1" * 40 + b" gone\n")
    async with open_passes(GitRunner(), listing, where, most=2) as passes:
        found = await asyncio.gather(*map(read, passes), return_exceptions=True)
    assert [type(one) for one in found].count(ObjectsUnreadable) == 1
