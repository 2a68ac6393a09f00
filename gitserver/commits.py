"""Commits made by this server, for the API and the web: any number of files in one commit on one branch."""

import asyncio
import random
import weakref
from collections.abc import AsyncIterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from core.access import Actor
from core.errors import (
    PayloadTooLarge,
    RefConflict,
    RevisionNotFound,
    StaleParent,
    Unprocessable,
)
from core.models import Transport
from core.names import check_branch_name
from core.repositories import RepositoryInfo
from gitserver.edits import Directory
from gitserver.gate import Gate, NameCollision, check_free
from gitserver.identities import Identity, check_message, identity_of, signature_line
from gitserver.objects import Kind, ObjectCache, PackSet
from gitserver.packing import PackBuilder
from gitserver.paths import check_path
from gitserver.revisions import resolve_commit, shown
from gitserver.snapshots import Snapshot
from gitserver.trees import to_raw, tree_of
from gitserver.updates import RefUpdate

MAX_OPERATIONS = 10_000
_ATTEMPTS = 12
_FIRST_PAUSE = 0.02


class NothingToCommit(Unprocessable):
    """The operations leave every file as it is."""

    code = "nothing_to_commit"


@dataclass(frozen=True, slots=True)
class Put:
    """Creates or replaces a file. With `executable` None an existing file keeps its mode."""

    path: str
    content: bytes | AsyncIterable[bytes]
    executable: bool | None = None


@dataclass(frozen=True, slots=True)
class Delete:
    """Deletes a file, or with `recursive` a directory."""

    path: str
    recursive: bool = False


@dataclass(frozen=True, slots=True)
class Move:
    """Renames a file or directory; nothing may stand at `to`."""

    path: str
    to: str


Operation = Put | Delete | Move


@dataclass(frozen=True, slots=True)
class Committed:
    """A commit that is on its branch; `parent` is None for the first one of a history.

    `messages` is what the policies have to say about it.
    """

    oid: str
    tree: str
    parent: str | None
    branch: str
    messages: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class _Edit:
    """An operation whose content is at hand: in memory or in the workspace."""

    operation: Operation
    content: bytes | Path = b""


@dataclass(frozen=True, slots=True)
class _Wish:
    """A whole commit as asked for."""

    branch: str
    edits: Sequence[_Edit]
    message: bytes
    parent: str | None
    start: str | None
    author: bytes
    committer: bytes


class Committer:
    """Makes commits."""

    def __init__(self, gate: Gate, objects: ObjectCache) -> None:
        self._gate = gate
        self._objects = objects
        # Commits of this process to one branch queue here instead of racing each other.
        self._turns: weakref.WeakValueDictionary[tuple[str, str], asyncio.Lock] = (
            weakref.WeakValueDictionary()
        )

    async def commit(
        self,
        repository: RepositoryInfo,
        actor: Actor,
        branch: str,
        operations: Sequence[Operation],
        message: str,
        *,
        parent: str | None = None,
        start: str | None = None,
        author: Identity | None = None,
        options: Sequence[str] = (),
    ) -> Committed:
        """Applies the operations in their order and puts the result on `branch` as one commit.

        With `parent`, a full oid, the branch must be exactly there. Without, the commit goes on top of
        whatever the branch names when its turn comes. A branch that does not exist is made at `start`, a
        revision; in a repository without branches, the first commit makes it.

        `author` is who wrote it, if not the actor, who is the committer in any case. `options` are push
        options for the policies.

        Raises:
            StaleParent: the branch is not at `parent`.
            RevisionNotFound: there is no such branch and no `start`, or `start` names no commit.
            AlreadyExists: `start` was given, and the branch exists.
            InvalidName, InvalidPath, InvalidIdentity, InvalidMessage: they break the rules of these.
            EntryNotFound, PathConflict, NothingToCommit: the operations do not fit the files.
            PayloadTooLarge: the content exceeds a limit.
            PushRefused: a policy, or git's fsck, refuses the commit.
            RefConflict: other writers kept coming first, or the name collides with another branch.
        """
        check_branch_name(branch)
        if not operations:
            raise NothingToCommit("a commit needs at least one operation")
        if len(operations) > MAX_OPERATIONS:
            raise PayloadTooLarge(f"a commit takes {MAX_OPERATIONS} operations at most")
        _check_paths(operations)
        committer = identity_of(actor)
        text = check_message(message)
        async with self._gate.workspace(repository) as workspace:
            wish = _Wish(
                branch=branch,
                edits=await self._gather(operations, workspace),
                message=text,
                parent=parent,
                start=start,
                author=signature_line(author or committer),
                committer=signature_line(committer),
            )
            turn = self._turns.setdefault((repository.id, branch), asyncio.Lock())
            async with turn:
                return await self._land(repository, actor, wish, workspace, options)

    async def _land(
        self,
        repository: RepositoryInfo,
        actor: Actor,
        wish: _Wish,
        workspace: Path,
        options: Sequence[str],
    ) -> Committed:
        made: list[Committed] = []

        async def prepare(snapshot: Snapshot, folder: Path) -> Sequence[RefUpdate]:
            update, committed = await self._objects.read(snapshot, partial(_build, snapshot, wish, folder))
            made.append(committed)
            return [update]

        for attempt in range(_ATTEMPTS):
            try:
                landed = await self._gate.land(
                    repository,
                    actor,
                    prepare,
                    workspace=workspace,
                    transport=Transport.API,
                    options=options,
                )
            except NameCollision:
                raise
            except RefConflict as error:
                if wish.parent is not None:
                    raise StaleParent(f"{wish.branch} moved meanwhile", branch=wish.branch) from error
                if attempt == _ATTEMPTS - 1:
                    raise
                # Another process won this round; everybody waits for a different time.
                await asyncio.sleep(_FIRST_PAUSE * 2 ** min(attempt, 6) * random.random())  # noqa: S311
            else:
                return replace(made[-1], messages=landed.messages)
        raise AssertionError("unreachable")

    async def _gather(self, operations: Sequence[Operation], workspace: Path) -> list[_Edit]:
        """Brings all contents to hand before anything is locked or computed."""
        edits = []
        left = self._gate.settings.max_pack_bytes
        for number, operation in enumerate(operations):
            content: bytes | Path = b""
            if isinstance(operation, Put):
                limit = min(left, self._gate.settings.max_object_bytes)
                if isinstance(operation.content, bytes):
                    content, size = operation.content, len(operation.content)
                else:
                    content = workspace / f"content-{number}"
                    size = await _spool(operation.content, content, limit)
                if size > limit:
                    raise PayloadTooLarge(f"{shown(operation.path)} is too large", path=shown(operation.path))
                left -= size
            edits.append(_Edit(operation, content))
        return edits


