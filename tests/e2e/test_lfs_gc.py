"""`kill -9` in the middle of collecting, sweeping and moving: nothing in use is lost.

The points come from the program, so a new one is covered the day it is declared.
"""

import asyncio
import contextlib
import signal
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import select, update

from core import failpoints
from core.access import SYSTEM, Permission
from core.models import LfsLink, LfsObject, LfsUpload, StoreKind, now
from core.names import parse_address
from lfs.objects import new_key
from tests.support.database import Databases, Engine
from tests.support.git_lfs import NEWEST, lfs_client, same_files, start
from tests.support.lfs_world import oid_of
from tests.support.minio_server import MinioServer
from tests.support.program import Program, start_forkserver
from tests.support.server import running_server
from tests.support.soundness import assert_sound, program
from tests.support.streams import list_keys, noise, pieces
from tests.support.yard import USER, Yard

# Importing the server imports every module that declares a point.
KNOWN = failpoints.known()
# For a server that is to collect only when it is told to.
NEVER = {"MODELYARD_LFS__GC_HOURS": "0"}
GC_POINTS = [name for name in KNOWN if name.startswith(("lfs.gc.", "lfs.abandoned."))]
GC_CASES: list[tuple[str, Engine]] = [(name, "sqlite") for name in GC_POINTS]
GC_CASES += [("lfs.gc.after-trash", "postgresql"), ("lfs.gc.after-row", "postgresql")]
MIGRATE_POINTS = [name for name in KNOWN if name.startswith("lfs.migrate.")]

USED = {"a.bin": noise(300_000, "a"), "b.bin": noise(10, "b")}
UNUSED, EXPIRED, UNLINKED, ABANDONED = b"unused", b"expired", b"unlinked", b"abandoned"
LONG_AGO = timedelta(days=100)


@pytest.fixture(scope="module", autouse=True)
def forkserver() -> None:
    start_forkserver()


@dataclass
class Victim:
    """A server with files in use, pushed by a real client, and rubbish of every kind beside them."""

    yard: Yard
    repository_id: str
    path: str
    folder: Path

    @classmethod
    async def make(cls, folder: Path, database_url: str = "", env: dict[str, str] | None = None) -> "Victim":
        server = running_server(folder / "server", database_url=database_url, env=env)
        await asyncio.to_thread(server.start)
        yard = await Yard.open(server, folder / "clients")
        made = await server.add_repository(USER, "model")
        victim = cls(yard, made.id, f"{USER}/model", folder)
        work = start(lfs_client(NEWEST, folder).over(yard.git(yard.new_folder())), USED)
        await asyncio.to_thread(work, "push", "-q", yard.url(victim.path), "main")
        return victim

    async def litter(self) -> None:
        """Adds what is to go, all of it old."""
        async with self.yard.server.services() as services:
            doomed = await services.repositories.create(SYSTEM, parse_address(f"{USER}/doomed"))
            for data in (UNUSED, EXPIRED, UNLINKED):
                where = doomed.id if data == UNLINKED else self.repository_id
                await services.large_files.uploads.receive(
                    where, SYSTEM, oid_of(data), len(data), pieces(data)
                )
            await services.repositories.delete(SYSTEM, doomed.address)
            stores, key = services.large_files.stores, new_key(oid_of(ABANDONED))
            await stores.current.put(key, pieces(ABANDONED))
            then = now() - LONG_AGO
            async with services.database.transaction() as session:
                await session.execute(update(LfsLink).values(touched_at=then))
                for model, data, column in (
                    (LfsLink, EXPIRED, "trashed_at"),
                    (LfsObject, UNLINKED, "unlinked_at"),
                ):
                    await session.execute(
                        update(model).where(model.oid == oid_of(data)).values({column: then})
                    )
                session.add(
                    LfsUpload(
                        repository_id=self.repository_id,
                        oid=oid_of(ABANDONED),
                        size=9,
                        store=stores.current_kind,
                        key=key,
                        touched_at=then,
                    )
                )

    async def died(self) -> None:
        status = await asyncio.to_thread(self.yard.server.wait, timeout=60)
        assert status == -signal.SIGKILL

    async def whole(self) -> None:
        """Every file in use comes back to a new clone, and every object is what it is called."""
        copy = lfs_client(NEWEST, self.folder).over(self.yard.git(self.yard.new_folder()))
        await asyncio.to_thread(copy, "clone", "-q", self.yard.url(self.path), ".")
        same_files(copy.cwd, USED)
        await asyncio.to_thread(copy, "lfs", "fsck")
        await asyncio.to_thread(program(self.yard.server).done, "lfs", "fsck")

    async def tidy(self) -> set[str]:
        """Sweeps; then the stores hold exactly what rows name. Returns the oids of these."""
        async with self.yard.server.services() as services:
            await services.safekeeping.orphans.sweep(orphan_seconds=0)
            async with services.database.read() as session:
                rows = list(await session.scalars(select(LfsObject)))
                assert await session.scalar(select(LfsUpload)) is None
            stores = services.large_files.stores
            for kind in stores.kinds():
                expected = {row.key for row in rows if row.store == kind}
                assert set(await list_keys(stores[kind], "lfs/")) == expected
        return {row.oid for row in rows}


