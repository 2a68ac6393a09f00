"""Small files of weights, real ones by the libraries meant for them, and broken ones by hand."""

import json
import pickle
import struct
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import gguf
import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save_file

Tensors = dict[str, NDArray[Any]]

CONFIG: dict[str, Any] = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": 16,
    "intermediate_size": 32,
    "max_position_embeddings": 128,
    "num_attention_heads": 2,
    "num_hidden_layers": 2,
    "num_key_value_heads": 2,
    "tie_word_embeddings": False,
    "torch_dtype": "float32",
    "vocab_size": 64,
}


def write_json(path: Path, value: object) -> Path:
    path.write_text(json.dumps(value, indent=2) + "\n")
    return path


def llama_tensors(config: Mapping[str, Any] = CONFIG, *, seed: int = 1, dtype: str = "float32") -> Tensors:
    """The weights of a tiny Llama that `config` is true of."""
    random = np.random.default_rng(seed)
    hidden, inner, vocabulary = config["hidden_size"], config["intermediate_size"], config["vocab_size"]
    shapes: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (vocabulary, hidden)}
    for layer in range(config["num_hidden_layers"]):
        place = f"model.layers.{layer}"
        shapes[f"{place}.input_layernorm.weight"] = (hidden,)
        for projection in "qkvo":
            shapes[f"{place}.self_attn.{projection}_proj.weight"] = (hidden, hidden)
        shapes[f"{place}.post_attention_layernorm.weight"] = (hidden,)
        for projection in ("gate", "up"):
            shapes[f"{place}.mlp.{projection}_proj.weight"] = (inner, hidden)
        shapes[f"{place}.mlp.down_proj.weight"] = (hidden, inner)
    shapes["model.norm.weight"] = (hidden,)
    shapes["lm_head.weight"] = (vocabulary, hidden)
    return {name: random.standard_normal(shape).astype(dtype) for name, shape in shapes.items()}


def write_safetensors(path: Path, tensors: Tensors, metadata: dict[str, str] | None = None) -> Path:
    save_file(tensors, path, metadata)
    return path


def write_model(folder: Path, *, seed: int = 1) -> Path:
    """A tiny model with its configuration. Returns the weights."""
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "config.json", CONFIG)
    return write_safetensors(folder / "model.safetensors", llama_tensors(seed=seed), {"format": "pt"})


def write_sharded(folder: Path, tensors: Tensors, shards: int) -> Path:
    """The tensors in turn over so many files, with the index of `transformers`. Returns the index."""
    folder.mkdir(parents=True, exist_ok=True)
    files = [f"model-{number:05}-of-{shards:05}.safetensors" for number in range(1, shards + 1)]
    names = sorted(tensors)
    for number, file in enumerate(files):
        write_safetensors(
            folder / file, {name: tensors[name] for name in names[number::shards]}, {"format": "pt"}
        )
    return write_json(
        folder / "model.safetensors.index.json",
        {
            "metadata": {"total_size": sum(tensor.nbytes for tensor in tensors.values())},
            "weight_map": {name: files[number % shards] for number, name in enumerate(names)},
        },
    )


def write_adapter(folder: Path, base_model: str = "tiny/base", *, rank: int = 4) -> Path:
    """A LoRA adapter as PEFT lays it out. Returns the weights."""
    folder.mkdir(parents=True, exist_ok=True)
    write_json(
        folder / "adapter_config.json",
        {
            "base_model_name_or_path": base_model,
            "bias": "none",
            "inference_mode": True,
            "lora_alpha": 2 * rank,
            "lora_dropout": 0.0,
            "peft_type": "LORA",
            "r": rank,
            "target_modules": ["q_proj", "v_proj"],
            "task_type": "CAUSAL_LM",
        },
    )
    hidden = CONFIG["hidden_size"]
    tensors: Tensors = {}
    for layer in range(CONFIG["num_hidden_layers"]):
        for module in ("q_proj", "v_proj"):
            place = f"base_model.model.model.layers.{layer}.self_attn.{module}"
            tensors[f"{place}.lora_A.weight"] = np.full((rank, hidden), 0.5, np.float32)
            tensors[f"{place}.lora_B.weight"] = np.zeros((hidden, rank), np.float32)
    return write_safetensors(folder / "adapter_model.safetensors", tensors, {"format": "pt"})


