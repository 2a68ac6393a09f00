"""Summaries of folders, by the real parsers."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from core.models import RepositoryType
from hooks.formats.parsed import Parsed
from hooks.formats.registry import format_of
from hooks.summary import Summary, summarise
from tests.support.model_files import write_safetensors
from tests.support.path_source import PathSource


def understood(folder: Path) -> dict[str, tuple[str, Parsed]]:
    """What the parsers find in a folder."""
    found: dict[str, tuple[str, Parsed]] = {}
    for file in folder.rglob("*"):
        path = file.relative_to(folder).as_posix()
        known = format_of(path) if file.is_file() else None
        if known is not None:
            found[path] = (known.name, known.parse(PathSource(file, known.max_bytes)))
    return found


def model(folder: Path) -> Summary:
    """The summary of a model repository."""
    return summarise(understood(folder), RepositoryType.MODEL)


def data(folder: Path) -> Summary:
    """The summary of a dataset repository."""
    return summarise(understood(folder), RepositoryType.DATASET)


def write(path: Path, content: str | bytes) -> None:
    """A file, with the directories that it lies in."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)


def weights(folder: Path, sizes: Mapping[str, int]) -> None:
    """Safetensors files of so many parameters."""
    for path, size in sizes.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        write_safetensors(folder / path, {"w": np.ones(size, np.float32)})


def card(folder: Path, yaml: str) -> None:
    """A card with this metadata."""
    write(folder / "README.md", f"---\n{yaml}\n---\n")
