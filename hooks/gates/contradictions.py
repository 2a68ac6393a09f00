"""Where a `config.json` contradicts weights: only what is beyond doubt, tensors of well-known names."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Self

# Rows are the vocabulary, columns the hidden size.
_EMBEDDINGS: Final = (
    "model.embed_tokens.weight",
    "transformer.wte.weight",
    "wte.weight",
    "bert.embeddings.word_embeddings.weight",
    "roberta.embeddings.word_embeddings.weight",
    "embeddings.word_embeddings.weight",
    "lm_head.weight",
)
_GGUF_EMBEDDING: Final = "token_embd.weight"
_LAYER: Final = re.compile(
    r"(model\.layers|layers|transformer\.h|h|bert\.encoder\.layer|roberta\.encoder\.layer|encoder\.layer)"
    r"\.(\d{1,4})\."
)
# With one of these, embeddings have a width of their own.
_NARROW: Final = ("embedding_size", "word_embed_proj_dim", "emb_dim", "embed_dim")
# Layers that predict further tokens stand behind the others and are not counted among them.
_EXTRA_LAYERS: Final = ("num_nextn_predict_layers", "mtp_num_hidden_layers", "num_mtp_layers")


@dataclass(frozen=True, slots=True)
class Config:
    """What a `config.json` says of sizes; None where it says nothing, or nothing that can be compared."""

    hidden_size: int | None
    layers: int | None
    vocabulary: int | None
    extra_layers: int

    @classmethod
    def of(cls, metadata: Mapping[str, Any]) -> Self:
        """From what the parser `config` answers."""
        raw = metadata["raw"]
        # Quantised tensors are packed, and nothing says how.
        comparable = metadata["quantization_config"] is None
        return cls(
            hidden_size=metadata["hidden_size"]
            if comparable and not any(name in raw for name in _NARROW)
            else None,
            layers=metadata["num_hidden_layers"] if raw.get("is_encoder_decoder") is not True else None,
            vocabulary=metadata["vocab_size"] if comparable else None,
            extra_layers=sum(value for name in _EXTRA_LAYERS if type(value := raw.get(name)) is int),
        )


def of_safetensors(
    config: Config, tensors: Mapping[str, Mapping[str, Any]], *, complete: bool
) -> Iterator[str]:
    """One line for each; `complete`: `tensors` are all that the model has."""
    for name in _EMBEDDINGS:
        shape: Sequence[Any] = tensors[name]["shape"] if name in tensors else ()
        if len(shape) == 2:
            yield from _of_embedding(config, name, rows=shape[0], columns=shape[1])
    layers = [found for name in tensors if (found := _LAYER.match(name))]
    if config.layers is None or len({found[1] for found in layers}) != 1:
        return
    there = max(int(found[2]) for found in layers) + 1
    if there > config.layers + config.extra_layers or (complete and there < config.layers):
        yield f"`num_hidden_layers` is {config.layers}, but the weights have {there} layers"


def of_gguf(config: Config, metadata: Mapping[str, Any], name: str) -> Iterator[str]:
    """The same for a GGUF file called `name`; `metadata` is what the parser answers."""
    values = metadata["key_values"]
    architecture = metadata["architecture"]
    width, layers, extra = (
        values.get(f"{architecture}.{key}")
        for key in ("embedding_length", "block_count", "nextn_predict_layers")
    )
    if config.hidden_size is not None and type(width) is int and width != config.hidden_size:
        yield f"`hidden_size` is {config.hidden_size}, but {name} has an embedding length of {width}"
    if config.layers is not None and type(layers) is int:
        counted = layers - (extra if type(extra) is int else 0)
        if config.layers not in {layers, counted, layers - config.extra_layers}:
            yield f"`num_hidden_layers` is {config.layers}, but {name} has {layers} blocks"
    shape = metadata["tensors"].get(_GGUF_EMBEDDING, {}).get("shape", ())
    if len(shape) == 2:
        yield from _of_embedding(config, f"{_GGUF_EMBEDDING} of {name}", rows=shape[1], columns=None)


def _of_embedding(config: Config, name: str, *, rows: Any, columns: Any) -> Iterator[str]:
    # Vocabularies are padded to round numbers; one that is too small has tokens without weights.
    if config.vocabulary is not None and type(rows) is int and rows < config.vocabulary:
        yield f"`vocab_size` is {config.vocabulary}, but {name} has {rows} rows"
    if config.hidden_size is not None and type(columns) is int and columns != config.hidden_size:
        yield f"`hidden_size` is {config.hidden_size}, but {name} has {columns} columns"
