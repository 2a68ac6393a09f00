"""What a cell of a CSV file holds, and which dialect such a file is in.

The rules are those of `pyarrow.csv`, but for hexadecimal numbers and 0 and 1 among truth values: texts here.
"""

import csv
import re
from collections import Counter
from collections.abc import Iterable
from io import StringIO
from itertools import islice
from typing import Final

from hooks.formats.sampling import Column

_LONGEST_TYPED: Final = 64
_LONGEST_INT64: Final = 18  # digits that surely fit
_INT64: Final = range(-(2**63), 2**63)
_DELIMITERS: Final = ",\t;|"
_ROWS_TRIED: Final = 200

_KIND = re.compile(
    r"""(?P<null>(?:\#N/A(?:\ N/A)?|\#NA|-?1\.\#IND|-?1\.\#QNAN|-?NaN|-?nan|N/A|NA|NULL|n/a|null)?)
      | (?P<int64>-?[0-9]+)
      | (?P<double>[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?|[+-]?[iI]nf(?:inity)?|\+[0-9]+)
      | (?P<bool>[Tt]rue|[Ff]alse|TRUE|FALSE)
      | (?P<date>[0-9]{4}-[01][0-9]-[0-3][0-9])
      | (?P<timestamp>[0-9]{4}-[01][0-9]-[0-3][0-9][ T][0-2][0-9]:[0-5][0-9]
          (?::[0-6][0-9](?:[.,][0-9]{1,9})?)?(?:Z|[+-][0-9]{2}:?(?:[0-9]{2})?)?)
    """,
    re.VERBOSE,
)


def kind_of(cell: str) -> str:
    """One of null, int64, double, bool, date, timestamp, string."""
    if len(cell) > _LONGEST_TYPED:
        return "string"
    text = cell.strip(" \t")
    found = _KIND.fullmatch(text)
    if found is None:
        return "string"
    kind = found.lastgroup or "string"
    if kind == "int64" and len(text) > _LONGEST_INT64 and int(text) not in _INT64:
        return "double"
    if kind == "null" and cell and not text:
        return "string"  # blanks are a text
    return kind


def type_of(column: Column) -> str:
    """The narrowest type that holds all that was seen in a column."""
    kinds = set(column.values)
    if not kinds:
        return "null"
    if len(kinds) == 1:
        return kinds.pop()
    if kinds == {"int64", "double"}:
        return "double"
    if kinds == {"date", "timestamp"}:
        return "timestamp"
    return "string"


def delimiter_of(sample: str) -> str:
    """The character that most evenly cuts the first rows of `sample` into cells."""
    best, best_score = _DELIMITERS[0], (0.0, 0)
    for delimiter in _DELIMITERS:
        widths = _widths(csv.reader(StringIO(sample, newline=""), delimiter=delimiter))
        if not widths:
            continue
        width, rows = widths.most_common(1)[0]
        score = (rows / widths.total(), width)
        if width > 1 and score > best_score:
            best, best_score = delimiter, score
    return best


def _widths(rows: Iterable[list[str]]) -> Counter[int]:
    # The last may be cut.
    seen = [len(row) for row in islice(rows, _ROWS_TRIED) if row]
    return Counter(seen[:-1] or seen)


def is_header(first: list[str], columns: list[Column]) -> bool:
    """Whether a first row names the columns below it, which do not know of it yet.

    Names are texts; a row of texts above columns of numbers, dates or truth values is one of names even if
    some of them look otherwise (years, say).
    """
    kinds = [kind_of(cell) for cell in first]
    if all(kind in {"string", "null"} for kind in kinds):
        return "string" in kinds
    below = [type_of(column) for column in columns]
    return any(
        kind == "string" and lower not in {"string", "null"}
        for kind, lower in zip(kinds, below, strict=False)
    )
