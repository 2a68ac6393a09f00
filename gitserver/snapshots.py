"""A node's cache of repositories: immutable snapshots, one directory for each state.

A snapshot is a complete bare repository (HEAD, config, packed-refs, hard-linked packs) that is built aside,
published by rename and never changed. Readers see refs and packs of one state; writers disturb nobody;
worker processes share a cache without further locks. Whoever uses a snapshot holds a shared `flock` on its
`lease` file, which dies with the process, and the sweeper deletes only what it can lock exclusively.

Everything here can be deleted at any time: the truth is the database and the object store (invariant I4).
"""

import asyncio
import contextlib
import fcntl
import os
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from secrets import token_hex

import structlog
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from core.database import Database
from core.errors import RepositoryNotFound, Unavailable
from core.models import ObjectFormat, Pack, PackKind, Ref, Repository
from storage.protocol import ObjectNotFound, ObjectStore

log = structlog.get_logger(__name__)

_HYDRATION_TRIES = 5


class CacheUnavailable(Unavailable):
    """The cache directory cannot be written, or the packs of a repository cannot be brought."""

    code = "cache_unavailable"


@dataclass(frozen=True, slots=True)
class RefValue:
    """What a ref names; `peeled` is the object behind an annotated tag, else None."""

    oid: str
    peeled: str | None = None


