"""YAML of strangers as plain values: one pass over its events, each bounded before anything is built from it.

What the safe loader of PyYAML makes of a document, with two differences. Only `true` and `false` are
booleans, as in YAML 1.2 and in what the Hugging Face Hub reads with, so that `language: no` is Norwegian. And
what cannot be made (an unknown tag, a date in a thirteenth month) stays the text that it is, with a finding.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Final

import yaml
from yaml.constructor import SafeConstructor
from yaml.events import (
    AliasEvent,
    CollectionEndEvent,
    CollectionStartEvent,
    DocumentStartEvent,
    Event,
    MappingStartEvent,
    ScalarEvent,
)
from yaml.nodes import ScalarNode
from yaml.reader import Reader, ReaderError

from hooks.formats.clean import quoted
from hooks.formats.parsed import Finding, Severity

# libyaml is 20 times as fast, and in every wheel of PyYAML for Linux and macOS.
_Loader: Final = yaml.CSafeLoader if yaml.__with_libyaml__ else yaml.SafeLoader
MAX_CHARACTERS: Final = 1024**2 if yaml.__with_libyaml__ else 64 * 1024
MAX_VALUES: Final = 200_000
MAX_DEPTH: Final = 40
_MAX_FINDINGS: Final = 50
# libyaml compares each with all that came before, at one go: seventy thousand hold up everything for seconds.
_MAX_TAG_DIRECTIVES: Final = 100
# Longer ones are no numbers that anybody means, and make Python's own conversion slow.
_MAX_NUMBER: Final = 100

_TAG: Final = "tag:yaml.org,2002:"
_PLAIN: Final = frozenset(_TAG + name for name in ("str", "binary", "value", "merge"))
_COLLECTIONS: Final = frozenset({"!"} | {_TAG + name for name in ("map", "seq", "set", "omap", "pairs")})
_NO_KEY: Final = object()
_MERGE: Final = object()
_DROPPED: Final = object()


class BadYaml(Exception):
    """It is not YAML, or not of a kind that anybody should have to read.

    Attributes:
        code: `yaml-syntax`, `yaml-too-large` or `yaml-recursive`.
        line: from 1, where there is one.
    """

    def __init__(self, code: str, message: str, line: int | None) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.line = line


@dataclass(slots=True)
class Document:
    """A document's value: None, texts, numbers, booleans, dates, lists, and dicts with texts as keys.

    What an alias names is the same object wherever it stands; written out there are 200,000 values at most,
    nested 40 deep at most. Texts may hold NUL, numbers may be infinite: see `hooks.formats.clean`.
    """

    value: Any = None
    findings: list[Finding] = field(default_factory=list)
    _lines: dict[tuple[int, int | str], int] = field(default_factory=dict)
    # All of them, dropped ones too: an identity tells apart only what lives at the same time.
    _containers: list[Any] = field(default_factory=list)

    def open(self, container: Any) -> None:
        """Begin to note the lines of a new list or dict."""
        self._containers.append(container)

    def note(self, container: object, key: int | str, line: int) -> None:
        """Remember where a member stands."""
        self._lines[id(container), key] = line

    def line(self, container: object, key: int | str) -> int | None:
        """Where the member of a list or dict of this document stands, from 1."""
        return self._lines.get((id(container), key))


@dataclass(slots=True)
class _Open:
    """A collection that is being read. `height` is how deep it goes."""

    value: Any
    line: int
    tag: str | None
    anchor: str | None
    started_at: int
    height: int = 1
    key: Any = _NO_KEY
    merged: list[Any] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class _Anchored:
    value: Any
    size: int
    height: int


class _Reader:
    def __init__(self, text: str, first_line: int) -> None:
        self.document = Document()
        self._text = text
        self._first_line = first_line
        self._constructor = SafeConstructor()
        self._open: list[_Open] = []
        self._anchors: dict[str, _Anchored | None] = {}
        self._count = 0
        self._documents = 0

    def read(self) -> Document:
        with _translated(self._first_line):
            loader = _Loader(self._text)
            try:
                while loader.check_event():
                    event = loader.get_event()
                    if event is not None:
                        self._take(event, loader)
            finally:
                loader.dispose()
        return self.document

    def _take(self, event: Event, loader: Any) -> None:
        line = self._first_line + (event.start_mark.line if event.start_mark else 0)
        match event:
            case DocumentStartEvent():
                self._documents += 1
                if self._documents > 1:
                    raise BadYaml("yaml-syntax", "expected one document, found another", line)
            case CollectionStartEvent():
                self._start(event, line)
            case CollectionEndEvent():
                self._end()
            case ScalarEvent():
                self._scalar(event, line, loader)
            case AliasEvent():
                self._alias(event.anchor or "", line)
            case _:
                pass

    def _start(self, event: CollectionStartEvent, line: int) -> None:
        self._grow(1, len(self._open) + 1, line)
        if event.anchor is not None:
            self._anchors[event.anchor] = None
        value: Any = {} if isinstance(event, MappingStartEvent) else []
        self.document.open(value)
        if event.tag is not None and event.tag not in _COLLECTIONS:
            self._unknown(event.tag, line)
        self._open.append(_Open(value, line, event.tag, event.anchor, self._count))

    def _end(self) -> None:
        done = self._open.pop()
        for mapping in done.merged:
            for key, value in mapping.items():
                if key not in done.value:
                    self._put(done.value, key, value, self.document.line(mapping, key) or done.line)
        value = done.value
        if done.tag == _TAG + "set" and isinstance(value, dict):
            value = list(value)
            self.document.open(value)
        if done.anchor is not None:
            self._anchors[done.anchor] = _Anchored(value, self._count - done.started_at + 1, done.height)
        self._attach(value, done.line, done.height)

    def _scalar(self, event: ScalarEvent, line: int, loader: Any) -> None:
        self._grow(1, len(self._open), line)
        tag = event.tag
        if tag is None or tag == "!":
            tag = loader.resolve(ScalarNode, event.value, event.implicit)
        value = _MERGE if tag == _TAG + "merge" else self._value(tag, event.value, line)
        if event.anchor is not None:
            self._anchors[event.anchor] = _Anchored(value, 1, 0)
        self._attach(value, line, 0, event.value)

    def _alias(self, name: str, line: int) -> None:
        if name not in self._anchors:
            raise BadYaml("yaml-syntax", f"found undefined alias {quoted(name)}", line)
        anchored = self._anchors[name]
        if anchored is None:
            raise BadYaml("yaml-recursive", f"the alias {quoted(name)} stands inside of what it names", line)
        self._grow(anchored.size, len(self._open) + anchored.height, line)
        # Only a scalar can be a key; writing out a collection for each alias would take minutes.
        text = "" if anchored.height else str(anchored.value)
        self._attach(anchored.value, line, anchored.height, text)

    def _grow(self, values: int, depth: int, line: int) -> None:
        self._count += values
        if self._count > MAX_VALUES:
            message = f"the YAML has more than {MAX_VALUES:,} values with its aliases written out"
            raise BadYaml("yaml-too-large", message, line)
        if depth > MAX_DEPTH:
            raise BadYaml("yaml-too-large", f"the YAML is nested more than {MAX_DEPTH} deep", line)

    def _attach(self, value: Any, line: int, height: int, text: str = "") -> None:
        if not self._open:
            self.document.value = None if value is _MERGE else value
            return
        parent = self._open[-1]
        parent.height = max(parent.height, height + 1)
        if isinstance(parent.value, list):
            self._put(parent.value, len(parent.value), "<<" if value is _MERGE else value, line)
        elif parent.key is _NO_KEY:
            parent.key = self._key(value, text, parent.value, line)
        else:
            key, parent.key = parent.key, _NO_KEY
            self._set(parent, key, "<<" if value is _MERGE else value, line)

    def _key(self, value: Any, text: str, mapping: dict[str, Any], line: int) -> Any:
        if value is _MERGE:
            return _MERGE
        if isinstance(value, dict | list):
            self._find(Severity.ERROR, "yaml-key", "a key must be a text, this one is a collection", line)
            return _DROPPED
        if text in mapping:
            self._find(Severity.WARNING, "yaml-duplicate-key", f"duplicated mapping key {quoted(text)}", line)
        self.document.note(mapping, text, line)
        return text

    def _set(self, parent: _Open, key: Any, value: Any, line: int) -> None:
        if key is _MERGE:
            merged = value if isinstance(value, list) else [value]
            if not all(isinstance(one, dict) for one in merged):
                self._find(Severity.ERROR, "yaml-merge", "only mappings can be merged with <<", line)
            parent.merged += [one for one in merged if isinstance(one, dict)]
        elif key is not _DROPPED:
            parent.value[key] = value

    def _put(self, container: Any, key: int | str, value: Any, line: int) -> None:
        if isinstance(container, list):
            container.append(value)
        else:
            container[key] = value
        self.document.note(container, key, line)

    def _value(self, tag: str, text: str, line: int) -> Any:
        kind = tag.removeprefix(_TAG)
        if tag in _PLAIN:
            return text
        if kind == "null":
            return None
        if kind == "bool":
            return text.lower() == "true" if text.lower() in ("true", "false") else text
        if kind not in ("int", "float", "timestamp"):
            self._unknown(tag, line)
            return text
        if len(text) > _MAX_NUMBER:
            return text
        node = ScalarNode(tag, text)
        try:
            if kind == "timestamp":
                return self._constructor.construct_yaml_timestamp(node)
            if kind == "int":
                return self._constructor.construct_yaml_int(node)
            return self._constructor.construct_yaml_float(node)
        except (ValueError, IndexError, AttributeError, OverflowError):
            self._find(Severity.WARNING, "yaml-value", f"{quoted(text)} is not a valid {kind}", line)
            return text

    def _unknown(self, tag: str, line: int) -> None:
        self._find(Severity.ERROR, "yaml-tag", f"unknown tag !<{quoted(tag)[1:-1]}>", line)

    def _find(self, severity: Severity, code: str, message: str, line: int) -> None:
        if len(self.document.findings) < _MAX_FINDINGS:
            self.document.findings.append(Finding(severity, code, message, line=line))


@contextmanager
def _translated(first_line: int) -> Iterator[None]:
    try:
        yield
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        message = ", ".join(part for part in (error.context, error.problem) if part)
        line = None if mark is None else mark.line + first_line
        raise BadYaml("yaml-syntax", message or "it cannot be read", line) from error
    except ReaderError as error:
        raise BadYaml("yaml-syntax", str(error.reason), None) from error


def read_yaml(text: str, first_line: int = 1) -> Document:
    """The one document in `text`, of which the first line counts as `first_line`.

    Raises:
        BadYaml: see there.
    """
    if len(text) > MAX_CHARACTERS:
        raise BadYaml("yaml-too-large", f"the YAML has more than {MAX_CHARACTERS:,} characters", first_line)
    if text.count("%TAG") > _MAX_TAG_DIRECTIVES:
        raise BadYaml("yaml-too-large", f"the YAML has more than {_MAX_TAG_DIRECTIVES} %TAG", first_line)
    if control := Reader.NON_PRINTABLE.search(text):
        line = first_line + text.count("\n", 0, control.start())
        raise BadYaml("yaml-syntax", f"the character {quoted(control[0])} is not allowed", line)
    return _Reader(text, first_line).read()
