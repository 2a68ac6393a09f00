"""Whole histories: this project's own, and a generated one of more than 100,000 objects."""

import asyncio
from pathlib import Path

import pytest

from tests.support.git import Git
from tests.support.histories import generate
from tests.support.program import PROJECT, start_forkserver
from tests.support.soundness import assert_sound, program, refs_of
from tests.support.yard import Yard

COMMITS = 21_000


@pytest.fixture(scope="module", autouse=True)
def forkserver() -> None:
    start_forkserver()


def own_history() -> Path:
    """Where this project's repository is; skips what needs it in an archive of the sources."""
    if not (PROJECT / ".git").exists():
        pytest.skip("this is no checkout: the project's own history is not here")
    if Git(PROJECT)("rev-parse", "--is-shallow-repository") == "true":
        pytest.skip("this checkout is shallow: the project's own history is not here")
    return PROJECT


def same_refs(one: Git, where: str | Path, other: Git, there: str | Path) -> None:
    """Every branch and tag of `where`, peeled ones included, is `there`, and no more."""
    expected = _named(one.refs(where))
    assert expected
    assert _named(other.refs(there)) == expected


def _named(refs: dict[str, str]) -> dict[str, str]:
    return {name: oid for name, oid in refs.items() if name.startswith(("refs/heads/", "refs/tags/"))}


async def test_own_history_by_import(yard: Yard) -> None:
    source = Git(await asyncio.to_thread(own_history), {"safe.directory": "*"})
    path = "ann/own-imported"
    administer = program(yard.server)
    report = await asyncio.to_thread(administer.json, "repo", "import", path, source.cwd)
    assert report["refused"] == []
    copy = yard.git(yard.new_folder())
    copy("clone", "-q", "--mirror", yard.url(path), ".")
    same_refs(source, ".", copy, ".")
    copy("fsck", "--strict", "--no-dangling")


async def test_own_history_by_push(yard: Yard) -> None:
    source = Git(await asyncio.to_thread(own_history), {"safe.directory": "*"})
    path = await yard.new_repository()
    mirror = yard.git(yard.new_folder())
    mirror("clone", "-q", "--mirror", source.cwd, ".")
    mirror("push", "-q", yard.ssh_url(path), "refs/heads/*:refs/heads/*", "refs/tags/*:refs/tags/*")
    copy = yard.git(yard.new_folder())
    copy("clone", "-q", "--mirror", yard.url(path), ".")
    same_refs(source, ".", copy, ".")
    copy("fsck", "--strict", "--no-dangling")


@pytest.mark.slow
async def test_hundred_thousand_objects(yard: Yard) -> None:
    """Pushed over HTTP, cloned over SSH, exported, and imported again: always the same."""
    source = await asyncio.to_thread(generate, yard.folder / "generated.git", commits=COMMITS)
    counted = dict(line.split(": ") for line in source("count-objects", "-v").splitlines())
    assert int(counted["in-pack"]) > 100_000, counted
    path = await yard.new_repository()
    client = yard.git(source.cwd)
    await asyncio.to_thread(client, "push", "-q", "--mirror", yard.url(path))
    copy = yard.git(yard.new_folder())
    await asyncio.to_thread(copy, "clone", "-q", "--mirror", yard.ssh_url(path), ".")
    same_refs(source, ".", copy, ".")
    await asyncio.to_thread(copy, "fsck", "--no-dangling", "--no-progress")

    administer = program(yard.server)
    exported = Git(yard.folder / "exported.git")
    await asyncio.to_thread(administer.done, "repo", "export", path, exported.cwd)
    same_refs(source, ".", exported, ".")
    assert exported("symbolic-ref", "HEAD") == "refs/heads/main"
    again = "ann/imported-again"
    await asyncio.to_thread(administer.done, "repo", "import", again, exported.cwd)
    assert await refs_of(yard.server, again) == await refs_of(yard.server, path)
    await assert_sound(yard.server)
