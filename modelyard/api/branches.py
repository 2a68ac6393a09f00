"""`/branches`: the branches of a repository."""

import msgspec

from core.errors import AlreadyExists, InvalidName, PushRefused, RefConflict, RevisionNotFound, StaleParent
from core.repositories import RepositoryInfo
from gitserver.branches import DefaultBranch
from gitserver.reading import Branch
from modelyard.api.call import Call
from modelyard.api.cursors import Page, Window
from modelyard.api.operation import REPOSITORY, Access, Operations
from modelyard.api.parameters import ExpectedOid, RefName, RefSegment, StartRevision

operations = Operations("branches", "Branches.")


class BranchView(msgspec.Struct):
    """A branch and the commit it names."""

    name: str
    oid: str
    is_default: bool


class NewBranch(msgspec.Struct, forbid_unknown_fields=True):
    """A branch to be, at the commit that `revision` names."""

    name: RefName
    revision: StartRevision


def _view(branch: Branch) -> BranchView:
    return BranchView(branch.name, branch.oid, branch.is_default)


@operations.add("GET", REPOSITORY + "/branches", access=Access.REPOSITORY_READ)
async def list_branches(call: Call, repository: RepositoryInfo, window: Window[str]) -> Page[BranchView]:
    """List branches.

    Ordered by name, byte by byte.
    """
    found = await call.services.reader.branches(repository.id, limit=window.fetch, after=window.after or "")
    return window.page(found, _view, lambda branch: branch.name)


@operations.add(
    "GET", REPOSITORY + "/branches/{branch}", access=Access.REPOSITORY_READ, errors=(RevisionNotFound,)
)
async def read_branch(call: Call, repository: RepositoryInfo, branch: RefSegment) -> BranchView:
    """Read a branch."""
    return _view(await call.services.reader.branch(repository.id, branch))


@operations.add(
    "POST",
    REPOSITORY + "/branches",
    access=Access.REPOSITORY_WRITE,
    status=201,
    errors=(AlreadyExists, InvalidName, PushRefused, RefConflict, RevisionNotFound),
)
async def create_branch(call: Call, repository: RepositoryInfo, body: NewBranch) -> BranchView:
    """Create a branch."""
    oid = await call.services.branches.create(repository, call.actor, body.name, body.revision)
    call.headers["Location"] = call.repository_url(repository, "/branches/{branch}", branch=body.name)
    return BranchView(body.name, oid, body.name == repository.default_branch)


@operations.add(
    "DELETE",
    REPOSITORY + "/branches/{branch}",
    access=Access.REPOSITORY_WRITE,
    errors=(DefaultBranch, PushRefused, RefConflict, RevisionNotFound, StaleParent),
)
async def delete_branch(
    call: Call, repository: RepositoryInfo, branch: RefSegment, expected: ExpectedOid | None = None
) -> None:
    """Delete a branch.

    Never the default branch. With `expected`, only while the branch is there.
    """
    await call.services.branches.delete(repository, call.actor, branch, expected=expected)