@dataclass(frozen=True, slots=True)
class RepositoryState:
    """Refs and live packs of one repository, as one read transaction saw them."""

    repository_id: str
    version: int
    state: str
    prune_epoch: int
    default_branch: str
    object_format: ObjectFormat
    refs: dict[str, RefValue]
    packs: tuple[Pack, ...]


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A bare repository directory that nobody changes, with the state it was made from.

    Valid inside the `Snapshots.open` block that returned it.
    """

    path: Path
    state: RepositoryState

    @property
    def objects(self) -> Path:
        """The object directory."""
        return self.path / "objects"

    @property
    def refs(self) -> dict[str, RefValue]:
        """Every ref by its full name, in byte order of the names."""
        return self.state.refs

    @property
    def default_branch(self) -> str:
        """The branch that HEAD names, without `refs/heads/`; it may not exist yet."""
        return self.state.default_branch

    @property
    def object_format(self) -> ObjectFormat:
        """The hash of this repository."""
        return self.state.object_format

    @property
    def prune_epoch(self) -> int:
        """How often objects had been dropped for good when this was read."""
        return self.state.prune_epoch


async def read_state(session: AsyncSession, repository_id: str) -> RepositoryState:
    """Reads refs and live packs in the caller's transaction.

    Raises:
        RepositoryNotFound: it was deleted meanwhile.
    """
    repository = await session.get(Repository, repository_id, populate_existing=True)
    if repository is None:
        raise RepositoryNotFound("no such repository")
    refs = await session.execute(
        select(Ref.name, Ref.oid, Ref.peeled).where(Ref.repository_id == repository_id).order_by(Ref.name)
    )
    packs = await session.scalars(
        select(Pack)
        .where(Pack.repository_id == repository_id, Pack.superseded_at.is_(None))
        .order_by(Pack.id)
    )
    return RepositoryState(
        repository_id=repository_id,
        version=repository.refs_version,
        state=repository.state,
        prune_epoch=repository.prune_epoch,
        default_branch=repository.default_branch,
        object_format=repository.object_format,
        refs={name: RefValue(oid, peeled) for name, oid, peeled in refs},
        packs=tuple(packs),
    )


def pack_key(repository_id: str, key: str, file_name: str) -> str:
    """Where a file of a pack lies in the object store."""
    return f"git/{repository_id}/{key}/{file_name}"


class Snapshots:
    """Brings repositories from the database and the object store to this node's disk."""

    def __init__(self, database: Database, store: ObjectStore, cache_dir: Path) -> None:
        self._database = database
        self._store = store
        self._root = cache_dir
        self._building: dict[tuple[str, str], asyncio.Lock] = {}
        self.hits = 0
        self.misses = 0

    @property
    def root(self) -> Path:
        """The cache directory."""
        return self._root

    async def state(self, repository_id: str) -> RepositoryState:
        """The current refs and packs; touches no disk. Raises `RepositoryNotFound`."""
        async with self._database.read() as session:
            return await read_state(session, repository_id)

    @asynccontextmanager
    async def open(self, repository_id: str) -> AsyncIterator[Snapshot]:
        """A snapshot of the current state, kept alive while the block runs.

        Raises:
            RepositoryNotFound: no such repository.
            CacheUnavailable: the cache cannot be written, or packs vanish as fast as they are looked for.
        """
        for _ in range(_HYDRATION_TRIES):
            state = await self.state(repository_id)
            path = self._path(state)
            lease = await asyncio.to_thread(_take_lease, path)
            if lease is not None:
                self.hits += 1
                break
            self.misses += 1
            # Maintenance may supersede and sweep a pack between the read and the download: read again.
            with contextlib.suppress(ObjectNotFound):
                await self._build(state, path)
                lease = await asyncio.to_thread(_take_lease, path)
            if lease is not None:
                break
            await asyncio.sleep(0.05)
        else:
            raise CacheUnavailable("the repository cannot be brought to this node")
        try:
            yield Snapshot(path, state)
        finally:
            os.close(lease)

    def _path(self, state: RepositoryState) -> Path:
        return self._root / "snapshots" / state.repository_id / f"{state.version}-{state.state}"

    async def _build(self, state: RepositoryState, path: Path) -> None:
        lock = self._building.setdefault((state.repository_id, state.state), asyncio.Lock())
        try:
            async with lock:
                if await asyncio.to_thread(path.exists):
                    return
                temporary = path.with_name(_temporary_name(path.name))
                try:
                    missing = await asyncio.to_thread(self._assemble, temporary, state)
                    for pack, suffix in missing:
                        await self._fetch(pack, suffix)
                    if missing and await asyncio.to_thread(self._link_packs, temporary, state):
                        raise ObjectNotFound("a pack was swept between download and use")
                    await asyncio.to_thread(_publish, temporary, path)
                    await asyncio.to_thread(sweep_snapshots, self._root, state.repository_id, keep=path.name)
                finally:
                    await asyncio.to_thread(shutil.rmtree, temporary, ignore_errors=True)
        except OSError as error:
            raise CacheUnavailable(f"the cache cannot be written: {error.strerror}") from error
        finally:
            if not lock.locked():
                self._building.pop((state.repository_id, state.state), None)

    def _assemble(self, path: Path, state: RepositoryState) -> list[tuple[Pack, str]]:
        _write_skeleton(path, state)
        return self._link_packs(path, state)

    def _link_packs(self, path: Path, state: RepositoryState) -> list[tuple[Pack, str]]:
        """Links every pack file that this node holds, and returns what it does not hold."""
        missing = []
        for pack in state.packs:
            held = self.held(pack.repository_id, pack.key)
            for suffix in pack.suffixes:
                try:
                    with contextlib.suppress(FileExistsError):  # the same pack twice: same name, same bytes
                        (path / "objects" / _place_of(pack, suffix)).hardlink_to(
                            held / f"{pack.name}.{suffix}"
                        )
                except FileNotFoundError:
                    missing.append((pack, suffix))
        return missing

    async def _fetch(self, pack: Pack, suffix: str) -> None:
        held = self.held(pack.repository_id, pack.key)
        await asyncio.to_thread(held.mkdir, parents=True, exist_ok=True)
        name = f"{pack.name}.{suffix}"
        with contextlib.suppress(FileExistsError):  # another worker was faster; the bytes are the same
            await self._store.get_file(pack_key(pack.repository_id, pack.key, name), held / name)

    async def adopt(self, pack: Pack, directory: Path) -> None:
        """Keeps the files of a pack that this node has just made, so that it need not download them."""
        try:
            await asyncio.to_thread(self._adopt, pack, directory)
        except OSError as error:
            log.warning("cache.adopt_failed", repository_id=pack.repository_id, error=str(error))

    def _adopt(self, pack: Pack, directory: Path) -> None:
        held = self.held(pack.repository_id, pack.key)
        held.mkdir(parents=True, exist_ok=True)
        for suffix in pack.suffixes:
            with contextlib.suppress(FileExistsError):
                (held / f"{pack.name}.{suffix}").hardlink_to(directory / f"{pack.name}.{suffix}")

    def held(self, repository_id: str, key: str) -> Path:
        """Where this node keeps the files of a pack."""
        return self._root / "packs" / repository_id / key


