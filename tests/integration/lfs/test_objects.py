"""What a repository has: only what was linked to it, in one query, however many are asked for."""

from datetime import timedelta

from sqlalchemy import update

from core.models import LfsLink, LfsObject, StoreKind, now
from lfs.objects import Usage, new_key
from tests.support.lfs_world import LfsWorld, oid_of
from tests.support.statements import counted


async def fill(world: LfsWorld, count: int, *, size: int = 10) -> list[str]:
    """Rows without bytes."""
    oids = sorted(oid_of(b"%d" % number) for number in range(count))
    async with world.database.transaction() as session:
        session.add_all(
            LfsObject(oid=oid, size=size, store=StoreKind.LOCAL, key=new_key(oid)) for oid in oids
        )
        await session.flush()
        session.add_all(LfsLink(repository_id=world.repository.id, oid=oid) for oid in oids)
    return oids


async def change_link(world: LfsWorld, oid: str, **values: object) -> None:
    async with world.database.transaction() as session:
        here = (LfsLink.repository_id == world.repository.id, LfsLink.oid == oid)
        await session.execute(update(LfsLink).where(*here).values(**values))


async def change_object(world: LfsWorld, oid: str, **values: object) -> None:
    async with world.database.transaction() as session:
        await session.execute(update(LfsObject).where(LfsObject.oid == oid).values(**values))


async def test_a_thousand_are_found_in_one_query(world: LfsWorld) -> None:
    oids = await fill(world, 1500)
    strange = [oid_of(b"x%d" % number) for number in range(500)]
    with counted(world.database) as statements:
        found = await world.objects.find(world.repository.id, oids[:1000] + strange)
    assert len(statements) == 1
    assert sorted(found) == oids[:1000]
    with counted(world.database) as statements:
        everything = [*oids, *strange, *(oid_of(b"y%d" % number) for number in range(8000))]
        assert len(await world.objects.find(world.repository.id, everything)) == 1500
    assert len(statements) == 1
    more = [*everything, *(oid_of(b"z%d" % number) for number in range(3000))]
    assert await world.objects.missing(world.repository.id, more) == set(more) - set(oids)


async def test_nothing_asked_is_no_query(world: LfsWorld) -> None:
    with counted(world.database) as statements:
        assert await world.objects.find(world.repository.id, []) == {}
        assert await world.objects.missing(world.repository.id, []) == set()
        await world.objects.touch(world.repository.id, [])
    assert statements == []


async def test_what_is_found(world: LfsWorld) -> None:
    oid = await world.upload(b"weights")
    row = await world.object(oid)
    assert row is not None
    found = (await world.objects.find(world.repository.id, [oid]))[oid]
    assert (found.oid, found.size, found.store, found.key) == (oid, 7, StoreKind.LOCAL, row.key)
    assert found.damaged is False


async def test_an_object_of_another_repository_is_missing(world: LfsWorld) -> None:
    other = await world.new_repository("other")
    oid = await world.upload(b"weights", repository=other)
    assert await world.objects.find(world.repository.id, [oid]) == {}
    assert await world.objects.missing(world.repository.id, [oid]) == {oid}
    assert await world.objects.list(world.repository.id, limit=10) == []
    assert await world.objects.usage(world.repository.id) == Usage()


async def test_damaged_is_found_and_missing(world: LfsWorld) -> None:
    oid = await world.upload(b"weights")
    await change_object(world, oid, damaged_at=now())
    assert (await world.objects.find(world.repository.id, [oid]))[oid].damaged is True
    assert await world.objects.missing(world.repository.id, [oid]) == {oid}


async def test_the_trash_is_out_of_reach(world: LfsWorld) -> None:
    kept, gone = await world.upload(b"kept"), await world.upload(b"trashed")
    await change_link(world, gone, trashed_at=now())
    assert set(await world.objects.find(world.repository.id, [kept, gone])) == {kept}
    assert await world.objects.missing(world.repository.id, [kept, gone]) == {gone}
    assert await world.objects.usage(world.repository.id) == Usage(1, 4, 1, 7)
    [one] = await world.objects.list(world.repository.id, limit=10)
    assert (one.oid, one.trashed_at) == (kept, None)
    [one] = await world.objects.list(world.repository.id, limit=10, trashed=True)
    assert one.oid == gone
    assert one.trashed_at is not None


async def test_usage_is_by_repository_and_by_owner(world: LfsWorld) -> None:
    other, bob = await world.new_repository("other"), await world.core.user("bob")
    theirs = await world.new_repository("model", actor=bob)
    for repository in (world.repository, other):
        await world.upload(b"shared", repository=repository)
    await world.upload(b"shared", repository=theirs, actor=bob)
    await world.upload(b"more", repository=other)
    assert await world.objects.usage(world.repository.id) == Usage(1, 6)
    assert await world.objects.usage(other.id) == Usage(2, 10)
    assert world.owner.user_id is not None
    assert bob.user_id is not None
    assert await world.objects.owner_usage(world.owner.user_id) == Usage(3, 16)
    assert await world.objects.owner_usage(bob.user_id) == Usage(1, 6)
    assert await world.objects.owner_usage(10**6) == Usage()


async def test_usage_counts_past_32_bits(world: LfsWorld) -> None:
    await fill(world, 3, size=2**61)
    usage = await world.objects.usage(world.repository.id)
    assert usage == Usage(3, 3 * 2**61)
    assert type(usage.bytes) is int


async def test_pages(world: LfsWorld) -> None:
    oids = await fill(world, 25)
    seen: list[str] = []
    while page := await world.objects.list(world.repository.id, limit=10, after=seen[-1] if seen else None):
        seen += [one.oid for one in page]
    assert seen == oids


async def test_touch_writes_once_a_day(world: LfsWorld) -> None:
    oids = await fill(world, 3)
    old, fresh, trashed = now() - timedelta(days=3), now() - timedelta(hours=2), now() - timedelta(days=5)
    await change_link(world, oids[0], touched_at=old)
    await change_link(world, oids[1], touched_at=fresh)
    await change_link(world, oids[2], touched_at=trashed, trashed_at=trashed)
    await world.objects.touch(world.repository.id, [*oids, oid_of(b"unknown")])
    touched = {row.oid: row.touched_at for row in await world.rows(LfsLink)}
    assert now() - touched[oids[0]] < timedelta(minutes=1)
    assert touched[oids[1]] == fresh
    assert touched[oids[2]] == trashed
    with counted(world.database) as statements:
        await world.objects.touch(world.repository.id, oids)
    assert [statement.split()[0] for statement in statements] == ["SELECT"]


async def test_touch_stays_in_its_repository(world: LfsWorld) -> None:
    oids = await fill(world, 1)
    old = now() - timedelta(days=3)
    await change_link(world, oids[0], touched_at=old)
    await world.objects.touch((await world.new_repository("other")).id, oids)
    assert [row.touched_at for row in await world.rows(LfsLink)] == [old]


def test_keys_are_never_the_same() -> None:
    oid = oid_of(b"x")
    first, second = new_key(oid), new_key(oid)
    assert first != second
    assert first.startswith(f"lfs/{oid[:2]}/{oid[2:4]}/{oid}.")
    assert len(first) <= 120
