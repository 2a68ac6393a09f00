"""The guard against costs sees work, and neither pauses nor the collector."""

import gc
import time

import pytest

from tests.support.costs import costs_at_most


def test_work_counts() -> None:
    with pytest.raises(AssertionError, match=r"it took \d\.\d\d s of processor time"), costs_at_most(0):
        sum(range(100_000))
    assert gc.isenabled()


def test_pauses_do_not() -> None:
    with costs_at_most(0.2):
        assert not gc.isenabled()
        time.sleep(0.3)
    assert gc.isenabled()


def test_what_the_block_raises_comes_through() -> None:
    with pytest.raises(ZeroDivisionError), costs_at_most(10):
        divmod(1, 0)
    assert gc.isenabled()
