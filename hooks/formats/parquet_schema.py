"""The schema in a Parquet footer: the leaves of a tree that is written as a list of its nodes.

https://github.com/apache/parquet-format/blob/master/src/main/thrift/parquet.thrift; the numbers of fields are
as there.
"""

from dataclasses import dataclass
from typing import Any, Final

from hooks.formats.clean import clean_text
from hooks.formats.thrift import FALSE, TRUE, Malformed, Thrift

_MOST_COLUMNS: Final = 4000
_DEEPEST: Final = 64
_NAME: Final = 300

_PHYSICAL: Final = "BOOLEAN INT32 INT64 INT96 FLOAT DOUBLE BYTE_ARRAY FIXED_LEN_BYTE_ARRAY".split()
_UNITS: Final = {1: "MILLIS", 2: "MICROS", 3: "NANOS"}
_PLAIN: Final = {
    1: "STRING",
    2: "MAP",
    3: "LIST",
    4: "ENUM",
    6: "DATE",
    11: "NULL",
    12: "JSON",
    13: "BSON",
    14: "UUID",
    15: "FLOAT16",
    16: "VARIANT",
    17: "GEOMETRY",
    18: "GEOGRAPHY",
}
# ConvertedType, which older writers use instead.
_CONVERTED: Final = {
    0: "STRING",
    1: "MAP",
    2: "MAP",
    3: "LIST",
    4: "ENUM",
    6: "DATE",
    7: "TIME(MILLIS, UTC)",
    8: "TIME(MICROS, UTC)",
    9: "TIMESTAMP(MILLIS, UTC)",
    10: "TIMESTAMP(MICROS, UTC)",
    11: "INT(8, unsigned)",
    12: "INT(16, unsigned)",
    13: "INT(32, unsigned)",
    14: "INT(64, unsigned)",
    15: "INT(8, signed)",
    16: "INT(16, signed)",
    17: "INT(32, signed)",
    18: "INT(64, signed)",
    19: "JSON",
    20: "BSON",
    21: "INTERVAL",
}
_CONVERTED_DECIMAL: Final = 5


@dataclass(slots=True)
class _Element:
    name: str = ""
    physical: int | None = None
    children: int = 0
    converted: int | None = None
    scale: int = 0
    precision: int = 0
    logical: str | None = None

    def column(self, path: str) -> dict[str, Any]:
        return {
            "name": clean_text(path, _NAME),
            "type": _physical(self.physical),
            "logical": self.logical or self._converted(),
        }

    def _converted(self) -> str | None:
        if self.converted is None:
            return None
        if self.converted == _CONVERTED_DECIMAL:
            return f"DECIMAL({self.precision}, {self.scale})"
        return _CONVERTED.get(self.converted)


def _physical(kind: int | None) -> str | None:
    if kind is None:
        return None
    return _PHYSICAL[kind] if 0 <= kind < len(_PHYSICAL) else f"type {kind}"


class Schema:
    """Leaf columns in the order of the file.

    Attributes:
        columns: the first 4,000, each with its `name` (the names on the way to it, joined by dots), physical
            `type` and `logical` type, or None. total: how many there are.
    """

    def __init__(self) -> None:
        self.columns: list[dict[str, Any]] = []
        self.total = 0

    def read(self, thrift: Thrift, kind: int) -> None:
        """Read the list of nodes: each is followed by its children."""
        open_groups: list[tuple[str, int]] = []  # path, children to come
        first = True
        for _ in thrift.structs(kind):
            element = _element(thrift)
            if first:
                first = False
                open_groups.append(("", element.children))
                continue
            while open_groups and open_groups[-1][1] == 0:
                open_groups.pop()
            if not open_groups:
                raise Malformed("the schema has nodes outside of its tree")
            prefix, left = open_groups[-1]
            open_groups[-1] = (prefix, left - 1)
            path = f"{prefix}.{element.name}" if prefix else element.name
            if element.children > 0:
                if len(open_groups) >= _DEEPEST:
                    raise Malformed("the schema is nested too deeply")
                open_groups.append((path, element.children))
            else:
                self._leaf(element, path)
        if any(left for _, left in open_groups):
            raise Malformed("the schema has fewer nodes than it says")

    def _leaf(self, element: _Element, path: str) -> None:
        self.total += 1
        if len(self.columns) < _MOST_COLUMNS:
            self.columns.append(element.column(path))


def _element(thrift: Thrift) -> _Element:
    element = _Element()
    for number, kind in thrift.fields():
        match number:
            case 1:
                element.physical = thrift.integer(kind)
            case 4:
                element.name = clean_text(thrift.text(kind, _NAME), _NAME)
            case 5:
                element.children = thrift.integer(kind)
            case 6:
                element.converted = thrift.integer(kind)
            case 7:
                element.scale = thrift.integer(kind)
            case 8:
                element.precision = thrift.integer(kind)
            case 10:
                element.logical = _logical(thrift)
            case _:
                thrift.skip(kind)
    if element.children < 0:
        raise Malformed("a node of the schema has less than no children")
    return element


def _logical(thrift: Thrift) -> str | None:
    """LogicalType: a union, so a struct with one field."""
    name: str | None = None
    for number, kind in thrift.fields():
        match number:
            case 5:
                scale, precision = _numbers(thrift)
                name = f"DECIMAL({precision}, {scale})"
            case 7 | 8:
                name = f"{'TIME' if number == 7 else 'TIMESTAMP'}({_clock(thrift)})"
            case 10:
                name = _integer(thrift)
            case _:
                thrift.skip(kind)
                name = _PLAIN.get(number)
    return name


def _numbers(thrift: Thrift) -> tuple[int, int]:
    found = {number: thrift.integer(kind) for number, kind in thrift.fields()}
    return found.get(1, 0), found.get(2, 0)


def _clock(thrift: Thrift) -> str:
    utc, unit = False, "?"
    for number, kind in thrift.fields():
        if number == 1:
            utc = kind == TRUE
        elif number == 2:
            for choice, inner in thrift.fields():
                unit = _UNITS.get(choice, "?")
                thrift.skip(inner)
        else:
            thrift.skip(kind)
    return f"{unit}, UTC" if utc else unit


def _integer(thrift: Thrift) -> str:
    bits, signed = 0, True
    for number, kind in thrift.fields():
        if number == 1:
            bits = thrift.integer(kind)
        else:
            signed = kind != FALSE
            thrift.skip(kind)
    return f"INT({bits}, {'signed' if signed else 'unsigned'})"
