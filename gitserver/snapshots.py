"""A node's cache of repositories: immutable snapshots, one directory for each state.

A snapshot is a complete bare repository (HEAD, config, packed-refs, hard-linked packs) that is built aside,
published by rename and never changed. Readers see refs and packs of one state; writers disturb nobody;
worker processes share a cache without further locks. Whoever uses a snapshot holds a shared `flock` on its
`lease` file, which dies with the process, and the sweeper deletes only what it can lock exclusively.

Everything here can be deleted at any time: the truth is the database and the object store (invariant I4).
"""

import asyncio
import contextlib
import os
import shutil
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import structlog

from core.database import Database
from core.errors import Unavailable
from core.models import ObjectFormat, Pack, PackKind
from gitserver import leases
from gitserver.states import RefValue, RepositoryState, States
from storage.protocol import ObjectNotFound, ObjectStore

log = structlog.get_logger(__name__)

_HYDRATION_TRIES = 5


class CacheUnavailable(Unavailable):
    """The cache directory cannot be written, or the packs of a repository cannot be brought."""

    code = "cache_unavailable"


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


def pack_key(repository_id: str, key: str, file_name: str) -> str:
    """Where a file of a pack lies in the object store."""
    return f"git/{repository_id}/{key}/{file_name}"


class Snapshots:
    """Brings repositories from the database and the object store to this node's disk."""

    def __init__(self, database: Database, store: ObjectStore, cache_dir: Path) -> None:
        self._states = States(database)
        self._store = store
        self._root = cache_dir
        self._building: dict[Path, asyncio.Task[None]] = {}
        self.hits = 0
        self.misses = 0

    @property
    def root(self) -> Path:
        """The cache directory."""
        return self._root

    async def state(self, repository_id: str) -> RepositoryState:
        """The current refs and packs; touches no disk. Raises `RepositoryNotFound`."""
        return await self._states.current(repository_id)

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
            lease = await leases.claimed(_enter, path, state)
            if lease is not None:
                self.hits += 1
                break
            self.misses += 1
            # Maintenance may supersede and sweep a pack between the read and the download: read again.
            with contextlib.suppress(ObjectNotFound):
                await self._built(state, path)
                lease = await leases.claimed(_enter, path, state)
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
        return self._root / "snapshots" / state.repository_id / state.name

    async def close(self) -> None:
        """Ends the downloads that are under way."""
        tasks = list(self._building.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _built(self, state: RepositoryState, path: Path) -> None:
        """Waits for the one build of this state, which goes on when whoever asked for it leaves.

        Otherwise a repository that takes longer to bring than clients wait would never get here.
        """
        task = self._building.get(path)
        if task is None:
            task = self._building[path] = asyncio.ensure_future(self._build(state, path))
            task.add_done_callback(lambda done: self._forget(path, done))
        await asyncio.shield(task)

    def _forget(self, path: Path, done: asyncio.Task[None]) -> None:
        del self._building[path]
        if not done.cancelled() and (error := done.exception()) is not None:
            log.info("snapshot.failed", path=str(path), error=str(error))

    async def _build(self, state: RepositoryState, path: Path) -> None:
        """Builds a snapshot, with what has to be downloaded for it.

        Raises:
            ObjectNotFound: a pack was swept meanwhile.
        """
        try:
            missing = await asyncio.to_thread(self._assemble, path, state)
            for pack, suffix in missing:
                await self._fetch(pack, suffix)
            if missing and await asyncio.to_thread(self._assemble, path, state):
                raise ObjectNotFound("a pack was swept between download and use")
        except OSError as error:
            raise CacheUnavailable(f"the cache cannot be written: {error.strerror}") from error

    def _assemble(self, path: Path, state: RepositoryState) -> list[tuple[Pack, str]]:
        """Publishes the snapshot, unless it is there; nothing is, while this node lacks what it returns."""
        if _settled(path, state):
            return []
        temporary = path.with_name(leases.temporary_name(path.name))
        lease = leases.make(temporary)
        try:
            _write_skeleton(temporary, state)
            missing = self._link_packs(temporary, state)
            if not missing:
                _publish(temporary, path)
                sweep_snapshots(self._root, state.repository_id, keep=path.name)
            return missing
        finally:
            os.close(lease)
            shutil.rmtree(temporary, ignore_errors=True)

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
    version = 0 if state.object_format is ObjectFormat.SHA1 else 1
    extension = "[extensions]\n\tobjectformat = sha256\n" if version else ""
    _write(path / "HEAD", [f"ref: refs/heads/{state.default_branch}\n"])
    _write(path / "config", [f"[core]\n\trepositoryformatversion = {version}\n\tbare = true\n{extension}"])
    lines = (
        f"{value.oid} {name}\n^{value.peeled}\n" if value.peeled else f"{value.oid} {name}\n"
        for name, value in state.refs.items()
    )
    _write(path / "packed-refs", chain(["# pack-refs with: peeled fully-peeled sorted \n"], lines))


def _write(path: Path, lines: Iterable[str]) -> None:
    with path.open("w", encoding="utf-8", newline="\n") as file:
        file.writelines(lines)
        file.flush()
        # Without it a power failure could leave the published name of an empty file.
        os.fsync(file.fileno())


def _publish(temporary: Path, path: Path) -> None:
    try:
        temporary.rename(path)
    except OSError:
        if not path.exists():  # else another worker published the same state first
            raise


def _enter(path: Path, state: RepositoryState) -> int | None:
    """Holds the snapshot; None when there is none, or not all of it."""
    lease = leases.share(path)
    if lease is not None and not _is_whole(path, state):
        os.close(lease)
        return None
    return lease


def _is_whole(path: Path, state: RepositoryState) -> bool:
    """Whether nothing was deleted of the snapshot: somebody may have emptied the cache by half."""
    names = ["lease", "HEAD", "config", "packed-refs", "refs", "objects"]
    names += [f"objects/{_place_of(pack, suffix)}" for pack in state.packs for suffix in pack.suffixes]
    folder = str(path)
    return all(os.path.exists(f"{folder}/{name}") for name in names)  # noqa: PTH110 - many names, often


def _settled(path: Path, state: RepositoryState) -> bool:
    """Whether the snapshot is there; what is there by half is cleared away."""
    # Looked for first: published by rename, it is whole from its first moment, and must not be cleared.
    if not path.exists():
        return False
    if _is_whole(path, state):
        return True
    leases.discard(path)
    return False


def sweep_snapshots(root: Path, repository_id: str, *, keep: str | None) -> int:
    """Deletes the snapshots of one repository that nobody uses, except the one named `keep`.

    Returns how many went. Blocking: call it in a thread.
    """
    gone = 0
    for path in leases.entries(root / "snapshots" / repository_id):
        if path.name.startswith("."):
            leases.delete_unheld(path)
        elif path.name != keep:
            gone += leases.delete_unheld(path)
    return gone