def _check_paths(operations: Sequence[Operation]) -> None:
    for operation in operations:
        match operation:
            case Put(path=path) | Move(to=path):
                check_path(path)
            case Delete():
                pass


async def _spool(content: AsyncIterable[bytes], path: Path, limit: int) -> int:
    """Writes a stream to a new file, up to the first byte over the limit; returns how much that was."""
    size = 0
    file = await asyncio.to_thread(path.open, "xb")
    try:
        async for chunk in content:
            size += len(chunk)
            if size > limit:
                break
            await asyncio.to_thread(file.write, chunk)
    finally:
        await asyncio.to_thread(file.close)
    return size


def _build(snapshot: Snapshot, wish: _Wish, folder: Path, packs: PackSet) -> tuple[RefUpdate, Committed]:
    """Computes the commit on the snapshot's state and writes its pack. Blocking."""
    old, parent = _place(packs, snapshot, wish)
    builder = PackBuilder(packs, snapshot.object_format)
    old_tree = tree_of(packs.read(parent, Kind.COMMIT)) if parent is not None else None
    root = Directory(packs, old_tree)
    for edit in wish.edits:
        _apply(root, edit, builder)
    empty = not root.entries
    tree = root.write(lambda content: builder.add(Kind.TREE, content))
    if tree == old_tree or (parent is None and empty):
        raise NothingToCommit("the operations leave every file as it is")
    lines = [b"tree " + tree.encode()]
    if parent is not None:
        lines.append(b"parent " + parent.encode())
    lines += [b"author " + wish.author, b"committer " + wish.committer, b"", wish.message]
    oid = builder.add(Kind.COMMIT, b"\n".join(lines))
    builder.write(folder)
    zeros = "0" * packs.format.hex_length
    update = RefUpdate(f"refs/heads/{wish.branch}", old or zeros, oid)
    return update, Committed(oid, tree, parent, wish.branch)


def _place(packs: PackSet, snapshot: Snapshot, wish: _Wish) -> tuple[str | None, str | None]:
    """Where the branch is, and the commit to build on."""
    ref = f"refs/heads/{wish.branch}"
    tip = snapshot.refs.get(ref)
    name = shown(wish.branch)
    if tip is None or wish.start is not None:
        check_free(snapshot, ref)
    at = tip.oid if tip is not None else None
    if wish.start is not None:
        at = resolve_commit(packs, snapshot, wish.start).oid
    if wish.parent is not None and wish.parent != at:
        raise StaleParent(f"{name} is not at {shown(wish.parent)}", branch=name, oid=at)
    if at is None and any(ref.startswith("refs/heads/") for ref in snapshot.refs):
        raise RevisionNotFound(f"no branch {name}; say where it shall start", revision=name)
    return (tip.oid if tip is not None else None), at


def _apply(root: Directory, edit: _Edit, builder: PackBuilder) -> None:
    match edit.operation:
        case Put(path=path, executable=executable):
            root.put(check_path(path), builder.add(Kind.BLOB, edit.content), executable=executable)
        case Delete(path=path, recursive=recursive):
            root.delete(to_raw(path), recursive=recursive)
        case Move(path=path, to=to):
            root.move(to_raw(path), check_path(to))
