"""The one function by which refs change: HTTP, SSH and the commit API all end here (invariants I1, I3).

First the pack becomes durable in the object store; then one transaction compares and swaps the refs, writes
the pack row, the push row and the outbox events. Nothing is acknowledged before that commit.
"""

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path
from secrets import token_hex

import structlog
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from core import failpoints, outbox
from core.access import Actor, Permission, authorize_again
from core.database import Database
from core.errors import RepositoryNotFound
from core.models import (
    AuditEntry,
    MaintenanceTask,
    Pack,
    PackKind,
    PostReceiveTask,
    Push,
    Repository,
    Transport,
    now,
    random_id,
)
from core.together import together
from gitserver.quarantine import PackFiles
from gitserver.snapshots import CacheUnavailable, Snapshots, pack_key
from gitserver.updates import Published, RefUpdate, Verdict, apply, judge
from storage.protocol import ObjectStore, StoreUnavailable

log = structlog.get_logger(__name__)

# Seconds between the tries to store a pack while the object store is away.
_PAUSES = (0.5, 2, 5)

BEFORE_STORE = failpoints.declare(
    "push.before-store", "the pack is checked, nothing of it is in the object store"
)
BEFORE_INDEX = failpoints.declare("push.before-index", "the pack is in the object store, its index is not")
AFTER_STORE = failpoints.declare(
    "push.after-store", "pack and index are in the object store, no row names them"
)
BEFORE_COMMIT = failpoints.declare("push.before-commit", "the transaction is written and not committed")
AFTER_COMMIT = failpoints.declare("push.after-commit", "the push is committed and not yet acknowledged")

# A pack of so many objects is worth a bitmap: without one, each clone walks the whole history.
_LARGE = 20_000

_NAMES_TOLD = 100


class StaleConnectivity(Exception):
    """Objects were dropped since the caller checked connectivity: check again and publish again."""


class Publisher:
    """Writes accepted changes of refs."""

    def __init__(
        self, database: Database, store: ObjectStore, snapshots: Snapshots, *, packs_threshold: int = 12
    ) -> None:
        self._database = database
        self._store = store
        self._snapshots = snapshots
        self._threshold = packs_threshold
        # Called after a commit with the repository id; a hint for workers, never relied on.
        self.listeners: list[Callable[[str], None]] = []
        # Packs that went live since the process began, and their bytes; for metrics.
        self.packs = 0
        self.pack_bytes = 0

    async def store_pack(self, repository_id: str, files: PackFiles, kind: PackKind) -> Pack:
        """Makes a pack durable and returns the row that `publish` will insert. Nothing refers to it yet."""
        key = token_hex(16)

        async def put(suffix: str) -> None:
            await self._put(pack_key(repository_id, key, f"{files.name}.{suffix}"), files.path(suffix))

        first, *rest = files.suffixes
        failpoints.reach(BEFORE_STORE)
        await put(first)
        failpoints.reach(BEFORE_INDEX)
        await together(*map(put, rest))
        failpoints.reach(AFTER_STORE)
        return Pack(
            repository_id=repository_id,
            key=key,
            name=files.name,
            kind=kind,
            suffixes=list(files.suffixes),
            objects=files.objects,
            bytes=files.bytes,
        )

    async def _put(self, key: str, path: Path) -> None:
        """Stores one file; patient, because an upload of hours hangs on it and the key is ours alone."""
        for pause in (*_PAUSES, None):
            try:
                await self._store.put_file(key, path)
            except OSError as error:  # of the source: the store translates its own
                raise CacheUnavailable(f"the pack cannot be read: {error.strerror}") from error
            except StoreUnavailable:
                if pause is None:
                    raise
                await asyncio.sleep(pause)
            else:
                return

    async def publish(
        self,
        repository_id: str,
        updates: Sequence[RefUpdate],
        files: PackFiles | None,
        *,
        actor: Actor,
        transport: Transport,
        options: Sequence[str] = (),
        atomic: bool = False,
        epoch: int,
        kind: PackKind = PackKind.PUSH,
        audit: Sequence[AuditEntry] = (),
    ) -> Published:
        """Stores the pack, then applies the updates in one transaction.

        With `atomic`, one failure fails all. When no update succeeds nothing is written, and what was
        stored is left to the orphan sweeper. `epoch` is the prune epoch that the connectivity check saw.
        `audit` is written with the refs.

        Raises:
            StaleConnectivity: objects were dropped since; nothing was written.
            RepositoryNotFound: it was deleted meanwhile.
            InvalidCredentials, PermissionDenied: `actor` may not write any more; nothing was written.
            StoreUnavailable, DatabaseUnavailable: nothing was written.
        """
        pack = await self.store_pack(repository_id, files, kind) if files is not None else None
        # A client that leaves now changes nothing: once asked to, the commit is awaited to its end.
        work = asyncio.ensure_future(
            self._commit(repository_id, updates, pack, actor, transport, options, atomic, epoch, audit)
        )
        try:
            published = await asyncio.shield(work)
        except asyncio.CancelledError:
            await asyncio.wait([work])
            raise
        failpoints.reach(AFTER_COMMIT)
        if pack is not None and files is not None:
            await self._snapshots.adopt(pack, files.directory)
        if published.push_id is not None:
            if pack is not None:
                self.packs += 1
                self.pack_bytes += pack.bytes
            for listener in self.listeners:
                listener(repository_id)
        return published

    async def _commit(
        self,
        repository_id: str,
        updates: Sequence[RefUpdate],
        pack: Pack | None,
        actor: Actor,
        transport: Transport,
        options: Sequence[str],
        atomic: bool,
        epoch: int,
        audit: Sequence[AuditEntry],
    ) -> Published:
        async with self._database.transaction() as session:
            repository = await lock_repository(session, repository_id)
            # A push may take hours; whoever lost the right meanwhile does not land it.
            await authorize_again(session, actor, repository, Permission.WRITE)
            if repository.prune_epoch != epoch:
                raise StaleConnectivity
            verdicts = await judge(session, repository, updates)
            if atomic and any(verdict.error for verdict in verdicts):
                return Published(
                    [one if one.error else Verdict(one.name, "atomic push failed") for one in verdicts]
                )
            accepted = [one for one, verdict in zip(updates, verdicts, strict=True) if verdict.error is None]
            if not accepted:
                return Published(verdicts)
            await apply(session, repository_id, accepted)
            if pack is not None:
                session.add(pack)
            advance(repository)
            push = Push(
                repository_id=repository_id,
                actor=actor.name,
                actor_id=actor.user_id,
                transport=transport,
                updates=[{"ref": one.name, "old": one.old, "new": one.new} for one in accepted],
                options=list(options),
                by_run=actor.for_runs,
            )
            session.add(push)
            session.add_all(audit)
            await session.flush()
            outbox.emit(
                session,
                outbox.EventName.PUSH,
                repository_id,
                {"push_id": push.id, "actor": actor.name, "updates": push.updates},
            )
            _tell_of_names(session, repository_id, actor, accepted)
            session.add(PostReceiveTask(push_id=push.id, repository_id=repository_id))
            await _queue_maintenance(session, repository_id, pack, self._threshold)
            failpoints.reach(BEFORE_COMMIT)
        log.info(
            "push.accepted",
            repository_id=repository_id,
            push_id=push.id,
            actor=actor.name,
            transport=transport,
            refs=len(accepted),
            pack_bytes=pack.bytes if pack is not None else 0,
        )
        return Published(verdicts, push.id)


