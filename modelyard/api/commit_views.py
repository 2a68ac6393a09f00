"""How commits and changes are shown; see `gitserver.history` and `gitserver.diffs` for what they mean."""

from datetime import datetime

import msgspec

from gitserver.diffs import Changes
from gitserver.history import Commit


class SignatureView(msgspec.Struct):
    """Who did it and when, in their own time zone. Not verified: a commit says what its author wrote."""

    name: str
    email: str
    when: datetime


class CommitView(msgspec.Struct, kw_only=True):
    """A commit. `summary` is the first paragraph of its message in one line."""

    oid: str
    tree: str
    parents: list[str]
    author: SignatureView
    committer: SignatureView
    summary: str
    message: str


class FileChangeView(msgspec.Struct):
    """A changed path: added, deleted, modified, renamed, copied or type_changed.

    The `old_` members are null for an added file, the `new_` ones for a deleted one. Lines are null when they
    were not counted, as for a binary file.
    """

    status: str
    old_path: str | None
    new_path: str | None
    old_mode: str | None
    new_mode: str | None
    old_oid: str | None
    new_oid: str | None
    additions: int | None
    deletions: int | None
    binary: bool


class ChangesView(msgspec.Struct):
    """Changed files in the order of their paths; `truncated` says that there are more."""

    files: list[FileChangeView]
    truncated: bool


class CommitDetail(CommitView, kw_only=True):
    """A commit, and what it changed against its first parent."""

    changes: ChangesView


class ComparisonView(msgspec.Struct):
    """How `head` differs from `base`, as a merge request shows it.

    `ahead` and `behind` count the commits that only `head` and only `base` has; `commits` is a part of the
    former, newest first. `changes` are from `merge_base`, or from `base` where the histories are unrelated.
    """

    base: str
    head: str
    merge_base: str | None
    ahead: int
    behind: int
    commits: list[CommitView]
    changes: ChangesView


def commit_view(commit: Commit) -> CommitView:
    return msgspec.convert(commit, CommitView, from_attributes=True)


def commit_detail(commit: Commit, changes: Changes) -> CommitDetail:
    shown = msgspec.structs.asdict(commit_view(commit))
    return CommitDetail(**shown, changes=msgspec.convert(changes, ChangesView, from_attributes=True))
