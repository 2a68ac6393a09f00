"""What whoever pushes is told beside the verdict: lines that git shows behind `remote: `."""

_MAX_LINES = 400
_MAX_CHARACTERS = 1000


class Remarks:
    """Lines in the order of their arrival, few and harmless enough for anybody's terminal."""

    def __init__(self) -> None:
        self._lines: list[str] = []
        self._dropped = 0

    def add(self, line: str) -> None:
        """Adds one line, made safe by `one_line`; beyond the 400th, lines are only counted."""
        if len(self._lines) < _MAX_LINES:
            self._lines.append(one_line(line))
        else:
            self._dropped += 1

    @property
    def lines(self) -> tuple[str, ...]:
        """All lines; the last one says how many were left out, if any."""
        cut = (f"... and {self._dropped} more lines",) if self._dropped else ()
        return (*self._lines, *cut)


def one_line(text: str, limit: int = _MAX_CHARACTERS) -> str:
    r"""`text` without anything that could start a new line or drive a terminal, cut to `limit` characters.

    Control characters, line separators, bidirectional overrides and the like become `\x1b` or `\u202e`, and
    so do the surrogates that stand for bytes of a path that is not UTF-8.
    """
    shown = text[:limit]
    if not shown.isprintable():
        shown = "".join(map(_shown, shown))
    return shown if len(text) <= limit and len(shown) <= limit else shown[: limit - 3] + "..."


def _shown(character: str) -> str:
    if character.isprintable():
        return character
    code = ord(character)
    if 0xDC80 <= code <= 0xDCFF:
        code -= 0xDC00
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"
