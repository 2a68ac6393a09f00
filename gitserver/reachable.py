"""Every small blob that is reachable in a repository: for garbage collectors, which must not miss one."""

from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from dataclasses import dataclass

from gitserver.listings import ObjectsUnreadable, list_all
from gitserver.process import GitFailed, GitRunner
from gitserver.quarantine import open_workplace
from gitserver.small_blobs import SmallBlob, small_blobs
from gitserver.snapshots import Snapshot, Snapshots
from gitserver.states import RepositoryState
from gitserver.updates import is_zero


@dataclass(frozen=True, slots=True)
class Reachable:
    """What refs and further tips reached at one moment.

    `state` is what was read: a decision made on it holds while the repository's `refs_version` and `state`
    are the same. `gone` are the further tips that do not exist any more.
    """

    state: RepositoryState
    gone: frozenset[str]
    blobs: AsyncIterator[SmallBlob]


@asynccontextmanager
async def reachable_blobs(
    git: GitRunner,
    snapshots: Snapshots,
    repository_id: str,
    *,
    max_bytes: int,
    further_tips: Collection[str] = (),
) -> AsyncIterator[Reachable]:
    """The blobs of at most `max_bytes` bytes that any ref reaches, hidden ones too, or a further tip.

    `further_tips` are full oids; zeros are left out. Memory is that of a few blobs.

    Raises:
        ObjectsUnreadable: also while reading on: anything at all could not be read, so that what was read
            proves nothing.
        RepositoryNotFound, CacheUnavailable: as `Snapshots.open`.
    """
    async with snapshots.open(repository_id) as snapshot, open_workplace(snapshots.root) as work:
        wanted = {oid for oid in further_tips if not is_zero(oid)}
        gone = await _gone(git, snapshot, sorted(wanted))
        where = {"GIT_DIR": str(snapshot.path)}
        # By name, because `--all` passes over refs whose object is missing.
        tips = {value.oid for value in snapshot.refs.values()} | (wanted - gone)
        listing = work / "objects"
        await list_all(git, listing, sorted(tips), git.environment(extra=where))
        async with small_blobs(git, listing, where, max_bytes) as blobs:
            yield Reachable(snapshot.state, gone, blobs)


async def _gone(git: GitRunner, snapshot: Snapshot, oids: list[str]) -> frozenset[str]:
    """Those of which git says "missing", in so many words."""
    if not oids:
        return frozenset()
    try:
        out = await git.run(
            ["cat-file", "--batch-check=%(objectname)"],
            data="".join(f"{oid}\n" for oid in oids).encode(),
            environment=git.environment(extra={"GIT_DIR": str(snapshot.path)}),
        )
    except GitFailed as error:
        raise ObjectsUnreadable(f"the tips cannot be read: {error.reason}") from error
    gone = set()
    for oid, answer in zip(oids, out.decode().splitlines(), strict=True):
        if answer == f"{oid} missing":
            gone.add(oid)
        elif answer != oid:
            raise ObjectsUnreadable(f"the tip {oid} cannot be read")
    return frozenset(gone)
