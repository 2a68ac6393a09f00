"""`.modelyard.toml`: from bytes to rules, or to what is wrong with them, by line and column."""

import re
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import msgspec

from core.models import RequestKind
from hooks.triggers import places
from hooks.triggers.places import Path
from hooks.triggers.spec import MAX_RULES, NAME_WORDS, On, RuleSpec, When, check_rule
from hooks.triggers.toml_lines import TomlLines, TooDeep, position_of

FILE = ".modelyard.toml"
MAX_BYTES = 64 * 1024

_MAX_PROBLEMS = 20
_LFS_POINTER = b"version https://git-lfs.github.com/spec/"
_AT = re.compile(
    r"(?P<what>.*) \(at (?:line (?P<line>\d+), column (?P<column>\d+)|end of document)\)", re.DOTALL
)
_LONG_NUMBER = re.compile(r"(?<![\d_])\d[\d_]{4000}")
_UNKNOWN = re.compile(r"Object contains unknown field `(.*)`", re.DOTALL)
_MISSING = re.compile(r"Object missing required field `(.*)`", re.DOTALL)
_TABLES: dict[Path, type[On | When]] = {("on",): On, ("when",): When}
_KINDS = ", ".join(kind.value for kind in RequestKind)


@dataclass(frozen=True, slots=True)
class Problem:
    """Something wrong with the file; line and column from 1."""

    line: int
    column: int
    message: str

    def __str__(self) -> str:
        return f"{FILE}:{self.line}:{self.column}: {self.message}"


@dataclass(frozen=True, slots=True)
class RulesFile:
    """The rules of a file; none of them, when there is a problem with any."""

    rules: tuple[RuleSpec, ...] = ()
    problems: tuple[Problem, ...] = ()


NO_RULES = RulesFile()


def parse_rules(data: bytes) -> RulesFile:
    """Reads a file of at most `MAX_BYTES`. Never raises; linear in time but for what `tomllib` does."""
    if data.startswith(_LFS_POINTER):
        return _broken(1, 1, "this file is in Git LFS, where nobody reads it; keep it out of there")
    try:
        # As `tomllib` does, so that both count the same lines.
        text = data.decode().replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        before = data[: error.start].decode().replace("\r\n", "\n")
        return _broken(*position_of(before + "?", len(before)), "this is not UTF-8")
    try:
        lines = TomlLines(text)
        document = tomllib.loads(text)
    except TooDeep as error:
        return _broken(*error.position, "this is nested too deeply")
    except ValueError as error:
        return _syntax(text, str(error))
    problems = [Problem(*lines.find(path), message) for path, message in _problems(document)]
    if problems:
        shown = sorted(problems, key=lambda one: (one.line, one.column))[:_MAX_PROBLEMS]
        return RulesFile(problems=tuple(shown))
    return RulesFile(tuple(msgspec.convert(rule, RuleSpec) for rule in document.get("rule", ())))


def _broken(line: int, column: int, message: str) -> RulesFile:
    return RulesFile(problems=(Problem(line, column, message),))


def _syntax(text: str, message: str) -> RulesFile:
    found = _AT.fullmatch(message)
    if found is None:  # Python, not `tomllib`, refuses such numbers, and does not say where
        long = _LONG_NUMBER.search(text)
        return _broken(*position_of(text, long.start() if long else 0), "this number is too long")
    what = found["what"][:1].lower() + found["what"][1:]
    if found["line"] is None:
        return _broken(*position_of(text, len(text)), what)
    return _broken(int(found["line"]), int(found["column"]), what)


def _problems(document: dict[str, Any]) -> Iterator[tuple[Path, str]]:
    for key in document:
        if key != "rule":
            yield (key,), f"unknown key `{key}`; rules are written as `[[rule]]`"
    rules = document.get("rule", [])
    if not isinstance(rules, list) or not all(isinstance(rule, dict) for rule in rules):
        yield ("rule",), "rules are written as `[[rule]]`"
        return
    if len(rules) > MAX_RULES:
        yield ("rule", MAX_RULES), f"a file has {MAX_RULES} rules at most"
        return
    names: set[str] = set()
    for index, rule in enumerate(rules):
        try:
            spec = msgspec.convert(rule, RuleSpec)
        except msgspec.ValidationError as error:
            path, message = _explained(error)
            yield ("rule", index, *path), message
            continue
        for path, message in check_rule(spec):
            yield ("rule", index, *path), message
        if spec.name in names:
            yield ("rule", index, "name"), f"there is a rule `{spec.name}` already"
        names.add(spec.name)


def _explained(error: msgspec.ValidationError) -> tuple[Path, str]:
    """Where a rule does not fit, and why, for people who write TOML."""
    message, _, at = str(error).rpartition(" - at `")
    if not message:
        message, at = str(error), "$"
    path = places.read(at.rstrip("`"))
    if unknown := _UNKNOWN.fullmatch(message):
        known = _TABLES.get(path, RuleSpec).__struct_fields__
        return (*path, unknown[1]), f"unknown key `{unknown[1]}`; known are {', '.join(known)}"
    if missing := _MISSING.fullmatch(message):
        return path, f"the rule has no `{missing[1]}`"
    if path == ("name",):
        return path, NAME_WORDS
    if path == ("run",):
        return path, f"`run` is one of {_KINDS}"
    return path, (message[:1].lower() + message[1:]).replace(" | null`", "`")
