"""The queue of the post-receive pipeline: which push is worked on when, by which worker.

A repository's pushes are worked on one after the other, in their order; one that waits for another try lets
later ones pass. What is held is leased: a worker that dies holds nothing for long.
"""

import asyncio
from collections.abc import Collection, Sequence
from datetime import timedelta
from typing import Any

import structlog
from sqlalchemy import ColumnElement, Select, bindparam, case, delete, exists, func, or_, select, update
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

    async def note(self, step: str, *, at_once: bool) -> None:
        """Stores that a step is done; if not `at_once`, with whatever is stored next."""
        self.done.append(step)
        if at_once:
            await self._write()

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
            values = {"leased_until": now() + self._lease, "done": list(self.done), **values}
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
                moment = now()
                head = await session.scalar(_NEXT_HEAD, {"moment": moment, "wanted": list(wanted)})
                if head is None:
                    return None
                # Asked after the lock: since that query began another worker may have come and gone.
                found = await session.execute(_NEXT_OF, {"moment": now(), "repository_id": head})
                row = found.one_or_none()
                if row is None:
                    continue
                task = row.PostReceiveTask
                task.leased_until = now() + self._lease
                task.attempts += 1
                push = _received(row.Push, RepositoryInfo.of(row.Repository, row.name))
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


_Task, _Other = PostReceiveTask, aliased(PostReceiveTask)
_moment = bindparam("moment", type_=_Task.due_at.type)


def _next_head() -> Select[str]:
    """Whose queue has something to do; its first task is locked, and stands for the queue."""
    beside = select(_Other).where(_Other.repository_id == _Task.repository_id)
    theirs = select(_Other.repository_id).where(_Other.push_id.in_(bindparam("wanted", expanding=True)))
    return (
        select(_Task.repository_id)
        .where(
            ~exists(beside.where(_Other.push_id < _Task.push_id)),
            ~exists(beside.where(_Other.leased_until >= _moment)),
            exists(beside.where(or_(_Other.attempts == 0, _Other.due_at <= _moment))),
        )
        .order_by(case((_Task.repository_id.in_(theirs), 0), else_=1), _Task.push_id)
        .limit(1)
        .with_for_update(of=_Task, skip_locked=True)
    )


def _next_of() -> Select[PostReceiveTask, Push, Repository, str]:
    """The first task of a repository that need not wait, as long as none is held."""
    repository_id = bindparam("repository_id", type_=_Task.repository_id.type)
    held = select(_Other).where(_Other.repository_id == repository_id, _Other.leased_until >= _moment)
    return (
        select(_Task, Push, Repository, Account.name)
        .join(Push, Push.id == _Task.push_id)
        .join(Repository, Repository.id == _Task.repository_id)
        .join(Account, Account.id == Repository.owner_id)
        .where(
            _Task.repository_id == repository_id,
            # A new one is due at once, whatever the clock of the machine said that wrote it.
            or_(_Task.attempts == 0, _Task.due_at <= _moment),
            ~exists(held),
        )
        .order_by(_Task.push_id)
        .limit(1)
    )


# Made once: every push asks, and making them costs more than the answer.
_NEXT_HEAD = _next_head()
_NEXT_OF = _next_of()


def _received(push: Push, repository: RepositoryInfo) -> ReceivedPush:
    return ReceivedPush(
        id=push.id,
        repository=repository,
        actor=push.actor,
        actor_id=push.actor_id,
        transport=Transport(push.transport),
        updates=tuple(RefUpdate(one["ref"], one["old"], one["new"]) for one in push.updates),
        options=tuple(push.options),
        by_run=push.by_run,
        created_at=push.created_at,
    )
