import asyncio

import pytest

from sshd.streams import INPUT_BYTES, ChannelReader, FirstWord, Pulse


class Valve:
    """Remembers how it was turned."""

    def __init__(self) -> None:
        self.turns: list[str] = []

    def pause_reading(self) -> None:
        self.turns.append("closed")

    def resume_reading(self) -> None:
        self.turns.append("open")


async def test_reads_pieces_in_order_up_to_the_asked_size() -> None:
    reader = ChannelReader(Valve(), Pulse())
    reader.feed(b"abc")
    reader.feed(b"def")
    assert await reader.read(4) == b"abcd"
    assert await reader.read(100) == b"ef"
    reader.feed_eof()
    assert await reader.read(1) == b""
    assert await reader.read(1) == b""


async def test_waits_for_data() -> None:
    reader = ChannelReader(Valve(), Pulse())
    waiting = asyncio.ensure_future(reader.read(10))
    await asyncio.sleep(0)
    assert not waiting.done()
    reader.feed(b"late")
    assert await waiting == b"late"


async def test_the_valve_closes_when_nobody_reads_and_opens_again() -> None:
    valve = Valve()
    reader = ChannelReader(valve, Pulse())
    reader.feed(bytes(INPUT_BYTES - 1))
    assert valve.turns == []
    reader.feed(b"xy")
    assert valve.turns == ["closed"]
    assert len(await reader.read(INPUT_BYTES // 4)) == INPUT_BYTES // 4
    assert valve.turns == ["closed"]
    await reader.read(INPUT_BYTES // 2)
    assert valve.turns == ["closed", "open"]


async def test_a_lost_channel_is_not_a_regular_end() -> None:
    reader = ChannelReader(Valve(), Pulse())
    reader.feed(b"half")
    reader.feed_loss()
    assert await reader.read(10) == b"half"
    with pytest.raises(ConnectionResetError):
        await reader.read(10)


async def test_bytes_of_a_session_are_bytes_of_its_connection() -> None:
    connection = Pulse()
    connection.last -= 100
    session = Pulse(connection)
    assert connection.quiet_for() > 99
    ChannelReader(Valve(), session).feed(b"x")
    assert connection.quiet_for() < 1


async def test_only_the_first_word_is_waited_for_with_patience() -> None:
    pulse = Pulse()
    seen: list[bool] = []

    class Source:
        async def read(self, n: int) -> bytes:
            seen.append(pulse.patient)
            return b"x"

    word = FirstWord(Source(), pulse)
    await word.read(1)
    await word.read(1)
    with word.expected():
        await word.read(1)
        await word.read(1)
    with word.expected():
        pass  # it was there already
    await word.read(1)
    assert seen == [True, False, True, False, False]
    assert not pulse.patient


async def test_an_opened_valve_is_not_closed_before_it_ran_empty() -> None:
    """asyncssh grants a whole window with every opening: two of them must not pile up into four."""

    class Dam(Valve):
        def resume_reading(self) -> None:
            super().resume_reading()
            for _ in range(4):
                assert self.turns[-1] == "open"
                reader.feed(bytes(INPUT_BYTES // 2))

    dam = Dam()
    reader = ChannelReader(dam, Pulse())
    reader.feed(bytes(INPUT_BYTES))
    assert dam.turns == ["closed"]
    await reader.read(INPUT_BYTES // 2)
    assert dam.turns == ["closed"]
    await reader.read(1)
    assert dam.turns == ["closed", "open", "closed"]