@pytest.mark.parametrize(("point", "engine"), GC_CASES)
async def test_gc(point: str, engine: Engine, tmp_path: Path, databases: Databases) -> None:
    """The server dies of its own collection, which it begins when it starts."""
    async with databases.fresh(engine) as url:
        victim = await Victim.make(tmp_path, url if engine == "postgresql" else "", NEVER)
        server = victim.yard.server
        try:
            server.stop()
            await victim.litter()
            server.env = {"MODELYARD_FAILPOINT": point, "MODELYARD_LFS__GC_HOURS": "1"}
            try:
                await asyncio.to_thread(server.start)
            except AssertionError:  # it died before it was ready
                assert not server.running
            await victim.died()
            server.restart(env=NEVER)
            await victim.whole()
            await asyncio.to_thread(program(server).done, "lfs", "gc")
            assert await victim.tidy() == {*map(oid_of, USED.values()), oid_of(UNUSED)}
            (trashed,) = await asyncio.to_thread(program(server).json, "lfs", "trash", victim.path)
            assert trashed["oid"] == oid_of(UNUSED)
            await asyncio.to_thread(program(server).done, "lfs", "restore", victim.path, "--all")
            await victim.whole()
            await assert_sound(server)
        finally:
            server.stop()


@pytest.mark.parametrize("point", MIGRATE_POINTS)
async def test_migrate_store(point: str, tmp_path: Path) -> None:
    """The command dies beside a running server, is given again, and the server serves all along."""
    with contextlib.ExitStack() as stack:
        minio = await asyncio.to_thread(stack.enter_context, MinioServer(tmp_path / "minio"))
        env = {**minio.environment(), "MODELYARD_STORAGE__KIND": "local"}
        victim = await Victim.make(tmp_path, env=env)
        server = victim.yard.server
        stack.callback(server.stop)
        administer = program(server)
        await asyncio.to_thread(administer.run, "doctor")
        failing = Program(
            administer.data,
            administer.directory,
            {**administer.environment, "MODELYARD_FAILPOINT": f"{point}:2"},
        )
        outcome = await asyncio.to_thread(failing.run, "lfs", "migrate-store", "--to", "minio")
        assert outcome.status == -signal.SIGKILL, outcome
        await victim.whole()
        moved = await asyncio.to_thread(administer.json, "lfs", "migrate-store", "--to", "minio")
        assert (moved["left"], moved["failed"]) == (0, {})
        await victim.whole()
        async with server.services() as services:
            async with services.database.transaction() as session:
                rows = list(await session.scalars(select(LfsObject)))
                assert {StoreKind(row.store) for row in rows} == {StoreKind.MINIO}
                # The old places wait for the last link to them; a week later they go.
                await session.execute(update(LfsObject).values(verified_at=now() - LONG_AGO))
            repository = await services.repositories.open(SYSTEM, parse_address(victim.path), Permission.READ)
            assert repository.id == victim.repository_id
        assert await victim.tidy() == set(map(oid_of, USED.values()))
        await victim.whole()


def test_no_point_is_forgotten() -> None:
    """Each family has tests here or with the uploads."""
    rest = {name for name in KNOWN if name.startswith("lfs.")} - {*GC_POINTS, *MIGRATE_POINTS}
    assert {name.rpartition(".")[0] for name in rest} == {"lfs.upload", "lfs.parts"}
