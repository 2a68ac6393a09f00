"""`/commits` and `/compare`: history, and how revisions differ."""

from typing import Annotated

import msgspec
from msgspec import Meta

from core.errors import RevisionNotFound
from core.repositories import RepositoryInfo
from gitserver.queries import TooExpensive
from modelyard.api.call import Call
from modelyard.api.commit_views import CommitDetail, CommitView, ComparisonView, commit_detail, commit_view
from modelyard.api.cursors import DEFAULT_LIMIT, MAX_LIMIT, Page, Window
from modelyard.api.operation import REPOSITORY, Access, Operations
from modelyard.api.parameters import QueryPath, Revision

operations = Operations("commits", "History, and how revisions differ.")

Limit = Annotated[int, Meta(ge=1, le=MAX_LIMIT, description="How many commits at most.")]
Skip = Annotated[int, Meta(ge=0, le=1_000_000, description="How many of the newest commits to leave out.")]


@operations.add(
    "GET",
    REPOSITORY + "/commits",
    access=Access.REPOSITORY_READ,
    errors=(RevisionNotFound, TooExpensive),
)
async def list_commits(
    call: Call,
    repository: RepositoryInfo,
    window: Window[tuple[str, int]],
    revision: Revision = "HEAD",
    path: QueryPath | None = None,
) -> Page[CommitView]:
    """List the history of a revision.

    Newest first; with `path`, the commits that changed it. All pages show the history of the commit that the
    revision was when the first was read.
    """
    reader = call.services.reader
    if window.after is None:
        tip, skip = (await reader.resolve(repository.id, revision)).oid, 0
    else:
        tip, skip = window.after
    found = await reader.commits(repository.id, tip, path=path or "", limit=window.fetch, skip=skip)
    return window.page(found, commit_view, lambda _: (tip, skip + window.limit))


@operations.add(
    "GET",
    REPOSITORY + "/commits/{revision}",
    access=Access.REPOSITORY_READ,
    errors=(RevisionNotFound, TooExpensive),
)
async def read_commit(call: Call, repository: RepositoryInfo, revision: Revision) -> CommitDetail:
    """Read a commit, and what it changed.

    The `ETag` is the commit's id.
    """
    reader = call.services.reader
    found = await reader.resolve(repository.id, revision)
    call.version(f'"{found.oid}"', immutable=found.exact)
    commit = await reader.commit(repository.id, found.oid)
    return commit_detail(commit, await reader.changes(repository.id, found.oid))


@operations.add(
    "GET",
    REPOSITORY + "/compare/{base}...{head}",
    access=Access.REPOSITORY_READ,
    errors=(RevisionNotFound, TooExpensive),
)
async def compare(
    call: Call,
    repository: RepositoryInfo,
    base: Revision,
    head: Revision,
    limit: Limit = DEFAULT_LIMIT,
    skip: Skip = 0,
) -> ComparisonView:
    """Compare two revisions.

    What `head` has that `base` has not, as a merge request shows it. `limit` and `skip` page through the
    commits.
    """
    found = await call.services.reader.compare(repository.id, base, head, limit=limit, skip=skip)
    return msgspec.convert(found, ComparisonView, from_attributes=True)
