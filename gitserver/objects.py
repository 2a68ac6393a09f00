"""Objects of a snapshot, read in process: kinds and sizes, commits, trees and tags.

dulwich reads the packs, in threads; both hashes work. Blobs are not read here: they stream out of git
(`gitserver.blobs`), because nothing says that one fits into memory. That is also why the kind and size of an
object are read from its pack header, without inflating it.
"""

import asyncio
import contextlib
import os
import threading
import zlib
from collections import OrderedDict
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import TypeVar

from dulwich.object_format import SHA1, SHA256
from dulwich.objects import ObjectID, parse_tree
from dulwich.pack import Pack

from core.errors import PayloadTooLarge
from core.models import ObjectFormat
from gitserver.snapshots import Snapshot

T = TypeVar("T")

# What may be inflated to read one commit, tree or tag: itself, and every base of its delta.
MAX_OBJECT_BYTES = 64 * 1024**2
# What a commit or tag may weigh: lists hold a hundred of them at once.
_MAX_TEXT_BYTES = 512 * 1024

# Five descriptors each, as a mapping keeps one of its own; together well below the usual limit of 1024.
_MAX_OPEN_PACKS = 64
_DELTA_CACHE_BYTES = 4 * 1024**2
_THREADS = 4
# An entry header, a base and the start of a delta, even behind the longest Huffman table.
_HEAD_BYTES = 1024
_OFS_DELTA, _REF_DELTA = 6, 7


class MissingObject(Exception):
    """An object that the repository promises is not there: it is damaged."""


class Kind(StrEnum):
    COMMIT = "commit"
    TREE = "tree"
    BLOB = "blob"
    TAG = "tag"


_KINDS = {1: Kind.COMMIT, 2: Kind.TREE, 3: Kind.BLOB, 4: Kind.TAG}


@dataclass(frozen=True, slots=True)
class Header:
    """What an object is, how many bytes it has, and the most that reading it inflates in one piece."""

    kind: Kind
    size: int
    cost: int = field(default=0, compare=False)


