"""`gc --dry-run`: every byte in every store has a reason, and what is announced is what happens."""

from datetime import timedelta

from sqlalchemy import delete

from core.access import SYSTEM
from core.models import LfsUpload, Pack, Repository, now
from core.opening import RepositoryInfo
from lfs.explanation import Tally
from lfs.objects import new_key
from tests.support.lfs_keeping import Keeping
from tests.support.lfs_world import oid_of
from tests.support.streams import noise


async def held(keeping: Keeping) -> Tally:
    """What the store holds, counted by listing it."""
    await keeping.world.uploads.settle()
    infos = [info async for info in keeping.world.store.list("lfs/")]
    return Tally(len(infos), sum(info.size for info in infos))


async def break_refs(keeping: Keeping, repository: RepositoryInfo) -> None:
    """Loses the packs of a repository."""
    async with keeping.world.database.transaction() as session:
        await session.execute(delete(Pack).where(Pack.repository_id == repository.id))
        row = await session.get_one(Repository, repository.id)
        row.refs_version, row.state = row.refs_version + 1, "b" * 32


async def test_every_byte_has_a_reason(keeping: Keeping) -> None:
    world = keeping.world
    # Sizes are powers of two, so that every sum tells what is in it.
    sizes = iter(range(20))

    def data() -> bytes:
        size = 2 ** next(sizes)
        return noise(size, str(size))

    fork, broken, doomed = [await world.new_repository(name) for name in ("fork", "broken", "doomed")]
    await world.upload(purge := data())  # 1
    await keeping.later(days=15)
    await keeping.files.collector.collect()
    await world.upload(later_restored := data())  # 2
    await world.upload(waiting := data())  # 4
    await world.upload(data(), repository=doomed)  # 8
    await world.core.repositories.delete(SYSTEM, doomed.address)
    await keeping.later(days=16)
    await keeping.files.collector.collect()
    await keeping.later(days=15)
    await keeping.point("back", later_restored)
    await world.upload(shared := data())  # 16, unreferenced here and used in the fork
    await keeping.commit(shared, repository=fork)
    await world.upload(trash := data())  # 32
    await keeping.commit(data(), repository=broken)  # 64
    await world.put(new_key(oid_of(b"?")), data())  # 128
    await keeping.later(days=14.5)
    await break_refs(keeping, broken)
    await keeping.commit(data())  # 256
    await world.upload(data())  # 512
    await world.put(new_key(oid_of(b"??")), data())  # 1024
    uploading, moved = new_key(oid_of(b"!")), new_key(oid_of(shared))
    await world.put(uploading, data())  # 2048
    await world.put("lfs/strange", data())  # 4096
    await world.put(moved, data())  # 8192
    async with world.database.transaction() as session:
        kind = world.stores.current_kind
        session.add(
            LfsUpload(
                repository_id=keeping.repository.id, oid=oid_of(b"!"), size=9, store=kind, key=uploading
            )
        )
    row = await world.object(oid_of(shared))
    assert row is not None
    async with world.database.transaction() as session:
        (await session.merge(row)).verified_at = now() - timedelta(days=1)

    explained = await keeping.files.explainer.explain()
    (store,) = explained.stores
    assert {reason: tally.bytes for reason, tally in store.reasons.items()} == {
        "referenced": 16 + 256,
        "trashed_but_referenced": 2,
        "unjudged": 64,
        "young": 512,
        "to_trash": 32,
        "in_trash": 4,
        "to_purge": 1,
        "unlinked": 8,
        "unfinished_upload": 2048,
        "foreign": 4096,
        "replaced": 8192,
        "young_orphan": 1024,
        "orphan": 128,
    }
    assert store.held == await held(keeping) == Tally(14, 2**14 - 1)
    assert sum(tally.objects for tally in store.reasons.values()) == store.held.objects
    assert store.missing == 0
    by_path = {one.path: one for one in explained.repositories}
    assert {path: bool(one.error) for path, one in by_path.items()} == {
        "ann/broken": True,
        "ann/fork": False,
        "ann/model": False,
    }
    model = by_path["ann/model"]
    assert {reason: tally.bytes for reason, tally in model.links.items()} == {
        "referenced": 256,
        "trashed_but_referenced": 2,
        "young": 512,
        "to_trash": 16 + 32,
        "in_trash": 4,
        "to_purge": 1,
    }
    assert list(model.trash_until.values()) == [Tally(1, 4)]

    # It changed nothing, and a collection does what it said.
    done = await keeping.files.collector.collect()
    assert [(one.path, one.trashed_bytes, one.restored, one.purged) for one in done.repositories] == [
        ("ann/broken", 0, 0, 0),
        ("ann/model", 16 + 32, 1, 1),
    ]
    assert done.purged.bytes == 1
    assert (await keeping.files.orphans.sweep()).bytes == 128
    (after,) = (await keeping.files.explainer.explain()).stores
    assert after.held == await held(keeping) == Tally(12, 2**14 - 1 - 1 - 128)
    assert "to_trash" not in after.reasons
    assert len({purge, waiting, trash}) == 3


async def test_missing_bytes_are_counted(keeping: Keeping) -> None:
    oid = await keeping.commit(b"lost")
    await keeping.commit(b"here")
    row = await keeping.world.object(oid)
    assert row is not None
    await keeping.world.store.delete(row.key)
    (store,) = (await keeping.files.explainer.explain()).stores
    assert (store.missing, store.held) == (1, Tally(1, 4))


async def test_one_repository_alone(keeping: Keeping) -> None:
    other = await keeping.world.new_repository("other")
    await keeping.world.upload(b"a")
    await keeping.world.upload(b"bb", repository=other)
    explained = await keeping.files.explainer.explain([other.id])
    assert [(one.path, one.links) for one in explained.repositories] == [
        ("ann/other", {"young": Tally(1, 2)})
    ]
    assert explained.stores == []
