"""The tensors in one file of weights, and a digest of each one's bytes."""

import hashlib
import json
import zlib
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import NamedTuple

from hooks.formats import gguf_header, safetensors_header
from hooks.formats.complaints import Complaints
from hooks.formats.gguf_types import TENSOR_TYPES
from hooks.formats.shapes import elements
from hooks.formats.source import Source, SourceUnreadable

# Of SHA-256: 128 bits tell apart what anybody would ever compare.
DIGEST_CHARACTERS = 32
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


def spans(source: Source, kind: str) -> list[Span]:
    """The tensors of a file of one of the `FORMATS`, in the order of their bytes.

    None at all for a file that no library would load: what it holds cannot be told from its header.

    Raises:
        SourceUnreadable, TooMuchRead: as `Source.read`.
    """
    complaints = Complaints("")
    found = _safetensors(source, complaints) if kind == "safetensors" else _gguf(source, complaints)
    names = {one.name for one in found}
    sound = len(names) == len(found) and all(0 <= one.begin <= one.end <= source.size for one in found)
    ordered = sorted(found, key=lambda one: (one.begin, one.end))
    # Overlapping tensors would be read many times over.
    apart = all(one.end <= after.begin for one, after in pairwise(ordered))
    return ordered if sound and apart else []


def listed(source: Source, kind: str) -> list[Tensor]:
    """The same without their places. Raises as `spans`."""
    return [Tensor(one.name, one.dtype, one.shape, one.end - one.begin) for one in spans(source, kind)]


def digested(source: Source, kind: str, is_wanted: Callable[[], bool]) -> list[Tensor]:
    """The same with a digest of each; reads the whole file, in pieces of 8 MiB.

    Raises:
        SourceUnreadable: also when `is_wanted` says no between two pieces.
        TooMuchRead: as `Source.read`.
    """
    return [
        Tensor(one.name, one.dtype, one.shape, one.end - one.begin, _digest(source, one, is_wanted))
        for one in spans(source, kind)
    ]


def _digest(source: Source, span: Span, is_wanted: Callable[[], bool]) -> str:
    digest = hashlib.sha256()
    for offset in range(span.begin, span.end, _READ_BYTES):
        if not is_wanted():
            raise SourceUnreadable("nobody waits for this any more")
        data = source.read(offset, min(_READ_BYTES, span.end - offset))
        if not data:
            raise SourceUnreadable("the file has less of it than it should")
        digest.update(data)
    return digest.hexdigest()[:DIGEST_CHARACTERS]


def _safetensors(source: Source, complaints: Complaints) -> list[Span]:
    header = safetensors_header.read_header(source, complaints)
    if header is None:
        return []
    start = header.data_offset
    return [
        Span(one.name, one.dtype, tuple(one.shape), start + one.begin, start + one.end)
        for one in header.tensors
    ]


def _gguf(source: Source, complaints: Complaints) -> list[Span]:
    header = gguf_header.read_header(source, complaints)
    if header is None or not header.complete:
        return []
    found = []
    for one in header.tensors:
        kind = TENSOR_TYPES.get(one.type)
        if kind is None or elements(one.shape) % kind.block:
            return []
        begin = header.data_offset + one.offset
        length = elements(one.shape) // kind.block * kind.bytes
        found.append(Span(one.name, kind.name, tuple(one.shape), begin, begin + length))
    return found


def pack(tensors: Sequence[Tensor]) -> bytes:
    """As `core.models.TensorDigests.data`: zlib of a JSON array of `[name, dtype, shape, bytes, digest]`."""
    return zlib.compress(json.dumps(tensors, separators=(",", ":")).encode())


def unpack(data: bytes) -> list[Tensor]:
    """What was packed."""
    text = zlib.decompressobj().decompress(data, _PACKED_AT_MOST)
    return [
        Tensor(name, dtype, tuple(shape), size, digest)
        for name, dtype, shape, size, digest in json.loads(text)
    ]