def _place_of(pack: Pack, suffix: str) -> str:
    """The file's place below `objects/`; pack and index files by their kind."""
    if pack.kind is not PackKind.INDEX:
        return f"pack/{pack.name}.{suffix}"
    if suffix == "commit-graph":
        return "info/commit-graph"
    return f"pack/multi-pack-index{'' if suffix == 'midx' else '-' + pack.name + '.' + suffix}"


def _write_skeleton(path: Path, state: RepositoryState) -> None:
    for folder in ("objects/pack", "objects/info", "refs/heads"):
        (path / folder).mkdir(parents=True)
    (path / "HEAD").write_text(f"ref: refs/heads/{state.default_branch}\n", encoding="utf-8")
    extension = "" if state.object_format is ObjectFormat.SHA1 else "[extensions]\n\tobjectformat = sha256\n"
    version = 0 if state.object_format is ObjectFormat.SHA1 else 1
    (path / "config").write_text(
        f"[core]\n\trepositoryformatversion = {version}\n\tbare = true\n{extension}", encoding="utf-8"
    )
    with (path / "packed-refs").open("w", encoding="utf-8", newline="\n") as file:
        file.write("# pack-refs with: peeled fully-peeled sorted \n")
        for name, value in state.refs.items():
            file.write(f"{value.oid} {name}\n")
            if value.peeled:
                file.write(f"^{value.peeled}\n")
    (path / "lease").touch()


def _publish(temporary: Path, path: Path) -> None:
    try:
        temporary.rename(path)
    except OSError:
        if not path.exists():  # else another worker published the same state first
            raise


def _take_lease(path: Path) -> int | None:
    """Locks the snapshot against the sweeper; None when there is none, or it is being swept."""
    try:
        descriptor = os.open(path / "lease", os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    with contextlib.suppress(BlockingIOError):
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        if os.fstat(descriptor).st_nlink:  # else the sweeper deleted it between open and flock
            return descriptor
    os.close(descriptor)
    return None


def sweep_snapshots(root: Path, repository_id: str, *, keep: str | None) -> int:
    """Deletes the snapshots of one repository that nobody uses, except the one named `keep`.

    Returns how many went. Blocking: call it in a thread.
    """
    folder = root / "snapshots" / repository_id
    gone = 0
    for path in sorted(folder.iterdir()) if folder.is_dir() else []:
        if path.name.startswith("."):
            if not _owner_alive(path.name):
                shutil.rmtree(path, ignore_errors=True)
        elif path.name != keep:
            gone += _sweep_one(path)
    return gone


def _sweep_one(path: Path) -> bool:
    try:
        descriptor = os.open(path / "lease", os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return False  # another process sweeps it
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # Renamed first: a half-deleted directory under the snapshot's own name would pass for a snapshot.
        trash = path.with_name(_temporary_name(path.name))
        path.rename(trash)
        (trash / "lease").unlink()
        shutil.rmtree(trash, ignore_errors=True)
    except (BlockingIOError, FileNotFoundError):
        return False
    finally:
        os.close(descriptor)
    return True


def _temporary_name(name: str) -> str:
    return f".{name}.{os.getpid()}.{token_hex(4)}"


def _owner_alive(temporary_name: str) -> bool:
    """Whether the process that made a temporary directory still runs on this machine."""
    try:
        os.kill(int(temporary_name.split(".")[-2]), 0)
    except (ValueError, IndexError, ProcessLookupError):
        return False
    except PermissionError:
        return True
    return True
