"""What every parser answers: metadata, and findings about what is wrong with the file."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any


class Severity(StrEnum):
    """`ERROR`: nobody can use the file as it is. `WARNING`: somebody will be surprised."""

    ERROR = "error"
    WARNING = "warning"
    INFO = "info"


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that is wrong with a file.

    Attributes:
        code: stable, lower case with hyphens, for machines: `header-cut`.
        message: one line for people, without the path; what is wrong, then what to do.
        path: of the file, filled in by whoever knows it; line: from 1, where there is one.
    """

    severity: Severity
    code: str
    message: str
    path: str = ""
    line: int | None = None


@dataclass(frozen=True, slots=True)
class Parsed:
    """The answer of a parser. `metadata` is JSON-able and small; None when nothing could be understood."""

    metadata: Mapping[str, Any] | None
    findings: tuple[Finding, ...] = field(default=())
