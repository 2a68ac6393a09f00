"""The pickles in a file: plain ones, those of `torch.save` old and new, of numpy and of joblib."""

import io
import struct
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Final

from picklescan.relaxed_zipfile import RelaxedZipFile

from hooks.formats.source import Source, SourceFile, TooMuchRead
from hooks.gates.inflating import Inflating, Limited, Unbuffered
from hooks.gates.pickle_verdicts import Judged, Verdict, judge
from hooks.gates.pickle_walk import Budget, End, Import, Walk

# What may be read of one file, and what may be unpacked. Large arguments are passed over and do not count.
MAX_BYTES: Final = 256 * 1024**2
# Some seconds of one core.
MAX_OPERATIONS: Final = 2_000_000

_ENDINGS: Final = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle", ".joblib", ".dill", ".npy", ".npz")
_BUFFER_BYTES: Final = 16 * 1024
_MAX_PICKLES: Final = 1000
# Python takes ten times as much memory for what is in the directory of a zip archive.
_DIRECTORY_BYTES: Final = 4 * 1024**2
_IN_ZIPS: Final = (".pkl", ".pickle", ".npy")
_METHODS: Final = frozenset({zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED})
_ZIP_ERRORS: Final = (
    zipfile.BadZipFile,
    NotImplementedError,
    RuntimeError,
    ValueError,
    OverflowError,
    OSError,
    EOFError,
    struct.error,
    zlib.error,
)
_ZIP: Final = b"PK\x03\x04"
_NUMPY: Final = b"\x93NUMPY"
_GZIP: Final = b"\x1f\x8b"
# bzip2, xz, lzma, lz4, zstandard, 7z
_OTHERS: Final = (b"BZh", b"\xfd7zXZ\0", b"]\0\0", b"\x04\x22M\x18", b"\x28\xb5\x2f\xfd", b"7z\xbc\xaf")
# torch/serialization.py: the first of five pickles is this number, and behind them come tensors.
_TORCH_MAGIC: Final = 0x1950A86A20F9469CFC6C
_TORCH_PICKLES: Final = 5


@dataclass(slots=True)
class Scan:
    """What is in a file.

    Attributes:
        judged: its imports, the worst first.
        unexamined: why not all could be looked at that a loader would unpickle; None if all was.
        broken: why a loader would not get to the end; None also where this may be no pickle at all.
    """

    judged: list[Judged] = field(default_factory=list)
    unexamined: str | None = None
    broken: str | None = None


def may_be_pickle(path: str) -> bool:
    """Whether loaders of models would unpickle a file of this name."""
    return path.lower().endswith(_ENDINGS)


def scan(source: Source, budget: Budget) -> Scan:
    """Looks at a file that may be a pickle. Blocking; `budget` is for all files of a push.

    Raises:
        SourceUnreadable: it cannot be read just now.
    """
    own = Budget(min(budget.operations, MAX_OPERATIONS))
    given = own.operations
    scanning = _Scanning(source, own)
    try:
        scanning.run()
    except TooMuchRead:
        scanning.give_up()
    finally:
        budget.operations -= given - max(own.operations, 0)
    return scanning.result()


