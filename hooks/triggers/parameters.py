"""Parameters of a request: any JSON, in whose strings a few words about the push are filled in."""

import math
import re
from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

from hooks.triggers.places import Path

MAX_BYTES = 64 * 1024
MAX_DEPTH = 16
MAX_REFERENCES = 100
WORDS = ("commit", "ref", "branch", "tag", "repository")

# `$${` is a literal `${`.
_REFERENCE = re.compile(r"\$\$\{|\$\{(\w*)\}|\$\{")


def check_parameters(parameters: Mapping[str, Any], path: Path) -> Iterator[tuple[Path, str]]:
    """What is wrong with parameters that stand at `path`: where, and why."""
    references = 0
    for place, value in _walk(parameters, path):
        why = _refusal(value)
        if len(place) - len(path) > MAX_DEPTH:
            why = f"parameters may be {MAX_DEPTH} levels deep"
        if why:
            yield place, why
            return
        if isinstance(value, str):
            for reference in _REFERENCE.finditer(value):
                if reference[0] != "$${":
                    references += 1
                    if reference[1] not in WORDS:
                        known = ", ".join(f"${{{word}}}" for word in WORDS)
                        yield place, f"`{reference[0]}` is not known, only {known}; `$${{` is a literal `${{`"
    if references > MAX_REFERENCES:
        yield path, f"words are filled in at {MAX_REFERENCES} places at most"
    if len(msgspec.json.encode(parameters)) > MAX_BYTES:
        yield path, f"parameters are {MAX_BYTES} bytes of JSON at most"


def filled_in(value: Any, words: Mapping[str, str]) -> Any:
    """Checked parameters with `${word}` in strings, but not in names, replaced by `words[word]`."""
    match value:
        case str():
            return _REFERENCE.sub(lambda found: words[found[1]] if found[1] else "${", value)
        case list():
            return [filled_in(item, words) for item in value]
        case dict():
            return {name: filled_in(item, words) for name, item in value.items()}
        case _:
            return value


def _walk(value: Any, path: Path) -> Iterator[tuple[Path, Any]]:
    """Every value with its place, names of members too; the depth is the caller's to bound."""
    yield path, value
    if isinstance(value, dict):
        for name, item in value.items():
            if why := _text_refusal(name):
                yield path, _Refused(why)
            yield from _walk(item, (*path, name))
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from _walk(item, (*path, index))


class _Refused:
    """Stands for a name that cannot be."""

    def __init__(self, why: str) -> None:
        self.why = why


def _refusal(value: Any) -> str | None:
    match value:
        case _Refused():
            return value.why
        case str():
            return _text_refusal(value)
        case bool() | None | list() | dict():
            return None
        case int():
            return None if -(2**63) <= value < 2**63 else "integers have 64 bits"
        case float():
            return None if math.isfinite(value) else "numbers are finite"
        case _:
            return f"write this {type(value).__name__} as a string"


def _text_refusal(text: str) -> str | None:
    """What PostgreSQL keeps in no JSON."""
    if "\0" in text:
        return "text must not hold NULs"
    try:
        text.encode()
    except UnicodeEncodeError:
        return "text must be Unicode"
    return None
