"""Branches and tags made, renamed and deleted by this server."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from core.access import Actor
from core.errors import RevisionNotFound, StaleParent, Unprocessable
from core.names import check_branch_name, check_tag_name
from core.repositories import RepositoryInfo
from gitserver.gate import Gate, Prepare, check_free
from gitserver.identities import Identity, check_message, identity_of, signature_line
from gitserver.objects import Kind, ObjectCache, PackSet
from gitserver.packing import PackBuilder
from gitserver.revisions import resolve, resolve_commit, shown
from gitserver.snapshots import Snapshot
from gitserver.updates import RefUpdate

_HEADS, _TAGS = "refs/heads/", "refs/tags/"


class DefaultBranch(Unprocessable):
    """The default branch can neither be deleted nor renamed; another must become the default first."""

    code = "default_branch"


class Branches:
    """Changes branches and tags. Every change is refused or published like a push.

    All methods may raise `PushRefused` (a policy), `RefConflict` (somebody was faster, or a name collides
    with another: `a` and `a/b`) and `Unavailable`.
    """

    def __init__(self, gate: Gate, objects: ObjectCache) -> None:
        self._gate = gate
        self._objects = objects

    async def create(self, repository: RepositoryInfo, actor: Actor, name: str, revision: str) -> str:
        """Makes a branch at a commit and returns the commit's oid.

        Raises:
            InvalidName: no branch can be called that.
            AlreadyExists: there is one.
            RevisionNotFound: `revision` names no commit.
        """
        ref = _HEADS + check_branch_name(name)

        async def prepare(snapshot: Snapshot, _folder: Path) -> Sequence[RefUpdate]:
            check_free(snapshot, ref)
            found = await self._objects.read(
                snapshot, lambda packs: resolve_commit(packs, snapshot, revision)
            )
            return [RefUpdate(ref, "0" * len(found.oid), found.oid)]

        return (await self._land(repository, actor, prepare))[0].new

    async def delete(
        self, repository: RepositoryInfo, actor: Actor, name: str, *, expected: str | None = None
    ) -> None:
        """Deletes a branch; with `expected`, only while it is at that oid.

        Raises:
            RevisionNotFound: there is no such branch.
            DefaultBranch: it is the default branch.
            StaleParent: it is not at `expected`.
        """
        await self._delete(repository, actor, _HEADS + name, expected)

    async def rename(self, repository: RepositoryInfo, actor: Actor, name: str, new_name: str) -> None:
        """Gives a branch another name, at once.

        Raises:
            InvalidName: no branch can be called that.
            RevisionNotFound: there is no such branch.
            AlreadyExists: `new_name` is taken.
            DefaultBranch: it is the default branch.
        """
        old, new = _HEADS + name, _HEADS + check_branch_name(new_name)

        async def prepare(snapshot: Snapshot, _folder: Path) -> Sequence[RefUpdate]:
            oid = _present(snapshot, old)
            check_free(snapshot, new, leaving=old)
            zeros = "0" * len(oid)
            return [RefUpdate(old, oid, zeros), RefUpdate(new, zeros, oid)]

        await self._land(repository, actor, prepare)

    async def create_tag(
        self,
        repository: RepositoryInfo,
        actor: Actor,
        name: str,
        revision: str,
        *,
        message: str | None = None,
        tagger: Identity | None = None,
    ) -> str:
        """Makes a tag and returns the oid it names: an annotated one with `message`, else a lightweight one.

        Raises:
            InvalidName: no tag can be called that.
            InvalidIdentity, InvalidMessage: they cannot stand in a tag.
            AlreadyExists: there is one.
            RevisionNotFound: nothing is called `revision`.
        """
        ref = _TAGS + check_tag_name(name)
        annotation = None
        if message is not None:
            annotation = signature_line(tagger or identity_of(actor)) + b"\n\n" + check_message(message)

        async def prepare(snapshot: Snapshot, folder: Path) -> Sequence[RefUpdate]:
            check_free(snapshot, ref)
            oid = await self._objects.read(
                snapshot, partial(_tag, snapshot, folder, name, revision, annotation)
            )
            return [RefUpdate(ref, "0" * len(oid), oid)]

        return (await self._land(repository, actor, prepare))[0].new

    async def delete_tag(
        self, repository: RepositoryInfo, actor: Actor, name: str, *, expected: str | None = None
    ) -> None:
        """Deletes a tag; with `expected`, only while it names that oid.

        Raises:
            RevisionNotFound: there is no such tag.
            StaleParent: it does not name `expected`.
        """
        await self._delete(repository, actor, _TAGS + name, expected)

    async def _delete(self, repository: RepositoryInfo, actor: Actor, ref: str, expected: str | None) -> None:
        async def prepare(snapshot: Snapshot, _folder: Path) -> Sequence[RefUpdate]:
            oid = _present(snapshot, ref)
            if expected is not None and expected != oid:
                raise StaleParent(f"{ref} is not at {shown(expected)}", ref=ref, oid=oid)
            return [RefUpdate(ref, oid, "0" * len(oid))]

        await self._land(repository, actor, prepare)

    async def _land(self, repository: RepositoryInfo, actor: Actor, prepare: Prepare) -> Sequence[RefUpdate]:
        async def guarded(snapshot: Snapshot, folder: Path) -> Sequence[RefUpdate]:
            updates = await prepare(snapshot, folder)
            for one in updates:
                if one.deletes and one.name == _HEADS + snapshot.default_branch:
                    raise DefaultBranch("choose another default branch first", ref=one.name)
            return updates

        async with self._gate.workspace(repository) as workspace:
            return (await self._gate.land(repository, actor, guarded, workspace=workspace)).updates


def _present(snapshot: Snapshot, ref: str) -> str:
    value = snapshot.refs.get(ref)
    if value is None:
        raise RevisionNotFound(f"no such ref: {shown(ref)}", revision=shown(ref))
    return value.oid


def _tag(
    snapshot: Snapshot, folder: Path, name: str, revision: str, annotation: bytes | None, packs: PackSet
) -> str:
    """The oid for a tag of that revision; an annotated tag's object is written. Blocking."""
    found = resolve(packs, snapshot, revision)
    if annotation is None:
        return found.oid
    builder = PackBuilder(packs, snapshot.object_format)
    head = f"object {found.oid}\ntype {found.kind}\ntag {name}\ntagger "
    oid = builder.add(Kind.TAG, head.encode() + annotation)
    builder.write(folder)
    return oid
