"""Where the objects of a push live until they are accepted: an object directory of their own."""

import asyncio
import os
import shutil
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from secrets import token_hex

from gitserver import leases
from gitserver.snapshots import CacheUnavailable, Snapshot

_SUFFIXES = ("pack", "idx", "rev", "bitmap", "mtimes")


@dataclass(frozen=True, slots=True)
class PackFiles:
    """A finished pack in a directory: `<directory>/<name>.<suffix>`."""

    directory: Path
    name: str
    suffixes: tuple[str, ...]
    objects: int
    bytes: int

    def path(self, suffix: str) -> Path:
        """The file with that suffix."""
        return self.directory / f"{self.name}.{suffix}"


@dataclass(frozen=True, slots=True)
class Quarantine:
    """An empty object directory whose children of git see the snapshot's objects as well."""

    path: Path
    snapshot: Snapshot

    @property
    def objects(self) -> Path:
        """The object directory."""
        return self.path / "objects"

    @property
    def listing(self) -> Path:
        """The file in which the connectivity check lists what the push adds (`gitserver.listings`)."""
        return self.path / "new-objects"

    def environment(self) -> dict[str, str]:
        """What makes git write here and read the snapshot too, as git's own receive-pack sets it."""
        return {
            "GIT_DIR": str(self.snapshot.path),
            "GIT_OBJECT_DIRECTORY": str(self.objects),
            "GIT_ALTERNATE_OBJECT_DIRECTORIES": str(self.snapshot.objects),
            "GIT_QUARANTINE_PATH": str(self.objects),
        }

    async def pack(self) -> PackFiles | None:
        """The one pack that was written here, if any.

        Raises:
            CacheUnavailable: somebody is deleting it.
        """
        try:
            return await asyncio.to_thread(find_pack, self.objects / "pack")
        except FileNotFoundError as error:
            raise CacheUnavailable("the cache is being deleted") from error


def find_pack(folder: Path) -> PackFiles | None:
    """Describes the one pack in a directory; None when there is none. Blocking."""
    packs = sorted(folder.glob("pack-*.pack"))
    return describe_pack(packs[0]) if packs else None


def describe_pack(pack: Path) -> PackFiles:
    """Describes a pack by its `.pack` file. Blocking.

    Raises:
        FileNotFoundError: it has no index, so that nothing in it could be found.
    """
    pack.with_suffix(".idx").stat()
    suffixes = tuple(one for one in _SUFFIXES if pack.with_suffix(f".{one}").exists())
    with pack.open("rb") as file:
        objects = int.from_bytes(file.read(12)[8:12], "big")
    total = sum(pack.with_suffix(f".{suffix}").stat().st_size for suffix in suffixes)
    return PackFiles(pack.parent, pack.stem, suffixes, objects, total)


@asynccontextmanager
async def open_workplace(cache_dir: Path, *folders: str) -> AsyncIterator[Path]:
    """A directory of its own, holding its lease and empty `folders`, that is gone when the block ends.

    Raises:
        CacheUnavailable: it cannot be created.
    """
    path = cache_dir / "quarantine" / token_hex(12)
    try:
        lease = await leases.claimed(_make, path, folders)
    except OSError as error:
        raise CacheUnavailable(f"the cache cannot be written: {error.strerror}") from error
    try:
        yield path
    finally:
        os.close(lease)
        # Shielded: a cancelled push must not leave its gigabytes behind.
        await asyncio.shield(asyncio.to_thread(shutil.rmtree, path, ignore_errors=True))


@asynccontextmanager
async def open_quarantine(cache_dir: Path, snapshot: Snapshot) -> AsyncIterator[Quarantine]:
    """A quarantine that is gone when the block ends.

    Raises:
        CacheUnavailable: it cannot be created.
    """
    async with open_workplace(cache_dir, "objects/pack") as path:
        yield Quarantine(path, snapshot)


def _make(path: Path, folders: Sequence[str]) -> int:
    lease = leases.make(path)
    try:
        for folder in folders:
            (path / folder).mkdir(parents=True)
    except OSError:
        os.close(lease)
        shutil.rmtree(path, ignore_errors=True)
        raise
    return lease


def orphaned_quarantines(cache_dir: Path) -> list[Path]:
    """The workplaces of processes that died. Blocking."""
    return [path for path in leases.entries(cache_dir / "quarantine") if leases.is_abandoned(path)]


def sweep_quarantines(cache_dir: Path) -> int:
    """Deletes the workplaces of processes that died. Returns how many. Blocking."""
    return sum(leases.delete_unheld(path) for path in leases.entries(cache_dir / "quarantine"))
