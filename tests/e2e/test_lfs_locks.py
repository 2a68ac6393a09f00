"""`git lfs lock`, `locks`, `unlock` and the check before a push: the real client, over every transport."""

import asyncio
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pytest

from core.access import SYSTEM, Permission
from core.models import Role
from core.names import parse_address
from tests.support.git import Git, Result
from tests.support.git_lfs import NEWEST, VERSIONS, LfsClient, Version, lfs_client, start
from tests.support.streams import noise
from tests.support.yard import USER, Yard

Transport = Literal["http", "ssh-authenticate", "ssh-pure"]
TRANSPORTS: tuple[Transport, ...] = ("http", "ssh-authenticate", "ssh-pure")
LOCKED = "weights/ä model.bin"


@dataclass(frozen=True)
class World:
    """A repository of ann's, in which bob may write; each has a clone."""

    yard: Yard
    path: str
    client: LfsClient
    transport: Transport
    ann: Git
    bob: Git

    @property
    def url(self) -> str:
        return url_of(self.yard, self.path, self.transport)


def url_of(yard: Yard, path: str, transport: Transport) -> str:
    return yard.server.url(f"{path}.git") if transport == "http" else yard.ssh_url(path)


def git_of(yard: Yard, client: LfsClient, user: str, path: str, transport: Transport) -> Git:
    """A client of that user in a new folder, which verifies locks before it pushes."""
    git = yard.server.git(yard.new_folder(), user=user)
    url = url_of(yard, path, transport)
    if transport == "http":
        made = client.over(git)
    else:
        made = client.over_ssh(git, url, pure=transport == "ssh-pure")
    settings = {**made.config, f"lfs.{url}.locksverify": "true"}
    # The server that authenticates over SSH is asked for locks at another address.
    settings[f"lfs.{yard.server.url(f'{path}.git')}/info/lfs.locksverify"] = "true"
    return Git(made.cwd, settings, made.environment, made.timeout)


@pytest.fixture(scope="module", autouse=True)
def bob(yard: Yard) -> None:
    async def add() -> None:
        await yard.server.add_user("bob")
        await yard.server.add_key("bob")

    asyncio.run(add())


@pytest.fixture(params=VERSIONS)
def client(request: pytest.FixtureRequest, tmp_path: Path) -> LfsClient:
    version: Version = request.param
    return lfs_client(version, tmp_path)


async def open_world(yard: Yard, client: LfsClient, transport: Transport) -> World:
    path = await yard.new_repository()
    async with yard.server.services() as services:
        await services.collaboration.set_collaborator(SYSTEM, parse_address(path), "bob", Role.WRITE)
    url = url_of(yard, path, transport)
    ann = start(
        git_of(yard, client, USER, path, transport),
        {LOCKED: noise(1000, path), "free.bin": noise(1000, f"{path} free")},
    )
    ann("remote", "add", "origin", url)
    ann("push", "-q", "-u", "origin", "main")
    bob = git_of(yard, client, "bob", path, transport)
    bob("clone", "-q", url, ".")
    return World(yard, path, client, transport, ann, bob)


@pytest.fixture(params=TRANSPORTS)
def transport(request: pytest.FixtureRequest) -> Transport:
    name: Transport = request.param
    return name


@pytest.fixture
async def world(yard: Yard, client: LfsClient, transport: Transport) -> World:
    return await open_world(yard, client, transport)


@pytest.fixture
async def newest(yard: Yard, tmp_path: Path, transport: Transport) -> World:
    """Only with today's client, for what older ones do in the same way."""
    return await open_world(yard, lfs_client(NEWEST, tmp_path), transport)


def locks(git: Git) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(git("lfs", "locks", "--json"))
    return found


def refused(result: Result, *words: str) -> None:
    assert result.status != 0, result.output
    assert all(word in result.output for word in words), result.output


