"""Objects made by this server, written as one pack without deltas."""

import hashlib
import zlib
from collections.abc import Iterator
from pathlib import Path

from core.models import ObjectFormat
from gitserver.objects import Kind, PackSet

_NUMBERS = {Kind.COMMIT: 1, Kind.TREE: 2, Kind.BLOB: 3, Kind.TAG: 4}
_CHUNK = 256 * 1024
# Above this, weights and archives are likely: they gain little from hard compression.
_FAST_ABOVE = 1024**2


class PackBuilder:
    """Collects new objects; those that the repository holds already are left out.

    Blocking: use it in a thread.
    """

    def __init__(self, packs: PackSet, object_format: ObjectFormat) -> None:
        self._packs = packs
        self._algorithm = object_format.value
        self._new: dict[str, tuple[Kind, bytes | Path]] = {}

    def add(self, kind: Kind, content: bytes | Path) -> str:
        """Names an object, and takes it up if it is new. A file must stay as it is until `write`."""
        digest = hashlib.new(self._algorithm, usedforsecurity=False)
        digest.update(b"%s %d\0" % (kind.encode(), _size(content)))
        for chunk in _chunks(content):
            digest.update(chunk)
        oid = digest.hexdigest()
        if oid not in self._new and self._packs.header(oid) is None:
            self._new[oid] = kind, content
        return oid

    def write(self, folder: Path) -> Path | None:
        """Writes `pack-<hash>.pack` into an existing directory; None when there is nothing new."""
        if not self._new:
            return None
        temporary = folder / "building"
        with temporary.open("xb") as file:
            digest = hashlib.new(self._algorithm, usedforsecurity=False)
            for chunk in self._stream():
                digest.update(chunk)
                file.write(chunk)
            file.write(digest.digest())
        temporary.chmod(0o444)
        return temporary.rename(folder / f"pack-{digest.hexdigest()}.pack")

    def _stream(self) -> Iterator[bytes]:
        yield b"PACK" + (2).to_bytes(4, "big") + len(self._new).to_bytes(4, "big")
        for kind, content in self._new.values():
            size = _size(content)
            yield _entry_head(_NUMBERS[kind], size)
            compressor = zlib.compressobj(1 if size > _FAST_ABOVE else zlib.Z_DEFAULT_COMPRESSION)
            for chunk in _chunks(content):
                yield compressor.compress(chunk)
            yield compressor.flush()


def _entry_head(number: int, size: int) -> bytes:
    """Type and size in seven-bit groups: gitformat-pack(5)."""
    head = bytearray()
    byte, size = number << 4 | size & 15, size >> 4
    while size:
        head.append(byte | 0x80)
        byte, size = size & 0x7F, size >> 7
    head.append(byte)
    return bytes(head)


def _size(content: bytes | Path) -> int:
    return content.stat().st_size if isinstance(content, Path) else len(content)


def _chunks(content: bytes | Path) -> Iterator[bytes]:
    if isinstance(content, bytes):
        yield content
        return
    with content.open("rb") as file:
        while chunk := file.read(_CHUNK):
            yield chunk
