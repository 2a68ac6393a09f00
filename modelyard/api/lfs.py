"""`/lfs`: the large files of a repository, where they are used, and how much of them there is."""

from datetime import datetime
from typing import Annotated

import msgspec
from msgspec import Meta

from core.errors import AccountNotFound, PermissionDenied, RevisionNotFound
from core.models import AccountKind
from core.repositories import RepositoryInfo
from gitserver.queries import TooExpensive
from lfs.consumption import Consumed
from lfs.errors import ObjectMissing
from lfs.objects import LinkedObject
from lfs.pointer import Pointer
from lfs.trash import TrashedObject
from modelyard.api.call import Call
from modelyard.api.cursors import Page, Window
from modelyard.api.operation import REPOSITORY, Access, Operations
from modelyard.api.parameters import Name, StartRevision

operations = Operations(
    "large files", "Objects stored with Git LFS: where they are used, and how much they are."
)

Oid = Annotated[
    str, Meta(pattern="^[0-9a-f]{64}$", description="The sha256 of the content, as its pointer says it.")
]


class LfsUsageView(msgspec.Struct):
    """How many objects a repository has, and their bytes."""

    objects: int
    bytes: int


class LfsOwnerUsageView(msgspec.Struct):
    """What an owner has over all repositories; an object in two of them counts twice.

    The trash does not count towards the quota. `quota_bytes` is null where there is no limit.
    """

    owner: str
    objects: int
    bytes: int
    trashed_objects: int
    trashed_bytes: int
    quota_bytes: int | None


class LfsQuota(msgspec.Struct, forbid_unknown_fields=True):
    """A quota to be: 0 is no limit, null is what the settings of the server say."""

    bytes: Annotated[int, Meta(ge=0, le=2**63 - 1)] | None


class LfsObjectView(msgspec.Struct):
    """A large file.

    `paths` is where the revision has it, a hundred at most. What is `damaged` cannot be downloaded until
    somebody uploads it again.
    """

    oid: str
    size: int
    damaged: bool
    created_at: datetime
    touched_at: datetime
    paths: list[str]


class LfsObjectDetail(msgspec.Struct):
    """A large file with its uses, a hundred at most of each.

    `paths` is where it is or was in any branch or tag; `refs` has those that hold it now; `commits` are those
    that added, moved or removed it, newest first.
    """

    oid: str
    size: int
    damaged: bool
    created_at: datetime
    touched_at: datetime
    paths: list[str]
    refs: list[str]
    commits: list[str]


class LfsTrashView(msgspec.Struct):
    """A large file that nothing refers to. A collection after `until` ends it for good."""

    oid: str
    size: int
    trashed_at: datetime
    until: datetime


@operations.add("GET", REPOSITORY + "/lfs/usage", access=Access.REPOSITORY_READ)
async def read_lfs_usage(call: Call, repository: RepositoryInfo) -> LfsUsageView:
    """Read how much a repository has."""
    usage = await call.services.large_files.objects.usage(repository.id)
    return LfsUsageView(usage.objects, usage.bytes)


@operations.add(
    "GET",
    REPOSITORY + "/lfs/objects",
    access=Access.REPOSITORY_READ,
    errors=(RevisionNotFound, TooExpensive),
)
async def list_lfs_objects(
    call: Call,
    repository: RepositoryInfo,
    window: Window[str],
    revision: StartRevision | None = None,
) -> Page[LfsObjectView]:
    """List the large files of a repository.

    Ordered by oid, with their paths in `revision`, which is the default branch when it is left out.
    """
    reader = call.services.reader
    try:
        commit = (await reader.resolve(repository.id, revision or "HEAD")).oid
    except RevisionNotFound:
        if revision is not None:
            raise
        commit = ""
    found = await call.services.large_files.objects.list(
        repository.id, limit=window.fetch, after=window.after
    )
    pointers = [Pointer(one.oid, one.size) for one in found[: window.limit]]
    paths: dict[str, list[str]] = {}
    if commit and pointers:
        paths = await call.services.safekeeping.pointers.paths(repository.id, commit, pointers)

    def view(one: LinkedObject) -> LfsObjectView:
        return LfsObjectView(
            one.oid, one.size, one.damaged, one.linked_at, one.touched_at, paths.get(one.oid, [])
        )

    return window.page(found, view, lambda one: one.oid)


