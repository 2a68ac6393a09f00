"""Everything at once that changes large files: whatever meets, bytes and rows stay sound."""

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from pathlib import Path

import pytest

from core.access import SYSTEM
from core.database import Database
from core.models import LfsObject, StoreKind
from core.settings import LfsSettings
from lfs.errors import ObjectMissing, UploadNotFound
from lfs.multipart import MultipartUploads
from tests.support.lfs_keeping import Keeping, open_keeping
from tests.support.lfs_world import oid_of
from tests.support.minio_server import MinioServer
from tests.support.streams import noise, pieces

# Few objects, so that everybody meets everybody, and no grace: what nobody refers to goes in two collections.
FILES = [noise(3000 + number, f"file {number}") for number in range(5)]
SETTINGS = LfsSettings(unreferenced_days=0, trash_days=0)
ROUNDS = 12


@pytest.fixture
async def keeping(database: Database, tmp_path: Path, minio: MinioServer) -> AsyncIterator[Keeping]:
    storage = minio.settings(prefix=tmp_path.name)
    async with open_keeping(database, tmp_path, settings=SETTINGS, minio=storage) as opened:
        yield opened


async def test_all_at_once(keeping: Keeping) -> None:
    world, chance = keeping.world, random.Random(1)
    repositories = [keeping.repository, await world.new_repository("other")]
    parts = MultipartUploads(
        world.database, world.stores, world.objects, world.uploads, SETTINGS, direct=lambda: False
    )

    async def upload() -> None:
        await world.upload(chance.choice(FILES), repository=chance.choice(repositories))

    async def upload_in_parts() -> None:
        data, where = chance.choice(FILES), chance.choice(repositories).id
        plan = await parts.begin(where, oid_of(data), len(data))
        await parts.put_part(where, plan.upload_id, 1, pieces(data))
        await parts.complete(where, world.owner, plan.oid, plan.upload_id, None)

    async def restore() -> None:
        oid = oid_of(chance.choice(FILES))
        await keeping.files.trash.restore(SYSTEM, chance.choice(repositories).id, [oid], unlinked=True)

    async def touch() -> None:
        await world.objects.touch(chance.choice(repositories).id, [oid_of(data) for data in FILES])

    async def collect() -> None:
        collected = await keeping.files.collector.collect()
        assert [one.error for one in collected.repositories if one.error] == []

    async def migrate() -> None:
        moved = await keeping.files.relocation.run(SYSTEM, chance.choice([*StoreKind]))
        assert moved.failed == {}

    async def check() -> None:
        assert (await keeping.files.fsck.check()).findings == []

    async def sweep() -> None:
        await keeping.files.upkeep.sweep()

    async def often(work: Callable[[], Awaitable[None]]) -> None:
        for _ in range(ROUNDS):
            # It is not in the trash, or another upload of the same was faster.
            with suppress(ObjectMissing, UploadNotFound):
                await work()
            await asyncio.sleep(chance.random() * 0.02)

    works = [*[upload] * 3, *[upload_in_parts] * 2, restore, touch, *[collect] * 2, migrate, check, sweep]
    async with asyncio.TaskGroup() as group:
        for work in works:
            group.create_task(often(work))
    await parts.close()
    await world.uploads.settle()
    for row in await world.rows(LfsObject):
        assert oid_of(await world.read(row.oid)) == row.oid
