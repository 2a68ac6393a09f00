"""The list of files in a zip archive, from its central directory; nothing is unpacked.

The layout: PKWARE's APPNOTE.TXT, 4.3. `zipfile` makes half a kilobyte of objects for each entry before
anybody can look at one, so the directory is read here, in one piece of bounded size.
"""

import struct
from dataclasses import dataclass, field
from typing import NamedTuple

from hooks.formats.clean import quoted
from hooks.formats.complaints import Complaints
from hooks.formats.source import Source, SourceUnreadable

LOCAL_SIGNATURE = b"PK\x03\x04"
END_SIGNATURE = b"PK\x05\x06"
MAX_DIRECTORY_BYTES = 8 * 1024**2
ENTRIES_KEPT = 5000

# Only of the fields that are used.
_END = struct.Struct("<10xH2L2x")
_LONGEST_COMMENT = 0xFFFF
_LOCATOR = struct.Struct("<8xQ4x")
_END64 = struct.Struct("<32x3Q")
_ENTRY = struct.Struct("<8x2H8x2L3H8xL")
_ENTRY_SIGNATURE = b"PK\x01\x02"
_ZIP64_EXTRA = 1
_IN_ZIP64 = 0xFFFFFFFF
_UTF8_NAME = 0x800
_ENCRYPTED = 0x1
_LONGEST_NAME = 1000
# Deflate makes 1,032 bytes of one at most; honest weights hardly shrink at all.
_BOMB_RATIO = 200


class Entry(NamedTuple):
    """One file in the archive. Sizes in bytes; `offset` of its header in the archive."""

    path: str
    size: int
    packed: int
    offset: int


@dataclass(slots=True)
class Directory:
    """What the central directory lists.

    Attributes:
        entries: the first 5000 of them; total: how many there are.
        bytes_total: of all files, unpacked; packed_total: as they lie in the archive.
    """

    entries: list[Entry] = field(default_factory=list)
    total: int = 0
    bytes_total: int = 0
    packed_total: int = 0
    compressed: bool = False


class _Place(NamedTuple):
    """Of a central directory, in the archive."""

    start: int
    length: int
    entries: int


def read_directory(source: Source, complaints: Complaints) -> Directory | None:
    """The directory; None where there is none to be read. What is wrong goes to `complaints`.

    Raises:
        SourceUnreadable, TooMuchRead: see there.
    """
    place = _find(source, complaints)
    if place is None:
        return None
    if place.length > MAX_DIRECTORY_BYTES:
        complaints.warn(
            "directory-not-read", f"the list of files is too large to be read here: {place.length:,} bytes"
        )
        return None
    data = source.read(place.start, place.length)
    if len(data) != place.length:
        raise SourceUnreadable(f"{len(data)} bytes at {place.start}, not {place.length}")
    directory = _entries(data, place, complaints)
    if directory.packed_total > place.start or directory.bytes_total > _BOMB_RATIO * max(1, source.size):
        complaints.add(
            "zip-bomb",
            f"{source.size:,} bytes promise {directory.bytes_total:,}: files overlap or are hollow",
        )
    return directory


def _find(source: Source, complaints: Complaints) -> _Place | None:
    """The directory's place, as the record at the archive's end has it."""
    size = source.size
    start = max(0, size - _END.size - _LONGEST_COMMENT - _LOCATOR.size)
    tail = source.read(start, size - start)
    at = tail.rfind(END_SIGNATURE)
    if at < 0 or at + _END.size > len(tail):
        complaints.add("archive-cut", "the zip archive is cut: the list of its files at the end is missing")
        return None
    entries, length, begin = _END.unpack_from(tail, at)
    end = start + at
    located = at - _LOCATOR.size
    if located >= 0 and tail.startswith(b"PK\x06\x07", located):
        (end64,) = _LOCATOR.unpack_from(tail, located)
        record = source.read(end64, _END64.size) if end64 + _END64.size <= start + located else b""
        if not record.startswith(b"PK\x06\x06") or len(record) < _END64.size:
            complaints.add("archive-invalid", "the zip archive has a record of its end that leads nowhere")
            return None
        entries, length, begin = _END64.unpack(record)
        end = end64
    # As `zipfile`: the directory ends where its end begins, and what stands before the archive moves both.
    if length > end or begin > end - length:
        complaints.add("archive-invalid", "the zip archive has a list of its files outside of itself")
        return None
    return _Place(end - length, length, entries)


def _entries(data: bytes, place: _Place, complaints: Complaints) -> Directory:
    directory = Directory()
    at = 0
    while at < len(data):
        if at + _ENTRY.size > len(data) or not data.startswith(_ENTRY_SIGNATURE, at):
            complaints.add(
                "archive-invalid", f"the zip archive's list of files breaks off after {directory.total:,}"
            )
            break
        flags, method, packed, size, name_length, extra_length, comment_length, offset = _ENTRY.unpack_from(
            data, at
        )
        name_at = at + _ENTRY.size
        extra_at = name_at + name_length
        at = extra_at + extra_length + comment_length
        if _IN_ZIP64 in (size, packed, offset):
            extra = data[extra_at : extra_at + extra_length]
            size, packed, offset = _sizes64(extra, size, packed, offset)
        directory.total += 1
        directory.bytes_total += size
        directory.packed_total += packed
        directory.compressed |= method != 0
        if directory.total <= ENTRIES_KEPT:
            name = data[name_at : name_at + min(name_length, _LONGEST_NAME)]
            path = name.decode("utf-8" if flags & _UTF8_NAME else "cp437", errors="replace")
            directory.entries.append(Entry(path, size, packed, offset))
            _check(path, flags, offset + packed, place.start, complaints)
    if directory.total != place.entries:
        complaints.warn(
            "archive-count", f"the zip archive lists {directory.total:,} files and says {place.entries:,}"
        )
    return directory


def _sizes64(extra: bytes, *sizes: int) -> tuple[int, ...]:
    """Each size that does not fit into 32 bits stands in the extra field instead, in this order."""
    at = 0
    values = b""
    while at + 4 <= len(extra):
        kind, length = struct.unpack_from("<2H", extra, at)
        if kind == _ZIP64_EXTRA:
            values = extra[at + 4 : at + 4 + length]
            break
        at += 4 + length
    numbers = iter(struct.unpack_from(f"<{len(values) // 8}Q", values))
    return tuple(next(numbers, size) if size == _IN_ZIP64 else size for size in sizes)


def _check(path: str, flags: int, end: int, limit: int, complaints: Complaints) -> None:
    if flags & _ENCRYPTED:
        complaints.add("encrypted", f"the file {quoted(path)} in it is encrypted")
    if end > limit:
        complaints.add("archive-cut", f"the file {quoted(path)} in it ends behind the end of the archive")
    if path.startswith("/") or ".." in path.replace("\\", "/").split("/"):
        complaints.add("path-outside", f"the file {quoted(path)} in it lies outside of the archive")
