"""The structured parts of cards: evaluation results, and what datasets are made of."""

import json
from collections.abc import Iterable
from typing import Any, Final

from hooks.formats.card_fields import Fields
from hooks.formats.clean import clean_json

_MAX_RESULTS: Final = 2000
_MAX_CONFIGS: Final = 500
# Characters of JSON that a list may take of what is stored.
_ROOM: Final = 400_000

# Names in a card, in the order of huggingface_hub's `EvalResult`, whose fields these become.
_DATASET: Final = ("config", "split", "revision")
_METRIC: Final = ("name", "config")


def eval_results(card: Fields) -> tuple[str | None, list[dict[str, Any]], int]:
    """The name of the model, its results as huggingface_hub's `EvalResult` has them, and their number.

    Those that break the form are left out, with findings. The list may be shorter than the number says.
    """
    if card.values.get("model-index") is None:
        return None, [], 0
    name: str | None = None
    results: list[dict[str, Any]] = []
    total = 0
    for model in card.each("model-index"):
        name = model.text("name", required=True) or name
        for result in model.each("results"):
            found = _results(result)
            total += len(found)
            results += found[: max(0, _MAX_RESULTS - len(results))]
    return name, _fitting(results), total


def _results(result: Fields) -> list[dict[str, Any]]:
    task, dataset = result.inner("task"), result.inner("dataset")
    if task is None or dataset is None:
        return []
    shared = {
        "task_type": task.text("type", required=True),
        "dataset_type": dataset.text("type", required=True),
        "dataset_name": dataset.text("name", required=True),
        "task_name": task.text("name"),
        **{f"dataset_{key}": dataset.text(key) for key in _DATASET},
        "dataset_args": clean_json(dataset.values.get("args"), depth=3, values=20, text=150),
        **_source(result),
    }
    complete = all(shared[key] for key in ("task_type", "dataset_type", "dataset_name"))
    found = [_result(metric, shared) for metric in result.each("metrics")]
    return [one for one in found if one is not None and complete]


def _source(result: Fields) -> dict[str, Any]:
    if result.values.get("source") is None:
        return {}
    source = result.inner("source")
    if source is None:
        return {}
    name = source.text("name")
    return {"source_name": name, "source_url": source.text("url", required=name is not None)}


def _result(metric: Fields, shared: dict[str, Any]) -> dict[str, Any] | None:
    kind = metric.text("type", required=True)
    if "value" not in metric.values:
        metric.refuse("value", "is required")
        return None
    if kind is None:
        return None
    result = {
        **shared,
        "metric_type": kind,
        "metric_value": clean_json(metric.values["value"], depth=3, values=20, text=150),
        **{f"metric_{key}": metric.text(key) for key in _METRIC},
        "metric_args": clean_json(metric.values.get("args"), depth=3, values=20, text=150),
        "verified": metric.values["verified"] if isinstance(metric.values.get("verified"), bool) else None,
    }
    return {key: value for key, value in result.items() if value is not None or key == "metric_value"}


def configurations(card: Fields) -> list[dict[str, Any]]:
    """The subsets of a dataset: `{"config_name", "data_dir", "data_files": [{"split", "path": […]}]}`."""
    if card.values.get("configs") is None:
        return []
    found: list[dict[str, Any]] = []
    for config in card.each("configs"):
        if len(found) == _MAX_CONFIGS:
            break
        one: dict[str, Any] = {"config_name": config.text("config_name") or "default"}
        if (directory := config.text("data_dir")) is not None:
            one["data_dir"] = directory
        one["data_files"] = _data_files(config)
        found.append(one)
    return _fitting(found)


def _data_files(config: Fields) -> list[dict[str, Any]]:
    files = config.values.get("data_files")
    if isinstance(files, dict):
        inner = config.inner("data_files")
        return [{"split": split, "path": _paths(inner.texts(split))} for split in files] if inner else []
    if isinstance(files, list) and any(isinstance(one, dict) for one in files):
        return [
            {"split": one.text("split", required=True) or "train", "path": _paths(one.texts("path"))}
            for one in config.each("data_files")
        ]
    paths = _paths(config.texts("data_files"))
    return [{"split": "train", "path": paths}] if paths else []


def _paths(items: Iterable[Any]) -> list[str]:
    return [item.text for item in items]


def known_splits(card: Fields) -> list[dict[str, Any]]:
    """What `dataset_info` says: `{"config_name", "splits": [{"name", "num_examples"}], "features": […]}`."""
    info = card.values.get("dataset_info")
    if info is None:
        return []
    if isinstance(info, dict):
        inner = card.inner("dataset_info")
        infos = [inner] if inner else []
    else:
        infos = list(card.each("dataset_info"))
    return _fitting([_info(one) for one in infos[:_MAX_CONFIGS]])


def _info(info: Fields) -> dict[str, Any]:
    splits = info.values.get("splits")
    features = info.values.get("features")
    return {
        "config_name": info.text("config_name") or "default",
        "splits": [
            {"name": split.text("name"), "num_examples": _count(split.values.get("num_examples"))}
            for split in (info.each("splits") if isinstance(splits, list) else ())
        ],
        "features": [
            name
            for feature in (info.each("features") if isinstance(features, list) else ())
            if (name := feature.text("name")) is not None
        ],
    }


def _count(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**63 else None


def _fitting(items: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """As many of the first as there is room for."""
    room = _ROOM
    for index, item in enumerate(items):
        room -= len(json.dumps(item))
        if room < 0:
            return items[:index]
    return items
