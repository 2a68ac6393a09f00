"""Large files beside a real Git engine, and time that passes when a test says so.

async with open_keeping(database, tmp_path) as keeping:    # or the fixture `keeping`
    oid = await keeping.commit(b"weights")        # uploaded, and its pointer committed on `main`
    await keeping.later(days=20)                  # everything in the database is 20 days older
    await keeping.files.collector.collect()
"""

import os
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path

from sqlalchemy import select

from core.access import SYSTEM
from core.database import Database
from core.models import LfsLink, LfsObject, Push
from core.opening import RepositoryInfo
from core.settings import LfsSettings, Settings, StorageSettings
from gitserver.commits import Delete, Put
from gitserver.process import GitRunner
from lfs.pointer import Pointer, write_pointer
from modelyard.pointers import Pointers
from modelyard.safekeeping import Safekeeping, build_safekeeping
from tests.support.git_world import GitWorld
from tests.support.git_world import open_world as open_git_world
from tests.support.lfs_world import LfsWorld, oid_of, open_lfs_world


class Keeping:
    """One server below its faces; `repository` is ann/model."""

    def __init__(self, world: LfsWorld, git: GitWorld, root: Path) -> None:
        self.world = world
        self.git = git
        self.repository = world.repository
        self._root = root
        self.settings = Settings(lfs=world.settings)
        self.files = self.files_with(git.git)

    def files_with(self, git: GitRunner) -> Safekeeping:
        """The same with another git."""
        pointers = Pointers(git, self.git.snapshots)
        return build_safekeeping(self.settings, self.world.database, self.world.stores, pointers)

    async def point(
        self, path: str, data: bytes, *, repository: RepositoryInfo | None = None, branch: str = "main"
    ) -> str:
        """Commits a pointer to these bytes, stored or not; returns the commit."""
        content = write_pointer(Pointer(oid_of(data), len(data)))
        where = repository or self.repository
        made = await self.git.committer.commit(where, SYSTEM, branch, [Put(path, content)], f"add {path}")
        return made.oid

    async def commit(
        self, data: bytes, *, path: str = "", repository: RepositoryInfo | None = None, branch: str = "main"
    ) -> str:
        """Uploads these bytes and commits a pointer to them; returns the oid."""
        oid = await self.world.upload(data, repository=repository)
        await self.point(path or oid[:8], data, repository=repository, branch=branch)
        return oid

    async def remove(self, path: str, *, branch: str = "main") -> str:
        """Commits that a file goes."""
        made = await self.git.committer.commit(
            self.repository, SYSTEM, branch, [Delete(path)], f"remove {path}"
        )
        return made.oid

    async def later(self, *, days: float) -> None:
        """Makes everything that has an age so much older, files of the local store included."""
        by = timedelta(days=days)
        async with self.world.database.transaction() as session:
            for link in await session.scalars(select(LfsLink)):
                link.created_at -= by
                link.touched_at -= by
                link.trashed_at = link.trashed_at and link.trashed_at - by
            for row in await session.scalars(select(LfsObject)):
                row.verified_at -= by
                row.unlinked_at = row.unlinked_at and row.unlinked_at - by
            for push in await session.scalars(select(Push)):
                push.created_at -= by
        for file in self._root.glob("lfs-store/data/lfs/**/*"):
            if file.is_file():
                moment = file.stat().st_mtime - by.total_seconds()
                os.utime(file, (time.time(), moment))


@asynccontextmanager
async def open_keeping(
    database: Database,
    root: Path,
    *,
    settings: LfsSettings | None = None,
    minio: StorageSettings | None = None,
) -> AsyncIterator[Keeping]:
    """A server that is closed after the block; with `minio`, new objects go there."""
    async with (
        open_lfs_world(database, root, settings=settings, minio=minio) as world,
        open_git_world(database, root / "git") as git,
    ):
        yield Keeping(world, git, root)
