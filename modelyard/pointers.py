"""The pointers in repositories: what the Git engine knows of large files, for whoever asks about those."""

import hashlib
from collections import defaultdict
from collections.abc import Collection
from dataclasses import dataclass, field
from itertools import islice

from core.models import ObjectFormat
from gitserver.process import GitFailed, GitRunner
from gitserver.queries import stream
from gitserver.reachable import reachable_blobs
from gitserver.snapshots import Snapshot, Snapshots
from lfs.judging import RepositoryUnreadable
from lfs.pointer import MAX_POINTER_BYTES, Pointer, parse_pointer, write_pointer

MAX_USES = 100

# So many refs are asked whether they have an object.
_MAX_REFS = 500

# Of merges only what no parent has. `-z` makes all that git prints end with a NUL.
_LOG = ["log", "--branches", "--tags", "--no-renames", "--raw", "-c", "--root", "-z", "--format=%x00%H"]
_LOG += [f"--max-count={MAX_USES}"]


@dataclass(frozen=True, slots=True)
class Uses:
    """Where an object is used: at most `MAX_USES` of each.

    Attributes:
        paths: where it is, or was, in any branch or tag.
        refs: the branches and tags, in full, that have it at one of these paths now.
        commits: those that added, moved or removed it, newest first.
    """

    paths: list[str] = field(default_factory=list)
    refs: list[str] = field(default_factory=list)
    commits: list[str] = field(default_factory=list)


class Pointers:
    """Reads pointers, in any repository. In paths, what is not UTF-8 is replaced."""

    def __init__(self, git: GitRunner, snapshots: Snapshots) -> None:
        self._git = git
        self._snapshots = snapshots

    async def reachable(self, repository_id: str, tips: Collection[str]) -> set[str]:
        """Every pointer, however it is written: see `lfs.judging.PointerSource`."""
        oids = set()
        try:
            async with reachable_blobs(
                self._git,
                self._snapshots,
                repository_id,
                max_bytes=MAX_POINTER_BYTES,
                further_tips=tips,
            ) as found:
                async for blob in found.blobs:
                    if pointer := parse_pointer(blob.data):
                        oids.add(pointer.oid)
        except (GitFailed, OSError) as error:
            raise RepositoryUnreadable(f"its pointers cannot be read: {error}") from error
        return oids

    async def paths(
        self, repository_id: str, commit: str, pointers: Collection[Pointer]
    ) -> dict[str, list[str]]:
        """At which paths of a commit each of these objects is, `MAX_USES` at most, in Git's order.

        As `uses`, it finds pointers in their canonical form, which is what clients write.

        Raises:
            RepositoryNotFound, Unavailable: as `Reader`.
        """
        found: defaultdict[str, list[str]] = defaultdict(list)
        async with self._snapshots.open(repository_id) as snapshot:
            wanted = _blobs(pointers, snapshot.object_format)
            async with stream(
                self._git, snapshot, ["ls-tree", "-r", "-z", "--format=%(objectname) %(path)", commit]
            ) as output:
                async for entry in output.tokens():
                    blob, _, path = entry.partition(b" ")
                    oid = wanted.get(blob)
                    if oid is not None and len(found[oid]) < MAX_USES:
                        found[oid].append(_shown(path))
        return found

    async def uses(self, repository_id: str, pointer: Pointer) -> Uses:
        """Where an object is used in the whole history of branches and tags.

        Raises:
            RepositoryNotFound, Unavailable: as `Reader`; `TooExpensive` where history is too long.
        """
        async with self._snapshots.open(repository_id) as snapshot:
            known = await self._existing(snapshot, _blobs([pointer], snapshot.object_format))
            tips = {
                name: value.peeled or value.oid
                for name, value in snapshot.refs.items()
                if name.startswith(("refs/heads/", "refs/tags/"))
            }
            if not known or not tips:
                return Uses()
            commits, paths = await self._history(snapshot, known)
            refs = await self._holders(snapshot, dict(islice(tips.items(), _MAX_REFS)), paths, known)
        return Uses(sorted(map(_shown, paths)), refs, commits)

    async def _existing(self, snapshot: Snapshot, blobs: Collection[bytes]) -> set[bytes]:
        """Those that this repository has, which git would take a wrong name for an error."""
        answers = await self._batch(snapshot, [b"%s\n" % blob for blob in blobs])
        return {blob for blob, answer in zip(blobs, answers, strict=True) if answer == blob}

    async def _history(self, snapshot: Snapshot, blobs: Collection[bytes]) -> tuple[list[str], list[bytes]]:
        """The commits that change where the blobs are, newest first, and the paths at which they do."""
        wanted = [f"--find-object={blob.decode()}" for blob in sorted(blobs)]
        commits: list[str] = []
        paths: dict[bytes, None] = {}
        async with stream(self._git, snapshot, [*_LOG, *wanted]) as output:
            is_path = False
            async for token in output.tokens():
                if is_path:
                    paths[token] = None
                    if len(paths) == MAX_USES:
                        break
                elif (word := token.strip(b"\n")) and not word.startswith(b":"):
                    commits.append(word.decode("ascii"))
                # A change and its path are two tokens; a line feed stands before the first of a commit.
                is_path = not is_path and token.lstrip(b"\n").startswith(b":")
        return commits, list(paths)

    async def _holders(
        self, snapshot: Snapshot, tips: dict[str, str], paths: list[bytes], blobs: set[bytes]
    ) -> list[str]:
        """Which of these refs have one of the blobs at one of the paths."""
        asked = [path for path in paths if b"\n" not in path]  # git would read two questions
        questions = [b"%s:%s\n" % (tip.encode(), path) for tip in tips.values() for path in asked]
        answers = await self._batch(snapshot, questions)
        holders = []
        for number, ref in enumerate(tips):
            start = number * len(asked)
            if not blobs.isdisjoint(answers[start : start + len(asked)]):
                holders.append(ref)
        return holders[:MAX_USES]

    async def _batch(self, snapshot: Snapshot, questions: Collection[bytes]) -> list[bytes]:
        """What each of these lines names; anything else than an object's name where there is nothing."""
        if not questions:
            return []
        out = await self._git.run(
            ["cat-file", "--batch-check=%(objectname)", "--buffer"],
            data=b"".join(questions),
            environment=self._git.environment(extra={"GIT_DIR": str(snapshot.path)}),
        )
        return out.split(b"\n")[:-1]


def _blobs(pointers: Collection[Pointer], object_format: ObjectFormat) -> dict[bytes, str]:
    """Under which name Git has the canonical pointer to each of these objects, to their oids."""
    found = {}
    for pointer in pointers:
        text = write_pointer(pointer)
        digest = hashlib.new(object_format.value, b"blob %d\0" % len(text) + text, usedforsecurity=False)
        found[digest.hexdigest().encode()] = pointer.oid
    return found


def _shown(path: bytes) -> str:
    return path.decode("utf-8", "replace")
