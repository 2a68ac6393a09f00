"""Clients of the clone cache."""

import asyncio
from collections.abc import Callable

from tests.support.wire import packets


class Client:
    """Takes an answer; with a gate it stops reading until that is opened."""

    def __init__(self, gate: asyncio.Event | None = None) -> None:
        self.received = bytearray()
        self._gate = gate

    async def write(self, data: bytes) -> None:
        self.received += data
        if self._gate is not None:
            await self._gate.wait()

    def pack(self) -> bytes:
        """What the side band carried."""
        return b"".join(one[1:] for one in packets(bytes(self.received)) if one[:1] == b"\x01")


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(60):
        while not condition():  # noqa: ASYNC110 - nobody tells
            await asyncio.sleep(0.002)
