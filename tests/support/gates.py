"""Pushes through the gates, below the faces.

gated = Gated(world, tmp_path / "work")
await gated.commit({"config.json": b"{}"}, lfs={"model.safetensors": weights})
assert (await gated.push()).ok
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

from sqlalchemy import select

from core.access import Actor
from core.models import AuditEntry
from core.settings import GatesSettings
from gitserver.policy import PreReceive
from hooks.gate_policy import Gates
from tests.support.git_pushes import Pushed
from tests.support.git_pushes import push as push_refs
from tests.support.git_world import git
from tests.support.hooks_world import HooksWorld, pointer_to

MAIN = "refs/heads/main"


class Gated:
    """A server with gates, and a clone of the repository ann/model in `work`."""

    def __init__(self, world: HooksWorld, work: Path) -> None:
        self.world = world
        self.work = work
        work.mkdir()
        git(work, "init", "-q", "-b", "main", ".")
        self._before: list[PreReceive] = list(world.git.policies)
        self.use(GatesSettings())

    def use(self, settings: GatesSettings) -> None:
        """Puts gates with these settings in the place of those that are there."""
        world = self.world
        gates = Gates(world.database, world.git.git, world.trees, world.parsing, settings)
        world.git.policies[:] = [*self._before, gates]
        world.git.clearing = gates.clearing

    async def commit(
        self,
        files: Mapping[str, bytes | None] | None = None,
        *,
        lfs: Mapping[str, bytes] | None = None,
        branch: str = "main",
    ) -> str:
        """Commits files, None for those that go; those of `lfs` are uploaded. Returns the commit."""
        git(self.work, "checkout", "-q", "-B", branch)
        for path, data in (lfs or {}).items():
            await self.world.lfs.upload(data)
            self._write(path, pointer_to(data))
        for path, content in (files or {}).items():
            if content is None:
                (self.work / path).unlink()
            else:
                self._write(path, content)
        git(self.work, "add", "-A", "-f")
        git(self.work, "commit", "-q", "--allow-empty", "-m", "m")
        return git(self.work, "rev-parse", "HEAD").decode().strip()

    def _write(self, path: str, content: bytes) -> None:
        target = self.work / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content)

    def reset(self, revision: str) -> None:
        """Goes back, as somebody does who mends a refused commit."""
        git(self.work, "reset", "-q", "--hard", revision)

    async def push(self, *refs: str, options: Sequence[str] = (), actor: Actor | None = None) -> Pushed:
        """Pushes refs by their full names; `main` if none is named."""
        return await push_refs(
            self.world.git,
            self.world.repository,
            self.work,
            refs or [MAIN],
            options=options,
            actor=actor or self.world.lfs.owner,
        )

    async def branches(self) -> set[str]:
        """The refs that the server has."""
        return set((await self.world.git.snapshots.state(self.world.repository.id)).refs)

    async def overrides(self) -> list[AuditEntry]:
        async with self.world.database.read() as session:
            rows = await session.scalars(select(AuditEntry).where(AuditEntry.action == "push:override"))
            return list(rows)
