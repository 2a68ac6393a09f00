from pathlib import Path

import numpy as np
import pytest

from hooks.summary import BaseModel
from tests.support.cards import ADAPTER
from tests.support.dataset_files import diffusers_layout, onnx_model
from tests.support.model_files import (
    llama_tensors,
    write_adapter,
    write_gguf,
    write_json,
    write_model,
    write_safetensors,
    write_sharded,
)
from tests.support.summaries import model, weights, write

PARAMETERS = sum(tensor.size for tensor in llama_tensors().values())


def test_parameters_of_shards_are_added(tmp_path: Path) -> None:
    write_sharded(tmp_path, llama_tensors(), 3)
    assert model(tmp_path).parameters == PARAMETERS


def test_parameters_are_not_counted_while_a_shard_is_missing(tmp_path: Path) -> None:
    write_sharded(tmp_path, llama_tensors(), 3)
    (tmp_path / "model-00002-of-00003.safetensors").unlink()
    summary = model(tmp_path)
    assert summary.parameters is None
    assert summary.parameters_by_dtype == {}
    assert summary.dtypes == ("F32",)
    (finding,) = summary.findings
    assert (finding.code, finding.path) == ("weights-incomplete", "model.safetensors.index.json")
    assert '"model-00002-of-00003.safetensors"' in finding.message


def test_parameters_of_shards_without_index_are_added_if_all_are_there(tmp_path: Path) -> None:
    weights(tmp_path, {f"m-0000{n}-of-00002.safetensors": 10 * n for n in (1, 2)})
    assert model(tmp_path).parameters == 30
    (tmp_path / "m-00001-of-00002.safetensors").unlink()
    assert model(tmp_path).parameters is None


@pytest.mark.parametrize(
    ("sizes", "expected"),
    [
        ({"model.safetensors": 5, "consolidated.safetensors": 6}, 5),
        ({"model.safetensors": 5, "model.fp16.safetensors": 5}, 5),
        ({"model.safetensors": 5, "original/model.safetensors": 6}, 5),
        ({"model.safetensors": 5, "checkpoint-100/model.safetensors": 6}, 5),
        ({"original/model.safetensors": 6}, None),
        ({"a/model.safetensors": 5, "b/model.safetensors": 6}, 6),
        ({"a/model.safetensors": 5, "b/c/model.safetensors": 6}, 5),
        ({"xl_base.safetensors": 5, "xl_base_vae.safetensors": 6}, 6),
        ({"pytorch_lora_weights.safetensors": 5}, None),
    ],
)
def test_parameters_of_one_model_are_counted_once(
    tmp_path: Path, sizes: dict[str, int], expected: int | None
) -> None:
    weights(tmp_path, sizes)
    assert model(tmp_path).parameters == expected


def test_parameters_of_one_model_in_several_formats_are_counted_once(tmp_path: Path) -> None:
    write_model(tmp_path)
    write_gguf(tmp_path / "model-f16.gguf", {"t": np.ones((4, 32), np.float16)})
    write(tmp_path / "onnx/model.onnx", onnx_model().SerializeToString())
    assert model(tmp_path).parameters == PARAMETERS
    (tmp_path / "model.safetensors").unlink()
    assert model(tmp_path).parameters == 128
    (tmp_path / "model-f16.gguf").unlink()
    assert model(tmp_path).parameters == 40


def test_parameters_of_several_dtypes(tmp_path: Path) -> None:
    write_safetensors(
        tmp_path / "model.safetensors",
        {"a": np.ones(3, np.float32), "b": np.ones(20, np.float16), "c": np.ones(7, np.int8)},
    )
    summary = model(tmp_path)
    assert summary.parameters_by_dtype == {"F16": 20, "I8": 7, "F32": 3}
    assert summary.dtypes == ("F16", "I8", "F32")


def test_parameters_of_an_adapter_are_apart(tmp_path: Path) -> None:
    write_adapter(tmp_path, "meta-llama/Llama-3.1-8B")
    write(tmp_path / "README.md", ADAPTER)
    summary = model(tmp_path)
    assert (summary.parameters, summary.adapter_parameters) == (None, 512)
    assert (summary.task, summary.library) == ("text-generation", "peft")
    assert summary.base_models == (BaseModel("meta-llama/Llama-3.1-8B", "adapter"),)
    assert summary.findings == ()


def test_parameters_of_a_pipeline_are_those_of_its_components(tmp_path: Path) -> None:
    diffusers_layout(tmp_path)
    weights(
        tmp_path,
        {
            "unet/diffusion_pytorch_model.safetensors": 10,
            "unet/diffusion_pytorch_model.fp16.safetensors": 10,
            "vae/diffusion_pytorch_model.safetensors": 3,
            "text_encoder/model.safetensors": 4,
            "sd_xl.safetensors": 17,
        },
    )
    summary = model(tmp_path)
    assert (summary.parameters, summary.library, summary.task) == (17, "diffusers", "text-to-image")
    assert summary.architectures == ("StableDiffusionPipeline",)


def test_parameters_of_sentence_transformers_are_those_of_its_modules(tmp_path: Path) -> None:
    write_json(
        tmp_path / "modules.json",
        [
            {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"},
            {"idx": 1, "name": "1", "path": "1_Dense", "type": "sentence_transformers.models.Dense"},
        ],
    )
    weights(tmp_path, {"model.safetensors": 10, "1_Dense/model.safetensors": 4, "x/model.safetensors": 9})
    summary = model(tmp_path)
    assert (summary.parameters, summary.library) == (14, "sentence-transformers")
    assert summary.task == "sentence-similarity"


def test_parameters_of_a_quantised_model_in_many_files(tmp_path: Path) -> None:
    for name, kind in (("m-q8_0.gguf", 7), ("m-f16.gguf", 1), ("mmproj-m.gguf", 0)):
        rows = 900 if "mmproj" in name else 4
        write_gguf(tmp_path / name, {"t": np.ones((rows, 32), np.float16)}, file_type=kind)
    summary = model(tmp_path)
    assert summary.parameters == 128
    assert (summary.library, summary.task) == ("gguf", "text-generation")
    assert len(summary.quantisations) == 3
    assert summary.quantisation in summary.quantisations
