"""CSV and TSV files: columns, their types and how many rows there are, from the first 8 MiB."""

import codecs
import csv
import re
from collections import Counter
from collections.abc import Iterator
from io import BytesIO
from typing import Final

from hooks.formats.cells import delimiter_of, is_header, kind_of, type_of
from hooks.formats.clean import named, quoted
from hooks.formats.parsed import Finding, Parsed, Severity
from hooks.formats.sampling import MOST_COLUMNS, SCANNED, Beginning, Column, beginning, first_not_utf8, table
from hooks.formats.source import Source, TooMuchRead

_LONGEST_ROW: Final = 2 * 1024**2  # in bytes; one of single letters takes forty times that in memory
_MOST_LINES: Final = 400_000  # read as rows
_MOST_CELLS: Final = 200_000
_SAMPLE: Final = 64 * 1024
_MOSTLY: Final = 0.9
_MOST_NAMED: Final = 20
_LINE = re.compile(rb"[^\r\n][^\n]*")

# A setting of the whole process. Nothing else here reads CSV, and rows are held to `_LONGEST_ROW` below.
csv.field_size_limit(SCANNED)


class _RowTooLong(Exception):
    pass


def parse_csv(source: Source) -> Parsed:
    """Delimiter and header are found out; without a header, columns are called `column_0` and so on.

    Types are named as `pyarrow.csv` names them, and are those of the rows inspected: the first 200,000 cells.
    """
    try:
        start = beginning(source)
    except TooMuchRead:
        return _refused("csv-too-large", "it has more bytes than may be read", Severity.INFO)
    encoding, findings = _encoding_of(start)
    data = start.data
    if encoding == "utf-16":
        data = data.decode("utf-16", "replace").encode("utf-8", "replace")
    data = data.removeprefix(codecs.BOM_UTF8)
    if b"\0" in data[:_SAMPLE]:
        return _refused("csv-binary", "it has NUL characters, so it is no text: save it as UTF-8")
    if b"\n" not in data[:_SAMPLE] and b"\r" in data[:_SAMPLE]:
        data = data.replace(b"\r", b"\n")  # as old Macintoshes wrote
    reader = _Reader(data, "latin-1" if encoding == "latin-1" else "utf-8", whole=start.whole)
    reader.read_rows()
    return reader.parsed(start, encoding, findings)


def _refused(code: str, message: str, severity: Severity = Severity.ERROR) -> Parsed:
    return Parsed(None, (Finding(severity, code, message),))


def _encoding_of(start: Beginning) -> tuple[str, list[Finding]]:
    data = start.data
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        message = "it is UTF-16, which most readers of datasets do not take: save it as UTF-8"
        return "utf-16", [Finding(Severity.WARNING, "csv-not-utf8", message)]
    place = first_not_utf8(start)
    if place is None:
        return "utf-8", []
    message = f"byte {place[0]:,} is not UTF-8: save the file as UTF-8"
    return "latin-1", [Finding(Severity.WARNING, "csv-not-utf8", message, line=place[1])]


