"""Writing at the speed of the disk: nothing is copied twice, and the disk works before the fsync asks it to.

Left alone, Linux keeps written pages in memory for up to 30 seconds or gigabytes of them. An upload then
arrives at the speed of memory and waits for the disk once more at its end, and so does whoever else commits
to the journal of the same file system meanwhile.
"""

import ctypes
import os
from collections.abc import Sequence

# How much is written before the disk is told of it, as long runs are what disks are good at.
WRITEBACK_BYTES = 16 * 1024**2

# sync_file_range(2): begin to write the dirty pages of a range, and do not wait for them to be written.
_SYNC_FILE_RANGE_WRITE = 2
# What writev(2) takes at once (IOV_MAX of Linux).
_VECTOR = 1024

_sync_file_range = getattr(ctypes.CDLL(None), "sync_file_range", None)
if _sync_file_range is not None:
    _sync_file_range.argtypes = (ctypes.c_int, ctypes.c_int64, ctypes.c_int64, ctypes.c_uint)


def write_all(descriptor: int, pieces: Sequence[bytes]) -> int:
    """Writes every byte, in order; returns how many."""
    written = 0
    for start in range(0, len(pieces), _VECTOR):
        some = pieces[start : start + _VECTOR]
        expected = sum(map(len, some))
        count = os.writev(descriptor, some)
        if count < expected:
            rest = memoryview(b"".join(some))[count:]
            while rest:
                rest = rest[os.write(descriptor, rest) :]
        written += expected
    return written


def begin_writeback(descriptor: int, offset: int, count: int) -> None:
    """Has the disk begin with these bytes; may block while it has much to do.

    A hint: what fails here is told by the fsync that must follow.
    """
    if _sync_file_range is not None:
        _sync_file_range(descriptor, offset, count, _SYNC_FILE_RANGE_WRITE)
