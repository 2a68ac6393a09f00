"""File locks on each database: one winner, nothing of another repository, force for administrators only."""

import asyncio
import random
import string
from contextlib import suppress

import pytest
from sqlalchemy import func, select

from core.access import SYSTEM, Actor, ActorKind
from core.database import Database
from core.errors import (
    InvalidCursor,
    PermissionDenied,
    RepositoryNotFound,
)
from core.models import LfsLock
from core.names import parse_address
from lfs.errors import InvalidBatch, LockExists, LockNotFound
from lfs.locks import MAX_PATH_BYTES, Lock, Locks
from tests.support.core_services import Core

MAIN = "refs/heads/main"


class World:
    """Two repositories of ada's, and bob beside her."""

    def __init__(self, core: Core, ada: Actor, bob: Actor, here: str, there: str) -> None:
        self.core, self.ada, self.bob, self.here, self.there = core, ada, bob, here, there
        self.locks = Locks(core.database)


@pytest.fixture
async def world(database: Database) -> World:
    core = Core.on(database)
    ada, bob = await core.user("ada"), await core.user("bob")
    here = await core.repository("ada/here", actor=ada)
    there = await core.repository("ada/there", actor=ada)
    return World(core, ada, bob, here.id, there.id)


async def test_a_lock_is_found_by_everything_that_names_it(world: World) -> None:
    made = await world.locks.create(world.here, world.ada, "model/a.bin", MAIN)
    assert (made.path, made.ref, made.owner) == ("model/a.bin", MAIN, "ada")
    assert len(made.id) == 32
    assert made.locked_at.tzinfo is not None
    list_ = world.locks.list
    assert await list_(world.here) == ([made], None)
    assert await list_(world.here, path="model/a.bin") == ([made], None)
    assert await list_(world.here, id=made.id) == ([made], None)
    assert await list_(world.here, ref=MAIN) == ([made], None)
    assert await list_(world.here, ref="refs/heads/dev") == ([], None)
    assert await list_(world.here, ref="refs/heads/dev", path="model/a.bin") == ([made], None)
    assert await list_(world.here, path="model") == ([], None)
    assert await list_(world.here, id=made.id[:-1]) == ([], None)
    assert await list_(world.here, path="model/a.bin", id="0" * 32) == ([], None)


async def test_a_taken_path_names_its_lock_even_to_its_owner(world: World) -> None:
    made = await world.locks.create(world.here, world.ada, "a", None)
    for actor in (world.bob, world.ada):
        with pytest.raises(LockExists, match="a is locked by ada") as caught:
            await world.locks.create(world.here, actor, "a", "refs/heads/dev")
        assert caught.value.lock == made
    assert await world.locks.list(world.here) == ([made], None)


async def test_of_many_at_once_one_wins_and_the_others_see_its_lock(world: World) -> None:
    async def attempt(actor: Actor) -> tuple[bool, Lock]:
        try:
            return True, await world.locks.create(world.here, actor, "a", None)
        except LockExists as error:
            return False, error.lock

    found = await asyncio.gather(*(attempt(actor) for actor in [world.ada, world.bob] * 6))
    assert sum(won for won, _ in found) == 1
    assert len({lock.id for _, lock in found}) == 1


async def test_one_path_in_two_repositories_has_two_locks(world: World) -> None:
    here = await world.locks.create(world.here, world.ada, "a", MAIN)
    there = await world.locks.create(world.there, world.bob, "a", MAIN)
    assert await world.locks.list(world.here, path="a") == ([here], None)
    assert await world.locks.list(world.there, path="a") == ([there], None)


async def test_the_lock_of_another_repository_is_not_there(world: World) -> None:
    secret = await world.locks.create(world.there, world.ada, "secret/plan.bin", MAIN)
    nothing: tuple[list[Lock], None] = ([], None)
    assert await world.locks.list(world.here) == nothing
    assert await world.locks.list(world.here, id=secret.id) == nothing
    assert await world.locks.list(world.here, path="secret/plan.bin") == nothing
    assert await world.locks.verify(world.here, world.ada) == ([], [], None)
    assert await world.locks.held_by_others(world.here, world.bob) == {}
    for actor, force in ((world.ada, False), (world.ada, True), (SYSTEM, True)):
        with pytest.raises(LockNotFound) as caught:
            await world.locks.unlock(world.here, actor, secret.id, force=force, may_force=True)
        assert "secret" not in caught.value.message
    assert await world.locks.list(world.there) == ([secret], None)


