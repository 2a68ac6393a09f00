"""The trash: what is in it, until when, and how it comes back."""

import pytest
from sqlalchemy import select

from core.access import SYSTEM
from core.errors import PermissionDenied, RepositoryNotFound
from core.models import AuditEntry
from lfs.errors import ObjectMissing
from tests.support.lfs_keeping import Keeping
from tests.support.lfs_world import oid_of


@pytest.fixture
async def thrown_away(keeping: Keeping) -> list[str]:
    """Three objects in the trash of ann/model, since today."""
    oids = sorted([await keeping.world.upload(b"rubbish %d" % number) for number in range(3)])
    await keeping.later(days=20)
    await keeping.files.collector.collect()
    return oids


async def test_it_lists_what_is_in_it_and_until_when(keeping: Keeping, thrown_away: list[str]) -> None:
    found = await keeping.files.trash.of_repository(keeping.repository.id, limit=2)
    assert [one.oid for one in found] == thrown_away[:2]
    assert all((one.until - one.since).days == 30 and one.size == 9 for one in found)
    rest = await keeping.files.trash.of_repository(keeping.repository.id, limit=2, after=found[-1].oid)
    assert [one.oid for one in rest] == thrown_away[2:]
    assert await keeping.files.trash.unlinked(limit=10) == []


async def test_some_come_back(keeping: Keeping, thrown_away: list[str]) -> None:
    trash, where = keeping.files.trash, keeping.repository.id
    assert await trash.restore(SYSTEM, where, thrown_away[:2]) == 2
    assert await keeping.world.objects.missing(where, thrown_away) == {thrown_away[2]}
    assert await trash.restore(SYSTEM, where, thrown_away[:2]) == 0, "they are back already"
    assert (await keeping.files.collector.collect()).repositories == [], "and they are young again"
    async with keeping.world.database.read() as session:
        entries = await session.scalars(select(AuditEntry).where(AuditEntry.action == "lfs:restore"))
        assert [entry.details["oids"] for entry in entries] == [thrown_away[:2]]


async def test_all_come_back(keeping: Keeping, thrown_away: list[str]) -> None:
    assert await keeping.files.trash.restore(SYSTEM, keeping.repository.id, None) == 3
    assert await keeping.world.objects.missing(keeping.repository.id, thrown_away) == set()


async def test_it_is_all_or_nothing(keeping: Keeping, thrown_away: list[str]) -> None:
    other = await keeping.world.new_repository("other")
    foreign = await keeping.world.upload(b"of another repository", repository=other)
    for stranger in (foreign, oid_of(b"unheard of")):
        with pytest.raises(ObjectMissing) as caught:
            await keeping.files.trash.restore(SYSTEM, keeping.repository.id, [thrown_away[0], stranger])
        assert caught.value.fields["oids"] == [stranger]
        with pytest.raises(ObjectMissing):
            await keeping.files.trash.restore(SYSTEM, keeping.repository.id, [stranger], unlinked=True)
    assert len(await keeping.files.trash.of_repository(keeping.repository.id, limit=10)) == 3
    with pytest.raises(RepositoryNotFound):
        await keeping.files.trash.restore(SYSTEM, "0" * 32, [foreign])
    with pytest.raises(PermissionDenied):
        await keeping.files.trash.restore(keeping.world.owner, keeping.repository.id, None)


async def test_what_nobody_has_a_link_to_comes_back_where_it_is_wanted(keeping: Keeping) -> None:
    other = await keeping.world.new_repository("other")
    oid = await keeping.world.upload(b"of a deleted repository", repository=other)
    await keeping.world.core.repositories.delete(SYSTEM, other.address)
    await keeping.files.collector.collect()
    assert [one.oid for one in await keeping.files.trash.unlinked(limit=10)] == [oid]
    with pytest.raises(ObjectMissing):
        await keeping.files.trash.restore(SYSTEM, keeping.repository.id, [oid])
    assert await keeping.files.trash.restore(SYSTEM, keeping.repository.id, [oid], unlinked=True) == 1
    assert await keeping.world.objects.missing(keeping.repository.id, [oid]) == set()
    assert await keeping.files.trash.unlinked(limit=10) == []
    await keeping.later(days=100)
    await keeping.world.objects.touch(keeping.repository.id, [oid])
    await keeping.files.collector.collect()
    assert await keeping.world.read(oid) == b"of a deleted repository"


async def test_uploading_it_again_brings_it_back(keeping: Keeping, thrown_away: list[str]) -> None:
    await keeping.world.upload(b"rubbish 1")
    assert await keeping.world.objects.missing(keeping.repository.id, thrown_away) == set(thrown_away) - {
        oid_of(b"rubbish 1")
    }
    await keeping.world.expect_sound()
