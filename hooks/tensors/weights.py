"""The tensors in one file of weights, and a digest of each one's bytes."""

import hashlib
import json
import zlib
from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

from hooks.formats import gguf_header, safetensors_header
from hooks.formats.complaints import Complaints
from hooks.formats.gguf_types import TENSOR_TYPES
from hooks.formats.parsed import Severity
from hooks.formats.shapes import elements
from hooks.formats.source import Source, SourceUnreadable

# Of SHA-256: 128 bits tell apart what anybody would ever compare.
DIGEST_CHARACTERS = 32
# Counts up when the same bytes come to be told otherwise: then they are read again.
_VERSION = 1
# Longer than what sources widen to blocks, so that every byte is read once.
_READ_BYTES = 8 * 1024**2
_PACKED_AT_MOST = 256 * 1024**2

FORMATS = ("safetensors", "gguf")


class Span(NamedTuple):
    """Where a tensor's bytes are, from the start of the file."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int


class Tensor(NamedTuple):
    """A tensor; `digest` is None as long as nobody has read its bytes."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    bytes: int
    digest: str | None = None


# None is of a file that no library would load: what it holds cannot be told from its header.
Weights = Sequence[Tensor] | None


def spans(source: Source, kind: str) -> list[Span] | None:
    """The tensors of a file of one of the `FORMATS`, in the order of their bytes; None as of `Weights`.

    Raises:
        SourceUnreadable, TooMuchRead: as `Source.read`.
    """
    complaints = Complaints("")
    found = _safetensors(source, complaints) if kind == "safetensors" else _gguf(source, complaints)
    if found is None or any(one.severity is Severity.ERROR for one in complaints.findings()):
        return None
    if len({one.name for one in found}) != len(found):
        return None
    found.sort(key=lambda one: (one.begin, one.end))
    # Overlapping tensors would be read many times over.
    apart = all(one.end <= after.begin for one, after in pairwise(found))
    return found if apart and all(one.end <= source.size for one in found) else None


def listed(source: Source, kind: str) -> Weights:
    """The same without their places. Raises as `spans`."""
    found = spans(source, kind)
    return None if found is None else [_tensor(one) for one in found]


def digested(source: Source, kind: str) -> Weights:
    """The same with a digest of each; reads the whole file, every byte once, in pieces of 8 MiB.

    Raises:
        SourceUnreadable, TooMuchRead: as `Source.read`.
    """
    found = spans(source, kind)
    window = _Window(source)
    return None if found is None else [_tensor(one, window.digest(one)) for one in found]


def _tensor(span: Span, digest: str | None = None) -> Tensor:
    return Tensor(span.name, span.dtype, span.shape, span.end - span.begin, digest)


class _Window:
    """A few of a file's bytes, moved from its start to its end: many small tensors take one read."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._start = 0
        self._data = memoryview(b"")

    def digest(self, span: Span) -> str:
        digest = hashlib.sha256()
        offset = span.begin
        while offset < span.end:
            piece = self._from(offset)[: span.end - offset]
            digest.update(piece)
            offset += len(piece)
        return digest.hexdigest()[:DIGEST_CHARACTERS]

    def _from(self, offset: int) -> memoryview:
        """At least one byte."""
        if offset >= self._start + len(self._data):
            self._start = offset
            self._data = memoryview(b"")  # not two at once in memory
            self._data = memoryview(self._source.read(offset, _READ_BYTES))
            if not self._data:
                raise SourceUnreadable("the file has less of it than it should")
        return self._data[offset - self._start :]


def _safetensors(source: Source, complaints: Complaints) -> list[Span] | None:
    header = safetensors_header.read_header(source, complaints)
    if header is None:
        return None
    start = header.data_offset
    return [
        Span(one.name, one.dtype, tuple(one.shape), start + one.begin, start + one.end)
        for one in header.tensors
    ]


def _gguf(source: Source, complaints: Complaints) -> list[Span] | None:
    header = gguf_header.read_header(source, complaints)
    if header is None or not header.complete:
        return None
    found = []
    for one in header.tensors:
        kind = TENSOR_TYPES.get(one.type)
        if kind is None or elements(one.shape) % kind.block:
            return None
        begin = header.data_offset + one.offset
        length = elements(one.shape) // kind.block * kind.bytes
        found.append(Span(one.name, kind.name, tuple(one.shape), begin, begin + length))
    return found


def pack(kind: str, tensors: Sequence[Tensor]) -> bytes:
    """As `core.models.TensorDigests.data`: zlib of JSON, `[name, dtype, shape, bytes, digest]` for each."""
    text = json.dumps({"kind": kind, "version": _VERSION, "tensors": tensors}, separators=(",", ":"))
    return zlib.compress(text.encode())


def unpack(kind: str, data: bytes) -> list[Tensor] | None:
    """What was packed; None for what this code did not pack, or as a file of another format."""
    try:
        inflate = zlib.decompressobj()
        stored = json.loads(inflate.decompress(data, _PACKED_AT_MOST))
        if not inflate.eof or (stored["kind"], stored["version"]) != (kind, _VERSION):
            return None
        return [
            Tensor(name, dtype, tuple(shape), size, digest)
            for name, dtype, shape, size, digest in stored["tensors"]
        ]
    except (zlib.error, ValueError, TypeError, KeyError):
        return None
