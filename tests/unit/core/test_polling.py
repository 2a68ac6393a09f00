import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest
from structlog.testing import capture_logs

from core.errors import Unavailable
from core.polling import Poll

NEVER = 3600.0


class Looks:
    """What is called to look; each look takes the next of the errors, if there is one, and raises it."""

    def __init__(self, *errors: Exception) -> None:
        self._errors = list(errors)
        self.count = 0
        self._more = asyncio.Event()

    async def __call__(self) -> None:
        self.count += 1
        self._more.set()
        await asyncio.sleep(0)
        if self._errors:
            raise self._errors.pop(0)

    async def reach(self, count: int) -> None:
        async with asyncio.timeout(20):
            while self.count < count:
                self._more.clear()
                await self._more.wait()
        await settle()


async def settle() -> None:
    """Everything that can go on without time passing has gone on."""
    for _ in range(20):
        await asyncio.sleep(0)


@asynccontextmanager
async def polling(poll: Poll, look: Callable[[], Awaitable[object]]) -> AsyncIterator["asyncio.Task[None]"]:
    task = asyncio.create_task(poll.forever(look))
    try:
        yield task
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_looks_at_once_and_then_waits_for_hints() -> None:
    poll, looks = Poll("x", NEVER), Looks()
    async with polling(poll, looks):
        for count in (1, 2, 3):
            await looks.reach(count)
            assert looks.count == count
            poll.hint()


async def test_looks_again_without_a_hint() -> None:
    looks = Looks()
    async with polling(Poll("x", 0.001), looks):
        await looks.reach(3)


async def test_a_hint_before_the_first_look_is_answered_by_it() -> None:
    poll, looks = Poll("x", NEVER), Looks()
    poll.hint()
    async with polling(poll, looks):
        await looks.reach(1)
        assert looks.count == 1


async def test_hints_during_a_look_make_one_more_follow() -> None:
    poll, began, goes_on = Poll("x", NEVER), asyncio.Event(), asyncio.Event()
    count = 0

    async def look() -> None:
        nonlocal count
        count += 1
        began.set()
        await goes_on.wait()

    async with polling(poll, look):
        await began.wait()
        poll.hint()
        poll.hint()
        goes_on.set()
        await settle()
        assert count == 2


async def test_what_cannot_be_done_now_is_postponed() -> None:
    poll, looks = Poll("some.work", NEVER), Looks(Unavailable("the store is away"))
    with capture_logs() as logs:
        async with polling(poll, looks) as task:
            await looks.reach(1)
            poll.hint()
            await looks.reach(2)
            assert not task.done()
    said = {"event": "some.work.postponed", "code": Unavailable.code, "error": "the store is away"}
    assert logs == [{**said, "log_level": "warning"}]


async def test_a_fault_is_logged_with_its_traceback_and_ends_nothing() -> None:
    faults = ValueError("a bug"), ExceptionGroup("bugs", [KeyError("x"), Unavailable("y")])
    poll, looks = Poll("some.work", NEVER), Looks(*faults)
    with capture_logs() as logs:
        async with polling(poll, looks) as task:
            for count in (1, 2, 3):
                await looks.reach(count)
                poll.hint()
            assert not task.done()
    assert logs == [{"event": "some.work.fault", "exc_info": True, "log_level": "error"}] * 2


@pytest.mark.parametrize("during_a_look", [True, False])
async def test_cancellation_ends_it(during_a_look: bool) -> None:
    looked = asyncio.Event()

    async def look() -> None:
        looked.set()
        if during_a_look:
            await asyncio.Event().wait()

    with capture_logs() as logs:
        async with polling(Poll("x", NEVER), look) as task:
            await looked.wait()
            await settle()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
    assert logs == []


async def test_a_hint_wakes_one_loop_of_several() -> None:
    poll, looking, most, goes_on = Poll("x", NEVER, loops=3), 0, 0, asyncio.Event()
    looks = Looks()

    async def look() -> None:
        nonlocal looking, most
        looking += 1
        most = max(most, looking)
        await looks()
        if looks.count > 3:
            await goes_on.wait()
        looking -= 1

    async with polling(poll, look), polling(poll, look), polling(poll, look):
        await looks.reach(3)
        for count in (4, 5, 6):  # whoever looks is left alone
            poll.hint()
            await looks.reach(count)
            assert (looks.count, looking) == (count, count - 3)
        poll.hint()  # nobody is free
        await settle()
        assert looks.count == 6
        goes_on.set()
        await looks.reach(7)
        assert (looks.count, most) == (7, 3)


async def test_hints_are_gathered() -> None:
    poll, looks = Poll("x", NEVER, gather_seconds=0.02), Looks()
    async with polling(poll, looks):
        await looks.reach(1)
        for _ in range(10):
            poll.hint()
        await settle()
        assert looks.count == 1
        await looks.reach(2)
        assert looks.count == 2
        poll.hint()
        await looks.reach(3)
