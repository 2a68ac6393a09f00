"""The gate `big_file`: what is so large that it belongs into LFS."""

import shlex
from collections import Counter
from pathlib import PurePosixPath
from typing import Final

from hooks.gates.problem import Problem
from hooks.gates.view import GateView

_HEADS: Final = "refs/heads/"
# From so many files with one ending on, the ending is what to track.
_MANY: Final = 3
_PATTERNS: Final = 20
_UNITS: Final = (("GB", 10**9), ("MB", 10**6), ("kB", 10**3))


class BigFiles:
    """Looks at the sizes of all new blobs, in every new commit."""

    code = "big_file"

    async def findings(self, view: GateView) -> list[Problem]:
        """One for each, and for all the one command that mends the commits."""
        blobs = [blob for blob in view.brought.big if blob.path]
        if not blobs:
            return []
        branches = [one.name.removeprefix(_HEADS) for one in view.updates if one.name.startswith(_HEADS)]
        remedy = migration(
            [blob.path for blob in blobs], branches, accepted=view.settings.big_file != "refuse"
        )
        return [
            Problem(blob.path, f"{_size(blob.size)} in Git and not in LFS", remedy, blob=blob.oid)
            for blob in blobs
        ]


def migration(paths: list[str], branches: list[str], *, accepted: bool) -> str:
    """What to type, so that these files of the commits on these branches are in LFS.

    A push that was refused leaves the branch's published commits alone: git-lfs rewrites those that no remote
    has. One that was `accepted` is published, so the whole branch is rewritten and the push is forced.
    """
    endings = Counter(_ending(path) for path in paths)
    many = {ending for ending, count in endings.items() if ending and count >= _MANY}
    patterns = dict.fromkeys(
        f"*{_pattern(ending)}" if (ending := _ending(path)) in many else f"/{_pattern(path)}"
        for path in paths
    )
    include = shlex.quote("--include=" + ",".join(list(patterns)[:_PATTERNS]))
    command = ["git lfs migrate import", include]
    if accepted:
        command += [shlex.quote(f"--include-ref={_HEADS}{branch}") for branch in branches]
        return (
            f"`{' '.join(command)}` puts it into LFS, and `git push --force-with-lease` replaces the commits"
        )
    command += [shlex.quote(branch) for branch in branches]
    return f"`{' '.join(command)}` puts it into LFS; then push again"


def _ending(path: str) -> str:
    return PurePosixPath(path).suffix


def _pattern(path: str) -> str:
    """A pattern for a path. git-lfs has no way to quote a comma, so what is special becomes any character."""
    return "".join(
        character if character.isalnum() or character in "/._-+=@%~ " else "?" for character in path
    )


def _size(size: int) -> str:
    return next(f"{size / unit:.1f} {name}" for name, unit in (*_UNITS, ("bytes", 1)) if size >= unit)
