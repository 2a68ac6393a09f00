"""How requests are written: in the order of the repository's other events, and not without number."""

import asyncio

import pytest

from core.access import SYSTEM
from core.errors import RepositoryNotFound
from core.models import Repository, RequestKind
from core.outbox import EventName, emit
from gitserver.publish import lock_repository
from gitserver.updates import RefUpdate
from hooks.received import Report
from hooks.triggers import effort
from hooks.triggers.spec import On, RuleSpec
from tests.support.costs import costs_at_most
from tests.support.hooks_world import HooksWorld
from tests.support.triggers import FILE, Rig, rule, with_updates


@pytest.fixture
async def rig(world: HooksWorld) -> Rig:
    return Rig(world)


async def test_a_repository_that_is_deleted_meanwhile(rig: Rig) -> None:
    """Whoever deletes it holds its row first; firing must not hold anything that this waits for."""
    await rig.world.commit({FILE: rule("a").encode()})
    database, repository_id, push = rig.world.database, rig.world.repository.id, await rig.received()
    async with database.transaction() as session:
        repository = await lock_repository(session, repository_id)
        firing = asyncio.ensure_future(rig.step.run(push, Report()))
        await asyncio.sleep(0.5)
        assert not firing.done()
        await session.delete(repository)
    with pytest.raises(RepositoryNotFound):
        await firing
    async with database.read() as session:
        assert await session.get(Repository, repository_id) is None


async def test_events_are_in_the_order_of_their_ids(rig: Rig) -> None:
    """A request is told behind what happened to the repository before it could be written."""
    await rig.world.commit({FILE: rule("a").encode()})
    database, repository_id, push = rig.world.database, rig.world.repository.id, await rig.received()
    async with database.transaction() as session:
        await lock_repository(session, repository_id)
        firing = asyncio.ensure_future(rig.step.run(push, Report()))
        await asyncio.sleep(0.5)
        emit(session, EventName.TAG, repository_id, {})
    await firing
    requested = await rig.world.events("training.requested")
    tagged = await rig.world.events("tag")
    assert tagged[-1].id < requested[0].id


async def test_a_push_fires_a_bounded_number_of_requests(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hooks.triggers.firing.MAX_PER_PUSH", 3)
    lines = await rig.push({FILE: "".join(rule(f"r{number}") for number in range(5))})
    assert lines[2].startswith('training "r2" requested (req_')
    assert lines[3:] == [
        '"r3" does not fire: a push fires 3 requests at most',
        '"r4" does not fire: a push fires 3 requests at most',
    ]
    assert await rig.run() == lines, "once more: those that fired count"
    assert sorted(await rig.fired()) == ["r0", "r1", "r2"]  # they may be of the same moment
    assert len(await rig.events()) == 3


async def test_patterns_that_would_take_minutes(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """A hundred rules of four thousand characters each: the event loop goes on, and the push is told."""
    patterns = tuple("*a" * 99 + "*b" for _ in range(20))
    for number in range(60):
        spec = RuleSpec(name=f"r{number}", run=RequestKind.TRAINING, on=On(branches=patterns))
        await rig.rules.add(SYSTEM, rig.world.repository.address, spec)
    await rig.world.commit({FILE: rule("a").encode()})
    push = await rig.received()
    head = push.updates[0].new
    updates = [RefUpdate(f"refs/heads/{'a' * 200}{number:02}", "0" * 40, head) for number in range(20)]
    monkeypatch.setattr(effort, "MAX_EFFORT", 4 * effort.MAX_EFFORT)  # seconds that the loop would notice
    report = Report()
    with costs_at_most(0.5):  # of its own thread
        await rig.step.run(with_updates(push, *updates), report)
    assert "no rule fires for " in report.lines[-1]
    assert report.lines[-1].endswith("their patterns take too long to be tried")
