"""One commit, understood: put together from what parsers found in its files."""

from collections.abc import Iterable, Mapping
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
# What all files together may keep in memory until they are summed up, as JSON; then long lists are cut.
_DETAIL_BYTES = 16 * 1024**2
_LONG = 1000

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
        self._bytes = 0
        left_out = tree.files_total - len(self.wanted)
        if left_out or tree.cut:
            message = f"{'at least ' if tree.cut else ''}{left_out} more files are not looked at"
            self._findings.append(Finding(Severity.INFO, "more-files", message))

    def take(self, file: TreeFile, parser: str, parsed: Parsed) -> None:
        """What was found in one of the files."""
        self._files[file.path] = VersionFile(file.path, file.digest, file.size, parser)
        self._find(file, parsed.findings)
        self._bytes += len(msgspec.json.encode(parsed.metadata))
        if self._bytes > _DETAIL_BYTES and parsed.metadata is not None:
            parsed = replace(parsed, metadata=_cut(parsed.metadata))
        self._parsed[file.path] = (parser, parsed)

    def miss(self, file: TreeFile, error: ContentMissing) -> None:
        """One of the files cannot be read, now or later."""
        self._find(file, [Finding(Severity.WARNING, MISSING, str(error))])

    def finish(self) -> Version:
        """The version. Takes its time: call it in a thread."""
        summary = summarise(self._parsed, self._type)
        findings = [*self._findings, *summary.findings]
        if len(findings) > _MAX_FINDINGS:
            message = f"{len(findings) - _MAX_FINDINGS} more findings are not kept"
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

    def _find(self, file: TreeFile, findings: Iterable[Finding]) -> None:
        # A few more than are kept, so that the rest can be counted without being held.
        self._findings += (replace(one, path=file.path) for one in findings)


def _place(file: TreeFile) -> tuple[int, str]:
    known = format_of(file.path)
    return (len(FORMATS) if known is None else _PLACES[known.name], file.path)


def _cut(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """Without all but the first entries of long lists."""
    short: dict[str, Any] = {}
    for key, value in metadata.items():
        if isinstance(value, dict):
            short[key] = dict(islice(value.items(), _LONG))
        else:
            short[key] = value[:_LONG] if isinstance(value, list) else value
    return short
