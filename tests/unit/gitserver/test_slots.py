"""No client holds every place: sixty-four idle requests of nobody once kept everybody from cloning."""

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.slots import Slots
from gitserver.advertise import LsRefs
from gitserver.protocol import FLUSH, PktReader, pkt_line


async def hold(slots: Slots, client: str, taken: list[str]) -> None:
    async with slots.take(client):
        taken.append(client)
        await asyncio.sleep(3600)


async def test_a_greedy_client_leaves_places_for_others() -> None:
    slots, taken = Slots(8, share=2), list[str]()
    tasks = [asyncio.ensure_future(hold(slots, "greedy", taken)) for _ in range(50)]
    await asyncio.sleep(0.01)
    assert taken == ["greedy"] * 2
    async with asyncio.timeout(30), slots.take("other"):
        pass
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    async with asyncio.timeout(30), slots.take("greedy"):
        pass


async def test_all_together_never_exceed_the_total() -> None:
    slots, taken = Slots(3, share=2), list[str]()
    tasks = [asyncio.ensure_future(hold(slots, f"c{n}", taken)) for n in range(10)]
    await asyncio.sleep(0.01)
    assert len(taken) == 3
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05), slots.take("late"):
            pass
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


class _Bytes:
    def __init__(self, data: bytes) -> None:
        self._data = data

    async def read(self, n: int) -> bytes:
        chunk, self._data = self._data[:n], self._data[n:]
        return chunk


_NAMES = st.text("ab/", min_size=1, max_size=6)


@given(st.lists(_NAMES, max_size=8), st.lists(_NAMES, max_size=12))
async def test_prefixes_match_as_if_each_were_tried(prefixes: list[str], names: list[str]) -> None:
    data = b"".join(pkt_line(f"ref-prefix {one}\n".encode()) for one in prefixes) + FLUSH
    wanted = await LsRefs.read(PktReader(_Bytes(data), limit=10_000))
    for name in names:
        assert wanted._matches(name) == (not prefixes or name.startswith(tuple(prefixes)))
