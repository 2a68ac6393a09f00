"""Strict, bounded JSON and text that any database and any terminal can take.

What parsers answer is stored as JSON (PostgreSQL refuses NUL in it), served as JSON (no NaN, and clients
read numbers into 64 bits) and shown to people. It comes from files of strangers, so it is made clean here.
"""

import json
import math
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Set
from datetime import date, time
from itertools import islice
from typing import Any, TypedDict, Unpack

from hooks.formats.parsed import Finding, Severity

_UNSTORABLE = re.compile("[\x00\ud800-\udfff]")
_HALF_PAIR = re.compile(rb"\\u[dD][89a-fA-F]")
_INT64 = range(-(2**63), 2**63)
# What CPython takes at most for each of these characters, in bytes, with the values that they announce.
_COST = {b"{": 240, b"[": 88, b",": 70, b":": 150}
_BUDGET = 160_000_000


class BadJson(Exception):
    """It is not JSON, or not of a kind that anybody should have to read.

    Attributes:
        message: one line for people.
        line, column: from 1; None where only the whole can be blamed.
        too_large: it may be JSON, but takes more memory than it gets here.
    """

    def __init__(
        self, message: str, line: int | None = None, column: int | None = None, *, too_large: bool = False
    ) -> None:
        super().__init__(message)
        self.message = message
        self.line = line
        self.column = column
        self.too_large = too_large

    def finding(self, what: str) -> Finding:
        """What to say of a file whose `what` ("the header", "the file") this is about."""
        place = f" (column {self.column:,})" if self.column else ""
        severity, code = (
            (Severity.WARNING, "json-too-large") if self.too_large else (Severity.ERROR, "json-invalid")
        )
        return Finding(severity, code, f"{what} cannot be read: {self.message}{place}", line=self.line)


def clean_text(text: str, limit: int) -> str:
    """At most `limit` characters, without NUL and halves of surrogate pairs, which become U+FFFD."""
    if len(text) > limit:
        text = text[: max(0, limit - 1)] + "…"
    return _UNSTORABLE.sub("\ufffd", text)


def quoted(text: str, limit: int = 80) -> str:
    """`text` for a finding's message: in quotes, on one line, without anything that moves a terminal."""
    if len(text) <= limit and text.isprintable():  # most are, and there can be a hundred thousand
        return f'"{text}"'
    text = clean_text(text, limit)
    shown = "".join(one if one.isprintable() else f"\\u{ord(one):04x}" for one in text)
    return f'"{shown}"'


def named(texts: Iterable[str], total: int, limit: int = 5) -> str:
    """The first `limit` of `total` texts, quoted, and how many more there are."""
    shown = [quoted(text) for text in islice(texts, limit)]
    more = [f"and {total - len(shown):,} more"] if total > len(shown) else []
    return ", ".join(shown + more)


def clean_number(value: int | float) -> int | float | str:
    """The number; as text where JSON or 64 bits cannot hold it."""
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if value in _INT64:
        return value
    # Decimal digits of a number without end take a time without end, which Python refuses to spend.
    return str(value) if value.bit_length() < 4096 else f"an integer of {value.bit_length():,} bits"


class Limits(TypedDict, total=False):
    """How much of a value is kept.

    Attributes:
        depth: of nesting (16); what is deeper becomes "…".
        values: in all (20,000); length: of one list or object (1000).
        text: characters of one text (4000), and of one key a tenth; characters: of all of them (200,000).
    """

    depth: int
    values: int
    length: int
    text: int
    characters: int


def clean_json(value: Any, **limits: Unpack[Limits]) -> Any:
    """`value` as JSON that is safe to store and to serve. Takes what JSON, YAML and TOML readers give.

    A list or object that is cut becomes `{"length": n, "first": …}`.
    """
    cleaner = _Cleaner(**limits)
    return cleaner.clean(value, cleaner.depth)


def clean_object(value: Mapping[Any, Any], **limits: Unpack[Limits]) -> dict[str, Any]:
    """As `clean_json`, but an object it stays, and what does not fit into it is left out."""
    cleaner = _Cleaner(**limits)
    return dict(cleaner.pairs(value, cleaner.depth))


