"""How many elements shapes make, without believing them."""

from collections import Counter
from collections.abc import Iterable, Sequence

UINT64 = range(2**64)
# More elements than any file holds: what claims them has a finding already, and sums stay in 64 bits.
_BELIEVABLE = 2**50
# There are fifty dtypes, and files that name another one for each tensor.
MOST_DTYPES = 100
OTHERS = "others"


def elements(shape: Sequence[int]) -> int:
    """How many there are; from 2**64 on, which no reader takes, just some number from there on.

    A shape of thousands of large numbers would multiply to megabytes.
    """
    total = 1
    for size in shape:
        total *= size
        if total not in UINT64:
            return UINT64.stop
    return total


def parameters(tensors: Iterable[tuple[str, Sequence[int]]]) -> dict[str, int]:
    """The elements for each dtype, most first, of tensors given as dtype and shape.

    From the hundredth dtype on, they are counted together as `others`.
    """
    counts: Counter[str] = Counter()
    for dtype, shape in tensors:
        count = elements(shape)
        if count <= _BELIEVABLE:
            name = dtype if dtype in counts or len(counts) < MOST_DTYPES else OTHERS
            counts[name] = min(counts[name] + count, _BELIEVABLE)
    return dict(counts.most_common())
