"""Reading the small JSON files that describe a model: one object each, written by Python programs."""

import re
from collections.abc import Mapping
from typing import Any, Final

from hooks.formats.clean import BadJson, clean_json, load_json, quoted
from hooks.formats.parsed import Finding, Severity
from hooks.formats.source import Source, TooMuchRead

_COUNT_LIMIT: Final = 2**63
_MOST_CONSTANTS: Final = 10_000
# Python's json writes these, and its readers take them; nobody else's do. A text without an end goes to the
# end of the file: trying each quotation mark in it anew would take hours, in which nothing else runs.
_CONSTANT = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+(?:"|\\?\Z)|-?\bInfinity\b|\bNaN\b', re.DOTALL)


def read_object(source: Source, limit: int) -> tuple[dict[str, Any] | None, list[Finding]]:
    """The object in a JSON file of at most `limit` bytes, and what is wrong with the file.

    None for what is not an object, with a finding that says why. `NaN` and `Infinity` come as None, with a
    warning.
    """
    if source.size > limit:
        return None, [_too_large(f"it has {source.size:,} bytes; at most {limit:,} are read")]
    try:
        data = source.read(0, limit)
    except TooMuchRead:
        return None, [_too_large("it has more bytes than may be read")]
    plain = _without_constants(data)
    findings: list[Finding] = []
    try:
        value = load_json(plain)
    except BadJson as error:
        return None, [_bad(error)]
    if plain != data:
        message = "NaN and Infinity are no JSON values: other programs than Python's cannot read this file"
        findings.append(Finding(Severity.WARNING, "json-constant", message))
    if not isinstance(value, dict):
        message = "the JSON is not an object: expected {…} with named values"
        return None, [*findings, Finding(Severity.ERROR, "json-not-object", message)]
    return value, findings


def _without_constants(data: bytes) -> bytes:
    if b"NaN" not in data and b"Infinity" not in data:
        return data
    places = [found.span() for found in _CONSTANT.finditer(data) if not found[0].startswith(b'"')]
    if len(places) > _MOST_CONSTANTS:
        return data
    starts = [0, *(end for _, end in places)]
    ends = [*(start for start, _ in places), len(data)]
    return b"null".join(data[start:end] for start, end in zip(starts, ends, strict=True))


def _too_large(message: str) -> Finding:
    return Finding(Severity.WARNING, "json-too-large", f"the JSON is not looked into: {message}")


def _bad(error: BadJson) -> Finding:
    if error.too_large:
        return _too_large(error.message)
    return Finding(Severity.ERROR, "json-invalid", error.message, line=error.line)


def scalars(values: Mapping[str, Any], most: int = 300) -> dict[str, Any]:
    """The texts, numbers and truth values among `values`, made clean: nothing nested."""
    plain = {key: value for key, value in values.items() if isinstance(value, str | int | float | None)}
    cut = dict(list(plain.items())[:most])
    cleaned: dict[str, Any] = clean_json(cut, text=500)
    return cleaned


class Fields:
    """Takes values of the expected kinds out of an object; what is of another kind becomes a finding."""

    def __init__(self, values: Mapping[str, Any], code: str, findings: list[Finding]) -> None:
        self._values = values
        self._code = code
        self._findings = findings

    def text(self, key: str, limit: int = 500) -> str | None:
        value = self._values.get(key)
        if value is None or isinstance(value, str):
            return None if value is None else str(clean_json(value, text=limit))
        self._wrong(key, "a text")
        return None

    def texts(self, key: str, most: int = 200) -> list[str]:
        """A list of texts; a text alone is a list of one."""
        value = self._values.get(key)
        if isinstance(value, str):
            value = [value]
        if value is None:
            return []
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            self._wrong(key, "a list of texts")
            return []
        return [clean_json(item, text=500) for item in value[:most]]

    def count(self, *keys: str) -> int | None:
        """The first of `keys` that is there, if it is a whole number from 0 up."""
        for key in keys:
            value = self._values.get(key)
            if value is None:
                continue
            if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < _COUNT_LIMIT:
                return value
            self._wrong(key, "a whole number from 0 up")
        return None

    def _wrong(self, key: str, expected: str) -> None:
        found = quoted(str(clean_json(self._values[key], depth=0, text=60)))
        message = f"{quoted(key)} is {found} where {expected} is expected"
        self._findings.append(Finding(Severity.WARNING, self._code, message))
