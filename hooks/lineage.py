"""What a model was made from."""

from typing import Any, Final

import msgspec

from hooks.formats.card_values import RELATIONS, is_repository_id
from hooks.parsed_tree import ParsedTree

_MOST: Final = 50
_HUB: Final = "https://huggingface.co/"


class BaseModel(msgspec.Struct, frozen=True):
    """A model, by the id of its repository, and how this one comes from it.

    `relation` is `finetune`, `adapter`, `merge` or `quantized`.
    """

    model: str
    relation: str


def base_models(tree: ParsedTree, *, quantised: bool) -> tuple[BaseModel, ...]:
    """Those that adapters and the card name, or where these are silent, GGUF files. Each once.

    An undeclared relation is inferred as the Hugging Face Hub does: adapters adapt, quantised weights are
    quantised, several bases are merged, anything else is fine-tuned.
    """
    found: dict[str, BaseModel] = {}
    for adapter in tree.of("adapter"):
        if not adapter.is_copy:
            _add(found, adapter.metadata.get("base_model"), "adapter")
    card = tree.at("README.md", "card")
    named = card.get("base_model") or []
    declared = card.get("base_model_relation")
    inferred = "adapter" if found else "quantized" if quantised else "merge" if len(named) > 1 else "finetune"
    for model in named:
        _add(found, model, declared if declared in RELATIONS else inferred)
    if not found:
        for gguf in tree.of("gguf"):
            _from_gguf(found, gguf.metadata.get("key_values") or {})
    return tuple(found.values())[:_MOST]


def _add(found: dict[str, BaseModel], model: Any, relation: str) -> None:
    # A path on the machine of whoever trained it is no id.
    if isinstance(model, str) and is_repository_id(model):
        found.setdefault(model.lower(), BaseModel(model, relation))


def _from_gguf(found: dict[str, BaseModel], values: dict[str, Any]) -> None:
    for number in range(_MOST):
        url = values.get(f"general.base_model.{number}.repo_url")
        if not isinstance(url, str):
            return
        _add(found, url.removeprefix(_HUB), "quantized")
