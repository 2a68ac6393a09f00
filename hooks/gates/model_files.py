"""The gates `safetensors` and `gguf`: files that no library could load."""

from contextlib import aclosing

from hooks.errors import ContentMissing
from hooks.formats.parsed import Severity
from hooks.formats.registry import format_of
from hooks.formats.source import SourceUnreadable
from hooks.gates.problem import Problem
from hooks.gates.view import GateView, Tip
from hooks.parsing import Answer
from hooks.trees import TreeFile


class Damaged:
    """Refuses what the parser of a format calls an error, at the tips: a commit that mends it is welcome."""

    def __init__(self, name: str) -> None:
        """`name` is that of the format and of the gate."""
        self.code = name

    async def findings(self, view: GateView) -> list[Problem]:
        """One for each error. Raises `SourceUnreadable`, `DatabaseUnavailable`: try again."""
        problems: list[Problem] = []
        for tip in view.tips:
            files = tip.changed_files(self._is_mine)
            async with aclosing(view.parsing.parse_each(tip.tree, files, remember=False)) as answers:
                async for file, answer in answers:
                    problems += _problems(tip, file, answer)
        return problems

    def _is_mine(self, path: str) -> bool:
        known = format_of(path)
        return known is not None and known.name == self.code


def _problems(tip: Tip, file: TreeFile, answer: Answer) -> list[Problem]:
    if isinstance(answer, ContentMissing):
        # Where there is no content at all, another policy tells so.
        message = f"cannot be examined: {answer}"
        return [Problem(file.path, message, refs=tip.refs)] if tip.tree.has(file) else []
    if isinstance(answer, SourceUnreadable):
        raise answer
    _, parsed = answer
    return [
        Problem(file.path, found.message, refs=tip.refs)
        for found in parsed.findings
        if found.severity is Severity.ERROR
    ]
