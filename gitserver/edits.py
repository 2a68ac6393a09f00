"""A tree that is being edited: directories are read when they are touched and written when all is done."""

import stat
from collections.abc import Callable
from dataclasses import dataclass

from core.errors import Unprocessable
from gitserver.objects import PackSet
from gitserver.trees import missing_entry, to_text

FILE = 0o100644
EXECUTABLE = 0o100755


class PathConflict(Unprocessable):
    """A file stands where a directory is needed, or the other way round, or something is in the way."""

    code = "path_conflict"


@dataclass(frozen=True, slots=True)
class Leaf:
    """A file, symbolic link or submodule."""

    mode: int
    oid: str


class Directory:
    """A directory of the edited tree. An empty one is no directory: Git does not store it."""

    def __init__(self, packs: PackSet, oid: str | None = None) -> None:
        """An existing directory, or with None a new one."""
        self._packs = packs
        self._oid = oid
        self._entries: dict[bytes, Leaf | Directory] | None = {} if oid is None else None

    @property
    def entries(self) -> "dict[bytes, Leaf | Directory]":
        """What is in it, by name."""
        if self._entries is None:
            assert self._oid is not None
            self._entries = {
                name: Directory(self._packs, oid) if stat.S_ISDIR(mode) else Leaf(mode, oid)
                for name, mode, oid in self._packs.tree(self._oid)
            }
        return self._entries

    def get(self, path: bytes) -> "Leaf | Directory | None":
        """What stands at a path."""
        node: Leaf | Directory | None = self
        for name in path.split(b"/"):
            if not isinstance(node, Directory):
                return None
            node = node.entries.get(name)
        return node

    def put(self, path: bytes, oid: str, *, executable: bool | None) -> None:
        """Writes a file; with `executable` None a file that exists keeps its mode.

        Raises:
            PathConflict: a directory or submodule has this path, or a file is a part of it.
        """
        parent, name = self._parent(path)
        old = parent.entries.get(name)
        if isinstance(old, Directory):
            raise PathConflict(f"{to_text(path)} is a directory", path=to_text(path))
        if old is not None and not (stat.S_ISREG(old.mode) or stat.S_ISLNK(old.mode)):
            raise PathConflict(f"{to_text(path)} is a submodule", path=to_text(path))
        if executable is None:
            executable = old is not None and stat.S_ISREG(old.mode) and old.mode & 0o100 != 0
        parent.entries[name] = Leaf(EXECUTABLE if executable else FILE, oid)

    def delete(self, path: bytes, *, recursive: bool) -> None:
        """Takes something away, with the directories that become empty.

        Raises:
            EntryNotFound: there is nothing at this path.
            PathConflict: it is a directory, and `recursive` was not said.
        """
        if isinstance(self.get(path), Directory) and not recursive:
            raise PathConflict(f"{to_text(path)} is a directory", path=to_text(path))
        self._take(path)

    def move(self, path: bytes, to: bytes) -> None:
        """Renames a file or a directory with all that is in it.

        Raises:
            EntryNotFound: there is nothing at `path`.
            PathConflict: something stands at `to`, or a file is a part of it.
        """
        node = self._take(path)
        parent, name = self._parent(to)
        if name in parent.entries:
            raise PathConflict(f"{to_text(to)} exists already", path=to_text(to))
        parent.entries[name] = node

    def write(self, store: Callable[[bytes], str]) -> str:
        """Stores every directory that was read through `store(content) -> oid`; returns this one's oid."""
        if self._entries is None:
            assert self._oid is not None
            return self._oid
        rows = []
        for name, node in self._entries.items():
            if isinstance(node, Directory):
                rows.append((name + b"/", b"40000 " + name, node.write(store)))
            else:
                rows.append((name, b"%o " % node.mode + name, node.oid))
        return store(b"".join(label + b"\0" + bytes.fromhex(oid) for _, label, oid in sorted(rows)))

    def _parent(self, path: bytes) -> "tuple[Directory, bytes]":
        """The directory of a path, made where it is missing, and the last component."""
        *folders, name = path.split(b"/")
        node = self
        for depth, folder in enumerate(folders, start=1):
            child = node.entries.get(folder)
            if child is None:
                child = node.entries[folder] = Directory(self._packs)
            if not isinstance(child, Directory):
                file = to_text(b"/".join(folders[:depth]))
                raise PathConflict(f"{file} is a file, not a directory", path=file)
            node = child
        return node, name

    def _take(self, path: bytes) -> "Leaf | Directory":
        *folders, name = path.split(b"/")
        trail: list[Directory] = [self]
        for folder in folders:
            child = trail[-1].entries.get(folder)
            if not isinstance(child, Directory):
                raise missing_entry(path)
            trail.append(child)
        node = trail[-1].entries.pop(name, None)
        if node is None:
            raise missing_entry(path)
        for depth in range(len(folders), 0, -1):
            if trail[depth].entries:
                break
            del trail[depth - 1].entries[folders[depth - 1]]
        return node
