r"""Patterns for names and paths, all tried at once and in linear time.

`*` is anything within one part of a path, `?` one character of it, `[a-z]` or `[!a-z]` one of (not) these;
`**` as a whole part is any number of parts, and `\` takes the next character literally. A list is read in
order, and the last pattern that matches decides: one behind `!` takes away what those before it chose.

In lists of paths, as in `.gitignore`, a pattern without a slash matches at any depth, one that matches a
directory matches all that is in it, and one that ends in a slash matches directories only.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import Enum, auto


class InvalidPattern(ValueError):
    """The message says what a pattern must not be."""


class _Star(Enum):
    """The tokens that take any number of characters, and the entry to those that may take none at all."""

    PART = auto()
    PATH = auto()
    ENTRY = auto()


# A set of characters; of a single one it is the character itself.
_Token = str | Callable[[str], bool] | _Star
_ANY_PARTS: tuple[_Token, ...] = (_Star.ENTRY, _Star.PATH, "/")


@dataclass(frozen=True, slots=True)
class _Pattern:
    chooses: bool
    tokens: list[_Token]
    directories: bool


def check_patterns(patterns: Sequence[str], *, paths: bool) -> Iterator[tuple[int, str]]:
    """What is wrong with a list of patterns: index and reason."""
    for index, pattern in enumerate(patterns):
        try:
            _parse(pattern, paths=paths)
        except InvalidPattern as error:
            yield index, str(error)
    if patterns and all(pattern.startswith("!") for pattern in patterns):
        yield 0, "this list only takes away; what it takes away from must come first, such as `**`"


class PatternLists:
    """Lists of patterns, compiled into one automaton whose states are the bits of one number.

    Each character costs a few operations on that number, whatever the patterns are: nothing backtracks.

    Raises:
        InvalidPattern: `check_patterns` says which.
    """

    def __init__(self, lists: Iterable[Sequence[str]], *, paths: bool) -> None:
        self._paths = paths
        self._start = self._stars = self._path_stars = self._entries = 0
        self._ends = self._directory_ends = self._choosing = 0
        self._single: dict[str, int] = {}
        self._sets: list[tuple[int, Callable[[str], bool]]] = []
        self._lists: list[int] = []
        self._steps: dict[str, tuple[int, int]] = {}
        place = 0
        for patterns in lists:
            ends = 0
            for pattern in patterns:
                place = self._add(_parse(pattern, paths=paths), place)
                ends |= 1 << (place - 1)
            self._lists.append(ends)

    def _add(self, pattern: _Pattern, place: int) -> int:
        """Lays a pattern's tokens out from bit `place` on; the bit behind them means that it matched."""
        self._start |= 1 << place
        for token in pattern.tokens:
            bit = 1 << place
            if isinstance(token, str):
                self._single[token] = self._single.get(token, 0) | bit
            elif token is _Star.ENTRY:
                self._entries |= bit
            elif isinstance(token, _Star):
                self._stars |= bit
                if token is _Star.PATH:
                    self._path_stars |= bit
            else:
                self._sets.append((bit, token))
            place += 1
        end = 1 << place
        self._directory_ends |= end
        if not pattern.directories:
            self._ends |= end
        if pattern.chooses:
            self._choosing |= end
        return place + 1

    def chosen(self, texts: Iterable[str]) -> list[bool]:
        """For each list, whether it chooses at least one of `texts`."""
        chosen = [False] * len(self._lists)
        left = {number for number, ends in enumerate(self._lists) if ends}
        for text in texts:
            if not left:
                break
            matched = self._matched(text)
            for number in list(left):
                last = 1 << ((matched & self._lists[number]).bit_length()) >> 1
                if last & self._choosing:
                    chosen[number] = True
                    left.discard(number)
        return chosen

    def _matched(self, text: str) -> int:
        """The ends of all patterns that match."""
        matched = 0
        states = self._closed(self._start)
        for character in text:
            if character == "/" and self._paths:
                matched |= states & self._directory_ends
            moving, staying = self._steps.get(character) or self._step(character)
            states = self._closed((states & moving) << 1 | states & staying)
            if not states:
                return matched
        return matched | states & self._ends

    def _closed(self, states: int) -> int:
        """The states that are reached from `states` without reading anything."""
        entered = states & self._entries
        states |= entered << 1 | entered << len(_ANY_PARTS)
        return states | (states & self._stars) << 1

    def _step(self, character: str) -> tuple[int, int]:
        moving = self._single.get(character, 0)
        if character != "/":
            for bit, holds in self._sets:
                if holds(character):
                    moving |= bit
        staying = self._path_stars if character == "/" else self._stars
        self._steps[character] = moving, staying
        return moving, staying


def _parse(pattern: str, *, paths: bool) -> _Pattern:
    text = pattern.removeprefix("!")
    if not text:
        raise InvalidPattern("a pattern is empty")
    directories = anywhere = False
    if paths:
        directories = text.endswith("/") and not text.endswith("\\/")
        text = text.removesuffix("/") if directories else text
        anywhere = "/" not in text
        text = text.removeprefix("/")
        if not {".", "..", ""}.isdisjoint(text.split("/")):
            raise InvalidPattern(
                f"`{pattern}`: paths start at the root of the repository, without `.` or `//`"
            )
    elif text.startswith("refs/"):
        raise InvalidPattern(f"`{pattern}`: write names without `refs/heads/` or `refs/tags/`")
    tokens: list[_Token] = [*_ANY_PARTS] if anywhere else []
    tokens += _tokens(text, after_any=anywhere)
    return _Pattern(not pattern.startswith("!"), tokens, directories)


def _tokens(text: str, *, after_any: bool) -> list[_Token]:
    tokens: list[_Token] = []
    place = 0
    while place < len(text):
        character = text[place]
        first = place == 0 or text[place - 1] == "/"
        if first and text.startswith("**/", place):
            if not after_any:
                tokens += _ANY_PARTS
            after_any = True
            place += 3
            continue
        after_any = False
        if character == "*":
            end = place
            while end < len(text) and text[end] == "*":
                end += 1
            whole = first and end - place == 2 and end == len(text)
            tokens.append(_Star.PATH if whole else _Star.PART)
            place = end
        elif character == "?":
            tokens.append(lambda _: True)
            place += 1
        elif character == "[":
            token, place = _set(text, place)
            tokens.append(token)
        else:
            if character == "\\":
                place += 1
            if place == len(text):
                raise InvalidPattern(f"`{text}`: nothing follows the last `\\`")
            tokens.append(text[place])
            place += 1
    return tokens


def _set(text: str, place: int) -> tuple[Callable[[str], bool], int]:
    """The set that starts with the bracket at `place`, and where it ends."""
    start = place + 1
    negated = text[start : start + 1] in ("!", "^")
    start += negated
    end = text.find("]", start + 1)  # the first one may be a member
    if end < 0:
        raise InvalidPattern(f"`{text}`: `[` is not closed")
    members = text[start:end]
    ranges: list[tuple[str, str]] = []
    index = 0
    while index < len(members):
        last = index + 2 if members[index + 1 : index + 2] == "-" and index + 2 < len(members) else index
        if members[index] > members[last]:
            raise InvalidPattern(f"`{text}`: `{members[index : last + 1]}` is no range")
        ranges.append((members[index], members[last]))
        index = last + 1
    return lambda character: any(low <= character <= high for low, high in ranges) is not negated, end + 1
