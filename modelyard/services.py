"""The composition root: from settings to everything that the faces share.

`serve`, the administration commands and the tests open the same services; nothing else builds them.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from core import failpoints, schema
from core.accounts import Accounts
from core.audit import Audit
from core.collaboration import Collaboration
from core.credentials import Credentials
from core.database import Database
from core.keyring import Keyring
from core.organisations import Organisations
from core.repositories import Repositories
from core.settings import Settings
from gitserver.branches import Branches
from gitserver.clones import Clones
from gitserver.commits import Committer
from gitserver.exchange import Exchange
from gitserver.fsck import Fsck
from gitserver.gate import Gate
from gitserver.landing import Lander
from gitserver.maintenance import Maintenance
from gitserver.policy import BranchRules, PreReceive
from gitserver.process import GitRunner
from gitserver.publish import Publisher
from gitserver.reading import Reader
from gitserver.repack import Repacker
from gitserver.service import GitService
from gitserver.snapshots import Snapshots
from gitserver.sweeper import Sweeper
from hooks.gate_policy import Gates
from hooks.pipeline import Pipeline
from hooks.triggers.rules import Rules
from hooks.triggers.step import Triggers
from hooks.triggers.tips import Tips
from modelyard.large_files import LargeFiles, open_large_files
from modelyard.lfs_policy import MissingObjects
from modelyard.lock_policy import LockedPaths
from modelyard.notifying import Notifying, open_notifying
from modelyard.pointers import Pointers
from modelyard.push_hooks import build_push_hooks
from modelyard.safekeeping import Safekeeping, build_safekeeping
from modelyard.secret_files import ensure_private_directory, load_or_create_key
from modelyard.understanding import Understanding, open_understanding
from storage.build import build_store
from storage.protocol import ObjectStore

SEALING_KEY = "sealing.key"
HOST_KEY = "ssh_host_ed25519_key"


@dataclass(frozen=True, slots=True)
class Services:
    """What one process works with. Valid inside the `open_services` block that made it."""

    settings: Settings
    sealing_key: bytes
    database: Database
    store: ObjectStore
    audit: Audit
    accounts: Accounts
    organisations: Organisations
    credentials: Credentials
    keyring: Keyring
    repositories: Repositories
    collaboration: Collaboration
    runner: GitRunner
    snapshots: Snapshots
    publisher: Publisher
    git: GitService
    reader: Reader
    committer: Committer
    rules: Rules
    branches: Branches
    maintenance: Maintenance
    sweeper: Sweeper
    exchange: Exchange
    fsck: Fsck
    large_files: LargeFiles
    safekeeping: Safekeeping
    understanding: Understanding
    notifying: Notifying
    pipeline: Pipeline


@asynccontextmanager
async def open_services(settings: Settings) -> AsyncIterator[Services]:
    """Opens the data directory, the database and the store, and closes them in reverse order.

    Makes what a first run lacks: the data directory (0700), the sealing key (0600), and, unless `[database]
    migrate` is off, the tables. The object store is not touched before it is used.

    Raises:
        SettingsError: the settings cannot be used on this machine.
        DatabaseUnavailable: the database cannot be reached.
    """
    failpoints.check()
    sealing_key = await asyncio.to_thread(_prepare, settings)
    async with AsyncExitStack() as stack:
        database = Database(settings.database_url, settings.database)
        stack.push_async_callback(database.close)
        if settings.database.migrate:
            await schema.upgrade(database)
        store = build_store(settings)
        stack.push_async_callback(store.close)
        repositories = Repositories(database, settings.repositories, settings.auth)
        large_files = await stack.enter_async_context(
            open_large_files(settings, sealing_key, database, repositories, store)
        )
        runner = GitRunner(settings.git.executable, max_object_bytes=settings.git.max_object_bytes)
        snapshots = Snapshots(database, store, settings.cache_dir)
        stack.push_async_callback(snapshots.close)
        clones = Clones(settings.cache_dir, settings.git.clone_cache_bytes)
        stack.push_async_callback(clones.close)
        publisher = Publisher(
            database, store, snapshots, packs_threshold=settings.maintenance.packs_threshold
        )
        notifying = await stack.enter_async_context(open_notifying(settings, sealing_key, database))
        reader = Reader(snapshots, runner)
        stack.push_async_callback(reader.close)
        understanding = await stack.enter_async_context(
            open_understanding(settings.hooks, database, runner, snapshots, reader, large_files)
        )
        policies: list[PreReceive] = [
            BranchRules(database, runner),
            MissingObjects(database, runner, large_files.objects, settings.lfs),
            LockedPaths(runner, large_files.locks),
        ]
        gates = Gates(database, runner, understanding.trees, understanding.parsing, settings.gates)
        push_hooks = await build_push_hooks(
            settings,
            database,
            snapshots,
            understanding.trees,
            steps=[
                understanding.metadata,
                understanding.compare_tensors,
                Triggers(
                    database, Tips(snapshots, reader.objects), understanding.trees, understanding.versions
                ),
            ],
        )
        publisher.listeners.append(push_hooks.pipeline.hint)
        post_receive = clearing = None
        if settings.hooks.enabled:
            policies += [gates, *push_hooks.policies]
            post_receive, clearing = push_hooks.pipeline, gates.clearing
        lander = Lander(publisher, runner, policies, push_hooks.last if settings.hooks.enabled else ())
        gate = Gate(snapshots, lander, runner, settings.git)
        repacker = Repacker(database, snapshots, publisher, runner, settings.maintenance)
        sweeper = Sweeper(database, store, snapshots, settings.maintenance)
        pointers = Pointers(runner, snapshots)
        yield Services(
            settings=settings,
            sealing_key=sealing_key,
            database=database,
            store=store,
            audit=Audit(database),
            accounts=Accounts(database, settings.auth),
            organisations=Organisations(database),
            credentials=Credentials(database, settings.auth),
            keyring=Keyring(database, settings.auth),
            repositories=repositories,
            collaboration=Collaboration(database, settings.auth),
            runner=runner,
            snapshots=snapshots,
            publisher=publisher,
            git=GitService(snapshots, clones, lander, runner, settings.git, post_receive, clearing),
            reader=reader,
            committer=Committer(gate, reader.objects),
            rules=Rules(database, settings.auth),
            branches=Branches(gate, reader.objects),
            maintenance=Maintenance(database, repacker, sweeper, settings.maintenance),
            sweeper=sweeper,
            exchange=Exchange(snapshots, publisher, runner),
            fsck=Fsck(database, store, settings.cache_dir, runner),
            large_files=large_files,
            safekeeping=build_safekeeping(settings, database, large_files.stores, pointers),
            understanding=understanding,
            notifying=notifying,
            pipeline=push_hooks.pipeline,
        )


def host_key_path(settings: Settings) -> Path:
    """Where the SSH host key is, or will be made."""
    return Path(settings.ssh.host_key).resolve() if settings.ssh.host_key else settings.data_dir / HOST_KEY


def _prepare(settings: Settings) -> bytes:
    ensure_private_directory(settings.data_dir)
    ensure_private_directory(settings.cache_dir)
    if "local" in (settings.storage.kind, settings.lfs.store):
        ensure_private_directory(settings.store_dir)
    return load_or_create_key(settings.data_dir / SEALING_KEY)
