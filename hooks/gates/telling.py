"""How gates speak to whoever pushes: refusals first, each with what to do, and never too many lines."""

from collections.abc import Sequence
from typing import Final

from hooks.gates.problem import Problem

LINES: Final = 100
_PER_GATE: Final = 30
_REMEDIES: Final = 5


class Telling:
    """Collects what the gates have to say about one push."""

    def __init__(self) -> None:
        self._refusals: list[str] = []
        self._warnings: list[str] = []

    def refuse(self, problems: Sequence[Problem], override: str) -> None:
        """What one gate refuses, and how to override it, if at all."""
        self._refusals += _lines(problems, "")
        if override:
            self._refusals.append(f"  {override}")

    def warn(self, problems: Sequence[Problem]) -> None:
        """What one gate only warns of."""
        self._warnings += _lines(problems, "warning: ")

    def note(self, text: str) -> None:
        """A warning about the push as a whole."""
        self._warnings.append(f"warning: {text}")

    def lines(self) -> list[str]:
        """All of it, or as much as anybody reads."""
        every = self._refusals + self._warnings
        if len(every) <= LINES:
            return every
        return [*every[: LINES - 1], f"and {len(every) - LINES + 1} more lines"]


def _lines(problems: Sequence[Problem], prefix: str) -> list[str]:
    lines = [f"{prefix}{text_of(one)}" for one in problems[:_PER_GATE]]
    if len(problems) > _PER_GATE:
        lines.append(f"{prefix}and {len(problems) - _PER_GATE} more of the kind")
    remedies = dict.fromkeys(one.remedy for one in problems if one.remedy)
    return lines + [f"  {remedy}" for remedy in list(remedies)[:_REMEDIES]]


def text_of(problem: Problem) -> str:
    """Path and message; only the latter where it is about the whole push."""
    return f"{problem.path}: {problem.message}" if problem.path else problem.message
