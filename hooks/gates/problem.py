"""What a gate finds."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Problem:
    """Something that a push must not contain, in words for whoever pushes.

    Attributes:
        path: of the file, written as in `hooks.trees`.
        message: what is wrong, without the path, in one line.
        remedy: what to do; several problems may share one.
        blob: what brings the problem: refs that add this blob are to blame.
        refs: refs at whose tips the problem is; they are to blame, too.
        mild: it is worth a line, and refuses nothing, whatever the level.
    """

    path: str
    message: str
    remedy: str = ""
    blob: str | None = None
    refs: frozenset[str] = frozenset()
    mild: bool = False
