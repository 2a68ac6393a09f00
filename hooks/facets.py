"""What lists of repositories are filtered by."""

from collections.abc import Iterable, Iterator
from typing import Final

from hooks.summary_types import Summary

MOST: Final = 200
_MAX_LENGTH: Final = 200


def facets(summary: Summary) -> set[tuple[str, str]]:
    """Kinds and values, in lower case: 200 at most of 200 characters at most, tags the last to find room.

    Kinds: `task`, `library`, `license`, `architecture`, `dtype` (with quantisations), `base_model`,
    `dataset`, `language`, `tag`.
    """
    found: dict[tuple[str, str], None] = {}
    for kind, text in _all(summary):
        value = text.strip().lower()
        if value and len(value) <= _MAX_LENGTH and len(found) < MOST:
            found[kind, value] = None
    return set(found)


def _all(summary: Summary) -> Iterator[tuple[str, str]]:
    architectures = [*summary.architectures, *_present(summary.model_type)]
    values: dict[str, Iterable[str]] = {
        "task": summary.tasks,
        "library": _present(summary.library),
        "license": [*summary.licenses, *_present(summary.license_name)],
        "architecture": architectures,
        "dtype": [*summary.dtypes, *_present(summary.quantisation), *summary.quantisations],
        "base_model": [base.model for base in summary.base_models],
        "dataset": summary.datasets,
        "language": summary.languages,
        "tag": summary.tags,
    }
    return ((kind, value) for kind, some in values.items() for value in some)


def _present(value: str | None) -> tuple[str, ...]:
    return () if value is None else (value,)