async def test_pages_follow_each_other_while_locks_come_and_go(world: World) -> None:
    names = [f"f{number:03}" for number in range(25)]
    for name in random.sample(names, len(names)):
        await world.locks.create(world.here, world.ada, name, None)
    seen: list[str] = []
    cursor = None
    while True:
        page, cursor = await world.locks.list(world.here, limit=10, cursor=cursor)
        seen += [lock.path for lock in page]
        if cursor is None:
            break
        # What the cursor stands on goes away, and something before it appears.
        await world.locks.unlock(world.here, world.ada, page[-1].id, force=False, may_force=False)
        await world.locks.create(world.here, world.ada, f"{page[0].path}-later", None)
    assert seen == names
    assert len((await world.locks.list(world.here, limit=0))[0]) == 25
    assert len((await world.locks.list(world.here, limit=1))[0]) == 1
    assert len((await world.locks.list(world.here, limit=10**9))[0]) == 25


@pytest.mark.parametrize("cursor", ["", "!", "a", "\0", "ä", "AA", "_w", "gICA", "YQ==", "YR"])
async def test_a_cursor_of_nobody_is_refused(world: World, cursor: str) -> None:
    await world.locks.create(world.here, world.ada, "a", None)
    with pytest.raises(InvalidCursor):
        await world.locks.list(world.here, cursor=cursor)
    with pytest.raises(InvalidCursor):
        await world.locks.verify(world.here, world.ada, cursor=cursor)


async def test_verify_splits_ours_from_theirs_whatever_the_branch(world: World) -> None:
    mine = await world.locks.create(world.here, world.ada, "b", MAIN)
    his = await world.locks.create(world.here, world.bob, "a", "refs/heads/dev")
    assert await world.locks.verify(world.here, world.ada, ref=MAIN) == ([mine], [his], None)
    assert await world.locks.verify(world.here, world.bob, ref=MAIN) == ([his], [mine], None)
    ours, theirs, cursor = await world.locks.verify(world.here, world.ada, limit=1)
    assert (ours, theirs) == ([], [his])
    assert await world.locks.verify(world.here, world.ada, limit=1, cursor=cursor) == ([mine], [], None)
    assert await world.locks.held_by_others(world.here, world.ada) == {"a": "bob"}
    assert await world.locks.held_by_others(world.here, SYSTEM) == {"a": "bob", "b": "ada"}


async def test_an_owner_unlocks_and_others_need_the_force_of_an_administrator(world: World) -> None:
    lock = await world.locks.create(world.here, world.bob, "a", MAIN)
    for actor, force, may_force in (
        (world.ada, False, False),
        (world.ada, False, True),
        (world.ada, True, False),
    ):
        with pytest.raises(PermissionDenied, match="bob holds this lock"):
            await world.locks.unlock(world.here, actor, lock.id, force=force, may_force=may_force)
    assert await world.locks.list(world.here) == ([lock], None)
    assert await world.locks.unlock(world.here, world.ada, lock.id, force=True, may_force=True) == lock
    (entry,) = await world.core.audit.list(SYSTEM, action="lock:force")
    assert (entry.actor, entry.target) == ("ada", "ada/here")
    assert entry.details["path"] == "a"
    assert entry.details["owner"] == "bob"

    lock = await world.locks.create(world.here, world.bob, "a", MAIN)
    assert await world.locks.unlock(world.here, world.bob, lock.id, force=True, may_force=False) == lock
    with pytest.raises(LockNotFound):
        await world.locks.unlock(world.here, world.bob, lock.id, force=False, may_force=False)
    assert len(await world.core.audit.list(SYSTEM, action="lock:force")) == 1


async def test_only_a_user_holds_a_lock(world: World) -> None:
    key = Actor(ActorKind.DEPLOY_KEY, "deploy-key:1", repository_id=world.here, credential="key:1")
    for actor in (key, SYSTEM):
        with pytest.raises(PermissionDenied, match="a lock belongs to a user"):
            await world.locks.create(world.here, actor, "a", None)
    lock = await world.locks.create(world.here, world.ada, "a", None)
    assert await world.locks.verify(world.here, key) == ([], [lock], None)


