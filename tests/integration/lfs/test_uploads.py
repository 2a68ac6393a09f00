"""The one way in: nothing becomes visible but what was proved, and nothing is left behind."""

import asyncio
import hashlib
import resource
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest
from sqlalchemy import update

from core import failpoints
from core.access import Actor, ActorKind
from core.database import Database, DatabaseUnavailable
from core.errors import InvalidCredentials, PermissionDenied, RepositoryNotFound
from core.models import LfsLink, LfsObject, Role, Scope, StoreKind, now
from core.settings import LfsSettings
from lfs import uploads
from lfs.errors import InvalidOid, ObjectTooLarge, WrongBytes
from lfs.pending import GIVEN_UP
from storage.protocol import StoreUnavailable
from tests.support.lfs_world import LfsWorld, Unread, oid_of, open_lfs_world
from tests.support.minio_server import MinioServer
from tests.support.streams import noise, pieces


class Died(BaseException):
    """The process was killed here."""


async def receive(
    world: LfsWorld,
    data: AsyncIterator[bytes],
    *,
    oid: str,
    size: int,
    actor: Actor | None = None,
) -> None:
    await world.uploads.receive(world.repository.id, actor or world.owner, oid, size, data)


@pytest.mark.parametrize("size", [0, 1, 65_536, 65_537, 524_288, 3_000_001])
async def test_what_goes_in_comes_out(world: LfsWorld, size: int) -> None:
    data = noise(size)
    oid = await world.upload(data)
    assert await world.read(oid) == data
    row, link = await world.object(oid), await world.link(oid)
    assert row is not None
    assert link is not None
    assert (row.size, row.damaged_at, row.unlinked_at, link.trashed_at) == (size, None, None, None)
    await world.expect_sound()


@pytest.mark.parametrize("length", [1, 7, 100_000, 1_000_000, 5_000_000])
async def test_pieces_of_any_length(world: LfsWorld, length: int) -> None:
    data = noise(50_000 if length < 10 else 3_000_000)
    await receive(world, pieces(data, length), oid=oid_of(data), size=len(data))
    assert await world.read(oid_of(data)) == data


@pytest.mark.parametrize("size", [10, 3_000_000])
async def test_wrong_bytes_leave_nothing(world: LfsWorld, size: int) -> None:
    data = noise(size)
    short, long, other = data[:-1], data + b"x", data[:-1] + bytes([data[-1] ^ 1])
    for wrong in (short, long, other, b""):
        with pytest.raises(WrongBytes):
            await receive(world, pieces(wrong), oid=oid_of(data), size=size)
        assert await world.is_empty()


async def test_excess_ends_the_reading(world: LfsWorld) -> None:
    read = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal read
        while True:
            read += 1000
            yield bytes(1000)

    with pytest.raises(WrongBytes):
        await receive(world, endless(), oid=oid_of(bytes(2500)), size=2500)
    assert read == 3000
    assert await world.is_empty()


async def test_what_cannot_be_is_refused_before_the_bytes(database: Database, tmp_path: Path) -> None:
    good = oid_of(b"x")
    async with open_lfs_world(database, tmp_path, settings=LfsSettings(max_object_bytes=100)) as world:
        for oid in (good.upper(), good + "ab", good[:-1], "../" + good[3:], "", good[:-1] + "g", good + "\n"):
            with pytest.raises(InvalidOid):
                await receive(world, Unread(), oid=oid, size=1)
        for size in (101, -1):
            with pytest.raises(ObjectTooLarge):
                await receive(world, Unread(), oid=good, size=size)
        with pytest.raises(RepositoryNotFound):
            await world.uploads.receive("0" * 32, world.owner, good, 1, Unread())
        assert await world.is_empty()


async def test_a_client_that_breaks_off_leaves_nothing(world: LfsWorld) -> None:
    class Gone(Exception):
        pass

    async def broken() -> AsyncIterator[bytes]:
        yield noise(400_000)
        yield noise(400_000)
        raise Gone

    with pytest.raises(Gone):
        await receive(world, broken(), oid="0" * 64, size=10**7)
    assert await world.is_empty()


async def test_a_cancelled_upload_leaves_nothing(world: LfsWorld) -> None:
    stuck = asyncio.Event()

    async def slow() -> AsyncIterator[bytes]:
        yield noise(400_000)
        stuck.set()
        await asyncio.sleep(60)

    upload = asyncio.create_task(receive(world, slow(), oid="0" * 64, size=10**7))
    await stuck.wait()
    upload.cancel()
    with pytest.raises(asyncio.CancelledError):
        await upload
    assert await world.is_empty()


async def test_again_is_no_change(world: LfsWorld) -> None:
    oid = await world.upload(b"weights")
    before = await world.object(oid)
    await world.upload(b"weights")
    after = await world.object(oid)
    assert before is not None
    assert after is not None
    assert (before.key, before.verified_at) == (after.key, after.verified_at)
    await world.expect_sound()


