"""What a piece of work costs the processor."""

import gc
import time
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def costs_at_most(seconds: float) -> Iterator[None]:
    """Fails a block that takes this thread more than so many seconds of processor time.

    A guard against costs that grow with the square of what comes in, or worse: the bound is to be far from
    both, twenty times what the work takes on a quiet machine at least, and a third of what the defect would
    cost at most. Time in which the machine does something else does not count. Nor does the collector of
    garbage, which is off meanwhile: what one run of it costs depends on all that was ever imported or kept.
    """
    collecting = gc.isenabled()
    gc.disable()
    start = time.thread_time()
    try:
        yield
        taken = time.thread_time() - start
    finally:
        if collecting:
            gc.enable()
    assert taken <= seconds, f"it took {taken:.2f} s of processor time, and {seconds:g} s are a lot for it"
