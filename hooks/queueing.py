"""The queue of the post-receive pipeline: which push is worked on when, by which worker.

A repository's pushes are worked on one after the other, in their order; one that waits for another try lets
later ones pass. What is held is leased: a worker that dies holds nothing for long.
"""

import asyncio
from collections.abc import Collection, Sequence
from datetime import timedelta
from typing import Any

import structlog
from sqlalchemy import ColumnElement, Select, case, delete, exists, func, or_, select, update
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import aliased

from core.database import Database
from core.errors import ModelyardError
from core.models import Account, PostReceiveTask, Push, Repository, Transport, now
from core.repositories import RepositoryInfo
from gitserver.updates import RefUpdate
from hooks.received import ReceivedPush

log = structlog.get_logger(__name__)


class LeaseLost(Exception):
    """The push is no longer ours: another worker took it over, or its repository is gone."""


class HeldPush:
    """A push that this worker holds. What writes raises `LeaseLost` and `DatabaseUnavailable`.

    Attributes:
        done: the names of the steps that are done.
        attempts: how often it was taken up, this time included.
    """

    def __init__(
        self, database: Database, lease: timedelta, push: ReceivedPush, task: PostReceiveTask
    ) -> None:
        self.push = push
        self.done = list(task.done)
        self.attempts = task.attempts
        self._database = database
        self._lease = lease
        # What the row says for as long as it is ours: nobody else writes the same moment. None: given back.
        self._until = task.leased_until
        self._lock = asyncio.Lock()

    async def keep(self, ended: asyncio.Event) -> None:
        """Renews the lease until `ended`; cancelling it would leave in doubt what is stored."""
        while True:
            try:
                async with asyncio.timeout(self._lease.total_seconds() / 3):
                    await ended.wait()
                    return
            except TimeoutError:
                try:
                    await self._write()
                except ModelyardError as error:  # there is time for another try
                    log.warning("hooks.lease_not_renewed", push_id=self.push.id, error=error.message)

    async def note(self, step: str) -> None:
        """Stores that a step is done."""
        self.done.append(step)
        await self._write(done=list(self.done))

    async def postpone(self, delay: timedelta) -> None:
        """Lets it rest for so long; later pushes of the repository may pass it."""
        await self._write(due_at=now() + delay, leased_until=None)

    async def release(self) -> None:
        """Gives it back as if it had not been taken."""
        await self._write(attempts=self.attempts - 1, leased_until=None)

    async def finish(self) -> None:
        """Takes it off the queue."""
        async with self._lock:
            gone = delete(PostReceiveTask).where(*self._ours()).returning(PostReceiveTask.push_id)
            async with self._database.transaction() as session:
                if await session.scalar(gone) is None:
                    raise LeaseLost
            self._until = None

    async def _write(self, **values: Any) -> None:
        async with self._lock:
            if self._until is None:  # a renewal that came too late
                return
            values = {"leased_until": now() + self._lease, **values}
            change = update(PostReceiveTask).where(*self._ours()).values(values)
            async with self._database.transaction() as session:
                if await session.scalar(change.returning(PostReceiveTask.push_id)) is None:
                    raise LeaseLost
            self._until = values["leased_until"]

    def _ours(self) -> Sequence[ColumnElement[bool]]:
        return (PostReceiveTask.push_id == self.push.id, PostReceiveTask.leased_until == self._until)


class PushQueue:
    """The tasks that are written with the pushes. Any number of workers may share it."""

    def __init__(self, database: Database, lease: timedelta) -> None:
        self._database = database
        self._lease = lease

    async def claim(self, wanted: Collection[int] = ()) -> HeldPush | None:
        """Takes up the next push, if one is due; before all others those of the repositories of `wanted`.

        Raises:
            DatabaseUnavailable: try again later.
        """
        while True:
            async with self._database.transaction() as session:
                head = await session.scalar(_next_head(wanted))
                if head is None:
                    return None
                # Asked after the lock: since that query began another worker may have come and gone.
                task = await session.scalar(_next_of(head.repository_id))
                if task is None:
                    continue
                task.leased_until = now() + self._lease
                task.attempts += 1
                push = await _load(session, task.push_id)
            return HeldPush(self._database, self._lease, push, task)

    async def waits(self, push_id: int) -> bool | None:
        """Whether nobody holds a push or another one of its repository; None when it is done."""
        task, moment = PostReceiveTask, now()
        others = select(_Other).where(
            _Other.repository_id == task.repository_id, _Other.leased_until >= moment
        )
        async with self._database.read() as session:
            found: bool | None = await session.scalar(select(~exists(others)).where(task.push_id == push_id))
            return found

    async def length(self) -> int:
        """How many pushes wait or are being worked on."""
        async with self._database.read() as session:
            return await session.scalar(select(func.count()).select_from(PostReceiveTask)) or 0


_Other = aliased(PostReceiveTask)
_Tasks = Select[PostReceiveTask]


def _next_head(wanted: Collection[int]) -> _Tasks:
    """The first task of a repository with something to do; locked, it stands for the repository's queue."""
    task, moment = PostReceiveTask, now()
    beside = select(_Other).where(_Other.repository_id == task.repository_id)
    query = select(task).where(
        ~exists(beside.where(_Other.push_id < task.push_id)),
        ~exists(beside.where(_Other.leased_until >= moment)),
        exists(beside.where(or_(_Other.attempts == 0, _Other.due_at <= moment))),
    )
    if wanted:
        theirs = select(_Other.repository_id).where(_Other.push_id.in_(wanted))
        query = query.order_by(case((task.repository_id.in_(theirs), 0), else_=1))
    return query.order_by(task.push_id).limit(1).with_for_update(of=task, skip_locked=True)


def _next_of(repository_id: str) -> _Tasks:
    """The first task of a repository that need not wait, as long as none is held."""
    task, moment = PostReceiveTask, now()
    held = select(_Other).where(_Other.repository_id == repository_id, _Other.leased_until >= moment)
    return (
        select(task)
        .where(
            task.repository_id == repository_id,
            # A new one is due at once, whatever the clock of the machine said that wrote it.
            or_(task.attempts == 0, task.due_at <= moment),
            ~exists(held),
        )
        .order_by(task.push_id)
        .limit(1)
    )


async def _load(session: AsyncSession, push_id: int) -> ReceivedPush:
    query = (
        select(Push, Repository, Account.name)
        .join(Repository, Repository.id == Push.repository_id)
        .join(Account, Account.id == Repository.owner_id)
        .where(Push.id == push_id)
    )
    push, repository, owner = (await session.execute(query)).one()
    return ReceivedPush(
        id=push.id,
        repository=RepositoryInfo.of(repository, owner),
        actor=push.actor,
        actor_id=push.actor_id,
        transport=Transport(push.transport),
        updates=tuple(RefUpdate(one["ref"], one["old"], one["new"]) for one in push.updates),
        options=tuple(push.options),
        by_run=push.by_run,
        created_at=push.created_at,
    )
