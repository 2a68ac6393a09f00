"""Pushes on the post-receive queue, without Git behind them, and steps that show what the pipeline does."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import select, update

from core.database import Database
from core.models import (
    Account,
    AccountKind,
    PostReceiveTask,
    Push,
    Repository,
    RepositoryType,
    Transport,
    Visibility,
)
from hooks.pipeline import Pipeline, ReceivedPush, Report

Action = Callable[[ReceivedPush, Report], Awaitable[None]]


@dataclass
class Step:
    """Notes which pushes it was run for; `action` is what it does beside."""

    name: str
    action: Action | None = None
    began: list[int] = field(default_factory=list)
    ended: list[int] = field(default_factory=list)

    async def run(self, push: ReceivedPush, report: Report) -> None:
        self.began.append(push.id)
        if self.action is not None:
            await self.action(push, report)
        self.ended.append(push.id)


async def new_repository(database: Database, name: str = "model") -> str:
    """The id of a new repository of the account `ann`."""
    async with database.transaction() as session:
        owner = await session.scalar(select(Account).where(Account.name == "ann"))
        if owner is None:
            owner = Account(kind=AccountKind.USER, name="ann")
            session.add(owner)
            await session.flush()
        repository = Repository(
            owner_id=owner.id,
            type=RepositoryType.MODEL,
            name=name,
            visibility=Visibility.PRIVATE,
            default_branch="main",
        )
        session.add(repository)
        await session.flush()
        return repository.id


async def new_push(database: Database, repository_id: str, **task: Any) -> int:
    """The id of a push that is on the queue; `task` are columns of its task."""
    async with database.transaction() as session:
        push = Push(
            repository_id=repository_id,
            actor="ann",
            transport=Transport.HTTP,
            updates=[{"ref": "refs/heads/main", "old": "0" * 40, "new": "1" * 40}],
            options=["skip"],
        )
        session.add(push)
        await session.flush()
        session.add(PostReceiveTask(push_id=push.id, repository_id=repository_id, **task))
        return push.id


async def tasks(database: Database) -> Mapping[int, PostReceiveTask]:
    """What is on the queue, by push."""
    async with database.read() as session:
        return {one.push_id: one for one in await session.scalars(select(PostReceiveTask))}


async def change_task(database: Database, push_id: int, **values: Any) -> None:
    """Changes columns of a task behind everybody's back."""
    async with database.transaction() as session:
        await session.execute(
            update(PostReceiveTask).where(PostReceiveTask.push_id == push_id).values(**values)
        )


@asynccontextmanager
async def running(*pipelines: Pipeline) -> AsyncIterator[None]:
    """Runs pipelines beside the block, and cancels them at its end."""
    async with asyncio.TaskGroup() as group:
        works = [group.create_task(pipeline.run_forever()) for pipeline in pipelines]
        await asyncio.sleep(0)
        yield
        for work in works:
            work.cancel()


async def until(condition: Callable[[], object], *, seconds: float = 30) -> None:
    """Waits for it to come true."""
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110 - what is waited for tells nobody
            await asyncio.sleep(0.01)


async def drained(database: Database, *, seconds: float = 60) -> None:
    """Waits for the queue to be empty."""
    async with asyncio.timeout(seconds):
        while await tasks(database):  # noqa: ASYNC110
            await asyncio.sleep(0.02)