def raw_safetensors(header: object, data: bytes = b"", *, length: int | None = None) -> bytes:
    """A file of this header, which can be bytes; it says that it is `length` bytes long."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


def entry(begin: int = 0, end: int = 4, dtype: str = "F32", shape: Sequence[int] = (1,)) -> dict[str, Any]:
    """A tensor in the header of a safetensors file."""
    return {"dtype": dtype, "shape": list(shape), "data_offsets": [begin, end]}


def write_gguf(
    path: Path,
    tensors: Tensors | None = None,
    values: Iterable[tuple[str, Any, gguf.GGUFValueType, gguf.GGUFValueType | None]] = (),
    *,
    architecture: str = "llama",
    file_type: int = 0,
    big_endian: bool = False,
    alignment: int | None = None,
) -> Path:
    """A GGUF file by the writer of llama.cpp. `values` are keys, values, types, and types of items."""
    order = gguf.GGUFEndian.BIG if big_endian else gguf.GGUFEndian.LITTLE
    writer = gguf.GGUFWriter(path, architecture, endianess=order)
    writer.add_name("Tiny")
    writer.add_context_length(128)
    writer.add_file_type(file_type)
    if alignment is not None:
        writer.add_custom_alignment(alignment)
    for key, value, kind, items in values:
        writer.add_key_value(key, value, kind, items)
    for name, tensor in (llama_tensors() if tensors is None else tensors).items():
        writer.add_tensor(name, tensor)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


class GgufBytes:
    """A GGUF file by hand: any version, and lies."""

    def __init__(self, version: int = 3, *, big_endian: bool = False) -> None:
        self.version = version
        self._order = ">" if big_endian else "<"
        self._length = "I" if version == 1 else "Q"
        self._keys: list[bytes] = []
        self._tensors: list[bytes] = []

    def pack(self, layout: str, *numbers: float) -> bytes:
        return struct.pack(self._order + layout, *numbers)

    def length(self, number: int) -> bytes:
        return self.pack(self._length, number)

    def string(self, text: str | bytes) -> bytes:
        data = text if isinstance(text, bytes) else text.encode()
        return self.length(len(data)) + data

    def key(self, name: str | bytes, kind: int, value: bytes) -> "GgufBytes":
        self._keys.append(self.string(name) + self.pack("I", kind) + value)
        return self

    def text(self, name: str, value: str) -> "GgufBytes":
        return self.key(name, 8, self.string(value))

    def array(self, kind: int, length: int, items: bytes) -> bytes:
        return self.pack("I", kind) + self.length(length) + items

    def tensor(self, name: str | bytes, shape: Sequence[int], kind: int, offset: int) -> "GgufBytes":
        sizes = b"".join(map(self.length, shape))
        self._tensors.append(
            self.string(name) + self.pack("I", len(shape)) + sizes + self.pack("IQ", kind, offset)
        )
        return self

    def file(self, data: bytes = b"", *, keys: int | None = None, tensors: int | None = None) -> bytes:
        """The file; it says that it has so many keys and tensors. Aligned to 32 bytes."""
        counts = self.length(len(self._tensors) if tensors is None else tensors)
        counts += self.length(len(self._keys) if keys is None else keys)
        header = b"GGUF" + self.pack("I", self.version) + counts + b"".join(self._keys + self._tensors)
        return header + b"\0" * (-len(header) % 32) + data


def write_checkpoint(path: Path, tensors: Tensors | None = None, *, prefix: str = "archive") -> Path:
    """The layout that `torch.save` has used since version 1.6; its pickle says nothing of the tensors."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr(f"{prefix}/data.pkl", pickle.dumps({"state": 1}, protocol=2))
        archive.writestr(f"{prefix}/byteorder", b"little")
        for number, tensor in enumerate((llama_tensors() if tensors is None else tensors).values()):
            archive.writestr(f"{prefix}/data/{number}", tensor.tobytes())
        archive.writestr(f"{prefix}/version", b"3\n")
    return path
