"""A version in one line, for people."""

from collections.abc import Iterator

from core.models import RepositoryType
from hooks.summary import Summary

_UNITS = ((10**12, "T"), (10**9, "B"), (10**6, "M"), (10**3, "K"))


def describe(kind: RepositoryType, summary: Summary) -> str | None:
    """As in `Model: LlamaForCausalLM, 134.5 M parameters (BF16), apache-2.0`; None where nothing is known."""
    is_model = kind is RepositoryType.MODEL
    facts = list(_of_model(summary) if is_model else _of_dataset(summary))
    facts += summary.licenses[:2]
    return f"{'Model' if is_model else 'Dataset'}: {', '.join(facts)}" if facts else None


def shorten(count: int) -> str:
    """A count as people say it: `134.5 M`."""
    for unit, name in _UNITS:
        if count >= unit:
            return f"{count / unit:.1f} {name}"
    return str(count)


def _of_model(summary: Summary) -> Iterator[str]:
    name = next(iter(summary.architectures), summary.model_type or summary.library)
    if name is not None:
        yield name
    if summary.parameters is not None:
        dtype = summary.quantisation or next(iter(summary.dtypes), None)
        yield f"{shorten(summary.parameters)} parameters" + (f" ({dtype})" if dtype else "")
    if summary.adapter_parameters is not None:
        base = next(iter(summary.base_models), None)
        of = f" of {base.model}" if base else ""
        yield f"adapter{of} with {shorten(summary.adapter_parameters)} parameters"


def _of_dataset(summary: Summary) -> Iterator[str]:
    if summary.rows is not None:
        yield f"{'' if summary.rows_exact else 'about '}{summary.rows:,} rows"
    if summary.columns:
        yield f"{len(summary.columns)} column{'s' if len(summary.columns) > 1 else ''}"
