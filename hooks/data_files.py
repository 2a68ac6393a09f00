"""What a dataset is made of: its subsets and splits, with rows and columns, as `datasets` would load them."""

import fnmatch
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from hooks.parsed_tree import ParsedFile, ParsedTree, counted

MOST_SPLITS: Final = 200
_MOST_COLUMNS: Final = 500
# What matching the card's patterns may cost; above it, two seconds at most, they are not worth the time.
_MOST_MATCHES: Final = 300_000  # patterns times files
_MOST_COMPARED: Final = 1_000_000_000  # characters of patterns times characters of paths
# Directories; those below them count as one.
_DEEPEST: Final = 30
_FORMATS: Final = ("parquet", "jsonl", "csv")
_WORDS: Final = {
    "train": ("train", "training"),
    "validation": ("validation", "valid", "val", "dev"),
    "test": ("test", "testing", "eval", "evaluation"),
}
_SPLITS: Final = {word: split for split, words in _WORDS.items() for word in words}
_WORD: Final = re.compile(r"[a-z0-9]+")
_WILD: Final = re.compile(r"[*?\[]")
_DEFAULT: Final = "default"


class Split(msgspec.Struct, frozen=True):
    """One split of one subset. `rows` is None where some file's rows could not be counted."""

    config: str
    split: str
    files: int
    rows: int | None


class Column(msgspec.Struct, frozen=True):
    name: str
    type: str | None


@dataclass(frozen=True, slots=True)
class Data:
    """All of it together. `rows` counts every file once; `rows_exact` says that none was estimated."""

    splits: tuple[Split, ...] = ()
    rows: int | None = None
    rows_exact: bool = False
    columns: tuple[Column, ...] = ()


def data(tree: ParsedTree) -> Data:
    """By the card's `configs`; where it has none that match, by the names of files and directories."""
    files = list(tree.of(*_FORMATS))
    configs = tree.at("README.md", "card").get("configs") or []
    groups = _configured(files, configs) or _guessed(files)
    if not groups:
        return Data()
    by_path = {file.path: file for group in groups.values() for file in group}
    used = [by_path[path] for path in sorted(by_path)]
    splits = [
        Split(config, split, len(group), _rows(group))
        for (config, split), group in list(groups.items())[:MOST_SPLITS]
    ]
    exact = all(file.metadata.get("rows_exact", True) for file in used)
    return Data(tuple(splits), rows := _rows(used), exact and rows is not None, _columns(used))


def _rows(files: Iterable[ParsedFile]) -> int | None:
    rows = [file.count("rows") for file in files]
    return counted(sum(count or 0 for count in rows)) if None not in rows else None


def _columns(files: Iterable[ParsedFile]) -> tuple[Column, ...]:
    columns: dict[str, Column] = {}
    for file in files:
        for column in file.metadata.get("columns") or ():
            name, kind = column.get("name"), column.get("type")
            if isinstance(name, str) and len(columns) < _MOST_COLUMNS:
                columns.setdefault(name, Column(name, kind if isinstance(kind, str) else None))
    return tuple(columns.values())


def _configured(
    files: Sequence[ParsedFile], configs: Sequence[Mapping[str, Any]]
) -> dict[tuple[str, str], list[ParsedFile]]:
    wanted = [
        (config.get("config_name") or _DEFAULT, part.get("split") or "train", _pattern(config, path))
        for config in configs
        for part in config.get("data_files") or ()
        for path in part.get("path") or ()
    ]
    if len(wanted) * len(files) > _MOST_MATCHES:
        return {}
    by_path = {file.path: file for file in files}
    if sum(len(pattern) for _, _, pattern in wanted) * sum(map(len, by_path)) > _MOST_COMPARED:
        return {}
    groups: defaultdict[tuple[str, str], dict[str, ParsedFile]] = defaultdict(dict)
    for config, split, pattern in wanted:
        group = groups[config, split]
        if pattern in by_path:
            group[pattern] = by_path[pattern]
        elif _WILD.search(pattern):
            group.update((path, by_path[path]) for path in _matching(pattern, by_path))
    return {key: list(group.values()) for key, group in groups.items() if group}


def _pattern(config: Mapping[str, Any], path: str) -> str:
    directory = str(config.get("data_dir") or "").strip("/")
    return f"{directory}/{path}" if directory else path.removeprefix("./")


def _matching(pattern: str, paths: Iterable[str]) -> list[str]:
    # fnmatch's expressions cannot be made to take long, but their stars cross slashes.
    matches = re.compile(fnmatch.translate(pattern)).match
    deep = "**" in pattern
    return [path for path in paths if matches(path) and (deep or path.count("/") == pattern.count("/"))]


def _guessed(files: Iterable[ParsedFile]) -> dict[tuple[str, str], list[ParsedFile]]:
    groups: defaultdict[tuple[str, str], defaultdict[str, list[ParsedFile]]] = defaultdict(
        lambda: defaultdict(list)
    )
    for file in files:
        groups[_place(file)][file.format].append(file)
    # The same rows are often there in several formats.
    return {
        place: next(formats[name] for name in _FORMATS if name in formats)
        for place, formats in sorted(groups.items())
    }


def _place(file: ParsedFile) -> tuple[str, str]:
    parts = file.directory.split("/", _DEEPEST) if file.directory else []
    named = [_split_in(part) for part in parts]
    split = _split_in(file.name.rpartition(".")[0]) or next((one for one in reversed(named) if one), "train")
    rest = [part for part, one in zip(parts, named, strict=True) if one is None and part != "data"]
    return "/".join(rest) or _DEFAULT, split


def _split_in(name: str) -> str | None:
    return next((_SPLITS[word] for word in _WORD.findall(name.lower()) if word in _SPLITS), None)
