"""What readers get while an answer is made, however its maker and the others end."""

import asyncio
import os
import shutil
import time
from contextlib import suppress
from pathlib import Path

import pytest

from core.errors import ProtocolError
from gitserver.clones import CloneKey, Clones
from tests.support.clones import Client, until

KEY = CloneKey("r", "1-s", "d")


async def make(descriptor: int) -> bool:
    os.write(descriptor, b"answer")
    return True


def open_below(folder: Path) -> list[str]:
    """The files there that this process has open."""
    found = []
    for number in Path("/proc/self/fd").iterdir():
        with suppress(FileNotFoundError):  # of the listing itself
            found.append(str(number.readlink()))
    return [path for path in found if path.startswith(str(folder))]


async def test_a_maker_that_fails_tells_every_reader(tmp_path: Path) -> None:
    clones = Clones(tmp_path, 10**9)

    async def fail(descriptor: int) -> bool:
        await asyncio.sleep(0.05)
        raise ProtocolError("no")

    found = await asyncio.gather(
        *(clones.make(KEY, fail, Client()) for _ in range(3)), return_exceptions=True
    )
    assert [type(one) for one in found] == [ProtocolError] * 3
    assert list((tmp_path / "clones" / "r").iterdir()) == []


@pytest.mark.parametrize("turns", range(5))
@pytest.mark.parametrize("is_kept", [False, True])
async def test_whoever_leaves_at_any_moment_leaves_nothing_open(
    tmp_path: Path, turns: int, is_kept: bool
) -> None:
    clones = Clones(tmp_path, 10**9)
    if is_kept:
        await clones.make(KEY, make, Client())
    for _ in range(20):
        one = asyncio.create_task(
            clones.replay(KEY, Client()) if is_kept else clones.make(KEY, make, Client())
        )
        for _ in range(turns):
            await asyncio.sleep(0)
        one.cancel()
        await asyncio.gather(one, return_exceptions=True)
    await clones.close()
    await until(lambda: not open_below(tmp_path))  # a reader's thread opens what is kept to its end
    left = await asyncio.to_thread(lambda: list(tmp_path.glob("clones/r/.*")))
    assert left == []


async def test_who_follows_is_not_sent_each_little_that_git_writes(tmp_path: Path) -> None:
    class Counting(Client):
        turns = 0

        async def write(self, data: bytes) -> None:
            self.turns += 1
            await super().write(data)

    async def in_little_steps(descriptor: int) -> bool:
        for _ in range(10_000):
            os.write(descriptor, b"x" * 100)
            await asyncio.sleep(0)
        return True

    client, begun = Counting(), time.monotonic()
    await Clones(tmp_path, 10**9).make(KEY, in_little_steps, client)
    assert client.received == b"x" * 1_000_000
    # However slow the maker is, one look each 2 ms, and one at the end.
    assert client.turns < (time.monotonic() - begun) / 0.0015 + 3


async def test_an_answer_is_whole_also_when_it_cannot_be_kept(tmp_path: Path) -> None:
    clones, client = Clones(tmp_path, 10**9), Client()

    async def make_and_lose(descriptor: int) -> bool:
        shutil.rmtree(tmp_path / "clones")
        return await make(descriptor)

    await clones.make(KEY, make_and_lose, client)
    assert client.received == b"answer"
    assert not await clones.replay(KEY, Client())


async def test_a_fault_of_a_maker_is_no_end_of_the_answer(tmp_path: Path) -> None:
    clones = Clones(tmp_path, 10**9)

    async def fail(descriptor: int) -> bool:
        await make(descriptor)
        raise RuntimeError("a fault")

    with pytest.raises(ConnectionAbortedError):
        await clones.make(KEY, fail, Client())
    assert not await clones.replay(KEY, Client())


async def test_what_the_disk_does_not_take_is_piped(tmp_path: Path) -> None:
    clones = Clones(tmp_path / "not" / "yet", 10**18)
    assert await clones.takes(1000)
    assert not await clones.takes(10**17)
