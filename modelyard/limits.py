"""Rate limits: token buckets in the memory of this process.

With several workers each keeps its own count, so the limit of the server is theirs times the workers.
"""

import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from math import ceil

_MAX_BUCKETS = 20_000


@dataclass(frozen=True, slots=True)
class Allowance:
    """What a bucket said.

    Attributes:
        allowed: whether this request may go on.
        limit: requests per minute.
        remaining: whole requests left.
        reset: seconds until the bucket is full, or, when refused, until the next request may come.
    """

    allowed: bool
    limit: int
    remaining: int
    reset: int

    def headers(self, policy: str) -> dict[str, str]:
        """The fields of the IETF draft `RateLimit header fields for HTTP`."""
        return {
            "RateLimit-Policy": f'"{policy}";q={self.limit};w=60',
            "RateLimit": f'"{policy}";r={self.remaining};t={self.reset}',
        }


class RateLimiter:
    """A bucket for each key, filled at `per_minute`; 0 turns the limit off.

    Remembers so many keys only: the one unused for longest is forgotten, and with it starts anew.
    """

    def __init__(self, per_minute: int, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._limit = per_minute
        self._clock = clock
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def take(self, key: str) -> Allowance:
        """Takes one request out of the key's bucket, if there is one left."""
        return self._draw(key, 1)

    def look(self, key: str) -> Allowance:
        """Whether `take` would succeed now; takes nothing."""
        return self._draw(key, 0)

    def _draw(self, key: str, amount: int) -> Allowance:
        if self._limit <= 0:
            return Allowance(allowed=True, limit=0, remaining=0, reset=0)
        rate = self._limit / 60
        now = self._clock()
        level, since = self._buckets.pop(key, (float(self._limit), now))
        level = min(self._limit, level + (now - since) * rate)
        allowed = level >= 1
        if allowed:
            level -= amount
        if level < self._limit:
            self._buckets[key] = (level, now)
            if len(self._buckets) > _MAX_BUCKETS:
                self._buckets.popitem(last=False)
        wait = (self._limit - level) / rate if allowed else (1 - level) / rate
        return Allowance(allowed=allowed, limit=self._limit, remaining=int(level), reset=max(1, ceil(wait)))
