"""Where each key and each item of a TOML document stands: `tomllib` says what it holds, not where.

The scanner reads a little more than TOML allows and keeps no values. Where it finds no way to go on,
`tomllib` has found an error already.
"""

import contextlib
import re
import tomllib

from hooks.triggers.places import Path

# Deeper documents take `tomllib` time that grows with the square of their size, or its whole stack.
MAX_DEPTH = 24

_BLANKS = re.compile(r"[ \t]*+")
_GAP = re.compile(r"(?:[ \t\n]++|#[^\n]*+)*+")
_REST_OF_LINE = re.compile(r"[ \t]*+(?:#[^\n]*+)?(?:\n|\Z)")
_BARE_KEY = re.compile(r"[A-Za-z0-9_-]++")
_STRINGS = [
    re.compile(r'"""(?:[^"\\]|\\.|"(?!""))*+"{3,5}', re.DOTALL),
    re.compile(r"'''(?:[^']|'(?!''))*+'{3,5}"),
    re.compile(r'"(?:[^"\\\n]|\\.)*+"'),
    re.compile(r"'[^'\n]*+'"),
]
_SCALAR = re.compile(r"[^,\]}#\n]++")


class TooDeep(Exception):
    """Something is nested deeper than `MAX_DEPTH`; `position` is where."""

    def __init__(self, position: tuple[int, int]) -> None:
        super().__init__(position)
        self.position = position


class _Lost(Exception):
    """This is not TOML."""


class TomlLines:
    r"""The positions in a document whose line breaks are `\n`: lines and columns, both from 1.

    Raises:
        TooDeep: it is not even to be read.
    """

    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0
        self._offsets: dict[Path, int] = {}
        self._tables: dict[Path, int] = {}
        with contextlib.suppress(_Lost):
            self._document()

    def find(self, path: Path) -> tuple[int, int]:
        """The position of what is at `path`, or of the nearest thing around it."""
        while path and path not in self._offsets:
            path = path[:-1]
        return position_of(self._text, self._offsets.get(path, 0))

    def _document(self) -> None:
        table: Path = ()
        while self._skip(_GAP) < len(self._text):
            start = self._at
            if self._text[start] == "[":
                table = self._header(start)
            else:
                self._pair(table)
            if not self._take(_REST_OF_LINE):
                raise _Lost

    def _header(self, start: int) -> Path:
        brackets = 2 if self._text.startswith("[[", start) else 1
        self._at += brackets
        path: Path = ()
        for number, (key, _) in enumerate(keys := self._keys(0)):
            path = (*path, key)
            if brackets == 2 and number == len(keys) - 1:
                self._tables[path] = self._tables.get(path, 0) + 1
            if path in self._tables:
                path = (*path, self._tables[path] - 1)
            self._offsets.setdefault(path, start)
        self._expect("]" * brackets)
        return path

    def _pair(self, table: Path) -> None:
        path = table
        for key, offset in self._keys(len(table)):
            path = (*path, key)
            self._offsets.setdefault(path, offset)
        self._expect("=")
        self._skip(_BLANKS)
        self._value(path)

    def _keys(self, depth: int) -> list[tuple[str, int]]:
        """A dotted key: its parts, and where each stands."""
        keys: list[tuple[str, int]] = []
        while True:
            start = self._skip(_BLANKS)
            if depth + len(keys) >= MAX_DEPTH:
                raise TooDeep(position_of(self._text, start))
            if found := self._take(_BARE_KEY):
                keys.append((found, start))
            else:
                keys.append((_unquoted(self._string()), start))
            self._skip(_BLANKS)
            if not self._text.startswith(".", self._at):
                return keys
            self._at += 1

    def _value(self, path: Path) -> None:
        if len(path) > MAX_DEPTH:
            raise TooDeep(position_of(self._text, self._at))
        match self._text[self._at : self._at + 1]:
            case "[":
                self._array(path)
            case "{":
                self._inline_table(path)
            case '"' | "'":
                self._string()
            case _:
                if not self._take(_SCALAR):
                    raise _Lost

    def _array(self, path: Path) -> None:
        self._at += 1
        index = 0
        while not self._text.startswith("]", self._skip(_GAP)):
            self._offsets[*path, index] = self._at
            self._value((*path, index))
            index += 1
            if self._text.startswith(",", self._skip(_GAP)):
                self._at += 1
            elif not self._text.startswith("]", self._at):
                raise _Lost
        self._at += 1

    def _inline_table(self, path: Path) -> None:
        self._at += 1
        while not self._text.startswith("}", self._skip(_GAP)):
            self._pair(path)
            if self._text.startswith(",", self._skip(_GAP)):
                self._at += 1
            elif not self._text.startswith("}", self._at):
                raise _Lost
        self._at += 1

    def _string(self) -> str:
        for kind in _STRINGS:
            if found := self._take(kind):
                return found
        raise _Lost

    def _expect(self, text: str) -> None:
        if not self._text.startswith(text, self._skip(_BLANKS)):
            raise _Lost
        self._at += len(text)

    def _skip(self, pattern: re.Pattern[str]) -> int:
        self._take(pattern)
        return self._at

    def _take(self, pattern: re.Pattern[str]) -> str:
        """What matches here, and goes on behind it; empty when nothing does."""
        found = pattern.match(self._text, self._at)
        if found is None:
            return ""
        self._at = found.end()
        return found[0] or ""


def position_of(text: str, offset: int) -> tuple[int, int]:
    """Line and column of a character."""
    return text.count("\n", 0, offset) + 1, offset - text.rfind("\n", 0, offset)


def _unquoted(key: str) -> str:
    try:
        return str(tomllib.loads(f"key = {key}")["key"])
    except ValueError:
        raise _Lost from None
