"""Whether nothing is wrong with a server's data: by its own commands, and by comparing store and rows."""

import asyncio

from sqlalchemy import select

from core.access import SYSTEM, Permission
from core.models import Pack
from core.names import parse_address
from gitserver.snapshots import pack_key
from gitserver.states import RepositoryState
from tests.support.processes import wait_until
from tests.support.program import Program
from tests.support.server import RunningServer
from tests.support.streams import list_keys


def program(server: RunningServer) -> Program:
    """`modelyard` on the server's data, as its administrator would run it, without the failpoint."""
    ours = {name: value for name, value in server.environment().items() if name.startswith("MODELYARD_")}
    ours.pop("MODELYARD_FAILPOINT", None)
    return Program(server.data, server.directory, ours)


async def state_of(server: RunningServer, path: str) -> RepositoryState:
    """What the database says about a repository; the server need not run."""
    async with server.services() as services:
        repository = await services.repositories.open(SYSTEM, parse_address(path), Permission.READ)
        return await services.snapshots.state(repository.id)


async def refs_of(server: RunningServer, path: str) -> dict[str, str]:
    """Every ref of a repository in the database."""
    return {name: value.oid for name, value in (await state_of(server, path)).refs.items()}


async def assert_sound(server: RunningServer) -> None:
    """`modelyard doctor` and `modelyard repo fsck` find nothing wrong."""
    administer = program(server)
    findings = await asyncio.to_thread(administer.json, "doctor")
    wrong = [
        one
        for one in findings
        if one["level"] == "error" or (one["check"], one["level"]) == ("cache", "warning")
    ]
    assert not wrong, wrong
    await asyncio.to_thread(administer.done, "repo", "fsck")


async def assert_sweeps_clean(server: RunningServer) -> None:
    """After a sweep without grace the store holds what rows name, and nothing else; the cache no remains."""
    async with server.services() as services:
        await services.sweeper.sweep(grace_seconds=0, orphan_seconds=0)
        async with services.database.read() as session:
            packs = list(await session.scalars(select(Pack)))
        assert all(pack.superseded_at is None for pack in packs)
        expected = {
            pack_key(pack.repository_id, pack.key, f"{pack.name}.{suffix}")
            for pack in packs
            for suffix in pack.suffixes
        }
        assert set(await list_keys(services.store, "git/")) == expected
    assert remains(server) == []


async def assert_cache_tidy(server: RunningServer, *, seconds: float = 30) -> None:
    """Nothing of dead processes is left in the cache: no quarantine, no half-built snapshot."""
    await asyncio.to_thread(wait_until, lambda: not remains(server), "a tidy cache", seconds=seconds)


def remains(server: RunningServer) -> list[str]:
    """What unfinished work left in the cache."""
    cache = server.data / "cache"
    return sorted(
        map(str, [*cache.glob("quarantine/*"), *cache.glob("snapshots/*/.*"), *cache.glob("fsck-*")])
    )
