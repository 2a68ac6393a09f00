"""Uploads in parts for tests, by as many processes as a test likes."""

from dataclasses import dataclass, field

from core.access import Actor
from lfs.multipart import MultipartUploads
from lfs.part_plan import PartPlan
from storage.protocol import PartsNotFound, StoredPart
from tests.support.lfs_world import LfsWorld, oid_of
from tests.support.streams import noise, pieces

MIB = 1024**2


@dataclass
class PartUploads:
    """A world, and uploads in parts on it by as many processes as a test likes."""

    world: LfsWorld
    part_bytes: int
    processes: list[MultipartUploads] = field(default_factory=list)

    def process(self, *, direct: bool = False) -> MultipartUploads:
        world = self.world
        made = MultipartUploads(
            world.database, world.stores, world.objects, world.uploads, world.settings, direct=lambda: direct
        )
        self.processes.append(made)
        return made

    def data(self, seed: str = "parts") -> bytes:
        """Three parts, the last one short."""
        return noise(2 * self.part_bytes + 12_345, seed)

    async def begin(self, parts: MultipartUploads, data: bytes) -> PartPlan:
        return await parts.begin(self.world.repository.id, oid_of(data), len(data))

    async def put(
        self, parts: MultipartUploads, plan: PartPlan, number: int, data: bytes, sent: bytes | None = None
    ) -> StoredPart:
        """Part `number` of `data`, or `sent` in its place."""
        if sent is None:
            start = plan.offset_of(number)
            sent = data[start : start + plan.size_of(number)]
        return await parts.put_part(self.world.repository.id, plan.upload_id, number, pieces(sent))

    async def put_all(self, parts: MultipartUploads, plan: PartPlan, data: bytes) -> list[tuple[int, str]]:
        return [
            (number, f'"{(await self.put(parts, plan, number, data)).etag}"')
            for number in range(1, plan.count + 1)
        ]

    async def complete(
        self,
        parts: MultipartUploads,
        plan: PartPlan,
        claimed: list[tuple[int, str]] | None = None,
        actor: Actor | None = None,
    ) -> None:
        await parts.complete(
            self.world.repository.id, actor or self.world.owner, plan.oid, plan.upload_id, claimed
        )

    async def stored(self, plan: PartPlan) -> dict[int, int]:
        """The sizes of the parts that the store has."""
        store = self.world.stores[plan.store]
        return {part.number: part.size for part in await store.list_parts(plan.key, plan.multipart_id)}

    async def expect_whole(self, data: bytes) -> None:
        """The object is there, and nothing of its upload is left."""
        assert await self.world.read(oid_of(data)) == data
        assert await self.world.link(oid_of(data)) is not None
        assert await self.world.pending() == []
        await self.world.expect_sound()

    async def expect_nothing(self, data: bytes) -> None:
        assert await self.world.link(oid_of(data)) is None
        assert await self.world.object(oid_of(data)) is None

    async def gone(self, plan: PartPlan) -> bool:
        """Whether the store has no part of it left."""
        try:
            await self.stored(plan)
        except PartsNotFound:
            return True
        return False
