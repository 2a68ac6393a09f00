"""Finding secrets in a text, fast enough for every text of every push."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from ahocorasick_rs import BytesAhoCorasick, MatchKind

from hooks.gates.new_blobs import MAX_READ_BYTES, NewBlob
from hooks.gates.secret_kinds import KINDS, Kind

_PER_FILE: Final = 10
_PIECE_BYTES: Final = 64 * 1024
# Nobody types a token into these, and some have no NUL in their first megabyte.
_BINARY: Final = tuple(
    ".7z .arrow .avi .bin .bmp .bz2 .ckpt .flac .gguf .gif .gz .h5 .ico .jpeg .jpg .mp3 .mp4 .npy .npz .ogg"
    " .onnx .parquet .pdf .png .pt .pth .safetensors .tar .tflite .tif .tiff .ttf .wav .webm .webp .woff"
    " .woff2 .xz .zip .zst".split()
)


@dataclass(frozen=True, slots=True)
class Hit:
    """A secret: what it is, and in which line, from 1 on. Nothing of the secret itself."""

    kind: str
    line: int


class _Signs:
    """Whether bytes have any of many short words, at the speed of memory."""

    def __init__(self, kinds: Iterable[Kind]) -> None:
        signs = [sign for kind in kinds for sign in kind.signs]
        # Of the ways to match, this is the one that looks at many bytes at once.
        self._words = BytesAhoCorasick(signs, matchkind=MatchKind.LeftmostFirst)
        self._longest = max(map(len, signs))

    def are_in(self, data: bytes) -> bool:
        # Piece by piece, because all matches are listed, and a hostile text is nothing but signs.
        pieces = (
            memoryview(data)[start : start + _PIECE_BYTES + self._longest]
            for start in range(0, len(data), _PIECE_BYTES)
        )
        return any(self._words.find_matches_as_indexes(piece) for piece in pieces)


_SIGNS: Final = _Signs(KINDS)


def may_have_secrets(blob: NewBlob) -> bool:
    """Whether a file is worth reading: no large one, and none whose name says that it is no text."""
    return blob.size <= MAX_READ_BYTES and not blob.path.lower().endswith(_BINARY)


def has_no_signs(data: bytes) -> bool:
    """Whether a content has nothing that any secret begins with, wherever it lies: none are found in it."""
    return not _SIGNS.are_in(data)


def find_secrets(data: bytes) -> list[Hit]:
    """The first secrets in a text by line; none in what is not text."""
    if has_no_signs(data) or b"\0" in data:
        return []
    hits = [
        (match.start(), kind.name)
        for kind in KINDS
        if any(sign in data for sign in kind.signs)
        for match in kind.pattern.finditer(data)
        if kind.proof(match)
    ]
    return [Hit(name, data.count(b"\n", 0, start) + 1) for start, name in sorted(hits)[:_PER_FILE]]
