"""A real model: SmolLM2-135M-Instruct, as it is published in GGUF, and as safetensors made from that."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from gguf import GGUFReader
from gguf.quants import dequantize

from tests.support.binaries import CACHE, absent
from tests.support.model_files import Tensors, write_json, write_safetensors, write_sharded

_GGUF = CACHE.parent / "models" / "SmolLM2-135M-Instruct.Q4_1.gguf"

_NAMES = {
    "token_embd": "model.embed_tokens",
    "output_norm": "model.norm",
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}


def smollm2_gguf() -> Path:
    """The published file, of 98 MB; without it the test is skipped, or fails under `CI=true`."""
    if not _GGUF.exists():
        absent(f"{_GGUF} is missing; `make test` fetches it")
    return _GGUF


def write_smollm2(folder: Path, *, shards: int = 1, layers: int = 30) -> Path:
    """The model as `transformers` stores it, in float16; with its configuration.

    All 30 layers make 269 MB; fewer are a smaller model of the same shapes. The rows of `q_proj` and `k_proj`
    stay in the order of GGUF. Returns the file of weights, or the index of the shards.
    """
    folder.mkdir(parents=True, exist_ok=True)
    reader = GGUFReader(smollm2_gguf())
    write_json(folder / "config.json", smollm2_config(reader, layers))
    tensors: Tensors = dict(_converted(reader, layers))
    if shards == 1:
        return write_safetensors(folder / "model.safetensors", tensors, {"format": "pt"})
    return write_sharded(folder, tensors, shards)


def smollm2_config(reader: GGUFReader, layers: int = 30) -> dict[str, object]:
    """The `config.json` that belongs to the weights, from what the file says."""

    def value(key: str) -> object:
        field = reader.get_field(f"llama.{key}")
        assert field is not None
        return field.contents()

    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": value("embedding_length"),
        "intermediate_size": value("feed_forward_length"),
        "max_position_embeddings": value("context_length"),
        "num_attention_heads": value("attention.head_count"),
        "num_hidden_layers": layers,
        "num_key_value_heads": value("attention.head_count_kv"),
        "tie_word_embeddings": True,
        "torch_dtype": "float16",
        "vocab_size": value("vocab_size"),
    }


def _converted(reader: GGUFReader, layers: int) -> Iterator[tuple[str, "np.typing.NDArray[np.float16]"]]:
    for tensor in reader.tensors:
        place, _, kind = tensor.name.rpartition(".")
        block, _, part = place.rpartition(".")
        if block and int(block.removeprefix("blk.")) >= layers:
            continue
        name = f"model.layers.{block.removeprefix('blk.')}.{_NAMES[part]}" if block else _NAMES[part]
        yield f"{name}.{kind}", dequantize(tensor.data, tensor.tensor_type).astype(np.float16)
