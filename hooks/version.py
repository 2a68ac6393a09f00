"""One commit, understood: put together from what parsers found in its files."""

from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

import msgspec

from core.models import RepositoryType
from hooks.errors import ContentMissing
from hooks.formats.parsed import Finding, Parsed, Severity
from hooks.formats.registry import FORMATS, format_of
from hooks.summary import Summary, summarise
from hooks.trees import Tree, TreeFile

# Counts up when the same files come to say something else; parsers have versions of their own.
_CODE = 1
VERSION = 1000 * _CODE + sum(known.version for known in FORMATS)

MAX_FILES = 5000
MISSING = "content-missing"

_MAX_PATH = 1000
_MAX_FINDINGS = 500
# What all files together keep in memory until they are summed up, as JSON, which grows twelvefold: up to the
# first of these bounds all that is found, then the beginning of it, and nothing beyond the second.
_DETAIL_BYTES = 4 * 1024**2
_MOST_BYTES = 8 * 1024**2
_FIRST = 20
_DEEPEST = 3
_TEXT = 200

_PLACES = {known.name: place for place, known in enumerate(FORMATS)}


class VersionFile(msgspec.Struct, frozen=True):
    """A file, see `hooks.trees.TreeFile`; `parser` is None where nothing could be parsed."""

    path: str
    digest: str
    size: int
    parser: str | None


@dataclass(frozen=True, slots=True)
class Version:
    """A commit, understood.

    Attributes:
        commit: its full oid.
        files: those that mean something, `MAX_FILES` at most; the most telling first.
        findings: of files, by their paths, and of what files say together.
        stored: whether the database has it so.
    """

    repository_id: str
    type: RepositoryType
    commit: str
    files: tuple[VersionFile, ...]
    summary: Summary
    findings: tuple[Finding, ...]
    stored: bool

    @property
    def is_whole(self) -> bool:
        """Whether all its files were there: otherwise it may be understood better later."""
        return all(one.code != MISSING for one in self.findings)


class Making:
    """A version that is being made from the answers about `wanted`.

    Attributes:
        wanted: the files to parse.
    """

    def __init__(self, tree: Tree, kind: RepositoryType) -> None:
        self._tree = tree
        self._type = kind
        shown = sorted((file for file in tree.files.values() if len(file.path) <= _MAX_PATH), key=_place)
        self.wanted = shown[:MAX_FILES]
        self._files = {
            file.path: VersionFile(file.path, file.digest, file.size, None) for file in self.wanted
        }
        self._parsed: dict[str, tuple[str, Parsed]] = {}
        self._findings: list[Finding] = []
        self._missing: list[Finding] = []
        self._more_findings = 0
        self._bytes = 0
        self._not_summed_up = 0
        left_out = tree.files_total - len(self.wanted)
        if left_out or tree.cut:
            message = f"{'at least ' if tree.cut else ''}{left_out} more files are not looked at"
            self._add(self._findings, Finding(Severity.INFO, "more-files", message))

    def take(self, file: TreeFile, parser: str, parsed: Parsed) -> None:
        """What was found in one of the files."""
        self._files[file.path] = VersionFile(file.path, file.digest, file.size, parser)
        for one in parsed.findings:
            self._add(self._findings, replace(one, path=file.path))
        metadata = parsed.metadata
        size = len(msgspec.json.encode(metadata))
        if self._bytes + size > _DETAIL_BYTES and metadata is not None:
            metadata = _cut(metadata, _DEEPEST)
            size = len(msgspec.json.encode(metadata))
        if self._bytes + size > _MOST_BYTES:
            self._not_summed_up += 1
            return
        self._bytes += size
        self._parsed[file.path] = (parser, Parsed(metadata))

    def miss(self, file: TreeFile, error: ContentMissing) -> None:
        """One of the files cannot be read, now or later."""
        self._add(self._missing, Finding(Severity.WARNING, MISSING, str(error), file.path))

    def finish(self) -> Version:
        """The version. Takes its time: call it in a thread."""
        summary = summarise(self._parsed, self._type)
        if self._not_summed_up:
            message = f"{self._not_summed_up} more files say too much to be summed up with the others"
            self._add(self._findings, Finding(Severity.INFO, "more-content", message))
        # What is missing first: as long as any is, the version may come to say more.
        findings = [*self._missing, *self._findings, *summary.findings]
        more = self._more_findings + max(0, len(findings) - _MAX_FINDINGS)
        if more:
            message = f"{more} more findings are not kept"
            findings = [*findings[:_MAX_FINDINGS], Finding(Severity.INFO, "more-findings", message)]
        return Version(
            self._tree.repository_id,
            self._type,
            self._tree.commit,
            tuple(self._files.values()),
            summary,
            tuple(findings),
            stored=False,
        )

    def _add(self, findings: list[Finding], one: Finding) -> None:
        if len(findings) < _MAX_FINDINGS:
            findings.append(one)
        else:
            self._more_findings += 1


def _place(file: TreeFile) -> tuple[int, str]:
    known = format_of(file.path)
    return (len(FORMATS) if known is None else _PLACES[known.name], file.path)


def _cut(value: Any, depth: int) -> Any:
    """Only the beginnings of long lists and texts. What a parser found has a fixed number of keys itself."""
    if isinstance(value, str):
        return value[:_TEXT]
    if isinstance(value, dict):
        most = None if depth == _DEEPEST else _FIRST
        return {key: _cut(one, depth - 1) for key, one in islice(value.items(), most)} if depth else {}
    if isinstance(value, list):
        return [_cut(one, depth - 1) for one in islice(value, _FIRST)] if depth else []
    return value
