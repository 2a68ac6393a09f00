"""Quotas: how much an owner may have, whoever uploads, and however many do at once."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from sqlalchemy import update

from core.access import ANONYMOUS, SYSTEM
from core.database import Database
from core.errors import (
    AccountNotFound,
    AuthenticationRequired,
    PermissionDenied,
    RepositoryNotFound,
    Unprocessable,
)
from core.models import LfsLink, Role, now
from core.settings import LfsSettings
from lfs.errors import QuotaExceeded
from lfs.objects import Usage
from tests.support.lfs_world import LfsWorld, Unread, oid_of, open_lfs_world
from tests.support.streams import noise


def owner_id(world: LfsWorld) -> int:
    assert world.owner.user_id is not None
    return world.owner.user_id


async def test_no_limit_is_the_default(world: LfsWorld) -> None:
    assert await world.quotas.limit_of(owner_id(world)) == 0
    await world.quotas.require_room(world.repository.id, 2**62)
    with pytest.raises(AccountNotFound):
        await world.quotas.limit_of(10**6)
    with pytest.raises(RepositoryNotFound):
        await world.quotas.require_room("0" * 32, 1)


async def test_a_limit_of_ones_own_goes_before_the_settings(database: Database, tmp_path: Path) -> None:
    async with open_lfs_world(database, tmp_path, settings=LfsSettings(quota_bytes=100)) as world:
        assert await world.quotas.limit_of(owner_id(world)) == 100
        await world.upload(noise(60))
        with pytest.raises(QuotaExceeded) as refused:
            await world.upload(noise(41, "b"))
        assert refused.value.fields == {"quota_bytes": 100}
        assert "ann" in refused.value.message
        await world.quotas.set(SYSTEM, "ann", 101)
        await world.upload(noise(41, "b"))
        await world.quotas.set(SYSTEM, "ann", 0)
        await world.upload(noise(5000, "c"))
        await world.quotas.set(SYSTEM, "ann", None)
        assert await world.quotas.limit_of(owner_id(world)) == 100
        with pytest.raises(QuotaExceeded):
            await world.quotas.require_room(world.repository.id, 1)
        # Above the limit already: what is there stays, and asking for nothing more is no offence.
        await world.quotas.require_room(world.repository.id, 0)
        await world.expect_sound()


async def test_the_owner_pays_whoever_uploads(world: LfsWorld) -> None:
    bob = await world.core.user("bob")
    await world.core.collaboration.set_collaborator(world.owner, world.repository.address, "bob", Role.WRITE)
    await world.quotas.set(SYSTEM, "ann", 10)
    await world.quotas.set(SYSTEM, "bob", 1)
    await world.upload(b"12345678", actor=bob)
    with pytest.raises(QuotaExceeded):
        await world.upload(b"abc", actor=bob)


async def test_each_link_counts_and_only_once(world: LfsWorld) -> None:
    other = await world.new_repository("other")
    await world.quotas.set(SYSTEM, "ann", 10)
    await world.upload(b"123456")
    await world.upload(b"123456")
    with pytest.raises(QuotaExceeded):
        await world.upload(b"123456", repository=other)
    assert await world.objects.usage(other.id) == Usage()


async def test_the_trash_is_free(world: LfsWorld) -> None:
    await world.quotas.set(SYSTEM, "ann", 10)
    await world.upload(b"123456")
    async with world.database.transaction() as session:
        await session.execute(update(LfsLink).values(trashed_at=now()))
    await world.upload(b"abcdef")
    with pytest.raises(QuotaExceeded):  # to bring it back takes room again
        await world.upload(b"123456")


async def test_a_refusal_before_the_bytes_reads_none(world: LfsWorld) -> None:
    await world.quotas.set(SYSTEM, "ann", 10)
    with pytest.raises(QuotaExceeded):
        await world.uploads.receive(world.repository.id, world.owner, "0" * 64, 11, Unread())


async def test_uploads_at_once_cannot_overshoot(world: LfsWorld) -> None:
    """All pass the check before the bytes; only three fit."""
    other = await world.new_repository("other")
    await world.quotas.set(SYSTEM, "ann", 3500)
    everybody = asyncio.Barrier(8)

    async def together(data: bytes) -> AsyncIterator[bytes]:
        await everybody.wait()
        yield data

    async def upload(number: int) -> None:
        data, where = noise(1000, str(number)), (world.repository, other)[number % 2]
        await world.uploads.receive(where.id, world.owner, oid_of(data), len(data), together(data))

    found = await asyncio.gather(*map(upload, range(8)), return_exceptions=True)
    assert sum(isinstance(one, QuotaExceeded) for one in found) == 5
    assert found.count(None) == 3
    assert await world.objects.owner_usage(owner_id(world)) == Usage(3, 3000)
    await world.expect_sound()


async def test_the_same_object_at_once_takes_its_room_once(world: LfsWorld) -> None:
    await world.quotas.set(SYSTEM, "ann", 1000)
    await asyncio.gather(*(world.upload(noise(1000)) for _ in range(6)))
    assert await world.objects.owner_usage(owner_id(world)) == Usage(1, 1000)
    await world.expect_sound()


async def test_who_sets_quotas(world: LfsWorld) -> None:
    await world.core.accounts.create_organisation(world.owner, "acme")
    admin = await world.core.user("carol", is_admin=True)
    await world.quotas.set(admin, "acme", 5)
    [entry, *_] = await world.core.audit.list(SYSTEM)
    assert (entry.action, entry.target, entry.actor) == ("quota:set", "acme", "carol")
    assert (entry.details["bytes"], entry.details["before"]) == (5, None)
    with pytest.raises(PermissionDenied):
        await world.quotas.set(world.owner, "ann", 0)
    with pytest.raises(AuthenticationRequired):
        await world.quotas.set(ANONYMOUS, "ann", 0)
    with pytest.raises(AccountNotFound):
        await world.quotas.set(admin, "nobody", 0)
    for impossible in (-1, 2**63):
        with pytest.raises(Unprocessable):
            await world.quotas.set(admin, "ann", impossible)
    await world.quotas.set(admin, "ann", 2**63 - 1)
    assert await world.quotas.limit_of(owner_id(world)) == 2**63 - 1
    await world.upload(b"still")
