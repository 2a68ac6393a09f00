"""Reading the whole blobs of a pack while its bytes go by (gitformat-pack(5)).

Git is asked what a pack holds once it has indexed it. What can be told of a content alone can be told sooner:
while git hashes, the other core would have nothing to do.
"""

import hashlib
import zlib
from collections.abc import Callable, Generator

from core.models import ObjectFormat

_MAGIC = b"PACK"
_HEADER_BYTES = 12
_BLOB, _OFS_DELTA, _REF_DELTA = 3, 6, 7
_KINDS = frozenset({1, 2, _BLOB, 4, _OFS_DELTA, _REF_DELTA})
# How much one step takes in, and gives out: a few bytes may become a thousand times as many.
_STEP_BYTES = 64 * 1024
_UNPACKED_BYTES = 256 * 1024
# What deflate may add to bytes that do not compress, and more.
_SLACK_BYTES = 64
# No header of an object is longer: a size of 64 bits, then an offset of as many, or the name of a base.
_OBJECT_HEADER_BYTES = 64


class PackStream:
    """Gives every blob that a pack holds as a whole to `take`, with its name; deltas are passed over.

    Nothing is promised about what no git would take: reading ends there, without a word, and
    `git index-pack` says what is wrong. A name is right in any case, because it is made from the content.
    """

    def __init__(
        self, object_format: ObjectFormat, *, max_bytes: int, take: Callable[[bytes, bytes], None]
    ) -> None:
        """`take(oid, data)` gets the binary name; larger blobs than `max_bytes` are passed over."""
        self._algorithm = object_format.value
        self._name_bytes = hashlib.new(self._algorithm, usedforsecurity=False).digest_size
        self._max_bytes = max_bytes
        self._take = take
        self._data = b""
        self._at = 0
        self._steps = self._objects()
        self._going_on = next(self._steps, False) is None

    def feed(self, data: bytes) -> bool:
        """Takes the next bytes; False once there is nothing more to be had. Computes: call it in a thread."""
        if self._going_on:
            self._data = self._data[self._at :] + data
            self._at = 0
            try:
                self._going_on = next(self._steps, False) is None
            except (zlib.error, _NotAPack):
                self._going_on = False
        return self._going_on

    def _objects(self) -> Generator[None]:
        while len(self._data) < _HEADER_BYTES:
            yield
        if not self._data.startswith(_MAGIC):
            raise _NotAPack
        self._at = _HEADER_BYTES
        for _ in range(int.from_bytes(self._data[8:_HEADER_BYTES], "big")):
            while (header := self._object_header()) is None:
                yield
            kind, size, self._at = header
            content = yield from self._unpacked(size, keep=kind == _BLOB and size <= self._max_bytes)
            if content is not None:
                name = hashlib.new(self._algorithm, b"blob %d\0" % size, usedforsecurity=False)
                name.update(content)
                self._take(name.digest(), content)

    def _object_header(self) -> tuple[int, int, int] | None:
        """Kind, size and where the content begins; None while it has not come as a whole."""
        head = self._data[self._at : self._at + _OBJECT_HEADER_BYTES]
        try:
            kind, size, length = self._parsed(head)
        except IndexError:
            if len(head) == _OBJECT_HEADER_BYTES:
                raise _NotAPack from None
            return None
        if kind not in _KINDS:
            raise _NotAPack
        return kind, size, self._at + length

    def _parsed(self, head: bytes) -> tuple[int, int, int]:
        """Kind, size and length of a header. Raises `IndexError` when it is longer than this."""
        at = 0
        byte = head[at]
        kind, size, shift = byte >> 4 & 7, byte & 15, 4
        while byte & 0x80:
            at += 1
            byte = head[at]
            size |= (byte & 0x7F) << shift
            shift += 7
        if kind == _OFS_DELTA:
            at += 1
            while head[at] & 0x80:
                at += 1
        elif kind == _REF_DELTA:
            at += self._name_bytes
            head[at]  # it has come, too
        return kind, size, at + 1

    def _unpacked(self, size: int, *, keep: bool) -> Generator[None, None, bytes | None]:
        """Goes to the end of one content, and returns it if it is to be kept."""
        unpacking = zlib.decompressobj()
        pieces: list[bytes] = []
        left = size
        while not unpacking.eof:
            if self._at == len(self._data):
                yield
                continue
            # What is behind the content is copied each time, so a step never sees much more than it needs.
            step = min(_STEP_BYTES, left + (left >> 9) + _SLACK_BYTES)
            given = self._data[self._at : self._at + step]
            piece = unpacking.decompress(given, _UNPACKED_BYTES)
            # At the end both have the same bytes: zlib forgets no tail of the step before.
            behind = unpacking.unused_data if unpacking.eof else unpacking.unconsumed_tail
            self._at += len(given) - len(behind)
            left -= len(piece)
            if left < 0:
                raise _NotAPack
            if keep and piece:  # deflate may take long to say nothing
                pieces.append(piece)
        if left:
            raise _NotAPack
        return b"".join(pieces) if keep else None


class _NotAPack(Exception):
    """These bytes are not what git calls a pack."""
