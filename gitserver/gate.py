"""The way of changes made by this server to the refs: the same checks and the same function as for a push.

A push brings a pack and the old values its client saw; a change made here is computed from a snapshot. From
there on both are alike (design section 4, steps 4 to 8): fsck, connectivity, policies, `Publisher.publish`.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from secrets import token_hex

from core.access import Actor
from core.errors import AlreadyExists, PayloadTooLarge, PushRefused, RefConflict, Unavailable
from core.models import PackKind, Transport
from core.repositories import RepositoryInfo
from core.settings import GitSettings
from gitserver.landing import Lander
from gitserver.policy import ProposedPush
from gitserver.process import STRICT, GitFailed, GitRunner
from gitserver.publish import StaleConnectivity
from gitserver.quarantine import Quarantine, open_quarantine
from gitserver.snapshots import Snapshot, Snapshots
from gitserver.updates import RefUpdate

# Given a snapshot and an empty pack directory, says what is to change, and writes a pack if that needs one.
Prepare = Callable[[Snapshot, Path], Awaitable[Sequence[RefUpdate]]]

_TRIES_AFTER_PRUNE = 4


@dataclass(frozen=True, slots=True)
class Landed:
    """What was published, and what the policies have to say about it."""

    updates: Sequence[RefUpdate] = ()
    messages: Sequence[str] = ()


class NameCollision(RefConflict):
    """A new name would be a directory where another ref is a file, or the other way round: `a` and `a/b`."""


class Gate:
    """Lands changes made by this server, with the policies that pushes meet."""

    def __init__(
        self,
        snapshots: Snapshots,
        lander: Lander,
        git: GitRunner,
        settings: GitSettings,
    ) -> None:
        self.settings = settings
        self._snapshots = snapshots
        self._lander = lander
        self._git = git
        self._slots = asyncio.Semaphore(settings.concurrent_receives)

    @asynccontextmanager
    async def workspace(self, repository: RepositoryInfo) -> AsyncIterator[Path]:
        """A directory for one change, gone when the block ends."""
        async with (
            self._snapshots.open(repository.id) as snapshot,
            open_quarantine(self._snapshots.root, snapshot) as quarantine,
        ):
            yield quarantine.path

    async def land(
        self,
        repository: RepositoryInfo,
        actor: Actor,
        prepare: Prepare,
        *,
        workspace: Path,
        transport: Transport = Transport.API,
        options: Sequence[str] = (),
    ) -> Landed:
        """Prepares a change on the current state and publishes it: all updates or none.

        No update is nothing to do. `prepare` may be called again.

        Raises:
            PushRefused: a policy or git's fsck refuses it; `fields` may have `messages`.
            RefConflict: a ref moved meanwhile, or a name collides with another.
            Unavailable: a part of the server is out of reach.
        """
        async with self._slots:
            for _ in range(_TRIES_AFTER_PRUNE):
                async with self._snapshots.open(repository.id) as snapshot:
                    quarantine = Quarantine(workspace / token_hex(4), snapshot)
                    folder = quarantine.objects / "pack"
                    await asyncio.to_thread(folder.mkdir, parents=True)
                    updates = await prepare(snapshot, folder)
                    if not updates:
                        return Landed()
                    try:
                        return await self._publish(repository, actor, quarantine, updates, transport, options)
                    except StaleConnectivity:
                        continue  # objects were dropped meanwhile, maybe some that this change counts on
        raise Unavailable("the repository is being cleaned; try again")

    async def _publish(
        self,
        repository: RepositoryInfo,
        actor: Actor,
        quarantine: Quarantine,
        updates: Sequence[RefUpdate],
        transport: Transport,
        options: Sequence[str],
    ) -> Landed:
        _refuse(await self._lander.refusals(repository, actor, updates))
        await self._index(quarantine)
        push = ProposedPush(repository, actor, updates, tuple(options), quarantine)
        landing = await self._lander.land(push, transport=transport, atomic=True, kind=PackKind.COMMIT)
        _refuse(landing.denied, landing.messages)
        for verdict in landing.verdicts:
            if verdict.error is not None:
                raise RefConflict(f"{verdict.name}: {verdict.error}", ref=verdict.name)
        return Landed(updates, landing.messages)

    async def _index(self, quarantine: Quarantine) -> None:
        """Checks the pack that was made, if any, as strictly as a pushed one, and writes its index."""
        made = await asyncio.to_thread(_made, quarantine.objects / "pack")
        if made is None:
            return
        pack, size = made
        if size > self.settings.max_pack_bytes:
            raise PayloadTooLarge(f"a commit may weigh {self.settings.max_pack_bytes} bytes at most")
        config = {"core.bigFileThreshold": "16m", "pack.writeReverseIndex": "true"}
        strict = [STRICT] if self.settings.strict else []
        try:
            await self._git.run(
                ["index-pack", *strict, str(pack)],
                environment=self._git.environment(config, quarantine.environment()),
            )
        except GitFailed as error:
            raise PushRefused(f"git refuses the new objects: {error.reason}") from error


def check_free(snapshot: Snapshot, ref: str, *, leaving: str = "") -> None:
    """Raises `AlreadyExists` or `NameCollision` unless a ref may get this name while `leaving` goes away."""
    if ref in snapshot.refs:
        raise AlreadyExists(f"{ref} exists already", ref=ref)
    for other in snapshot.refs:
        if other != leaving and (other.startswith(ref + "/") or ref.startswith(other + "/")):
            raise NameCollision(f"{ref}: name conflicts with {other}", ref=ref)


def _made(folder: Path) -> tuple[Path, int] | None:
    return next(((pack, pack.stat().st_size) for pack in folder.glob("*.pack")), None)


def _refuse(refused: Mapping[str, str], messages: Sequence[str] = ()) -> None:
    said = {"messages": list(messages)} if messages else {}
    for name, reason in refused.items():
        raise PushRefused(f"{name}: {reason}", ref=name, **said)
