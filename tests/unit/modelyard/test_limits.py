from modelyard.limits import RateLimiter


class Clock:
    """Time that passes when the test says so."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_a_bucket_empties_and_fills_again() -> None:
    clock = Clock()
    limiter = RateLimiter(60, clock=clock)
    assert [limiter.take("a").remaining for _ in range(60)] == list(range(59, -1, -1))
    refused = limiter.take("a")
    assert (refused.allowed, refused.remaining, refused.reset) == (False, 0, 1)
    clock.now += 0.5
    assert not limiter.take("a").allowed
    clock.now += 0.5
    assert limiter.take("a").allowed
    clock.now += 3600
    assert limiter.take("a").remaining == 59


def test_a_refusal_costs_nothing() -> None:
    clock = Clock()
    limiter = RateLimiter(1, clock=clock)
    assert limiter.take("a").allowed
    refused = [limiter.take("a") for _ in range(100)]
    assert {(one.allowed, one.reset) for one in refused} == {(False, 60)}
    clock.now += 60
    assert limiter.take("a").allowed


def test_keys_do_not_share() -> None:
    limiter = RateLimiter(1, clock=Clock())
    assert limiter.take("a").allowed
    assert limiter.take("b").allowed
    assert not limiter.take("a").allowed


def test_looking_takes_nothing() -> None:
    limiter = RateLimiter(1, clock=Clock())
    assert limiter.look("a").allowed
    assert limiter.look("a").allowed
    assert limiter.take("a").allowed
    assert not limiter.look("a").allowed


def test_zero_is_no_limit() -> None:
    limiter = RateLimiter(0)
    assert all(limiter.take("a").allowed for _ in range(10_000))


def test_memory_is_bounded() -> None:
    limiter = RateLimiter(1, clock=Clock())
    for number in range(30_000):
        limiter.take(str(number))
    assert not limiter.take("29999").allowed
    assert limiter.take("0").allowed, "the oldest was forgotten"


def test_headers_follow_the_draft() -> None:
    limiter = RateLimiter(120, clock=Clock())
    assert limiter.take("a").headers("actor") == {
        "RateLimit-Policy": '"actor";q=120;w=60',
        "RateLimit": '"actor";r=119;t=1',
    }
