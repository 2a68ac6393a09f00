import json
import random
from typing import Any

import msgspec
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from core.models import RepositoryType
from hooks.formats.parsed import Parsed
from hooks.formats.registry import FORMATS
from hooks.summary import Summary, facets, summarise

# Metadata of the shapes that parsers answer, with values that contradict each other.
counts = st.none() | st.integers(-1, 100) | st.sampled_from([2**63, 2**70])
ids = st.sampled_from(
    ["a/b", "A/B", "c/d", "/x", "", "m", "model", "data/*.csv", "**", "train", "test", "en"]
)
texts = st.lists(ids, max_size=3)
directories = st.sampled_from(["", "unet/", "data/", "checkpoint-1/", "en/train/", "original/"])
BY_FORMAT: dict[str, st.SearchStrategy[dict[str, Any]]] = {
    "card": st.fixed_dictionaries(
        {},
        optional={
            "license": texts,
            "tags": texts,
            "base_model": texts,
            "pipeline_tag": ids,
            "task_categories": texts,
            "library_name": ids,
            "base_model_relation": st.sampled_from(["merge", "x"]),
            "configs": st.lists(
                st.fixed_dictionaries(
                    {
                        "config_name": ids,
                        "data_files": st.lists(
                            st.fixed_dictionaries({"split": ids, "path": texts}), max_size=2
                        ),
                    }
                ),
                max_size=2,
            ),
        },
    ),
    "config": st.fixed_dictionaries(
        {"architectures": texts, "model_type": st.none() | ids, "torch_dtype": st.none() | ids},
        optional={
            "quantization_config": st.none() | st.just({"quant_method": "awq"}),
            "library_hints": texts,
        },
    ),
    "adapter": st.fixed_dictionaries({"base_model": st.none() | ids, "task_type": st.none() | ids}),
    "diffusers": st.fixed_dictionaries(
        {
            "class_name": st.none() | ids,
            "components": st.dictionaries(st.sampled_from(["unet", "vae"]), texts),
        }
    ),
    "sentence-transformers": st.fixed_dictionaries(
        {"modules": st.lists(st.fixed_dictionaries({"path": st.none() | ids}), max_size=2)}
    ),
    "safetensors-index": st.fixed_dictionaries(
        {"shards": st.lists(st.sampled_from(["model.safetensors", "x.safetensors"]), max_size=2)}
    ),
    "safetensors": st.fixed_dictionaries(
        {"parameters": st.dictionaries(st.sampled_from(["F32", "I8"]), counts), "parameters_total": counts}
    ),
    "gguf": st.fixed_dictionaries(
        {
            "parameters": st.none() | st.dictionaries(st.sampled_from(["Q4_K", "F32"]), counts),
            "parameters_total": counts,
            "quantisation": st.none() | ids,
            "architecture": st.none() | ids,
            "key_values": st.just({"general.base_model.0.repo_url": "https://huggingface.co/a/b"}),
        }
    ),
    "onnx": st.fixed_dictionaries({"parameters": st.none(), "parameters_total": counts}),
    "csv": st.fixed_dictionaries(
        {
            "rows": counts,
            "rows_exact": st.booleans(),
            "columns": st.lists(st.fixed_dictionaries({"name": ids, "type": st.none() | ids}), max_size=2),
        }
    ),
}
ROOT = {"card": "README.md", "diffusers": "model_index.json", "sentence-transformers": "modules.json"}
NAMES = {
    "config": ["config.json"],
    "adapter": ["adapter_config.json"],
    "safetensors-index": ["model.safetensors.index.json"],
    "safetensors": [
        "model.safetensors",
        "x.safetensors",
        "m-00001-of-00002.safetensors",
        "adapter_model.safetensors",
    ],
    "gguf": ["a.gguf", "mmproj.gguf", "b-00001-of-00002.gguf"],
    "onnx": ["model.onnx"],
    "csv": ["train.csv", "x.csv"],
}


@st.composite
def trees(draw: st.DrawFn) -> dict[str, tuple[str, Parsed]]:
    files: dict[str, tuple[str, Parsed]] = {}
    for name in draw(st.lists(st.sampled_from(sorted(BY_FORMAT)), max_size=8)):
        path = ROOT.get(name) or draw(directories) + draw(st.sampled_from(NAMES[name]))
        files[path] = (name, Parsed(draw(st.none() | BY_FORMAT[name])))
    return files


@settings(max_examples=600, deadline=None, database=None, suppress_health_check=list(HealthCheck))
@given(files=trees(), kind=st.sampled_from(RepositoryType), seed=st.integers(0, 100))
def test_pure_whatever_the_order(
    files: dict[str, tuple[str, Parsed]], kind: RepositoryType, seed: int
) -> None:
    before = msgspec.json.encode(files)
    summary = summarise(files, kind)
    assert msgspec.json.encode(files) == before

    order = list(files)
    random.Random(seed).shuffle(order)
    again = summarise({path: files[path] for path in order}, kind)
    assert msgspec.json.encode(again) == msgspec.json.encode(summary)

    text = msgspec.json.encode(summary)
    assert msgspec.json.decode(text, type=Summary) == summary
    assert (
        msgspec.convert(json.loads(json.dumps(msgspec.to_builtins(summary), allow_nan=False)), Summary)
        == summary
    )
    for number in (summary.parameters, summary.adapter_parameters, summary.rows, summary.context_length):
        assert number is None or 0 <= number < 2**63
    if summary.parameters is None:
        assert summary.parameters_by_dtype == {}
    assert len(facets(summary)) <= 200


def test_every_format_of_a_summary_is_registered() -> None:
    assert set(BY_FORMAT) <= {known.name for known in FORMATS}
