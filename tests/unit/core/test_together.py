import asyncio

import pytest

from core.together import together


async def later(value: int, before: asyncio.Event | None = None) -> int:
    if before is not None:
        await before.wait()
    return value


async def fails(error: Exception) -> int:
    raise error


async def test_results_in_the_order_of_the_works() -> None:
    event = asyncio.Event()

    async def opens() -> str:
        event.set()
        return "opened"

    assert await together(later(1, event), opens()) == (1, "opened")
    assert await together(later(1), later(2), later(3)) == (1, 2, 3)
    assert await together() == ()


async def test_the_first_error_cancels_the_others() -> None:
    cancelled = []

    async def waits() -> int:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.append(True)
            raise
        return 0

    with pytest.raises(LookupError, match="first"):
        await together(waits(), fails(LookupError("first")), fails(ValueError("second")))
    assert cancelled == [True]


async def test_cancelled_from_outside() -> None:
    task = asyncio.create_task(together(later(1, asyncio.Event()), later(2)))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
