"""Small adapters between bytes, blocking readers and asynchronous streams."""

from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable

from storage.protocol import CHUNK_BYTES


async def single(data: bytes) -> AsyncGenerator[bytes, None]:
    """A stream of these bytes."""
    yield data


async def until_empty(read: Callable[[], Awaitable[bytes]]) -> AsyncGenerator[bytes, None]:
    """A stream of what `read` returns, up to the first empty answer."""
    while chunk := await read():
        yield chunk


async def gathered(data: AsyncIterator[bytes]) -> AsyncGenerator[list[bytes], None]:
    """Collects small pieces into groups of at least `CHUNK_BYTES`, so that each costs one thread hop."""
    group: list[bytes] = []
    size = 0
    async for piece in data:
        group.append(piece)
        size += len(piece)
        if size >= CHUNK_BYTES:
            yield group
            group, size = [], 0
    if group:
        yield group