async def test_lock_list_push_unlock(world: World) -> None:
    ann, bob = world.ann, world.bob
    assert f"Locked {LOCKED}" in ann("lfs", "lock", LOCKED)
    (lock,) = locks(bob)
    assert (lock["path"], lock["owner"]["name"]) == (LOCKED, USER)
    assert locks(ann) == [lock]
    refused(bob.run("lfs", "lock", LOCKED), "locked")
    refused(ann.run("lfs", "lock", LOCKED), "locked")

    # The owner pushes the file, somebody else is stopped by their own client, and everything else is free.
    ann.commit({LOCKED: noise(1000, f"{world.path} 2")})
    pushed = ann.run("push", "origin", "main")
    assert pushed.status == 0, pushed.output
    bob("pull", "-q")
    bob.commit({"free.bin": noise(1000, f"{world.path} free 2")})
    bob("push", "-q", "origin", "main")
    bob.commit({LOCKED: noise(1000, f"{world.path} 3")})
    refused(bob.run("push", "origin", "main"), LOCKED, USER, "Unable to push locked files")
    refused(bob.run("push", "origin", "main:elsewhere"), "Unable to push locked files")

    # From another branch, too, a lock is found by its path.
    ann("checkout", "-q", "-b", "another")
    assert f"Unlocked {LOCKED}" in ann("lfs", "unlock", LOCKED)
    assert locks(bob) == []
    bob("push", "-q", "origin", "main")


async def test_the_server_refuses_what_a_client_without_git_lfs_pushes(newest: World) -> None:
    newest.ann("lfs", "lock", LOCKED)
    newest.bob.commit({LOCKED: noise(1000, f"{newest.path} forced")})
    newest.bob("lfs", "push", "--object-id", "origin", *lfs_oids(newest.bob))
    refused(newest.bob.run("push", "--no-verify", "origin", "main"), "is locked by ann")


async def test_somebody_elses_lock_needs_the_force_of_an_administrator(world: World) -> None:
    ann, bob = world.ann, world.bob
    ann("lfs", "lock", LOCKED)
    bob("lfs", "lock", "free.bin")
    refused(bob.run("lfs", "unlock", LOCKED))
    refused(bob.run("lfs", "unlock", "--force", LOCKED))
    refused(ann.run("lfs", "unlock", "free.bin"))
    assert len(locks(ann)) == 2
    if world.transport == "ssh-pure":
        # git-lfs, the newest included, does not send `force` on this protocol: the server cannot know.
        refused(ann.run("lfs", "unlock", "--force", "free.bin"), "bob holds this lock")
        return
    ann("lfs", "unlock", "--force", "free.bin")
    assert [lock["path"] for lock in locks(ann)] == [LOCKED]
    async with world.yard.server.services() as services:
        entries = await services.audit.list(SYSTEM, action="lock:force", target=world.path)
    assert [(entry.actor, entry.details["path"], entry.details["owner"]) for entry in entries] == [
        (USER, "free.bin", "bob")
    ]


async def test_no_lock_of_another_repository_is_visible(world: World) -> None:
    other = await world.yard.new_repository()
    stranger = start(
        git_of(world.yard, world.client, USER, other, world.transport), {LOCKED: noise(10, other)}
    )
    stranger("remote", "add", "origin", url_of(world.yard, other, world.transport))
    stranger("push", "-q", "-u", "origin", "main")
    stranger("lfs", "lock", LOCKED)
    (hidden,) = locks(stranger)
    assert locks(world.bob) == locks(world.ann) == []
    assert json.loads(world.ann("lfs", "locks", "--json", "--id", hidden["id"])) == []
    refused(world.ann.run("lfs", "unlock", "--id", hidden["id"]))
    refused(world.ann.run("lfs", "unlock", "--force", "--id", hidden["id"]))
    world.bob.commit({LOCKED: noise(1000, f"{world.path} 2")})
    world.bob("push", "-q", "origin", "main")
    assert locks(stranger) == [hidden]


async def test_hundreds_of_locks(newest: World) -> None:
    """More than one answer holds."""
    async with newest.yard.server.services() as services:
        address = parse_address(newest.path)
        repository = await services.repositories.open(SYSTEM, address, Permission.READ)
        ann = await services.credentials.authenticate_token(newest.yard.secret, "::1")
        for number in range(250):
            await services.large_files.locks.create(repository.id, ann, f"many/{number:03}.bin", None)
    assert [lock["path"] for lock in sorted(locks(newest.bob), key=lambda lock: str(lock["path"]))] == [
        f"many/{number:03}.bin" for number in range(250)
    ]
    newest.bob.commit({"many/249.bin": noise(10, newest.path)})
    refused(newest.bob.run("push", "origin", "main"), "many/249.bin")


def lfs_oids(git: Git) -> list[str]:
    """The large files of the present commit."""
    return [line.split(" ")[0] for line in git("lfs", "ls-files", "--long").splitlines()]
