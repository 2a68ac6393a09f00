"""A push of pointers without objects is refused with their paths; with the objects it lands."""

import asyncio
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import pytest

from core.access import SYSTEM, Permission
from core.audit import Action
from core.models import Role
from core.names import parse_address
from lfs.locks import Locks
from modelyard.lfs_policy import ALLOW_MISSING as OPTION
from tests.support.git import Git, Result
from tests.support.git_lfs import NEWEST, lfs_client, start
from tests.support.server import PASSWORD
from tests.support.yard import USER, Yard

FILES = {"a.bin": b"a" * 5000, "dir/größe 1.bin": b"b" * 6000}
REASON = "LFS objects are missing on the server: run `git lfs push --all <remote>`"


@pytest.fixture(params=["http", "ssh"])
def transport(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def address(yard: Yard, path: str, transport: str) -> str:
    """Without a name in it: clients log in as whom they were made for."""
    return yard.server.url(f"{path}.git") if transport == "http" else yard.ssh_url(path)


def no_hook(git: Git) -> Git:
    """The same client without the hook that uploads."""
    return Git(git.cwd, {**git.config, "core.hooksPath": "/dev/null"}, git.environment, git.timeout)


def remote_lines(result: Result) -> list[str]:
    lines = (line.rstrip() for line in result.stderr.split("\n"))
    return [line.removeprefix("remote: ") for line in lines if line.startswith("remote: ")]


async def work_of(yard: Yard, transport: str, path: str, tmp_path: Path) -> Git:
    client = lfs_client(NEWEST, tmp_path)
    plain = yard.git(await asyncio.to_thread(yard.new_folder))
    ssh = transport == "ssh"
    git = client.over_ssh(plain, yard.ssh_url(path), pure=False) if ssh else client.over(plain)
    await asyncio.to_thread(start, git, FILES)
    git("remote", "add", "origin", address(yard, path, transport))
    return git


@dataclass(frozen=True)
class Guest:
    """A user who may write, and their client."""

    name: str
    git: Git


async def a_guest(yard: Yard, path: str, transport: str) -> Guest:
    name = f"guest-{transport}-{path.rpartition('/')[2]}"
    await yard.server.add_user(name)
    async with yard.server.services() as services:
        await services.collaboration.set_collaborator(SYSTEM, parse_address(path), name, Role.WRITE)
    key = await yard.server.add_key(name) if transport == "ssh" else None
    return Guest(name, yard.server.git(yard.folder, user=name, key=key))


async def test_pointers_need_their_objects(yard: Yard, transport: str, tmp_path: Path) -> None:
    path = await yard.new_repository()
    git = await work_of(yard, transport, path, tmp_path)
    refused = await asyncio.to_thread(no_hook(git).run, "push", "origin", "main")
    assert refused.status != 0
    assert f"! [remote rejected] main -> main (2 {REASON})" in refused.stderr
    for name, content in FILES.items():
        assert f"  {sha256(content).hexdigest()} {name}" in remote_lines(refused)
    assert "refs/heads/main" not in await asyncio.to_thread(git.refs, "origin")
    await asyncio.to_thread(git, "lfs", "push", "--all", "origin")  # as the server said
    landed = await asyncio.to_thread(no_hook(git).run, "push", "origin", "main")
    assert landed.status == 0, landed.output
    assert remote_lines(landed) == []
    assert "refs/heads/main" in await asyncio.to_thread(git.refs, "origin")


async def test_an_ordinary_push_uploads_first(yard: Yard, transport: str, tmp_path: Path) -> None:
    path = await yard.new_repository()
    git = await work_of(yard, transport, path, tmp_path)
    await asyncio.to_thread(git, "push", "origin", "main")
    await asyncio.to_thread(git.commit, {"a.bin": b"", "c.bin": b"c" * 100})
    await asyncio.to_thread(git, "push", "origin", "main")


async def test_the_push_option(yard: Yard, transport: str, tmp_path: Path) -> None:
    """For who administers the repository, and nobody else."""
    path = await yard.new_repository()
    git = no_hook(await work_of(yard, transport, path, tmp_path))
    guest = await a_guest(yard, path, transport)
    refused = await asyncio.to_thread(guest.git.at(git.cwd).run, "push", "-o", OPTION, "origin", "main")
    assert refused.status != 0
    assert f"{OPTION} is for administrators of this repository" in remote_lines(refused)
    landed = await asyncio.to_thread(git.run, "push", "-o", OPTION, "origin", "main")
    assert landed.status == 0, landed.output
    said, *found = remote_lines(landed)
    assert said == f"{OPTION}: 2 LFS objects are missing on the server"
    assert all(line.endswith("the repository does not have this LFS object") for line in found), found
    async with yard.server.services() as services:
        [entry] = await services.audit.list(SYSTEM, action=Action.PUSH_OVERRIDE, target=path)
    assert (entry.actor, entry.details["count"]) == (USER, 2)


async def test_somebody_else_s_lock(yard: Yard, transport: str) -> None:
    """Clients without git-lfs are bound, too."""
    path = await yard.new_repository()
    git = yard.git(await asyncio.to_thread(yard.new_folder))
    await asyncio.to_thread(git, "init", "-q", ".")
    await asyncio.to_thread(git.commit, {"notes/größe.txt": "1", "free": "1"})
    url = address(yard, path, transport)
    await asyncio.to_thread(git, "push", url, "main")
    holder = await a_guest(yard, path, transport)
    async with yard.server.services() as services:
        owner = await services.credentials.authenticate_basic(holder.name, PASSWORD, "::1")
        repository = await services.repositories.open(SYSTEM, parse_address(path), Permission.READ)
        locks = Locks(services.database)
        lock = await locks.create(repository.id, owner, "notes/größe.txt", None)
        await asyncio.to_thread(git.commit, {"notes/größe.txt": "2"})
        refused = await asyncio.to_thread(git.run, "push", url, "main")
        assert refused.status != 0
        reason = f"notes/größe.txt is locked by {owner.name}"
        assert f"({reason})" in refused.stderr
        assert remote_lines(refused) == [reason]
        await locks.unlock(repository.id, owner, lock.id, force=False, may_force=False)
    await asyncio.to_thread(git, "push", url, "main")