class _Scanning:
    def __init__(self, source: Source, budget: Budget) -> None:
        self._budget = budget
        self._source = source
        self._imports: dict[Import, None] = {}
        # From what may be no pickle: only that counts which nobody writes by chance.
        self._doubtful: dict[Import, None] = {}
        self._scan = Scan()

    def run(self) -> None:
        head = self._source.read(0, 16)
        if head.startswith(_ZIP):
            self._zip()
        elif head.startswith(_GZIP) or _is_zlib(head):
            with self._open() as packed, _buffered(Inflating(packed, MAX_BYTES)) as data:
                self._inflated(data)
        elif head.startswith(_OTHERS):
            self._scan.broken = "is compressed in a way that is not looked into"
        else:
            with self._open() as data:
                self._member(data)

    def give_up(self) -> None:
        self._scan.unexamined = "is too long to be examined"

    def result(self) -> Scan:
        self._scan.judged = judge(self._imports)
        self._scan.judged += [one for one in judge(self._doubtful) if one.verdict is Verdict.DANGEROUS]
        return self._scan

    @contextmanager
    def _open(self) -> Iterator[io.BufferedReader]:
        with _buffered(SourceFile(self._source)) as data:
            yield data

    def _inflated(self, data: io.BufferedReader) -> None:
        try:
            self._member(data)
        except (zlib.error, OSError):
            self._scan.broken = "is compressed, and cannot be unpacked to its end"

    def _zip(self) -> None:
        limited = Limited(self._source, _DIRECTORY_BYTES)
        try:
            with RelaxedZipFile(Unbuffered(limited)) as archive:
                limited.allowance = MAX_BYTES
                entries = [one for one in archive.infolist() if one.filename.lower().endswith(_IN_ZIPS)]
                if len(entries) > _MAX_PICKLES:
                    self.give_up()
                for entry in entries[:_MAX_PICKLES]:
                    if entry.file_size > MAX_BYTES or entry.compress_type not in _METHODS:
                        self.give_up()
                    else:
                        with archive.open(entry) as member, io.BufferedReader(member, _BUFFER_BYTES) as data:
                            self._member(data)
        except _ZIP_ERRORS:
            self._scan.unexamined = "is a zip archive that cannot be read: it may be cut"

    def _member(self, data: io.BufferedReader) -> None:
        if data.peek(len(_NUMPY)).startswith(_NUMPY):
            if _has_objects(data):
                self._walk(data)
        else:
            self._pickles(data)

    def _pickles(self, data: io.BufferedReader) -> None:
        """A pickle, and those that follow it."""
        first, end = self._walk(data)
        of_torch = first.number == _TORCH_MAGIC
        left = _TORCH_PICKLES - 1 if of_torch else _MAX_PICKLES
        while end is End.WHOLE and (of_torch or _starts_pickle(data)):
            if not left:
                if not of_torch:
                    self.give_up()
                break
            left -= 1
            _, end = self._walk(data)
        if self._scan.broken and any((one.module or "").startswith("joblib.") for one in self._imports):
            self._scan.broken = "is joblib's: only what stands before its first array could be examined"

    def _walk(self, data: io.BufferedReader) -> tuple[Walk, End]:
        looks_it = _starts_pickle(data)
        walk = Walk(data, self._budget)
        end = None
        try:
            end = walk.run()
        finally:
            # Also when too much was to be read: what came before would be unpickled.
            is_pickle = looks_it or end is End.WHOLE
            (self._imports if is_pickle else self._doubtful).update(walk.imports)
        if end is End.TOO_LONG or walk.crowded:
            self.give_up()
        if end is End.BROKEN and looks_it:
            self._scan.broken = "is a pickle that cannot be followed to its end: it may be cut"
        return walk, end


def _buffered(raw: io.RawIOBase) -> io.BufferedReader:
    return io.BufferedReader(raw, _BUFFER_BYTES)


def _is_zlib(head: bytes) -> bool:
    """https://www.rfc-editor.org/rfc/rfc1950: as zlib itself writes it, with a window of 32 kB."""
    return head[:2] in {b"x\x01", b"x\x5e", b"x\x9c", b"x\xda"}


def _starts_pickle(data: io.BufferedReader) -> bool:
    """Whether a pickle of protocol 2 or later begins here, as all do since Python 3.0."""
    start = data.peek(2)[:2]
    return len(start) == 2 and start[0] == 0x80 and start[1] <= 5


def _has_objects(data: io.BufferedReader) -> bool:
    """Reads the header of an array file; whether a pickle comes behind it.

    https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html
    """
    start = data.read(8)
    if len(start) < 8:
        return False
    length = int.from_bytes(data.read(2 if start[6] == 1 else 4), "little")
    header = data.read(min(length, _BUFFER_BYTES))
    data.seek(length - len(header), io.SEEK_CUR)
    return b"O" in header.partition(b"'descr'")[2].partition(b"'fortran_order'")[0]