async def test_bytes_are_shared_and_links_are_not(world: LfsWorld) -> None:
    bob = await world.core.user("bob")
    theirs = await world.new_repository("model", actor=bob)
    oid = await world.upload(b"weights")
    assert await world.link(oid, theirs) is None
    await world.upload(b"weights", repository=theirs, actor=bob)
    assert await world.link(oid, theirs) is not None
    assert len(await world.rows(LfsObject)) == 1
    await world.expect_sound()


async def test_eight_at_once_to_one_and_two_repositories(world: LfsWorld) -> None:
    other = await world.new_repository("other")
    for repositories in ([world.repository], [world.repository, other]):
        data = noise(700_000, str(len(repositories)))
        await asyncio.gather(
            *(world.upload(data, repository=repositories[n % len(repositories)]) for n in range(8))
        )
        for repository in repositories:
            assert await world.link(oid_of(data), repository) is not None
        await world.expect_sound()


async def test_many_objects_in_many_orders_at_once(world: LfsWorld) -> None:
    other = await world.new_repository("other")
    every = [noise(100, str(number)) for number in range(6)]
    jobs = [(data, where) for where in (world.repository, other) for data in every]
    await asyncio.gather(*(world.upload(data, repository=where) for data, where in [*jobs, *reversed(jobs)]))
    assert len(await world.rows(LfsLink)) == 12
    await world.expect_sound()


async def test_the_trash_gives_back(world: LfsWorld) -> None:
    oid = await world.upload(b"weights")
    async with world.database.transaction() as session:
        await session.execute(update(LfsLink).values(trashed_at=now(), touched_at=GIVEN_UP))
        await session.execute(update(LfsObject).values(unlinked_at=now()))
    await world.upload(b"weights")
    row, link = await world.object(oid), await world.link(oid)
    assert row is not None
    assert link is not None
    assert (row.unlinked_at, link.trashed_at) == (None, None)
    assert link.touched_at > GIVEN_UP


async def test_a_damaged_object_is_mended_by_the_next_upload(world: LfsWorld) -> None:
    oid = await world.upload(b"weights")
    before = await world.object(oid)
    assert before is not None
    await world.put(before.key, b"weighty")
    async with world.database.transaction() as session:
        await session.execute(update(LfsObject).values(damaged_at=now()))
    await asyncio.gather(*(world.upload(b"weights") for _ in range(4)))
    after = await world.object(oid)
    assert after is not None
    assert after.damaged_at is None
    assert after.key != before.key
    assert after.verified_at > before.verified_at
    await world.expect_sound()


async def test_lost_bytes_are_replaced(world: LfsWorld) -> None:
    oid = await world.upload(b"weights")
    before = await world.object(oid)
    assert before is not None
    await world.store.delete(before.key)
    await asyncio.gather(*(world.upload(b"weights") for _ in range(4)))
    assert await world.read(oid) == b"weights"
    await world.expect_sound()
    # Cut short is as good as lost.
    now_there = await world.object(oid)
    assert now_there is not None
    await world.put(now_there.key, b"weigh")
    await world.upload(b"weights")
    await world.expect_sound()


async def test_bytes_in_a_store_that_is_gone_are_replaced(world: LfsWorld) -> None:
    oid = await world.upload(b"weights")
    async with world.database.transaction() as session:
        await session.execute(update(LfsObject).values(store=StoreKind.MINIO))
    await world.upload(b"weights")
    row = await world.object(oid)
    assert row is not None
    assert row.store is StoreKind.LOCAL
    assert await world.read(oid) == b"weights"


async def test_a_repository_deleted_meanwhile(world: LfsWorld) -> None:
    async def deleting() -> AsyncIterator[bytes]:
        yield b"wei"
        await world.core.repositories.delete(world.owner, world.repository.address)
        yield b"ghts"

    with pytest.raises(RepositoryNotFound):
        await receive(world, deleting(), oid=oid_of(b"weights"), size=7)
    assert await world.is_empty()