class _Cleaner:
    def __init__(
        self,
        *,
        depth: int = 16,
        values: int = 20_000,
        length: int = 1000,
        text: int = 4000,
        characters: int = 200_000,
    ) -> None:
        self.depth = depth
        self._values = values
        self._length = length
        self._text = text
        self._characters = characters

    def clean(self, value: Any, depth: int) -> Any:
        self._values -= 1
        if value is None or isinstance(value, bool):
            return value
        if isinstance(value, str):
            return self._clean_text(value, self._text)
        if isinstance(value, int | float):
            return clean_number(value)
        if isinstance(value, date | time):
            return value.isoformat()
        if isinstance(value, Mapping | list | tuple | Set):
            return self._collection(value, depth) if depth > 0 else "…"
        return f"a value of type {type(value).__name__}"

    def _collection(self, value: Any, depth: int) -> Any:
        if isinstance(value, Mapping):
            pairs = self.pairs(value, depth)
            return self._cut(dict(pairs), len(pairs), len(value))
        items = [self.clean(item, depth - 1) for item in self._some(value)]
        return self._cut(items, len(items), len(value))

    def pairs(self, value: Mapping[Any, Any], depth: int) -> list[tuple[str, Any]]:
        return [(self._key(key), self.clean(item, depth - 1)) for key, item in self._some(value.items())]

    @staticmethod
    def _cut(first: Any, taken: int, length: int) -> Any:
        return first if taken == length else {"length": length, "first": first}

    def _some(self, items: Iterable[Any]) -> Iterator[Any]:
        """As many as there is room for, asked anew for each: cleaning one takes of it."""
        for item in islice(items, self._length):
            if self._values <= 0 or self._characters <= 0:
                return
            yield item

    def _key(self, key: object) -> str:
        text = key if isinstance(key, str) else str(self.clean(key, 0))
        return self._clean_text(text, max(80, self._text // 10))

    def _clean_text(self, text: str, limit: int) -> str:
        cleaned = clean_text(text, max(1, min(limit, self._characters)))
        self._characters -= len(cleaned)
        return cleaned


def load_json(data: bytes) -> Any:
    """The value of a JSON document, as RFC 8259 has it: in UTF-8, without NaN and without a key twice.

    Numbers too large for 64 bits come as they are (and `1e999` as infinity): see `clean_number`.

    Raises:
        BadJson: see there. Also for a document that would take more than 160 MB as Python values.
    """
    if sum(cost * data.count(mark) for mark, cost in _COST.items()) + 2 * len(data) > _BUDGET:
        raise BadJson("the JSON has too many values to be read here", too_large=True)
    try:
        value = _DECODER.decode(data.decode())
        if _HALF_PAIR.search(data):
            json.dumps(value, ensure_ascii=False).encode()
    except UnicodeDecodeError as error:
        raise BadJson("not UTF-8", *_place(data, error.start)) from None
    except json.JSONDecodeError as error:
        raise BadJson(_message(error), error.lineno, error.colno) from None
    except RecursionError:
        raise BadJson("the JSON is nested too deeply", too_large=True) from None
    except UnicodeEncodeError:
        raise BadJson("the JSON has half of a surrogate pair in a text") from None
    except ValueError:
        raise BadJson("the JSON has a number of too many digits") from None
    return value


def _place(data: bytes, position: int) -> tuple[int, int]:
    start = data.rfind(b"\n", 0, position) + 1
    return data.count(b"\n", 0, position) + 1, position - start + 1


def _message(error: json.JSONDecodeError) -> str:
    if not error.doc.strip():
        return "not JSON: it is empty"
    if error.doc.startswith("\ufeff"):
        return "not JSON: it begins with a byte order mark"
    return f"not JSON: {error.msg[0].lower()}{error.msg[1:]}"


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        twice = Counter(key for key, _ in pairs).most_common(1)[0][0]
        raise BadJson(f"the JSON has the key {quoted(twice)} twice in one object")
    return value


def _constant(name: str) -> Any:
    raise BadJson(f"not JSON: {name} is no JSON value")


_DECODER = json.JSONDecoder(object_pairs_hook=_object, parse_constant=_constant)
