"""Byte streams for tests."""

import hashlib
from collections.abc import AsyncIterator

from storage.protocol import ObjectStore


async def pieces(data: bytes, size: int = 100_000) -> AsyncIterator[bytes]:
    """The bytes in pieces of `size`, which fits no power of two."""
    for start in range(0, len(data), size):
        yield data[start : start + size]


def noise(size: int, seed: str = "noise") -> bytes:
    """The same incompressible bytes every time."""
    return hashlib.shake_128(seed.encode()).digest(size)


async def read_all(store: ObjectStore, key: str, *, offset: int = 0, length: int | None = None) -> bytes:
    """The object, or a range of it, in memory."""
    async with store.open(key, offset=offset, length=length) as chunks:
        return b"".join([chunk async for chunk in chunks])


async def list_keys(store: ObjectStore, prefix: str = "") -> list[str]:
    """The keys below `prefix`, in the order of the store."""
    return [item.key async for item in store.list(prefix)]