async def test_rights_are_asked_again_at_the_end(world: LfsWorld) -> None:
    bob = await world.core.user("bob")
    address = world.repository.address
    await world.core.collaboration.set_collaborator(world.owner, address, "bob", Role.WRITE)

    async def losing() -> AsyncIterator[bytes]:
        yield b"wei"
        await world.core.collaboration.set_collaborator(world.owner, address, "bob", Role.READ)
        yield b"ghts"

    with pytest.raises(PermissionDenied):
        await receive(world, losing(), oid=oid_of(b"weights"), size=7, actor=bob)

    minted = await world.core.keyring.mint_token(world.owner, "ann", "ci", Scope.WRITE)
    [token] = await world.core.keyring.tokens(world.owner, "ann")
    ci = replace(world.owner, credential=f"token:{token.id}", scope=Scope.WRITE)

    async def revoking() -> AsyncIterator[bytes]:
        yield b"wei"
        await world.core.keyring.revoke_token(world.owner, "ann", token.id)
        yield b"ghts"

    assert minted
    with pytest.raises(InvalidCredentials):
        await receive(world, revoking(), oid=oid_of(b"weights"), size=7, actor=ci)
    reader = replace(world.owner, read_only=True)
    with pytest.raises(PermissionDenied):
        await receive(world, pieces(b"weights"), oid=oid_of(b"weights"), size=7, actor=reader)
    assert await world.is_empty()


async def test_a_deploy_key_may_upload(world: LfsWorld) -> None:
    key = Actor(ActorKind.DEPLOY_KEY, "deploy-key:1", repository_id=world.repository.id)
    await world.upload(b"weights", actor=key)
    await world.expect_sound()


async def test_the_store_is_away(world: LfsWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    async def refuse(key: str, data: AsyncIterator[bytes]) -> int:
        raise StoreUnavailable("the object store cannot be reached")

    with monkeypatch.context() as patched:
        patched.setattr(world.store, "put", refuse)
        with pytest.raises(StoreUnavailable):
            await world.upload(b"weights")
    assert await world.is_empty()
    await world.upload(b"weights")
    await world.expect_sound()


async def test_an_unknown_end_of_the_commit_keeps_the_bytes(
    world: LfsWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The connection is lost while the database commits: a row may name the bytes."""
    commit = world.uploads._commit

    async def lost(*arguments: object) -> None:
        await commit(*arguments)  # type: ignore[arg-type]
        raise DatabaseUnavailable("the database is not available; try again")

    with monkeypatch.context() as patched:
        patched.setattr(world.uploads, "_commit", lost)
        with pytest.raises(DatabaseUnavailable):
            await world.upload(b"weights")
    await world.expect_sound()
    assert await world.read(oid_of(b"weights")) == b"weights"


async def test_leaving_during_the_commit_changes_nothing(
    world: LfsWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit, begun = world.uploads._commit, asyncio.Event()

    async def slow(*arguments: object) -> object:
        begun.set()
        await asyncio.sleep(0.05)
        return await commit(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(world.uploads, "_commit", slow)
    upload = asyncio.create_task(world.upload(b"weights"))
    await begun.wait()
    upload.cancel()
    with pytest.raises(asyncio.CancelledError):
        await upload
    assert await world.link(oid_of(b"weights")) is not None
    await world.expect_sound()


@pytest.mark.parametrize("point", [uploads.BEFORE_BYTES, uploads.AFTER_BYTES, uploads.AFTER_COMMIT])
async def test_dying_leaves_all_or_an_orphan(
    world: LfsWorld, monkeypatch: pytest.MonkeyPatch, point: str
) -> None:
    def die(name: str) -> None:
        if name == point:
            raise Died

    with monkeypatch.context() as patched:
        patched.setattr(failpoints, "reach", die)
        with pytest.raises(Died):
            await world.upload(b"weights")
    oid = oid_of(b"weights")
    there = point == uploads.AFTER_COMMIT
    assert (await world.link(oid) is not None) is there
    assert len(await world.keys()) == (0 if point == uploads.BEFORE_BYTES else 1)
    await world.upload(b"weights")
    assert await world.read(oid) == b"weights"


async def test_memory_stays_flat(world: LfsWorld) -> None:
    """256 MiB pass; what the process holds at its peak grows by a fraction."""
    count, block = 256, noise(256 * 1024)
    digest = hashlib.sha256()
    for _ in range(count):
        digest.update(block)
    oid, size = digest.hexdigest(), count * len(block)

    async def stream() -> AsyncIterator[bytes]:
        for _ in range(count):
            yield bytes(bytearray(block))  # a new one each time, as from a socket

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    await asyncio.gather(*(receive(world, stream(), oid=oid, size=size) for _ in range(4)))
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024
    assert grown < 32, f"{grown} MiB more"
    await world.expect_sound()


async def test_new_objects_go_to_the_current_store(
    database: Database, tmp_path: Path, minio: MinioServer
) -> None:
    data = noise(6_000_000)
    async with open_lfs_world(database, tmp_path, minio=minio.settings(prefix=tmp_path.name)) as world:
        with pytest.raises(WrongBytes):
            await receive(world, pieces(data + b"x"), oid=oid_of(data), size=len(data))
        assert await world.is_empty()
        await asyncio.gather(*(world.upload(data) for _ in range(3)))
        row = await world.object(oid_of(data))
        assert row is not None
        assert row.store is StoreKind.MINIO
        await world.expect_sound()
