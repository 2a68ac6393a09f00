"""What a parser may take of a server at most: memory and time."""

import tracemalloc
from collections.abc import Callable
from typing import TypeVar

from tests.support.costs import costs_at_most

T = TypeVar("T")

MOST_BYTES = 200_000_000
MOST_SECONDS = 2.0


def memory_of(work: Callable[[], object]) -> int:
    """The most bytes that Python held for `work` at one time."""
    tracemalloc.start()
    try:
        work()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def bounded(work: Callable[[], T]) -> T:
    """What `work` returns, having seen that it takes less than 2 seconds, and less than 200 MB."""
    with costs_at_most(MOST_SECONDS):
        result = work()
    used = memory_of(work)
    assert used < MOST_BYTES, f"{used:,} bytes"
    return result
