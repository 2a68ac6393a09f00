"""Reading the members of mappings in a card, with the complaints of the Hugging Face Hub."""

from collections.abc import Collection, Iterator
from datetime import date
from difflib import get_close_matches
from itertools import islice
from typing import Any, Final, NamedTuple

from hooks.formats.clean import clean_text, quoted
from hooks.formats.parsed import Finding, Severity
from hooks.formats.yaml_values import Document

MAX_ITEMS: Final = 1000
_MAX_TEXT: Final = 500
_MAX_FINDINGS: Final = 100
_SHOWN: Final = 5
# Longer ones are not near to anything that is known.
_LONGEST_MISTAKE: Final = 50


class Item(NamedTuple):
    """A text, what it is called (`tags[2]`), and the line where it stands."""

    text: str
    name: str
    line: int | None


class Findings:
    """What is found in one card, a hundred at most."""

    def __init__(self) -> None:
        self._all: list[Finding] = []
        self._more = 0

    @property
    def is_full(self) -> bool:
        """Whether more of them are only counted, so that their words are not worth the time."""
        return len(self._all) >= _MAX_FINDINGS

    def add(self, severity: Severity, code: str, message: str, line: int | None = None) -> None:
        """`message` is one line, made safe by `quoted` where it comes from the card."""
        if self.is_full:
            self._more += 1
        else:
            self._all.append(Finding(severity, code, message, line=line))

    def all(self) -> tuple[Finding, ...]:
        """In the order of their lines; the last says how many more there are, if there are."""
        ordered = sorted(self._all, key=lambda found: found.line or 0)
        if not self._more:
            return tuple(ordered)
        return (*ordered, Finding(Severity.INFO, "card-more", f"{self._more:,} more findings in this card"))


class Fields:
    """The members of one mapping.

    `where` stands before their names (`model-index[0].`); `line` is where the mapping itself stands.
    """

    def __init__(
        self,
        values: dict[str, Any],
        document: Document,
        findings: Findings,
        *,
        where: str = "",
        code: str = "",
        line: int | None = None,
    ) -> None:
        self.values = values
        self._line = line
        self._document = document
        self._findings = findings
        self._where = where
        self._code = code

    def refuse(self, key: str, what: str, item: Item | None = None) -> None:
        """An error: `"key" what`."""
        self._say(Severity.ERROR, key, f"{quoted(item.name if item else self._where + key)} {what}", item)

    def warn(self, key: str, message: str, item: Item | None = None) -> None:
        """A warning, in words of its own."""
        self._say(Severity.WARNING, key, message, item)

    def text(self, key: str, *, required: bool = False) -> str | None:
        """The text of a member; also where it is another scalar, which is an error."""
        item = self.item(key, required=required)
        return None if item is None else item.text

    def item(self, key: str, *, required: bool = False) -> Item | None:
        """As `text`, with where it stands."""
        value = self.values.get(key)
        if value is None:
            if required:
                self.refuse(key, "is required")
            return None
        if not isinstance(value, str):
            self.refuse(key, "must be a string")
        elif not value.strip():
            self.refuse(key, "is not allowed to be empty")
        text = _text(value)
        return None if text is None else Item(text, self._where + key, self._document.line(self.values, key))

    def texts(self, key: str) -> list[Item]:
        """The texts of a member that is one or a list of them, each once."""
        value = self.values.get(key)
        if not isinstance(value, list):
            if isinstance(value, dict):
                self.refuse(key, "must be an array")
                return []
            item = self.item(key)
            return [] if item is None else [item]
        items: dict[str, Item] = {}
        for index, member in enumerate(islice(value, MAX_ITEMS)):
            name = f"{self._where}{key}[{index}]"
            item = Item(_text(member) or "", name, self._document.line(value, index))
            if not isinstance(member, str):
                self.refuse(key, "must be a string", item)
            if item.text:
                items.setdefault(item.text, item)
        return list(items.values())

    def one_of(self, key: str, known: Collection[str], item: Item) -> None:
        """An error where the text is none of those known."""
        if item.text not in known:
            self.refuse(key, f"must be one of [{_some(known)}], not {self._meant(item.text, known)}", item)

    def official(self, key: str, what: str, known: Collection[str], item: Item) -> None:
        """A warning where the text is none of those known."""
        if item.text not in known:
            message = (
                f"The {what} {self._meant(item.text, known)} is not in the official list: {_some(known)}"
            )
            self.warn(key, message, item)

    def inner(self, key: str) -> "Fields | None":
        """The mapping that a member has to be."""
        value = self.values.get(key)
        if value is None:
            self.refuse(key, "is required")
            return None
        if not isinstance(value, dict):
            self.refuse(key, "must be of type object")
            return None
        return self._within(value, f"{key}.", key, self._document.line(self.values, key))

    def each(self, key: str) -> Iterator["Fields"]:
        """The mappings in the list that a member has to be."""
        value = self.values.get(key)
        if not isinstance(value, list):
            self.refuse(key, "is required" if value is None else "must be an array")
            return
        for index, member in enumerate(value):
            if isinstance(member, dict):
                yield self._within(member, f"{key}[{index}].", key, self._document.line(value, index))
            else:
                name = f"{self._where}{key}[{index}]"
                self.refuse(key, "must be of type object", Item("", name, self._document.line(value, index)))

    def _meant(self, text: str, known: Collection[str]) -> str:
        if self._findings.is_full or len(text) > _LONGEST_MISTAKE:
            return quoted(text)
        near = get_close_matches(text.lower(), known, n=1, cutoff=0.8)
        return quoted(text) + (f" (did you mean {quoted(near[0])}?)" if near else "")

    def _within(self, values: dict[str, Any], where: str, key: str, line: int | None) -> "Fields":
        where = self._where + where
        return Fields(values, self._document, self._findings, where=where, code=self._code or key, line=line)

    def _say(self, severity: Severity, key: str, message: str, item: Item | None) -> None:
        line = item.line if item else self._document.line(self.values, key) or self._line
        code = (self._code or key).replace("_", "-")
        self._findings.add(severity, f"card-{code}", message, line)


def _text(value: object) -> str | None:
    if isinstance(value, date):
        return value.isoformat()
    if isinstance(value, int) and value.bit_length() > 64:
        return None
    return clean_text(str(value).strip(), _MAX_TEXT) or None if isinstance(value, str | int | float) else None


def _some(known: Collection[str]) -> str:
    return ", ".join([*islice(known, _SHOWN), f"… {len(known) - _SHOWN} more"][: len(known)])
