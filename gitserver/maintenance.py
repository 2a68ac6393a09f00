"""The maintenance queue: which repository is repacked when, by which worker."""

import asyncio
from datetime import timedelta

import structlog
from sqlalchemy import func, or_, select

from core.database import Database
from core.errors import ModelyardError, RepositoryNotFound
from core.models import MaintenanceTask, Pack, PackKind, Repository, now
from core.polling import Poll
from core.settings import MaintenanceSettings
from gitserver.process import GitFailed
from gitserver.repack import Repacker, RepackReport
from gitserver.sweeper import Sweeper

log = structlog.get_logger(__name__)

# Renewed while the work goes on, so that the task of a killed worker is soon another's.
_LEASE = timedelta(minutes=10)
_MAX_BACKOFF = timedelta(hours=6)
_HOURLY = 3600.0


class Maintenance:
    """Works the queue. Any number of workers may share it; each task is held by one at a time."""

    def __init__(
        self, database: Database, repacker: Repacker, sweeper: Sweeper, settings: MaintenanceSettings
    ) -> None:
        self._database = database
        self._repacker = repacker
        self._sweeper = sweeper
        self._settings = settings

    async def run_forever(self) -> None:
        """Works until cancelled: queued tasks as they come, sweeping and planning every hour."""
        async with asyncio.TaskGroup() as group:
            group.create_task(Poll("maintenance", self._settings.poll_seconds).forever(self.run_due))
            group.create_task(Poll("maintenance.sweep", _HOURLY).forever(self._sweep_and_plan))

    async def run(self, repository_id: str, *, full: bool = True, prune: bool = False) -> RepackReport | None:
        """Repacks one repository now, past the queue. Raises as `Repacker.repack`."""
        return await self._repacker.repack(repository_id, full=full, prune=prune)

    async def run_due(self) -> int:
        """Works every task that is due now; returns how many were tried."""
        tried = 0
        while (task := await self._claim()) is not None:
            await self._work(task)
            tried += 1
        return tried

    async def queue_length(self) -> int:
        """How many repositories wait or are being worked on."""
        async with self._database.read() as session:
            return await session.scalar(select(func.count()).select_from(MaintenanceTask)) or 0

    async def plan(self) -> int:
        """Queues a full repack of repositories that have had none for `full_repack_days`."""
        cutoff = now() - timedelta(days=self._settings.full_repack_days)
        several = (
            select(Pack.repository_id)
            .where(Pack.superseded_at.is_(None), Pack.kind != PackKind.INDEX)
            .group_by(Pack.repository_id)
            .having(func.count() > 1)
        )
        due = (
            select(Repository.id)
            .outerjoin(MaintenanceTask, MaintenanceTask.repository_id == Repository.id)
            .where(
                MaintenanceTask.repository_id.is_(None),
                Repository.id.in_(several),
                Repository.created_at < cutoff,
                or_(Repository.full_repack_at.is_(None), Repository.full_repack_at < cutoff),
            )
            .limit(1000)
            # A push holds its repository's row while it queues the same task: wait for nobody.
            .with_for_update(of=Repository, skip_locked=True)
        )
        async with self._database.transaction() as session:
            ids = list(await session.scalars(due))
            session.add_all(MaintenanceTask(repository_id=one, full=True) for one in ids)
        return len(ids)

    async def _sweep_and_plan(self) -> None:
        await self._sweeper.sweep()
        await self.plan()

    async def _claim(self) -> MaintenanceTask | None:
        async with self._database.transaction() as session:
            task = await session.scalar(
                select(MaintenanceTask)
                .where(
                    MaintenanceTask.due_at <= now(),
                    or_(MaintenanceTask.leased_until.is_(None), MaintenanceTask.leased_until < now()),
                )
                .order_by(MaintenanceTask.due_at)
                .limit(1)
                .with_for_update(skip_locked=True)
            )
            if task is not None:
                task.leased_until = now() + _LEASE
                task.attempts += 1
            return task

    async def _work(self, task: MaintenanceTask) -> None:
        renewing = asyncio.ensure_future(self._renew(task))
        try:
            await self._repacker.repack(task.repository_id, full=task.full, prune=task.full)
        except RepositoryNotFound:
            log.info("maintenance.repository_gone", repository_id=task.repository_id)
        except (ModelyardError, GitFailed, OSError) as error:
            log.warning("maintenance.failed", repository_id=task.repository_id, error=str(error))
            await self._postpone(task)
            return
        except asyncio.CancelledError:
            await asyncio.shield(self._release(task))  # another worker need not wait for the lease to end
            raise
        finally:
            renewing.cancel()
            await asyncio.gather(renewing, return_exceptions=True)
        async with self._database.transaction() as session:
            done = await session.get(MaintenanceTask, task.repository_id)
            if done is not None:
                await session.delete(done)

    async def _renew(self, task: MaintenanceTask) -> None:
        while True:
            await asyncio.sleep(_LEASE.total_seconds() / 3)
            async with self._database.transaction() as session:
                held = await session.get(MaintenanceTask, task.repository_id)
                if held is not None:
                    held.leased_until = now() + _LEASE

    async def _postpone(self, task: MaintenanceTask) -> None:
        async with self._database.transaction() as session:
            failed = await session.get(MaintenanceTask, task.repository_id)
            if failed is not None:
                failed.leased_until = None
                failed.due_at = now() + min(_MAX_BACKOFF, timedelta(minutes=2**failed.attempts))

    async def _release(self, task: MaintenanceTask) -> None:
        async with self._database.transaction() as session:
            held = await session.get(MaintenanceTask, task.repository_id)
            if held is not None:
                held.leased_until = None
