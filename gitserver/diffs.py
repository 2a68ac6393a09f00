"""What changed between two trees, and how two branches stand to each other."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace

from core.models import ObjectFormat
from gitserver.history import Commit
from gitserver.process import GitFailed, GitRunner
from gitserver.queries import Output, ask, path_arguments, stream
from gitserver.snapshots import Snapshot
from gitserver.trees import to_text

# Git knows these without storing them.
_EMPTY_TREE = {
    ObjectFormat.SHA1: "4b825dc642cb6eb9a060e54bf8d69288fbee4904",
    ObjectFormat.SHA256: "6ef19b41225c5369f1c104d45d8d85efa9b057b53b14b4b9b939dd74decc5321",
}
_STATUS = {
    "A": "added",
    "D": "deleted",
    "M": "modified",
    "R": "renamed",
    "C": "copied",
    "T": "type_changed",
}
_OPTIONS = ["-r", "-M", "--no-ext-diff", "--no-textconv", "--no-abbrev", "--no-color"]


@dataclass(frozen=True, slots=True)
class FileChange:
    """One changed path.

    Attributes:
        status: added, deleted, modified, renamed, copied or type_changed.
        old_path, old_mode, old_oid: before; None for an added file. Modes as Git writes them.
        new_path, new_mode, new_oid: after; None for a deleted one.
        additions, deletions: lines; None when the file is binary or large, or lines were not counted
            because the list was cut.
        binary: Git shows no lines of it.
    """

    status: str
    old_path: str | None
    new_path: str | None
    old_mode: str | None
    new_mode: str | None
    old_oid: str | None
    new_oid: str | None
    additions: int | None = None
    deletions: int | None = None
    binary: bool = False


@dataclass(frozen=True, slots=True)
class Changes:
    """Changed files in the order of their paths; `truncated` says that there are more."""

    files: list[FileChange]
    truncated: bool


@dataclass(frozen=True, slots=True)
class Comparison:
    """How `head` differs from `base`, as a merge request shows it.

    Attributes:
        merge_base: the newest common ancestor; None for unrelated histories.
        ahead, behind: commits that only `head`, only `base` has.
        commits: what `head` has and `base` has not, newest first; a page.
        changes: from the merge base to `head`; from `base` when there is none.
    """

    base: str
    head: str
    merge_base: str | None
    ahead: int
    behind: int
    commits: list[Commit]
    changes: Changes


class Patch:
    """A unified diff that ends early when it grows too long."""

    def __init__(self, output: Output, max_bytes: int) -> None:
        self._output = output
        self._left = max_bytes
        self.truncated = False

    async def chunks(self) -> AsyncIterator[bytes]:
        """The text; afterwards `truncated` says whether the end is missing."""
        async for chunk in self._output.chunks():
            yield chunk[: self._left]
            self._left -= len(chunk)
            if self._left < 0:
                self.truncated = True
                return


async def find_merge_base(git: GitRunner, snapshot: Snapshot, base: str, head: str) -> str | None:
    """The best common ancestor of two commits, None when they have none."""
    try:
        answer = await ask(git, snapshot, ["merge-base", base, head])
    except GitFailed as error:
        if error.status == 1:
            return None
        raise
    return answer.decode("ascii").strip()


async def count_apart(git: GitRunner, snapshot: Snapshot, base: str, head: str) -> tuple[int, int]:
    """How many commits only `head` and only `base` reach."""
    answer = await ask(git, snapshot, ["rev-list", "--count", "--left-right", f"{base}...{head}", "--"])
    behind, ahead = map(int, answer.split())
    return ahead, behind


async def list_changes(
    git: GitRunner, snapshot: Snapshot, old: str | None, new: str, *, path: bytes = b"", limit: int
) -> Changes:
    """Files that differ between two commits or trees, renames found; `old` None is the empty tree."""
    trees = [old or _EMPTY_TREE[snapshot.object_format], new]
    arguments = ["diff-tree", *_OPTIONS, "--raw", "--numstat", "-z", *trees, *path_arguments(path)]
    files: dict[bytes, FileChange] = {}
    async with stream(git, snapshot, arguments) as output:
        tokens = output.tokens()
        async for token in tokens:
            if token.startswith(b":"):
                # All raw lines come before the first count: a list that is cut costs no counting.
                if len(files) == limit:
                    return Changes(list(files.values()), truncated=True)
                key, change = await _raw(token, tokens)
                files[key] = change
            else:
                await _count(token, tokens, files)
    return Changes(list(files.values()), truncated=False)


@asynccontextmanager
async def open_patch(
    git: GitRunner,
    snapshot: Snapshot,
    old: str | None,
    new: str,
    *,
    path: bytes = b"",
    max_bytes: int,
) -> AsyncIterator[Patch]:
    """The differences as text for `git apply`."""
    trees = [old or _EMPTY_TREE[snapshot.object_format], new]
    arguments = ["diff-tree", *_OPTIONS, "-p", "--full-index", *trees, *path_arguments(path)]
    async with stream(git, snapshot, arguments) as output:
        yield Patch(output, max_bytes)


async def _raw(token: bytes, tokens: AsyncIterator[bytes]) -> tuple[bytes, FileChange]:
    old_mode, new_mode, old_oid, new_oid, status = token[1:].decode("ascii").split(" ")
    letter = status[0]
    old = new = await anext(tokens)
    if letter in "RC":
        new = await anext(tokens)
    has_old, has_new = letter != "A", letter != "D"
    return new, FileChange(
        status=_STATUS.get(letter, "modified"),
        old_path=to_text(old) if has_old else None,
        new_path=to_text(new) if has_new else None,
        old_mode=old_mode if has_old else None,
        new_mode=new_mode if has_new else None,
        old_oid=old_oid if has_old else None,
        new_oid=new_oid if has_new else None,
    )


async def _count(token: bytes, tokens: AsyncIterator[bytes], files: dict[bytes, FileChange]) -> None:
    additions, deletions, path = token.split(b"\t", 2)
    if not path:  # a rename: both names follow
        await anext(tokens)
        path = await anext(tokens)
    if path not in files:
        return
    if additions == b"-":
        files[path] = replace(files[path], binary=True)
    else:
        files[path] = replace(files[path], additions=int(additions), deletions=int(deletions))