class PackSet:
    """The packs of one snapshot. Safe to use from several threads until closed."""

    def __init__(self, objects: Path, object_format: ObjectFormat) -> None:
        """Opens every pack now, so that later reads only read. Blocking."""
        self.format = SHA1 if object_format is ObjectFormat.SHA1 else SHA256
        self._packs: list[tuple[Pack, int]] = []
        try:
            for index in sorted((objects / "pack").glob("*.idx")):
                base = index.with_suffix("")
                pack = Pack(str(base), object_format=self.format, delta_base_cache_limit=_DELTA_CACHE_BYTES)
                descriptor = os.open(base.with_suffix(".pack"), os.O_RDONLY | os.O_CLOEXEC)
                self._packs.append((pack, descriptor))
                _ = pack.data, pack.index  # load both; lazy loading is not thread-safe
        except BaseException:
            self.close()
            raise

    def __len__(self) -> int:
        return len(self._packs)

    def header(self, oid: str) -> Header | None:
        """The kind and size of an object; None when it is not here."""
        for pack, descriptor in self._packs:
            with contextlib.suppress(KeyError):
                return _header(pack, descriptor, pack.index.object_offset(ObjectID(oid.encode())))
        return None

    def read(self, oid: str, kind: Kind) -> bytes:
        """The content of a commit, tree or tag.

        Raises:
            MissingObject: there is no such object of this kind.
            PayloadTooLarge: it is larger than any sane one.
        """
        header = self.header(oid)
        if header is None or header.kind is not kind:
            raise MissingObject(f"{kind} {oid}")
        limit = MAX_OBJECT_BYTES if kind is Kind.TREE else _MAX_TEXT_BYTES
        if header.size > limit or header.cost > MAX_OBJECT_BYTES:
            raise PayloadTooLarge(f"{kind} {oid} is too large to be shown")
        for pack, _ in self._packs:
            with contextlib.suppress(KeyError):
                return pack.get_raw(ObjectID(oid.encode()))[1]
        raise MissingObject(oid)

    def tree(self, oid: str) -> Iterator[tuple[bytes, int, str]]:
        """The entries of a tree in Git's order: name, mode, oid. Raises as `read` does."""
        for name, mode, sha in parse_tree(self.read(oid, Kind.TREE), self.format.oid_length):
            yield name, mode, sha.decode()

    def starting_with(self, prefix: str) -> set[str]:
        """The oids that start with these hexadecimal digits, at least two of them."""
        whole = bytes.fromhex(prefix[: len(prefix) // 2 * 2])
        return {
            found.hex()
            for pack, _ in self._packs
            for found in pack.index.iter_prefix(whole)
            if found.hex().startswith(prefix)
        }

    def close(self) -> None:
        """Lets go of all files."""
        for pack, descriptor in self._packs:
            pack.close()
            os.close(descriptor)
        self._packs = []


def _header(pack: Pack, descriptor: int, offset: int) -> Header:
    """Reads an entry's header; of a delta, the size it makes and the kind at the end of its chain."""
    size, cost = None, 0
    while True:
        head = os.pread(descriptor, _HEAD_BYTES, offset)
        number, length, used = _entry_head(head)
        cost = max(cost, length)
        if number in _KINDS:
            return Header(_KINDS[number], length if size is None else size, cost)
        if number == _OFS_DELTA:
            distance, used = _base_distance(head, used)
            base = offset - distance
        elif number == _REF_DELTA:
            end = used + pack.object_format.oid_length
            base, used = pack.index.object_offset(ObjectID(head[used:end].hex().encode())), end
        else:
            raise MissingObject(f"unknown kind of object in {pack!r}")
        result = _delta_result(head[used:])
        cost = max(cost, result)
        size = result if size is None else size
        offset = base


def _entry_head(head: bytes) -> tuple[int, int, int]:
    """Type, size and where the header ends: gitformat-pack(5)."""
    byte = head[0]
    number, size, shift, used = byte >> 4 & 7, byte & 15, 4, 1
    while byte & 0x80:
        byte = head[used]
        size |= (byte & 0x7F) << shift
        shift += 7
        used += 1
    return number, size, used


def _base_distance(head: bytes, used: int) -> tuple[int, int]:
    byte = head[used]
    used += 1
    distance = byte & 0x7F
    while byte & 0x80:
        byte = head[used]
        used += 1
        distance = (distance + 1) << 7 | byte & 0x7F
    return distance, used


def _delta_result(compressed: bytes) -> int:
    """The second of the two numbers that a delta starts with."""
    delta = zlib.decompressobj().decompress(compressed, 24)
    size = used = 0
    for _ in range(2):
        size = shift = 0
        while True:
            byte = delta[used]
            used += 1
            size |= (byte & 0x7F) << shift
            shift += 7
            if not byte & 0x80:
                break
    return size


class ObjectCache:
    """Keeps the packs of recently read snapshots open, and runs reads of them in a few threads."""

    def __init__(self, *, max_open_packs: int = _MAX_OPEN_PACKS) -> None:
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="git-objects")
        self._lock = threading.Lock()
        self._limit = max_open_packs
        self._open: OrderedDict[Path, PackSet] = OrderedDict()
        self._users: dict[PackSet, int] = {}

    async def read(self, snapshot: Snapshot, function: Callable[[PackSet], T]) -> T:
        """Calls `function` with the snapshot's packs in a thread and returns what it returns."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._threads, self._call, snapshot, function)

    async def close(self) -> None:
        """Waits for running reads and closes all files."""
        await asyncio.to_thread(self._threads.shutdown)
        while self._open:
            self._open.popitem()[1].close()

    def _call(self, snapshot: Snapshot, function: Callable[[PackSet], T]) -> T:
        packs = self._acquire(snapshot)
        try:
            return function(packs)
        finally:
            self._release(packs)

    def _acquire(self, snapshot: Snapshot) -> PackSet:
        with self._lock:
            packs = self._open.get(snapshot.path)
            if packs is None:
                packs = PackSet(snapshot.objects, snapshot.object_format)
                self._open[snapshot.path] = packs
            self._open.move_to_end(snapshot.path)
            self._users[packs] = self._users.get(packs, 0) + 1
            return packs

    def _release(self, packs: PackSet) -> None:
        with self._lock:
            self._users[packs] -= 1
            if not self._users[packs]:
                del self._users[packs]
            total = sum(map(len, self._open.values()))
            latest = {path.parent: path for path in self._open}  # the last one used of each repository
            for path, one in list(self._open.items()):
                if one not in self._users and (total > self._limit or latest[path.parent] != path):
                    total -= len(one)
                    self._open.pop(path).close()
