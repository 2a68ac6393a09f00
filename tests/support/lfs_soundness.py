"""Whether the large files of a server are what its rows say, found out past all of its own checks."""

import hashlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from sqlalchemy import select

from core.models import LfsLink, LfsObject, LfsUpload
from lfs.orphans import PREFIX
from modelyard.services import Services
from tests.support.server import RunningServer
from tests.support.streams import list_keys


@dataclass(frozen=True)
class LfsState:
    """Every row about large files, and every key in the store, by oid."""

    objects: dict[str, LfsObject]
    links: list[LfsLink]
    uploads: list[LfsUpload]
    keys: list[str]

    def visible(self, repository_id: str) -> set[str]:
        """What clients of a repository can download."""
        return {
            link.oid
            for link in self.links
            if link.repository_id == repository_id
            and link.trashed_at is None
            and self.objects[link.oid].damaged_at is None
        }


@asynccontextmanager
async def _opened(server: RunningServer) -> AsyncIterator[tuple[Services, LfsState]]:
    async with server.services() as services:
        async with services.database.read() as session:
            objects = list(await session.scalars(select(LfsObject)))
            links = list(await session.scalars(select(LfsLink)))
            uploads = list(await session.scalars(select(LfsUpload)))
        keys = await list_keys(services.large_files.stores.current, PREFIX)
        yield services, LfsState({row.oid: row for row in objects}, links, uploads, keys)


async def lfs_state(server: RunningServer) -> LfsState:
    """What there is now; the server need not run."""
    async with _opened(server) as (_, state):
        return state


async def assert_lfs_sound(server: RunningServer) -> LfsState:
    """Every object has all of its bytes in the store, and every link has an object."""
    async with _opened(server) as (services, state):
        assert {link.oid for link in state.links} <= state.objects.keys()
        for row in state.objects.values():
            digest, size = hashlib.sha256(), 0
            async with services.large_files.stores[row.store].open(row.key) as chunks:
                async for chunk in chunks:
                    digest.update(chunk)
                    size += len(chunk)
            assert (digest.hexdigest(), size, row.damaged_at) == (row.oid, row.size, None), row.key
        return state


async def assert_no_lfs_leftovers(server: RunningServer) -> None:
    """After a sweep without grace the store holds what rows name, and nothing else."""
    async with _opened(server) as (services, _):
        await services.safekeeping.orphans.sweep(orphan_seconds=0)
        await services.large_files.stores.current.sweep_temp(0)
    state = await lfs_state(server)
    objects = {row.key for row in state.objects.values()}
    named = objects | {row.key for row in state.uploads}
    assert set(state.keys) <= named, "keys that no row names"
    assert objects <= set(state.keys)
