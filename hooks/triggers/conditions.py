"""Whether what a rule asks of a model or dataset is true of a commit."""

from collections.abc import Iterable, Mapping, Sequence

from hooks.summary import Summary
from hooks.triggers.effort import Effort
from hooks.triggers.matching import PatternLists
from hooks.triggers.spec import When, texts_of, wanted


def holds(when: When, summary: Summary, *, has_errors: bool, effort: Effort) -> bool:
    """Whether all conditions are fulfilled. `has_errors`: whether any file of the commit is broken.

    Raises:
        TooMuchEffort: nobody knows.
    """
    if when.has_errors not in (None, has_errors):
        return False
    if not (
        _between(summary.parameters, when.min_parameters, when.max_parameters)
        and _between(summary.context_length, when.min_context_length, None)
        and _between(summary.rows, when.min_rows, when.max_rows)
    ):
        return False
    values = _texts(summary)
    return all(_fits(wanted(value), values[name], effort) for name, value in texts_of(when).items())


def _fits(patterns: Sequence[str], values: Iterable[str], effort: Effort) -> bool:
    texts = [value.lower() for value in values]
    effort.spend(patterns, texts)
    return PatternLists([patterns], paths=False).chosen(texts)[0]


def _texts(summary: Summary) -> Mapping[str, Iterable[str]]:
    """The values that each condition on texts is about."""
    return {
        "task": summary.tasks,
        "library": _present(summary.library),
        "license": summary.licenses,
        "language": summary.languages,
        "tag": summary.tags,
        "architecture": [*summary.architectures, *_present(summary.model_type)],
        "dtype": summary.dtypes,
        "quantisation": summary.quantisations or _present(summary.quantisation),
        "base_model": [base.model for base in summary.base_models],
        "dataset": summary.datasets,
    }


def _present(value: str | None) -> tuple[str, ...]:
    return () if value is None else (value,)


def _between(value: int | None, least: int | None, most: int | None) -> bool:
    """Whether a number lies in a range; one that is not known lies in none but the open one."""
    if value is None:
        return least is None and most is None
    return (least is None or value >= least) and (most is None or value <= most)
