"""JSON Lines: one object per line. Columns, their types and how many rows there are, from the first 8 MiB."""

import codecs
import re
from collections.abc import Iterator
from io import BytesIO
from itertools import islice
from typing import Final

import msgspec

from hooks.formats.clean import quoted
from hooks.formats.parsed import Finding, Parsed, Severity
from hooks.formats.sampling import MOST_COLUMNS, Beginning, Column, beginning, first_not_utf8, table
from hooks.formats.source import Source, TooMuchRead

_LONGEST_LINE: Final = 4 * 1024**2  # in bytes; takes thirty times that if it is all keys
_MOST_VALUES: Final = 300_000
_MOST_SEEN: Final = 20_000  # columns
_MOST_REPORTED: Final = 5
_MOST_NAMED: Final = 20
_KINDS: Final = {ord("{"): "struct", ord("["): "list", ord('"'): "string", ord("n"): "null"} | {
    ord(letter): "bool" for letter in "tf"
}
_INT64_DIGITS: Final = 18
_INT64: Final = range(-(2**63), 2**63)
_LINE_WITH_TEXT = re.compile(rb"[^\s][^\n]*")
# Values stay as they are: a line never takes more than its keys.
_DECODER = msgspec.json.Decoder(dict[str, msgspec.Raw])


def parse_jsonl(source: Source) -> Parsed:
    """Types: null, bool, int64, double, string, list, struct, and `mixed` for a column of several.

    Lines are looked into until 300,000 values were seen; those after that are counted.
    """
    try:
        start = beginning(source)
    except TooMuchRead:
        message = "it has more bytes than may be read"
        return Parsed(None, (Finding(Severity.INFO, "jsonl-too-large", message),))
    if start.data.removeprefix(codecs.BOM_UTF8).lstrip()[:1] == b"[":
        message = "it is a JSON array: write each of its objects on a line of its own, without brackets"
        return Parsed(None, (Finding(Severity.ERROR, "jsonl-array", message, line=1),))
    reader = _Reader(start)
    reader.read()
    return reader.parsed()


class _Reader:
    def __init__(self, start: Beginning) -> None:
        self._start = start
        self._columns: dict[str, Column] = {}
        self._rows = 0
        self._inspected = 0
        self._bad = 0
        self._findings: list[Finding] = []
        self._long = 0
        self._values_left = _MOST_VALUES

    def read(self) -> None:
        data = self._start.data
        if not self._start.whole:
            data = data[: data.rfind(b"\n") + 1]
        self._scanned = len(data)
        position = len(codecs.BOM_UTF8) if data.startswith(codecs.BOM_UTF8) else 0
        lines = BytesIO(data)
        lines.seek(position)
        for number, line in enumerate(lines, start=1):
            position += len(line)
            if line.strip():
                self._rows += 1
                self._line(line, number)
            self._values_left -= 1
            if self._values_left < 0:
                break
        self._rows += sum(1 for _ in _LINE_WITH_TEXT.finditer(data, position))

    def parsed(self) -> Parsed:
        if self._rows == 0 and self._start.whole:
            message = "there is no line in it"
            return Parsed(None, (Finding(Severity.WARNING, "jsonl-empty", message),))
        if self._rows and self._bad == self._rows:
            return Parsed(None, tuple(self._about_lines()))
        metadata = table(
            [column.shown(_type_of(column)) for column in islice(self._columns.values(), MOST_COLUMNS)],
            total=len(self._columns),
            rows=self._rows,
            exact=self._start.whole,
            size=self._start.size,
            scanned=self._scanned,
            inspected=self._inspected,
        )
        return Parsed(metadata, (*self._about_lines(), *self._about_columns()))

    def _line(self, line: bytes, number: int) -> None:
        if len(line) > _LONGEST_LINE:
            self._long += 1
            return
        try:
            values = _DECODER.decode(line)
        except msgspec.ValidationError:
            self._is_bad(number, "no object, but every line of a dataset has to be one: {…}")
            return
        except UnicodeDecodeError:
            self._is_bad(number, "not UTF-8")
            return
        except msgspec.DecodeError as error:
            self._is_bad(number, f"not JSON: {str(error).removeprefix('JSON is malformed: ')}")
            return
        except RecursionError:
            self._is_bad(number, "nested too deeply")
            return
        self._inspected += 1
        self._values_left -= len(values)
        for name, raw in values.items():
            if name not in self._columns and len(self._columns) < _MOST_SEEN:
                self._columns[name] = Column(name)
            if name in self._columns:
                self._columns[name].saw(_kind_of(raw), number)

    def _is_bad(self, number: int, why: str) -> None:
        self._bad += 1
        if self._bad <= _MOST_REPORTED:
            finding = Finding(Severity.ERROR, "jsonl-bad-line", f"the line is {why}", line=number)
            self._findings.append(finding)

    def _about_lines(self) -> Iterator[Finding]:
        place = first_not_utf8(self._start)
        if place is not None:
            message = f"byte {place[0]:,} is not UTF-8: save the file as UTF-8"
            yield Finding(Severity.ERROR, "jsonl-not-utf8", message, line=place[1])
        yield from self._findings
        if self._bad > _MOST_REPORTED:
            message = f"{self._bad - _MOST_REPORTED:,} more lines are no JSON objects"
            yield Finding(Severity.ERROR, "jsonl-bad-line", message)
        if self._long:
            message = f"{self._long:,} lines have more than 4 MiB each and are not looked into"
            yield Finding(Severity.INFO, "jsonl-long-lines", message)
        if self._rows == 0:
            message = "the first line has more than 8 MiB: rows are not counted"
            yield Finding(Severity.INFO, "jsonl-long-lines", message)

    def _about_columns(self) -> list[Finding]:
        mixed = [column for column in self._columns.values() if _type_of(column) == "mixed"]
        return [_mixed(column) for column in mixed[:_MOST_NAMED]]


def _kind_of(raw: msgspec.Raw) -> str:
    view = memoryview(raw)
    kind = _KINDS.get(view[0])
    if kind is not None:
        return kind
    if len(view) <= _INT64_DIGITS:
        number = bytes(view)
        return "double" if b"." in number or b"e" in number or b"E" in number else "int64"
    digits = bytes(view[:21])
    whole = len(view) < 21 and digits.removeprefix(b"-").isdigit() and int(digits) in _INT64
    return "int64" if whole else "double"


def _type_of(column: Column) -> str:
    kinds = set(column.values)
    if not kinds:
        return "null"
    if len(kinds) == 1:
        return kinds.pop()
    return "double" if kinds == {"int64", "double"} else "mixed"


def _mixed(column: Column) -> Finding:
    values = column.values
    counted = ", ".join(f"{count:,} {kind}" for kind, (count, _) in values.items())
    line = max(first for _, first in values.values())
    message = (
        f"the column {quoted(column.name)} has values of several types: {counted}; another one begins here"
    )
    return Finding(Severity.WARNING, "jsonl-mixed-column", message, line=line)
