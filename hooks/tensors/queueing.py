"""Which contents wait to be read for the digests of their tensors; each is read by one worker at a time.

What is held is leased, and renewed all the while: a worker that dies holds nothing for long.
"""

import asyncio
from collections.abc import Collection
from datetime import timedelta
from typing import Any

import structlog
from sqlalchemy import delete, or_, select, update

from core.database import Database
from core.errors import Conflict, ModelyardError, RepositoryNotFound
from core.models import TensorDigestTask, now
from core.upsert import insert_into
from hooks.version import VersionFile

log = structlog.get_logger(__name__)

# As in `hooks.pipeline`: a killed worker's contents are soon another's.
_LEASE_POLLS = 3
_SHORTEST_LEASE = timedelta(seconds=3)
_RETRY = timedelta(minutes=5)
_ATTEMPTS = 5
# So many rows of the queue fit into one statement of either database.
_AT_ONCE = 500


class LeaseLost(Exception):
    """The content is no longer ours to read: another worker has it, or its repository is gone."""


class HeldContent:
    """A content that this worker reads. What writes raises `LeaseLost` and `DatabaseUnavailable`.

    Attributes:
        repository_id: whose content it is; others may have it, too.
        attempts: how often it was taken up, this time included.
    """

    def __init__(self, database: Database, lease: timedelta, task: TensorDigestTask) -> None:
        self.repository_id = task.repository_id
        self.file = VersionFile(task.path, task.digest, task.size, task.parser)
        self.attempts = task.attempts
        self._database = database
        self._lease = lease
        # What the row says for as long as it is ours: nobody else writes the same moment.
        self._until = task.leased_until

    async def keep(self, ended: asyncio.Event) -> None:
        """Renews the lease until `ended`; cancelling it would leave in doubt what is stored."""
        while not ended.is_set():
            try:
                async with asyncio.timeout(self._lease.total_seconds() / 3):
                    await ended.wait()
            except TimeoutError:
                try:
                    await self._write(leased_until=now() + self._lease)
                except ModelyardError as error:  # there is time for another try
                    log.warning("tensors.lease_not_renewed", digest=self.file.digest, error=error.message)

    async def release(self) -> None:
        """Gives it back as if it had not been taken."""
        await self._write(leased_until=None, attempts=self.attempts - 1)

    async def postpone(self) -> None:
        """It could not be read: again in a while, and after five times no more."""
        if self.attempts >= _ATTEMPTS:
            await self.drop()
        else:
            await self._write(leased_until=None, due_at=now() + _RETRY * self.attempts)

    async def drop(self) -> None:
        """There is nothing to be read any more; whoever needs it queues it again."""
        async with self._database.transaction() as session:
            await session.execute(
                delete(TensorDigestTask).where(
                    TensorDigestTask.digest == self.file.digest, TensorDigestTask.leased_until == self._until
                )
            )

    async def _write(self, **values: Any) -> None:
        change = (
            update(TensorDigestTask)
            .where(TensorDigestTask.digest == self.file.digest, TensorDigestTask.leased_until == self._until)
            .values(values)
        )
        async with self._database.transaction() as session:
            if await session.scalar(change.returning(TensorDigestTask.digest)) is None:
                raise LeaseLost
        self._until = values["leased_until"]


class DigestQueue:
    """Any number of workers may share it. Every method raises `DatabaseUnavailable`."""

    def __init__(self, database: Database, *, poll_seconds: float) -> None:
        self._database = database
        self._lease = max(_SHORTEST_LEASE, _LEASE_POLLS * timedelta(seconds=poll_seconds))

    async def enqueue(self, repository_id: str, files: Collection[VersionFile]) -> None:
        """Has contents of a repository read; one that waits already is not read twice.

        Raises:
            RepositoryNotFound: it was deleted meanwhile.
        """
        rest = {file.digest: file for file in files}
        queued: set[str] = set()
        async with self._database.read() as session:
            digests = list(rest)
            for start in range(0, len(digests), _AT_ONCE):
                some = TensorDigestTask.digest.in_(digests[start : start + _AT_ONCE])
                queued.update(await session.scalars(select(TensorDigestTask.digest).where(some)))
        rows = [
            {
                "digest": digest,
                "repository_id": repository_id,
                "path": file.path,
                "parser": file.parser,
                "size": file.size,
                "due_at": now(),
                "attempts": 0,
            }
            # In one order, so that two who write do not wait for each other.
            for digest, file in sorted(rest.items())
            if digest not in queued
        ]
        if not rows:
            return
        try:
            async with self._database.transaction() as session:
                for row in rows:
                    await session.execute(
                        insert_into(session, TensorDigestTask).values(**row).on_conflict_do_nothing()
                    )
        except Conflict as error:
            raise RepositoryNotFound("no such repository") from error

    async def claim(self) -> HeldContent | None:
        """The smallest content that waits."""
        moment = now()
        due = (
            select(TensorDigestTask)
            .where(
                TensorDigestTask.due_at <= moment,
                or_(TensorDigestTask.leased_until.is_(None), TensorDigestTask.leased_until < moment),
            )
            .order_by(TensorDigestTask.size, TensorDigestTask.digest)
            .limit(1)
        )
        while True:
            async with self._database.read() as session:
                if await session.scalar(due) is None:
                    return None
            async with self._database.transaction() as session:
                task = await session.scalar(due.with_for_update(skip_locked=True))
                if task is None:
                    return None
                task.attempts += 1
                task.leased_until = now() + self._lease
                if task.attempts > _ATTEMPTS:  # it kills whoever reads it
                    log.error("tensors.given_up", digest=task.digest, repository_id=task.repository_id)
                    await session.delete(task)
                    continue
            return HeldContent(self._database, self._lease, task)
