"""A burst of pushes to a receiver that fails and stalls, with the server killed again and again."""

import asyncio
import random
import signal
import time
from collections import defaultdict
from contextlib import suppress
from pathlib import Path

import pytest
from aiohttp import ClientError, ClientSession, web
from sqlalchemy import select

from core import failpoints
from core.access import SYSTEM
from core.models import Attempt, Delivery, DeliveryState, Push, Scope, Transport
from core.names import parse_address
from core.opening import RepositoryInfo
from gitserver.updates import RefUpdate
from modelyard.services import Services
from tests.support.api import Caller, commit
from tests.support.database import Databases, Engine
from tests.support.server import RunningServer, running_server
from tests.support.webhook_receiver import Received, Receiver, answering, running_receiver, silent
from tests.support.yard import Yard
from webhooks.outcomes import Outcome
from webhooks.scopes import WebhookScope

REPOSITORIES = 10
PUSHES = 1000
COMMITS_EACH = 5  # of the pushes, over HTTP
KILLS = 5
SETTINGS = {
    "ALLOWED_NETWORKS": "127.0.0.0/8",
    "TIMEOUT_SECONDS": "0.5",
    "FIRST_RETRY_SECONDS": "0.05",
    "MAX_RETRY_SECONDS": "1",
    "POLL_SECONDS": "0.2",
    "CONCURRENT_DELIVERIES": "48",
}


def environment(**settings: str) -> dict[str, str]:
    return {f"MODELYARD_WEBHOOKS__{name}": value for name, value in {**SETTINGS, **settings}.items()}


