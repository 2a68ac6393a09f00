"""Several writers at once: one wins, the others are told why, and nothing is half done."""

import asyncio
from collections.abc import Awaitable, Iterable

from sqlalchemy import func, select, update

from core.access import SYSTEM, Permission
from core.accounts import Accounts
from core.database import Database
from core.errors import AlreadyExists, Conflict, ModelyardError
from core.models import Account, AccountKind, AuditEntry, OutboxEvent, Repository, Role, Transport
from core.names import parse_address
from tests.support.core_services import Core
from tests.support.ssh_public_keys import public_key_text


async def outcomes(attempts: Iterable[Awaitable[object]]) -> list[type[ModelyardError] | None]:
    """What became of each: None is success. Anything but a refusal fails the test."""

    async def outcome(attempt: Awaitable[object]) -> type[ModelyardError] | None:
        try:
            await attempt
        except ModelyardError as error:
            return type(error)
        return None

    return list(await asyncio.gather(*(outcome(attempt) for attempt in attempts)))


async def test_two_writers_queue_and_lose_no_update(database: Database) -> None:
    core = Core.on(database)
    repository = await core.repository("alice/x", actor=await core.user("alice"))

    async def bump() -> None:
        async with database.transaction() as session:
            query = select(Repository).where(Repository.id == repository.id).with_for_update()
            row = (await session.scalars(query)).one()
            version = row.refs_version
            await asyncio.sleep(0.01)
            await session.execute(update(Repository).values(refs_version=version + 1))

    await asyncio.gather(*(bump() for _ in range(10)))
    opened = await core.repositories.open(SYSTEM, repository.address, Permission.READ)
    assert opened.refs_version == 10


async def test_a_read_sees_one_state(database: Database) -> None:
    core = Core.on(database)
    await core.user("alice")
    async with database.read() as session:
        before = await session.scalar(select(func.count()).select_from(Account))
        await core.user("bob")
        assert await session.scalar(select(func.count()).select_from(Account)) == before == 1


async def test_one_name_is_taken_once(database: Database) -> None:
    core = Core.on(database)
    alice = await core.user("alice")
    found = await outcomes(core.repository("alice/x", actor=alice) for _ in range(8))
    assert sorted(map(str, found)) == sorted(map(str, [None] + [AlreadyExists] * 7))
    found = await outcomes(core.user("bob") for _ in range(8))
    assert sorted(map(str, found)) == sorted(map(str, [None] + [AlreadyExists] * 7))
    text = public_key_text()
    found = await outcomes(core.keyring.add_key(alice, "alice", text) for _ in range(8))
    assert sorted(map(str, found)) == sorted(map(str, [None] + [AlreadyExists] * 7))
    async with database.read() as session:
        created = select(func.count()).select_from(AuditEntry).where(AuditEntry.action == "repository:create")
        assert await session.scalar(created) == 1
        assert await session.scalar(select(func.count()).select_from(OutboxEvent)) == 1


async def test_pushes_that_create_meet_in_one_repository(database: Database) -> None:
    core = Core.on(database)
    alice = await core.user("alice")
    address = parse_address("alice/x")
    opened = await asyncio.gather(
        *(core.repositories.open_or_create(alice, address, Transport.HTTP) for _ in range(8))
    )
    assert len({info.id for info in opened}) == 1


async def test_move_against_create(database: Database) -> None:
    core = Core.on(database)
    alice = await core.user("alice")
    for number in range(6):
        old, new = parse_address(f"alice/old-{number}"), parse_address(f"alice/new-{number}")
        first = await core.repositories.create(alice, old)
        moved, created = await outcomes(
            [core.repositories.move(alice, old, new), core.repositories.create(alice, new)]
        )
        assert [moved, created].count(None) == 1
        assert AlreadyExists in {moved, created}
        there = await core.repositories.open(alice, new, Permission.READ)
        assert (there.id == first.id) is (moved is None)
        assert (await core.repositories.open(alice, old, Permission.READ)).id == first.id


