"""Markdown with YAML between two `---` at its start, as the Hugging Face Hub splits it."""

import io
import re
from dataclasses import dataclass
from typing import Final

_BREAK: Final = r"(?:\r\n?|\n)"
# What `huggingface_hub.repocard` and the Hub's own server take for the block.
_BLOCK: Final = re.compile(rf"\s*---{_BREAK}(.*?){_BREAK}---[ \t]*(?:\r?\n|\Z)", re.DOTALL)
_OPENING: Final = re.compile(rf"\s*---[ \t]*(?:{_BREAK}|\Z)")
_FENCE: Final = re.compile(r" {0,3}(`{3,}|~{3,})")


@dataclass(frozen=True, slots=True)
class Split:
    """A text in two.

    Attributes:
        block: the YAML; None where there is none. first_line: of it in the text, from 1.
        unclosed: there is an opening `---` but no closing one.
    """

    block: str | None
    first_line: int
    body: str
    unclosed: bool = False


def split(text: str) -> Split:
    """The front matter and the rest."""
    text = text.removeprefix("\ufeff")
    found = _BLOCK.match(text)
    if found is None:
        return Split(None, 1, text, unclosed=_OPENING.match(text) is not None)
    first_line = len(re.findall(_BREAK, text[: found.start(1)])) + 1
    return Split(found[1], first_line, text[found.end() :])


def title(body: str) -> str | None:
    """The first heading of the first level that is not in a block of code."""
    fence = ""
    for line in io.StringIO(body, newline=None):
        stripped = line.strip()
        if mark := _FENCE.match(line):
            if not fence:
                fence = mark[1]
            elif stripped.startswith(fence) and not stripped.strip(fence[0]):
                fence = ""
        elif not fence and stripped.startswith(("# ", "#\t")) and not line.startswith(("    ", "\t")):
            return stripped[1:].strip().rstrip("#").rstrip() or None
    return None
