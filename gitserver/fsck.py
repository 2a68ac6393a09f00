"""Checks one repository against the truth: database and object store, not this node's cache."""

from dataclasses import dataclass
from pathlib import Path

from core.database import Database
from core.repositories import RepositoryInfo
from gitserver.process import GitFailed, GitRunner
from gitserver.quarantine import open_workplace
from gitserver.snapshots import Snapshots, pack_key
from storage.protocol import ObjectNotFound, ObjectStore


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that is wrong, and what to do about it."""

    repository: str
    problem: str
    remedy: str


class Fsck:
    """Verifies that every ref names a complete history that the object store holds."""

    def __init__(self, database: Database, store: ObjectStore, cache_dir: Path, git: GitRunner) -> None:
        self._database = database
        self._store = store
        self._cache_dir = cache_dir
        self._git = git

    async def check(self, repository: RepositoryInfo) -> list[Finding]:
        """Every finding; an empty list is good news. Reads every byte of every pack."""
        async with open_workplace(self._cache_dir) as folder:
            snapshots = Snapshots(self._database, self._store, folder)
            missing = await self._missing(snapshots, repository)
            if missing:
                return missing
            async with snapshots.open(repository.id) as snapshot:
                environment = self._git.environment(extra={"GIT_DIR": str(snapshot.path)})
                return [
                    *await self._run(
                        repository, ["fsck", "--full", "--no-dangling", "--no-progress"], environment
                    ),
                    *await self._run(repository, ["rev-list", "--objects", "--all", "--quiet"], environment),
                ]

    async def _missing(self, snapshots: Snapshots, repository: RepositoryInfo) -> list[Finding]:
        findings = []
        state = await snapshots.state(repository.id)
        for pack in state.packs:
            for suffix in pack.suffixes:
                key = pack_key(repository.id, pack.key, f"{pack.name}.{suffix}")
                try:
                    await self._store.stat(key)
                except ObjectNotFound:
                    findings.append(
                        Finding(
                            repository.path,
                            f"object {key} is missing in the store",
                            "restore it from a backup of the object store, or import the repository again",
                        )
                    )
        return findings

    async def _run(
        self, repository: RepositoryInfo, arguments: list[str], environment: dict[str, str]
    ) -> list[Finding]:
        try:
            await self._git.run(arguments, environment=environment)
        except GitFailed as error:
            lines = [line for line in error.stderr.splitlines() if line.strip()][:20] or [error.reason]
            remedy = "push the missing history again from a complete clone, or import it"
            return [Finding(repository.path, line, remedy) for line in lines]
        return []
