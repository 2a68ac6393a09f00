"""Finding secrets in a text, fast enough for every text of every push."""

import re
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from hooks.gates.new_blobs import MAX_READ_BYTES, NewBlob
from hooks.gates.secret_kinds import KINDS, Kind

_PER_FILE: Final = 10
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
    """Whether bytes have any of many short words, at 130 MB/s.

    Words that end with the same character are looked for by that character, which the regular expression
    engine finds as fast as it reads memory; an alternative of words it tries at every byte, at 20 MB/s.
    """

    def __init__(self, kinds: Iterable[Kind]) -> None:
        by_end: defaultdict[bytes, list[bytes]] = defaultdict(list)
        for sign in (sign for kind in kinds for sign in kind.signs):
            by_end[sign[-1:]].append(sign)
        self._words = [words[0] for words in by_end.values() if len(words) == 1]
        self._patterns = [_ending(end, words) for end, words in by_end.items() if len(words) > 1]

    def are_in(self, data: bytes) -> bool:
        return any(word in data for word in self._words) or any(one.search(data) for one in self._patterns)


def _ending(end: bytes, words: Iterable[bytes]) -> re.Pattern[bytes]:
    behind = b"|".join(b"(?<=%s)" % re.escape(word) for word in words)
    return re.compile(b"%s(?:%s)" % (re.escape(end), behind))


_SIGNS: Final = _Signs(KINDS)


def may_have_secrets(blob: NewBlob) -> bool:
    """Whether a file is worth reading: no large one, and none whose name says that it is no text."""
    return blob.size <= MAX_READ_BYTES and not blob.path.lower().endswith(_BINARY)


def find_secrets(data: bytes) -> list[Hit]:
    """The first secrets in a text by line; none in what is not text."""
    if not _SIGNS.are_in(data) or b"\0" in data:
        return []
    hits = [
        (match.start(), kind.name)
        for kind in KINDS
        if any(sign in data for sign in kind.signs)
        for match in kind.pattern.finditer(data)
        if kind.proof(match)
    ]
    return [Hit(name, data.count(b"\n", 0, start) + 1) for start, name in sorted(hits)[:_PER_FILE]]