class Burst:
    """Pushes into all repositories at once: commits over HTTP, and a branch that goes to and fro."""

    def __init__(self, caller: Caller, services: Services) -> None:
        self._caller = caller
        self._services = services
        self._repositories: list[RepositoryInfo] = []

    async def prepare(self) -> None:
        """Makes the repositories, with a first commit each."""
        for number in range(REPOSITORIES):
            address = parse_address(f"ann/r{number}")
            self._repositories.append(await self._services.repositories.create(SYSTEM, address))
            await commit(self._caller, f"/repositories/models/{address}", {"a": b"first\n"})

    async def run(self) -> None:
        async with asyncio.TaskGroup() as group:
            for repository in self._repositories:
                group.create_task(self._commits(repository))
                group.create_task(self._moves(repository))

    async def _commits(self, repository: RepositoryInfo) -> None:
        for number in range(COMMITS_EACH - 1):  # the first one was made before
            while True:
                try:
                    files = {"a": b"%d\n" % number}
                    await commit(self._caller, f"/repositories/models/{repository.path}", files)
                    break
                except (ClientError, AssertionError):
                    await asyncio.sleep(0.2)  # it was killed: perhaps the commit landed, perhaps not

    async def _moves(self, repository: RepositoryInfo) -> None:
        oid = (await self._services.reader.branch(repository.id, "main")).oid
        there = RefUpdate("refs/heads/burst", "0" * 40, oid)
        back = RefUpdate("refs/heads/burst", oid, "0" * 40)
        for number in range(PUSHES // REPOSITORIES - COMMITS_EACH):
            published = await self._services.publisher.publish(
                repository.id,
                [back if number % 2 else there],
                None,
                actor=SYSTEM,
                transport=Transport.LOCAL,
                epoch=0,
            )
            assert published.push_id is not None


class Unreliable:
    """Fails 30 % of the requests, and keeps 10 % waiting until they give up."""

    def __init__(self, chance: random.Random) -> None:
        self._chance = chance

    async def __call__(self, received: Received) -> web.StreamResponse:
        drawn = self._chance.random()
        if drawn < 0.3:
            return await answering(self._chance.choice([500, 502, 503, 429, 404]))(received)
        return await (silent(10) if drawn < 0.4 else answering(200))(received)


async def kill_often(server: RunningServer, receiver: Receiver) -> None:
    """Kills the server while deliveries go on, each time after some more were accepted."""
    for _ in range(KILLS):
        seen = len(receiver.accepted)
        await receiver.wait_for(seen + 40)
        await asyncio.to_thread(server.kill)
        await asyncio.to_thread(server.start)


async def all_delivered(services: Services) -> None:
    deadline = time.monotonic() + 90
    while True:
        async with services.database.read() as session:
            waiting = await session.scalar(select(Delivery.id).where(Delivery.finished_at.is_(None)).limit(1))
        await services.notifying.fanout.run_due()
        if waiting is None:
            return
        assert time.monotonic() < deadline, "not everything was delivered in time"
        await asyncio.sleep(0.2)


@pytest.mark.slow
async def test_a_burst_survives_failures_and_kills(
    tmp_path: Path, databases: Databases, database_engine: Engine
) -> None:
    async with (
        databases.fresh(database_engine) as url,
        running_server(tmp_path / "server", database_url=url, workers=2, env=environment()) as server,
        running_receiver() as receiver,
        server.services() as services,
    ):
        await services.accounts.create_user(SYSTEM, "ann")
        token, _ = await services.keyring.mint_token(SYSTEM, "ann", "test", Scope.WRITE)
        info, secret = await services.notifying.subscriptions.create(
            SYSTEM, WebhookScope(owner="ann"), receiver.url, ["push"]
        )
        receiver.behave = Unreliable(random.Random(5))
        async with ClientSession() as session:
            caller = Caller(session, server.http, {"Authorization": f"Bearer {token}"})
            burst = Burst(caller, services)
            await burst.prepare()
            async with asyncio.TaskGroup() as group:
                group.create_task(burst.run())
                group.create_task(kill_often(server, receiver))
        await all_delivered(services)
        await check(services, receiver, secret)
        found = await services.notifying.subscriptions.get(SYSTEM, WebhookScope(owner="ann"), info.id)
        assert found.active


async def check(services: Services, receiver: Receiver, secret: str) -> None:
    async with services.database.read() as session:
        pushes = set((await session.scalars(select(Push.id))).all())
        deliveries = (await session.scalars(select(Delivery))).all()
        attempts = (await session.scalars(select(Attempt))).all()
    assert len(pushes) >= PUSHES

    # Every event arrived, in the order of its repository.
    assert {one.data["push_id"] for one in receiver.accepted} == pushes
    arrivals: dict[str, list[int]] = defaultdict(list)
    for one in receiver.accepted:
        if one.data["push_id"] not in arrivals[one.repository]:
            arrivals[one.repository].append(one.data["push_id"])
    assert len(arrivals) == REPOSITORIES
    for repository, numbers in arrivals.items():
        assert numbers == sorted(numbers), repository

    for one in receiver.requests:
        one.verify(secret)

    # Nobody sent an attempt twice, and the log has every request, with what became of it.
    seen = [one.attempt for one in receiver.requests]
    assert len(seen) == len(set(seen))
    log = {(one.delivery_id, one.number): one for one in attempts}
    assert set(seen) <= set(log)
    assert {one.state for one in deliveries} == {DeliveryState.DELIVERED}
    for one in receiver.requests:
        row = log[one.attempt]
        if row.outcome is not None and row.status is not None:
            assert row.status == one.status
        else:  # it timed out, or the server died before it read the answer
            assert row.outcome in (None, Outcome.TIMEOUT, Outcome.INTERRUPTED, Outcome.UNREACHABLE)
    # And what the log has of an answer, the receiver gave.
    assert {key for key, row in log.items() if row.status is not None} <= set(seen)
    outcomes = [row.outcome for row in attempts]
    assert outcomes.count(Outcome.FAILED) > 0.2 * len(outcomes)
    assert outcomes.count(Outcome.TIMEOUT) > 0.05 * len(outcomes)


@pytest.mark.slow
@pytest.mark.parametrize("point", [name for name in failpoints.known() if name.startswith("webhook.")])
async def test_killed_at_each_step(tmp_path: Path, point: str) -> None:
    env = environment()
    async with running_receiver() as receiver, running_server(tmp_path / "server", env=env) as server:
        async with server.services() as services:
            await services.accounts.create_user(SYSTEM, "ann")
            token, _ = await services.keyring.mint_token(SYSTEM, "ann", "test", Scope.WRITE)
            await services.repositories.create(SYSTEM, parse_address("ann/net"))
            scope = WebhookScope(owner="ann")
            _, secret = await services.notifying.subscriptions.create(SYSTEM, scope, receiver.url, ["push"])
        await asyncio.to_thread(server.restart, env=env | {"MODELYARD_FAILPOINT": f"{point}:2"})
        async with ClientSession() as session:
            caller = Caller(session, server.http, {"Authorization": f"Bearer {token}"})
            for number in range(3):
                with suppress(ClientError):  # it may die under one of them
                    await commit(caller, "/repositories/models/ann/net", {"a": b"%d\n" % number})
        assert await asyncio.to_thread(server.wait, timeout=60) == -signal.SIGKILL
        await asyncio.to_thread(server.restart, env=env)
        async with server.services() as services:
            async with services.database.read() as session:
                pushes = list(await session.scalars(select(Push.id).order_by(Push.id)))
            assert pushes
            await receiver.wait_for(len(pushes))
            await all_delivered(services)
            async with services.database.read() as session:
                log = {(one.delivery_id, one.number) for one in await session.scalars(select(Attempt))}
    for one in receiver.requests:
        one.verify(secret)
    seen = [one.attempt for one in receiver.requests]
    assert len(seen) == len(set(seen))
    assert set(seen) <= log
    told = [one.data["push_id"] for one in receiver.accepted]
    assert list(dict.fromkeys(told)) == pushes
    if point in {"webhook.after-send", "webhook.before-record"}:
        assert len(told) > len(pushes), "at least once: nobody knew that it had arrived"


async def test_a_push_is_told_at_once(tmp_path: Path) -> None:
    env = environment(POLL_SECONDS="3600", TIMEOUT_SECONDS="30")
    async with running_server(tmp_path / "server", env=env) as server, running_receiver() as receiver:
        yard = await Yard.open(server, tmp_path / "clients")
        path = await yard.new_repository()
        async with server.services() as services, ClientSession() as session:
            scope = WebhookScope(repository=parse_address(path))
            _, secret = await services.notifying.subscriptions.create(SYSTEM, scope, receiver.url, ["push"])
            caller = Caller(session, server.http, {"Authorization": f"Bearer {yard.secret}"})
            for number in range(3):
                await commit(caller, f"/repositories/models/{path}", {"a": b"%d\n" % number})
                # Nobody looks by himself for an hour: the commit itself must have said so.
                await receiver.wait_for(number + 1)
        for one in receiver.requests:
            one.verify(secret)
