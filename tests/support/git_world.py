"""The Git engine on a new database and a local store, and real repositories to compare it with."""

import asyncio
import os
import subprocess
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from core.access import Actor, ActorKind
from core.database import Database
from core.models import Account, AccountKind, ObjectFormat, Repository, RepositoryType, Transport, Visibility
from core.repositories import RepositoryInfo
from core.settings import GitSettings
from gitserver.branches import Branches
from gitserver.commits import Committer
from gitserver.gate import Gate
from gitserver.glance import Clearing
from gitserver.landing import Lander
from gitserver.policy import BranchRules, PreReceive
from gitserver.process import GitRunner
from gitserver.publish import Publisher
from gitserver.quarantine import find_pack
from gitserver.reading import Reader
from gitserver.snapshots import Snapshots
from gitserver.updates import RefUpdate
from storage.local import LocalStore

ACTOR = Actor(ActorKind.USER, "ann", user_id=1, credential="password")


def git(where: Path, *arguments: str | bytes | Path, data: bytes = b"", check: bool = True) -> bytes:
    """Runs git as a person with an empty configuration would, and returns what it prints."""
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": os.devnull,
        "LC_ALL": "C.UTF-8",
        "TZ": "UTC",
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_CONFIG_GLOBAL": os.devnull,
        "GIT_CONFIG_COUNT": "2",
        "GIT_CONFIG_KEY_0": "safe.directory",
        "GIT_CONFIG_VALUE_0": "*",
        "GIT_CONFIG_KEY_1": "core.quotePath",
        "GIT_CONFIG_VALUE_1": "false",
        "GIT_AUTHOR_NAME": "Bob",
        "GIT_AUTHOR_EMAIL": "bob@example.org",
        "GIT_COMMITTER_NAME": "Bob",
        "GIT_COMMITTER_EMAIL": "bob@example.org",
    }
    done = subprocess.run(
        ["git", *arguments], cwd=where, env=environment, input=data, capture_output=True, timeout=120
    )
    assert not check or done.returncode == 0, done.stderr.decode(errors="replace")
    return done.stdout


class GitWorld:
    """Everything of one server below its faces."""

    def __init__(
        self, database: Database, root: Path, settings: GitSettings, policies: Sequence[PreReceive]
    ) -> None:
        self.database = database
        self.store = LocalStore(root / "store", low_bytes=0)
        self.cache = root / "cache"
        self.settings = settings
        self.git = GitRunner()
        self.snapshots = Snapshots(database, self.store, self.cache)
        self.publisher = Publisher(database, self.store, self.snapshots)
        self.reader = Reader(self.snapshots, self.git)
        self.policies = [BranchRules(database, self.git), *policies]
        self.last: list[PreReceive] = []
        self.clearing: Clearing | None = None
        self.committer = self.another_committer()
        self.branches = Branches(self._gate(), self.reader.objects)

    def _gate(self) -> Gate:
        lander = Lander(self.publisher, self.git, self.policies, self.last)
        return Gate(self.snapshots, lander, self.git, self.settings)

    def another_committer(self) -> Committer:
        """One that shares no lock with the first, as in another process."""
        return Committer(self._gate(), self.reader.objects)

    async def repository(
        self, object_format: ObjectFormat = ObjectFormat.SHA1, *, name: str = "model"
    ) -> RepositoryInfo:
        """A new, empty repository of the account `ann`."""
        async with self.database.transaction() as session:
            owner = await session.get(Account, 1)
            if owner is None:
                owner = Account(id=1, kind=AccountKind.USER, name="ann")
                session.add(owner)
                await session.flush()
            row = Repository(
                owner_id=1,
                type=RepositoryType.MODEL,
                name=name,
                visibility=Visibility.PRIVATE,
                default_branch="main",
                object_format=object_format,
            )
            session.add(row)
            await session.flush()
            return RepositoryInfo.of(row, "ann")

    async def adopt(self, path: Path, *, name: str = "model") -> RepositoryInfo:
        """Publishes a packed bare repository: all its refs and its one pack."""
        kind = git(path, "rev-parse", "--show-object-format").decode().strip()
        repository = await self.repository(ObjectFormat(kind), name=name)
        rows = git(path, "for-each-ref", "--format=%(refname) %(objectname) %(*objectname)").decode()
        updates = []
        for row in rows.splitlines():
            ref, oid, peeled = row.split(" ")
            updates.append(RefUpdate(ref, "0" * len(oid), oid, peeled or None))
        published = await self.publisher.publish(
            repository.id,
            updates,
            await asyncio.to_thread(find_pack, path / "objects" / "pack"),
            actor=ACTOR,
            transport=Transport.LOCAL,
            epoch=0,
        )
        assert all(verdict.error is None for verdict in published.verdicts)
        return repository

    async def clone(self, repository: RepositoryInfo, path: Path) -> Path:
        """A bare copy of what is published now, checked by `git fsck --strict`."""
        async with self.snapshots.open(repository.id) as snapshot:
            await asyncio.to_thread(git, path.parent, "clone", "-q", "--mirror", snapshot.path, path)
        await asyncio.to_thread(git, path, "fsck", "--strict", "--no-dangling")
        return path

    def leftovers(self) -> list[str]:
        """Quarantines that were not cleaned up."""
        folder = self.cache / "quarantine"
        return sorted(path.name for path in folder.iterdir()) if folder.exists() else []


@asynccontextmanager
async def open_world(
    database: Database,
    root: Path,
    *,
    settings: GitSettings | None = None,
    policies: Sequence[PreReceive] = (),
) -> AsyncIterator[GitWorld]:
    """A world that is closed after the block; the database stays the caller's."""
    world = GitWorld(database, root, settings or GitSettings(), policies)
    try:
        yield world
    finally:
        await world.reader.close()
        await world.store.close()
