"""Children and their pipes, under both event loops: each is closed once, whenever somebody gives up."""

import asyncio
from pathlib import Path

from gitserver.process import GitRunner
from tests.support.loops import Loops


def descriptors() -> set[str]:
    return {path.name for path in Path("/proc/self/fd").iterdir()}


def test_whoever_gives_up_at_any_moment_leaves_nothing(loops: Loops) -> None:
    git = GitRunner()

    async def use() -> None:
        async with git.start(["cat-file", "--batch"]) as process:
            await process.wait()

    async def give_up(turns: int, times: int) -> None:
        one = asyncio.ensure_future(use())
        for _ in range(turns):
            await asyncio.sleep(0)
        for _ in range(times):  # a client that leaves while the server stops, for one
            one.cancel()
            await asyncio.sleep(0)
        await asyncio.gather(one, return_exceptions=True)

    async def run() -> None:
        await give_up(20, 1)  # whatever is opened once and kept
        before = descriptors()
        for turns in [*range(10)] * 3:
            await give_up(turns, 1)
            await give_up(turns, 2)
        async with asyncio.timeout(60):
            while descriptors() != before:  # noqa: ASYNC110 - nobody tells
                await asyncio.sleep(0.01)

    with asyncio.Runner(loop_factory=loops) as runner:
        runner.run(run())
