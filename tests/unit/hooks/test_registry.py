from collections import Counter

import pytest

from hooks.formats.registry import FORMATS, format_of
from hooks.formats.source import BytesSource

NAMED = {
    "README.md": "card",
    "config.json": "config",
    "unet/config.json": "config",
    "generation_config.json": "generation-config",
    "tokenizer.json": "tokenizer",
    "tokenizer/tokenizer_config.json": "tokenizer-config",
    "special_tokens_map.json": "tokenizer-config",
    "chat_template.jinja": "chat-template",
    "adapter_config.json": "adapter",
    "model_index.json": "diffusers",
    "modules.json": "sentence-transformers",
    "model.safetensors": "safetensors",
    "unet/Model.SafeTensors": "safetensors",
    "model.safetensors.index.json": "safetensors-index",
    "unet/diffusion_pytorch_model.safetensors.index.fp16.json": "safetensors-index",
    "a-Q4_K_M.gguf": "gguf",
    "onnx/model.onnx": "onnx",
    "pytorch_model.bin": "pytorch",
    "epoch=1.ckpt": "pytorch",
    "data/train-00000-of-00001.parquet": "parquet",
    "train.csv": "csv",
    "train.TSV": "csv",
    "train.jsonl": "jsonl",
    "docs/README.md": None,
    "readme.md": None,
    "sub/modules.json": None,
    "myconfig.json": None,
    "config.json.bak": None,
    "model.safetensors/notes.txt": None,
    "safetensors": None,
    "": None,
}


@pytest.mark.parametrize("path", NAMED)
def test_the_format_of_a_path(path: str) -> None:
    found = format_of(path)
    assert (found.name if found else None) == NAMED[path]
    assert sum(known.matches(path) for known in FORMATS) == (found is not None)


def test_formats_are_told_apart_by_their_names() -> None:
    assert max(Counter(known.name for known in FORMATS).values()) == 1
    assert all(len(known.name) <= 32 for known in FORMATS)  # a column of the database
    names = Counter(name for known in FORMATS for name in known.names)
    endings = Counter(ending for known in FORMATS for ending in known.endings)
    assert max((names + endings).values()) == 1
    assert all(ending == ending.lower() for ending in endings)


@pytest.mark.parametrize("known", FORMATS, ids=lambda known: known.name)
@pytest.mark.parametrize("content", [b"", b"\0" * 100, b"[]", b"{}"])
def test_every_parser_answers_for_files_that_say_nothing(known: object, content: bytes) -> None:
    parser = next(one for one in FORMATS if one is known)
    parsed = parser.parse(BytesSource(content))
    assert parsed.metadata is not None or parsed.findings