def _tell_of_names(
    session: AsyncSession, repository_id: str, actor: Actor, accepted: Sequence[RefUpdate]
) -> None:
    """Events for branches and tags that come or go. The first hundred: a mirror has thousands."""
    changed = [one for one in accepted if one.creates or one.deletes]
    for one in changed[:_NAMES_TOLD]:
        for prefix, name in (("refs/heads/", outbox.EventName.BRANCH), ("refs/tags/", outbox.EventName.TAG)):
            if one.name.startswith(prefix):
                payload = {
                    "actor": actor.name,
                    "action": "deleted" if one.deletes else "created",
                    "name": one.name.removeprefix(prefix),
                    "ref": one.name,
                    "oid": one.old if one.deletes else one.new,
                }
                outbox.emit(session, name, repository_id, payload)


async def lock_repository(session: AsyncSession, repository_id: str) -> Repository:
    """The repository's row, locked until the transaction ends: one writer at a time.

    Raises:
        RepositoryNotFound: it was deleted meanwhile.
    """
    repository = await session.get(Repository, repository_id, with_for_update=True, populate_existing=True)
    if repository is None:
        raise RepositoryNotFound("no such repository")
    return repository


def advance(repository: Repository) -> None:
    """Names a new state after refs or packs changed; every snapshot made before is then outdated."""
    repository.refs_version += 1
    repository.state = random_id()
    repository.updated_at = now()


async def _queue_maintenance(
    session: AsyncSession, repository_id: str, pack: Pack | None, threshold: int
) -> None:
    """Wants the repository repacked once it holds many small packs, or a large one without a bitmap."""
    large = pack is not None and pack.objects >= _LARGE and "bitmap" not in pack.suffixes
    if not large:
        packs = await session.scalars(
            select(Pack.id)
            .where(
                Pack.repository_id == repository_id,
                Pack.superseded_at.is_(None),
                Pack.kind.in_((PackKind.PUSH, PackKind.COMMIT)),
            )
            .limit(threshold)
        )
        if len(packs.all()) < threshold:
            return
    if await session.get(MaintenanceTask, repository_id) is None:
        session.add(MaintenanceTask(repository_id=repository_id, full=large))
