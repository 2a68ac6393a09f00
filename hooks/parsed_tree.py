"""What parsers found in the files of one commit, by format and place. Always in the order of paths."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from hooks.formats.parsed import Parsed

_INT64: Final = 2**63
# Copies of a model that stand next to it, for other programs or from earlier in its training.
_COPIES: Final = frozenset({"original", "onnx", "openvino", "coreml", "tflite", "runs", "logs"})
_STEPS: Final = ("checkpoint-", "global_step", "epoch_", "step_")


@dataclass(frozen=True, slots=True)
class ParsedFile:
    """A file, and what its parser says of it."""

    path: str
    format: str
    metadata: Mapping[str, Any]

    @property
    def directory(self) -> str:
        """Without a slash at its end; empty for the root."""
        return self.path.rpartition("/")[0]

    @property
    def name(self) -> str:
        return self.path.rpartition("/")[2]

    @property
    def is_copy(self) -> bool:
        """Whether it lies where copies of what the repository is about are kept."""
        parts = self.directory.lower().split("/")
        return any(part in _COPIES or part.startswith(_STEPS) for part in parts)

    def count(self, key: str) -> int | None:
        """A number from 0 up that 64 bits hold."""
        return counted(self.metadata.get(key))


class ParsedTree:
    """Files of which something is known."""

    def __init__(self, files: Mapping[str, tuple[str, Parsed]]) -> None:
        self._files = [
            ParsedFile(path, name, parsed.metadata)
            for path, (name, parsed) in sorted(files.items())
            if parsed.metadata is not None
        ]

    def of(self, *formats: str) -> Iterator[ParsedFile]:
        """Files of some formats."""
        return (file for file in self._files if file.format in formats)

    def at(self, path: str, name: str) -> Mapping[str, Any]:
        """What is known of the file at a path, if it is of the format; otherwise nothing."""
        return next((file.metadata for file in self.of(name) if file.path == path), {})

    def main(self, name: str) -> Mapping[str, Any]:
        """What is known of the file of a format that speaks for the repository.

        That is the one in the root, or the only one that is no copy; if there is none, nothing.
        """
        files = [file for file in self.of(name) if not file.is_copy]
        chosen = [file for file in files if not file.directory] or files
        return chosen[0].metadata if len(chosen) == 1 else {}


def counted(value: object) -> int | None:
    """The value, if it is a number from 0 up that 64 bits hold."""
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < _INT64 else None