async def test_locks_go_with_their_owner_and_with_their_repository(world: World, database: Database) -> None:
    await world.locks.create(world.here, world.bob, "a", None)
    kept = await world.locks.create(world.here, world.ada, "b", None)
    await world.locks.create(world.there, world.ada, "c", None)
    await world.core.accounts.delete(SYSTEM, "bob")
    assert await world.locks.list(world.here) == ([kept], None)
    await world.core.repositories.delete(SYSTEM, parse_address("ada/there"))
    async with database.read() as session:
        assert list(await session.scalars(select(LfsLock.id))) == [kept.id]


async def test_a_renamed_owner_is_called_by_the_present_name(world: World) -> None:
    await world.locks.create(world.here, world.bob, "a", None)
    await world.core.accounts.rename(SYSTEM, "bob", "robert")
    (lock,), _ = await world.locks.list(world.here)
    assert lock.owner == "robert"


@pytest.mark.parametrize(
    "path",
    [
        "",
        "/",
        "/etc/passwd",
        "..",
        "../a",
        "a/../b",
        "a/.",
        "./a",
        "a//b",
        "a/",
        ".git/config",
        "a/.GIT/hooks/x",
        "a\0b",
        "a\nb",
        "a\x1b[2Jb",
        "a\x85b",
        "a\x7f",
        "\udce4",
        "x" * (MAX_PATH_BYTES + 1),
        "ä" * (MAX_PATH_BYTES // 2 + 1),
    ],
)
async def test_what_is_no_path_of_git_cannot_be_locked(world: World, path: str) -> None:
    with pytest.raises(InvalidBatch) as caught:
        await world.locks.create(world.here, world.ada, path, None)
    assert caught.value.message.isprintable()
    assert await world.locks.list(world.here) == ([], None)
    assert await world.locks.list(world.here, path=path) == ([], None)


async def test_every_name_that_git_takes_can_be_locked(world: World) -> None:
    letters = random.Random(1).choices(string.ascii_letters + string.digits, k=MAX_PATH_BYTES)
    for path in (
        "a",
        "-rf",
        "a b",
        "b\\c",
        "ä/日本/😀.bin",
        "...",
        ".gitignore",
        "%2e%2e/x",
        "".join(letters),
    ):
        lock = await world.locks.create(world.here, world.ada, path, None)
        assert await world.locks.list(world.here, path=path) == ([lock], None)


@pytest.mark.parametrize(
    "ref", ["", "main", "refs/heads/..", "refs/heads/a\0", "refs/heads/\udce4", "x" * 5000]
)
async def test_a_ref_is_a_full_name_or_nothing(world: World, ref: str) -> None:
    with pytest.raises(InvalidBatch):
        await world.locks.create(world.here, world.ada, "a", ref)
    assert await world.locks.list(world.here, ref=ref) == ([], None)


@pytest.mark.parametrize("id_", ["", "\0", "\udce4", "'; drop table lfs_lock; --", "x" * 100_000])
async def test_an_id_of_nobody_is_not_found(world: World, id_: str) -> None:
    await world.locks.create(world.here, world.ada, "a", None)
    assert await world.locks.list(world.here, id=id_) == ([], None)
    with pytest.raises(LockNotFound):
        await world.locks.unlock(world.here, world.ada, id_, force=True, may_force=True)


async def test_what_is_gone_meanwhile_gets_no_lock(world: World, database: Database) -> None:
    with pytest.raises(RepositoryNotFound):
        await world.locks.create("0" * 32, world.ada, "a", None)
    await world.core.accounts.delete(SYSTEM, "bob")
    with pytest.raises(PermissionDenied, match="deleted"):
        await world.locks.create(world.here, world.bob, "a", None)
    async with database.read() as session:
        assert await session.scalar(select(func.count()).select_from(LfsLock)) == 0


async def test_a_lock_that_changes_hands_is_always_somebodys(world: World) -> None:
    """Creation and release race: everybody either gets the lock or sees whose it is."""

    async def take_and_give(actor: Actor) -> int:
        won = 0
        for _ in range(15):
            with suppress(LockExists):
                lock = await world.locks.create(world.here, actor, "a", None)
                await world.locks.unlock(world.here, actor, lock.id, force=False, may_force=False)
                won += 1
        return won

    assert sum(await asyncio.gather(*(take_and_give(actor) for actor in (world.ada, world.bob)))) > 0
    assert await world.locks.list(world.here) == ([], None)