class _Reader:
    """Reads rows, once."""

    def __init__(self, data: bytes, encoding: str, *, whole: bool) -> None:
        self._data = data
        self._encoding = encoding
        self._whole = whole
        self._delimiter = delimiter_of(data[:_SAMPLE].decode(encoding, "replace"))
        self._first: list[str] = []
        self._width = 0
        self._columns: list[Column] = []
        self._rows = 0
        self._inspected = 0
        self._cells_left = _MOST_CELLS
        self._ragged = Column("")
        self._taken = 0  # bytes given to the reader
        self._ended = 0  # bytes of the rows that it gave back
        self._complete = False
        self._too_long: int | None = None

    def read_rows(self) -> None:
        reader = csv.reader(self._lines(), delimiter=self._delimiter)
        line = 1
        try:
            for row in reader:
                if self._taken == len(self._data) and not self._whole:
                    return  # cut, in all likelihood
                self._ended = self._taken
                if row:
                    self._row(row, line)
                line = reader.line_num + 1
                if reader.line_num >= _MOST_LINES:
                    self._count_rest()
                    break
        except _RowTooLong:
            self._too_long = line
            return
        self._complete = self._whole and self._ended == len(self._data)

    def _count_rest(self) -> None:
        """Count the rows that are left as lines, unless quotations may make one of several."""
        end = len(self._data) if self._whole else self._data.rfind(b"\n") + 1
        if self._data.find(b'"', self._ended, end) < 0:
            self._rows += sum(1 for _ in _LINE.finditer(self._data, self._ended, end))
            self._ended = end

    def parsed(self, start: Beginning, encoding: str, findings: list[Finding]) -> Parsed:
        """What was read, as metadata and findings."""
        if self._width == 0:
            empty = Finding(Severity.WARNING, "csv-empty", "there is no row in it")
            return Parsed(None, tuple(self._about_rows()) or (empty,))
        header = is_header(self._first, self._columns)
        if header:
            names = self._first
        else:
            names = [f"column_{number}" for number in range(len(self._columns))]
            self._rows += 1
            self._inspected += 1
            for column, cell in zip(self._columns, self._first, strict=True):
                column.saw(kind_of(cell), 1)
        for column, name in zip(self._columns, names, strict=True):
            column.name = name
        scanned = len(start.data) * self._ended // max(1, len(self._data))
        metadata = table(
            [column.shown(type_of(column)) for column in self._columns],
            total=self._width,
            rows=self._rows,
            exact=self._complete,
            size=start.size,
            scanned=len(start.data) if self._complete else scanned,
            inspected=self._inspected,
        )
        metadata |= {"delimiter": self._delimiter, "header": header, "encoding": encoding}
        return Parsed(metadata, (*findings, *self._about_rows(), *self._about_columns(twice=header)))

    def _lines(self) -> Iterator[str]:
        for raw in BytesIO(self._data):
            if self._taken + len(raw) - self._ended > _LONGEST_ROW:
                raise _RowTooLong
            self._taken += len(raw)
            line = raw.decode(self._encoding, "replace")
            if "\r" in line:  # alone it would be an error to csv
                line = line.replace("\r\n", "\n").replace("\r", " ")
            yield line

    def _row(self, row: list[str], line: int) -> None:
        if self._width == 0:
            self._width = len(row)
            self._first = row[:MOST_COLUMNS]
            self._columns = [Column("") for _ in self._first]
            return
        self._rows += 1
        if len(row) != self._width:
            self._ragged.saw("ragged", line)
        if self._cells_left > 0:
            self._inspected += 1
            self._cells_left -= len(row)
            for column, cell in zip(self._columns, row, strict=False):
                column.saw(kind_of(cell), line)

    def _about_rows(self) -> Iterator[Finding]:
        for count, line in self._ragged.kinds.values():
            message = f"{count:,} rows do not have {self._width:,} cells as the first has; this is the first"
            yield Finding(Severity.WARNING, "csv-ragged-rows", message, line=line)
        if self._too_long is not None:
            message = "a row of more than 2 MiB begins here: is a quotation mark not closed?"
            yield Finding(Severity.WARNING, "csv-row-too-long", message, line=self._too_long)

    def _about_columns(self, *, twice: bool) -> Iterator[Finding]:
        if twice:
            names = Counter(column.name for column in self._columns)
            repeated = [name for name, count in names.items() if count > 1]
            if repeated:
                message = f"columns have the same name: {named(repeated, len(repeated))}. Rename them"
                yield Finding(Severity.WARNING, "csv-duplicate-column", message, line=1)
        mixed = [finding for column in self._columns if (finding := _mixed(column)) is not None]
        yield from mixed[:_MOST_NAMED]


def _mixed(column: Column) -> Finding | None:
    """A column of texts, nearly all of which are something else."""
    values = column.values
    if type_of(column) != "string" or len(values) < 2:
        return None
    (most, (often, _)), *others = values.items()
    total = sum(count for count, _ in values.values())
    if most == "string" or often < _MOSTLY * total:
        return None
    kind, (_, line) = min(others, key=lambda other: other[1][1])
    message = (
        f"the column {quoted(column.name)} has {often:,} values of type {most} and {total - often:,} others, "
        f"the first of type {kind} here: it is read as texts"
    )
    return Finding(Severity.WARNING, "csv-mixed-column", message, line=line)