async def test_create_where_something_moves_away(database: Database) -> None:
    core = Core.on(database)
    alice = await core.user("alice")
    for number in range(6):
        old, new = parse_address(f"alice/old-{number}"), parse_address(f"alice/new-{number}")
        first = await core.repositories.create(alice, old)
        moved, created = await outcomes(
            [core.repositories.move(alice, old, new), core.repositories.create(alice, old)]
        )
        assert moved is None
        assert created in {None, AlreadyExists}
        there = await core.repositories.open(alice, old, Permission.READ)
        assert (there.id == first.id) is (created is AlreadyExists)


async def test_many_moves_of_one_repository(database: Database) -> None:
    core = Core.on(database)
    alice = await core.user("alice")
    first = await core.repository("alice/start", actor=alice)
    targets = [parse_address(f"alice/to-{number}") for number in range(6)]
    found = await outcomes(core.repositories.move(alice, first.address, to) for to in targets)
    assert found == [None] * 6
    for address in (first.address, *targets):
        assert (await core.repositories.open(alice, address, Permission.READ)).id == first.id


async def test_renamed_while_somebody_takes_the_old_name(database: Database) -> None:
    core = Core.on(database)
    await core.user("alice")
    found = await outcomes(
        [
            core.accounts.rename(SYSTEM, "alice", "alicia"),
            core.accounts.create_user(SYSTEM, "alice"),
            core.repository("alice/x"),
        ]
    )
    assert found[0] is None
    assert found[1] in {None, AlreadyExists}
    assert found[2] is None
    async with database.read() as session:
        owner = await session.scalar(select(Account.name).join(Repository, Repository.owner_id == Account.id))
    assert owner in {"alice", "alicia"}


async def test_a_name_changes_hands_while_somebody_waits_for_it(database: Database) -> None:
    core = Core.on(database)
    await core.user("alice")
    async with database.transaction() as session:
        await session.execute(update(Account).where(Account.name == "alice").values(name="alicia"))
        session.add(Account(kind=AccountKind.USER, name="alice"))
        await session.flush()
        waiting = asyncio.create_task(core.repository("alice/x"))
        await asyncio.sleep(0.3)  # until it waits for the row that is about to be called otherwise
        assert not waiting.done()
    assert (await waiting).owner == "alice"


async def test_administrators_cannot_remove_each_other_at_once(database: Database) -> None:
    core = Core.on(database)
    actors = [await core.user(name, is_admin=True) for name in ("ada", "bea", "cleo")]
    names = ("bea", "cleo", "ada")
    found = await outcomes(
        core.accounts.suspend(actor, name) for actor, name in zip(actors, names, strict=True)
    )
    assert found.count(None) == 2
    assert await left(core.accounts) == 1


async def left(accounts: Accounts) -> int:
    return sum(info.is_admin and info.suspended_at is None for info in await accounts.list())


async def test_owners_cannot_leave_at_once(database: Database) -> None:
    core = Core.on(database)
    alice, bob = await core.user("alice"), await core.user("bob")
    await core.accounts.create_organisation(alice, "acme")
    await core.organisations.set_member(alice, "acme", "bob", Role.ADMIN)
    found = await outcomes(
        [
            core.organisations.remove_member(alice, "acme", "alice"),
            core.organisations.remove_member(bob, "acme", "bob"),
            core.accounts.delete(SYSTEM, "bob"),
        ]
    )
    assert Conflict in found or len([member for member in found if member is None]) < 3
    assert [member.role for member in await core.organisations.members("acme")].count(Role.ADMIN) == 1


async def test_an_account_is_not_deleted_under_a_new_repository(database: Database) -> None:
    core = Core.on(database)
    for number in range(4):
        name = f"user-{number}"
        await core.user(name)
        deleted, created = await outcomes([core.accounts.delete(SYSTEM, name), core.repository(f"{name}/x")])
        assert (deleted is None) is not (created is None)
