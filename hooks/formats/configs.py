"""`config.json` and `generation_config.json` of a model, as `transformers` writes them."""

from collections.abc import Mapping
from typing import Any, Final

from hooks.formats.clean import clean_json
from hooks.formats.json_files import Fields, read_object, scalars
from hooks.formats.parsed import Finding, Parsed, Severity
from hooks.formats.source import Source

_LIMIT: Final = 4 * 1024**2
_MOST_PARTS: Final = 16
# What transformers calls `attribute_map`: families of models have names of their own for the same numbers.
_COUNTS: Final[Mapping[str, tuple[str, ...]]] = {
    "hidden_size": ("hidden_size", "n_embd", "d_model", "dim", "hidden_dim"),
    "num_hidden_layers": ("num_hidden_layers", "n_layer", "n_layers", "num_layers", "encoder_layers"),
    "vocab_size": ("vocab_size", "padded_vocab_size"),
    "max_position_embeddings": (
        "max_position_embeddings",
        "n_positions",
        "n_ctx",
        "max_target_positions",
        "max_seq_len",
        "seq_length",
    ),
    "intermediate_size": ("intermediate_size", "ffn_dim", "d_ff", "n_inner"),
    "num_attention_heads": ("num_attention_heads", "n_head", "n_heads", "num_heads"),
    "num_key_value_heads": ("num_key_value_heads",),
    "num_experts": ("num_experts", "num_local_experts", "n_routed_experts"),
}
# Where models of several parts keep the one that reads and writes text.
_TEXT_PARTS: Final = ("text_config", "llm_config", "language_config", "thinker_config", "decoder")
_LIBRARY_KEYS: Final = {
    "transformers_version": "transformers",
    "_diffusers_version": "diffusers",
    "keras_version": "keras",
    "pretrained_cfg": "timm",
    "model_cfg": "open_clip",
    "sbert_ce_default_activation_function": "sentence-transformers",
}


def parse_config(source: Source) -> Parsed:
    """What a model says of itself: architecture, sizes, type of its numbers.

    For a model of several parts the sizes are those of its text part, as with `get_text_config()` of
    transformers; `parts` has those of each.
    """
    values, findings = read_object(source, _LIMIT)
    if values is None:
        return Parsed(None, tuple(findings))
    fields = Fields(values, "config-bad-value", findings)
    text = _text_part(values)
    sizes = _sizes(values, findings)
    if text is not values:
        # An older top level may repeat them; the part is what the model is built from.
        sizes |= {key: value for key, value in _sizes(text, findings).items() if value is not None}
    dtype = _dtype(values, findings)
    if dtype is None and text is not values:
        dtype = _dtype(text, findings)
    metadata = {
        "architectures": fields.texts("architectures", most=20),
        "model_type": fields.text("model_type"),
        **sizes,
        "torch_dtype": dtype,
        "tie_word_embeddings": _truth(text, "tie_word_embeddings", _truth(values, "tie_word_embeddings")),
        "quantization_config": _quantisation(values, text),
        "library_hints": sorted({library for key, library in _LIBRARY_KEYS.items() if key in values}),
        "parts": {clean_json(name, text=200): _part(part) for name, part in _parts(values)},
        "raw": scalars(values),
    }
    if isinstance(values.get("auto_map"), dict) and values["auto_map"]:
        metadata["custom_code"] = True
        message = "loading it runs code from a repository (`auto_map`): it needs `trust_remote_code=True`"
        findings.append(Finding(Severity.INFO, "config-custom-code", message))
    return Parsed(metadata, tuple(findings))


def parse_generation_config(source: Source) -> Parsed:
    """How a model generates unless told otherwise: the file's own keys, made clean."""
    values, findings = read_object(source, _LIMIT)
    if values is None:
        return Parsed(None, tuple(findings))
    return Parsed(clean_json(values, depth=4, values=2000, length=200, text=500), tuple(findings))


def _text_part(values: Mapping[str, Any]) -> Mapping[str, Any]:
    for name in _TEXT_PARTS:
        part = values.get(name)
        if isinstance(part, dict):
            deeper = part.get("text_config")
            return deeper if isinstance(deeper, dict) else part
    return values


def _parts(values: Mapping[str, Any]) -> list[tuple[str, Mapping[str, Any]]]:
    parts: list[tuple[str, Mapping[str, Any]]] = [
        (name, part)
        for name, part in values.items()
        if isinstance(part, dict)
        and (name.endswith("_config") or name in {"encoder", "decoder"})
        and ("model_type" in part or any(alias in part for alias in _COUNTS["hidden_size"]))
    ]
    return parts[:_MOST_PARTS]


def _part(part: Mapping[str, Any]) -> dict[str, Any]:
    ignored: list[Finding] = []  # what matters is reported for the text part
    sizes = {key: value for key, value in _sizes(part, ignored).items() if value is not None}
    return {"model_type": Fields(part, "", ignored).text("model_type"), **sizes}


def _sizes(values: Mapping[str, Any], findings: list[Finding]) -> dict[str, int | None]:
    fields = Fields(values, "config-bad-value", findings)
    return {name: fields.count(*aliases) for name, aliases in _COUNTS.items()}


def _dtype(values: Mapping[str, Any], findings: list[Finding]) -> str | None:
    fields = Fields(values, "config-bad-value", findings)
    name = fields.text("torch_dtype") or fields.text("dtype")
    return name.removeprefix("torch.") if name else None


def _truth(values: Mapping[str, Any], key: str, otherwise: bool | None = None) -> bool | None:
    value = values.get(key)
    return value if isinstance(value, bool) else otherwise


def _quantisation(values: Mapping[str, Any], text: Mapping[str, Any]) -> Any:
    for place in (values, text):
        for key in ("quantization_config", "quantization"):
            if isinstance(place.get(key), dict):
                return clean_json(place[key], depth=4, values=300, length=100, text=300)
    return None