@operations.add(
    "GET",
    REPOSITORY + "/lfs/objects/{oid}",
    access=Access.REPOSITORY_READ,
    errors=(ObjectMissing, TooExpensive),
)
async def read_lfs_object(call: Call, repository: RepositoryInfo, oid: Oid) -> LfsObjectDetail:
    """Read a large file, and where it is used.

    In all branches and tags, by the pointers that are written as Git LFS writes them.
    """
    one = await call.services.large_files.objects.get(repository.id, oid)
    uses = await call.services.safekeeping.pointers.uses(repository.id, Pointer(one.oid, one.size))
    return LfsObjectDetail(
        oid=one.oid,
        size=one.size,
        damaged=one.damaged,
        created_at=one.linked_at,
        touched_at=one.touched_at,
        paths=uses.paths,
        refs=uses.refs,
        commits=uses.commits,
    )


@operations.add("GET", REPOSITORY + "/lfs/trash", access=Access.REPOSITORY_ADMIN)
async def list_lfs_trash(call: Call, repository: RepositoryInfo, window: Window[str]) -> Page[LfsTrashView]:
    """List the trash of a repository.

    Ordered by oid. Uploading the same content again brings it back, and so does an administrator of the
    server.
    """
    found = await call.services.safekeeping.trash.of_repository(
        repository.id, limit=window.fetch, after=window.after or ""
    )
    return window.page(found, _trashed, lambda one: one.oid)


def _trashed(one: TrashedObject) -> LfsTrashView:
    return LfsTrashView(one.oid, one.size, one.since, one.until)


@operations.add(
    "GET", "/users/{user}/lfs/usage", access=Access.ACCOUNT, errors=(AccountNotFound, PermissionDenied)
)
async def read_user_lfs_usage(call: Call, user: Name) -> LfsOwnerUsageView:
    """Read how much a user has.

    For the user, and for administrators of the server.
    """
    return _consumed(await call.services.safekeeping.consumption.of(call.actor, user, AccountKind.USER))


@operations.add(
    "GET",
    "/organisations/{organisation}/lfs/usage",
    access=Access.ACCOUNT,
    errors=(AccountNotFound, PermissionDenied),
)
async def read_organisation_lfs_usage(call: Call, organisation: Name) -> LfsOwnerUsageView:
    """Read how much an organisation has.

    For its owners, and for administrators of the server.
    """
    kind = AccountKind.ORGANISATION
    return _consumed(await call.services.safekeeping.consumption.of(call.actor, organisation, kind))


@operations.add("PUT", "/users/{user}/lfs/quota", access=Access.SITE_ADMIN, errors=(AccountNotFound,))
async def set_user_lfs_quota(call: Call, user: Name, body: LfsQuota) -> LfsOwnerUsageView:
    """Set how much a user may have.

    A quota below what there is refuses uploads and takes nothing away.
    """
    return await _set_quota(call, user, AccountKind.USER, body)


@operations.add(
    "PUT", "/organisations/{organisation}/lfs/quota", access=Access.SITE_ADMIN, errors=(AccountNotFound,)
)
async def set_organisation_lfs_quota(call: Call, organisation: Name, body: LfsQuota) -> LfsOwnerUsageView:
    """Set how much an organisation may have.

    A quota below what there is refuses uploads and takes nothing away.
    """
    return await _set_quota(call, organisation, AccountKind.ORGANISATION, body)


async def _set_quota(call: Call, name: str, kind: AccountKind, body: LfsQuota) -> LfsOwnerUsageView:
    consumption = call.services.safekeeping.consumption
    owner = (await consumption.of(call.actor, name, kind)).owner
    await call.services.large_files.quotas.set(call.actor, owner, body.bytes)
    return _consumed(await consumption.of(call.actor, owner, kind))


def _consumed(found: Consumed) -> LfsOwnerUsageView:
    return LfsOwnerUsageView(
        owner=found.owner,
        objects=found.usage.objects,
        bytes=found.usage.bytes,
        trashed_objects=found.usage.trashed_objects,
        trashed_bytes=found.usage.trashed_bytes,
        quota_bytes=found.quota_bytes or None,
    )
