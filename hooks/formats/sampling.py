"""The beginning of a file of rows: enough to say what its columns are, and how many rows there may be."""

import codecs
from dataclasses import dataclass, field
from typing import Any, Final

from hooks.formats.clean import clean_text
from hooks.formats.source import Source

SCANNED: Final = 8 * 1024**2
MOST_COLUMNS: Final = 2000
_NAME: Final = 200


@dataclass(frozen=True, slots=True)
class Beginning:
    """`data` is all of the file if `whole`, otherwise its first 8 MiB."""

    data: bytes
    size: int
    whole: bool


def beginning(source: Source) -> Beginning:
    """Raises SourceUnreadable and TooMuchRead as the source does."""
    size = source.size
    data = source.read(0, min(size, SCANNED))
    return Beginning(data, size, len(data) >= size)


def first_not_utf8(start: Beginning) -> tuple[int, int] | None:
    """The first byte that is not UTF-8, and its line from 1."""
    try:
        codecs.getincrementaldecoder("utf-8")().decode(start.data, final=start.whole)
    except UnicodeDecodeError as error:
        return error.start, start.data.count(b"\n", 0, error.start) + 1
    return None


@dataclass(slots=True)
class Column:
    """What was seen in one column: for each kind of value, how many, and the line of the first."""

    name: str
    kinds: dict[str, list[int]] = field(default_factory=dict)

    def saw(self, kind: str, line: int) -> None:
        seen = self.kinds.get(kind)
        if seen is None:
            self.kinds[kind] = [1, line]
        else:
            seen[0] += 1

    def shown(self, kind: str) -> dict[str, Any]:
        return {"name": clean_text(self.name, _NAME), "type": kind}

    @property
    def values(self) -> dict[str, list[int]]:
        """Those of `kinds` that are not null, the most frequent first."""
        found = {kind: seen for kind, seen in self.kinds.items() if kind != "null"}
        return dict(sorted(found.items(), key=lambda item: -item[1][0]))


def table(
    columns: list[dict[str, Any]],
    *,
    total: int,
    rows: int,
    exact: bool,
    size: int,
    scanned: int,
    inspected: int,
) -> dict[str, Any]:
    """The metadata of a file of rows.

    `columns` are the first of `total`; `rows` are those in the first `scanned` of `size` bytes. They are
    `exact`, or it is estimated how many there are. `inspected` of them were looked into.
    """
    count: int | None = rows
    if not exact:
        count = round(rows * size / scanned) if rows and scanned else None
    return {
        "rows": count,
        "rows_exact": exact,
        "columns": columns,
        "columns_total": total,
        "bytes_scanned": scanned,
        "rows_inspected": inspected,
    }
