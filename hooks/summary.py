"""Putting together what the files of a commit say: pure, and the same whatever the order of the files."""

import json
from collections.abc import Iterable, Mapping
from itertools import islice
from typing import Any, Final

from core.models import RepositoryType
from hooks.data_files import Column, Data, Split, data
from hooks.facets import facets
from hooks.formats.card_values import is_repository_id
from hooks.formats.clean import clean_text
from hooks.formats.parsed import Finding, Parsed, Severity
from hooks.lineage import BaseModel, base_models
from hooks.parsed_tree import ParsedTree, counted
from hooks.purpose import library, tasks
from hooks.summary_types import EvalResult, Summary
from hooks.weights import Weights, weigh

__all__ = ["BaseModel", "Column", "EvalResult", "Split", "Summary", "facets", "summarise"]

# A summary travels in events: all of it stays below half a megabyte.
_MOST: Final = 200
_LONGEST: Final = 200
_MOST_RESULTS: Final = 100
_MOST_FINDINGS: Final = 200


def summarise(files: Mapping[str, tuple[str, Parsed]], repository_type: RepositoryType) -> Summary:
    """What the files (by path: the name of the format, and what its parser found) say together.

    The card is believed before configurations, these before weights; see `purpose`, `weights`, `lineage` and
    `data_files` for how each thing is decided.
    """
    tree = ParsedTree(files)
    card = tree.at("README.md", "card")
    config = tree.main("config")
    gguf = next((file.metadata for file in tree.of("gguf")), {})
    model = repository_type is RepositoryType.MODEL
    weights = weigh(tree) if model else Weights()
    rows = Data() if model else data(tree)
    for_what = tasks(tree)
    results = tuple(_result(one) for one in _list(card, "eval_results")[:_MOST_RESULTS])
    findings = [*weights.findings, *_disagreements(tree, card)]
    return Summary(
        title=_text(card, "title") or _text(card, "pretty_name") or _text(gguf, "name"),
        task=for_what[0] if for_what else None,
        tasks=for_what,
        library=library(tree),
        licenses=_texts(card, "license") or _licence_of(gguf),
        license_name=_text(card, "license_name"),
        languages=_texts(card, "language"),
        tags=_texts(card, "tags"),
        architectures=_architectures(tree, config, gguf),
        model_type=_text(config, "model_type") or _text(gguf, "architecture"),
        parameters=weights.parameters,
        parameters_by_dtype=dict(weights.by_dtype),
        adapter_parameters=weights.adapter_parameters,
        dtypes=weights.dtypes,
        quantisation=weights.quantisation,
        quantisations=weights.quantisations,
        context_length=counted(config.get("max_position_embeddings")) or counted(gguf.get("context_length")),
        base_models=base_models(tree, quantised=weights.quantisation is not None),
        datasets=_texts(card, "datasets"),
        metrics=_metrics(card, results),
        eval_results=results,
        size_categories=_texts(card, "size_categories"),
        splits=rows.splits,
        rows=rows.rows,
        rows_exact=rows.rows_exact,
        columns=rows.columns,
        findings=tuple(findings[:_MOST_FINDINGS]),
    )


def _text(metadata: Mapping[str, Any], key: str) -> str | None:
    value = metadata.get(key)
    return value if isinstance(value, str) and value else None


def _list(metadata: Mapping[str, Any], key: str) -> list[Any]:
    value = metadata.get(key)
    return value if isinstance(value, list) else []


def _texts(metadata: Mapping[str, Any], key: str) -> tuple[str, ...]:
    """Without those that are too long to be what they should be."""
    texts = (value for value in _list(metadata, key) if isinstance(value, str) and len(value) <= _LONGEST)
    return tuple(islice(texts, _MOST))


def _licence_of(gguf: Mapping[str, Any]) -> tuple[str, ...]:
    name = _text(gguf.get("key_values") or {}, "general.license")
    return () if name is None else (name,)


def _architectures(tree: ParsedTree, config: Mapping[str, Any], gguf: Mapping[str, Any]) -> tuple[str, ...]:
    pipeline = _text(tree.at("model_index.json", "diffusers"), "class_name")
    if pipeline is not None:
        return (pipeline,)
    named = _text(gguf, "architecture")
    return _texts(config, "architectures") or (() if named is None else (named,))


def _result(result: Mapping[str, Any]) -> EvalResult:
    value = result["metric_value"]
    return EvalResult(
        task=clean_text(result["task_type"], _LONGEST),
        dataset=clean_text(result["dataset_type"], _LONGEST),
        metric=clean_text(result["metric_type"], _LONGEST),
        value=clean_text(json.dumps(value), _LONGEST) if isinstance(value, list | dict) else value,
        dataset_name=_short(result, "dataset_name"),
        config=_short(result, "dataset_config"),
        split=_short(result, "dataset_split"),
        source=_short(result, "source_url"),
    )


def _short(metadata: Mapping[str, Any], key: str) -> str | None:
    text = _text(metadata, key)
    return None if text is None else clean_text(text, _LONGEST)


def _metrics(card: Mapping[str, Any], results: Iterable[EvalResult]) -> tuple[str, ...]:
    return tuple(dict.fromkeys([*_texts(card, "metrics"), *(one.metric for one in results)]))[:_MOST]


def _disagreements(tree: ParsedTree, card: Mapping[str, Any]) -> list[Finding]:
    """Where the card names base models, and not the one that an adapter adapts."""
    named = {model.lower() for model in _texts(card, "base_model")}
    bases = [
        (file.path, _text(file.metadata, "base_model")) for file in tree.of("adapter") if not file.is_copy
    ]
    message = "the card's base_model is not the one that this adapter names: it will not load on that"
    return [
        Finding(Severity.WARNING, "base-model-differs", message, path)
        for path, base in bases
        if named and base is not None and is_repository_id(base) and base.lower() not in named
    ]
