from pathlib import Path
from typing import Any

import numpy as np
import pytest

from core.models import RepositoryType
from hooks.summary import BaseModel, EvalResult, Summary, facets, summarise
from tests.support.cards import LEADERBOARD, MERGE, TRAINED, TRANSFORMERS
from tests.support.model_files import (
    CONFIG,
    llama_tensors,
    write_adapter,
    write_gguf,
    write_json,
    write_model,
)
from tests.support.summaries import card, model, write

PARAMETERS = sum(tensor.size for tensor in llama_tensors().values())


def test_nothing() -> None:
    assert summarise({}, RepositoryType.MODEL) == Summary()
    assert summarise({}, RepositoryType.DATASET) == Summary()
    assert facets(Summary()) == set()


def test_a_model(tmp_path: Path) -> None:
    write_model(tmp_path)
    write(tmp_path / "README.md", TRANSFORMERS)
    assert model(tmp_path) == Summary(
        title="SmolLM2 135M, tuned",
        task="text-generation",
        tasks=("text-generation",),
        library="transformers",
        licenses=("apache-2.0",),
        languages=("en", "fr"),
        tags=("text-generation", "conversational"),
        architectures=("LlamaForCausalLM",),
        model_type="llama",
        parameters=PARAMETERS,
        parameters_by_dtype={"F32": PARAMETERS},
        dtypes=("F32",),
        context_length=128,
        base_models=(BaseModel("HuggingFaceTB/SmolLM2-135M", "finetune"),),
        datasets=("HuggingFaceH4/ultrachat_200k", "openai/gsm8k"),
        metrics=("accuracy",),
    )


class TestPrecedence:
    def test_the_card_before_the_configuration(self, tmp_path: Path) -> None:
        write_json(tmp_path / "config.json", CONFIG)
        assert (model(tmp_path).task, model(tmp_path).library) == ("text-generation", "transformers")
        card(tmp_path, "pipeline_tag: feature-extraction\nlibrary_name: mlx")
        assert (model(tmp_path).task, model(tmp_path).library) == ("feature-extraction", "mlx")

    def test_the_tags_before_the_files(self, tmp_path: Path) -> None:
        write_json(tmp_path / "config.json", CONFIG)
        card(tmp_path, "tags: [other, flair]")
        assert model(tmp_path).library == "flair"

    def test_the_configuration_before_weights(self, tmp_path: Path) -> None:
        write_gguf(tmp_path / "m.gguf", {"t": np.ones((4, 32), np.float16)})
        named = model(tmp_path).architectures
        assert named != ()
        write_json(tmp_path / "config.json", CONFIG)
        summary = model(tmp_path)
        assert summary.architectures == ("LlamaForCausalLM",)
        assert (summary.model_type, summary.context_length) == ("llama", 128)

    def test_the_configuration_says_the_dtype_of_what_is_not_looked_into(self, tmp_path: Path) -> None:
        write_json(tmp_path / "config.json", CONFIG | {"torch_dtype": "bfloat16"})
        assert model(tmp_path).dtypes == ("BF16",)

    def test_quantised_by_configuration(self, tmp_path: Path) -> None:
        write_json(
            tmp_path / "config.json", CONFIG | {"quantization_config": {"quant_method": "gptq", "bits": 4}}
        )
        card(tmp_path, "base_model: a/b")
        summary = model(tmp_path)
        assert summary.quantisation == "gptq"
        assert summary.base_models == (BaseModel("a/b", "quantized"),)


class TestLineage:
    def test_a_declared_relation_is_believed(self, tmp_path: Path) -> None:
        card(tmp_path, "base_model: [a/b, c/d]\nbase_model_relation: quantized")
        assert model(tmp_path).base_models == (BaseModel("a/b", "quantized"), BaseModel("c/d", "quantized"))

    def test_several_are_merged(self, tmp_path: Path) -> None:
        write(tmp_path / "README.md", MERGE)
        assert {base.relation for base in model(tmp_path).base_models} == {"merge"}

    def test_an_adapter_and_its_card_agree_in_any_case(self, tmp_path: Path) -> None:
        write_adapter(tmp_path, "Tiny/Base")
        card(tmp_path, "base_model: tiny/base")
        assert model(tmp_path).base_models == (BaseModel("Tiny/Base", "adapter"),)
        assert model(tmp_path).findings == ()

    def test_an_adapter_of_another_model_than_its_card_says(self, tmp_path: Path) -> None:
        write_adapter(tmp_path, "tiny/base")
        card(tmp_path, "base_model: tiny/other")
        (finding,) = model(tmp_path).findings
        assert (finding.code, finding.path) == ("base-model-differs", "adapter_config.json")

    @pytest.mark.parametrize("path", ["/home/me/llama", "./out", "../a", "a/b/c", "C:\\llama", "a b"])
    def test_paths_are_no_models(self, tmp_path: Path, path: str) -> None:
        write_adapter(tmp_path, path)
        assert model(tmp_path).base_models == ()


def test_results_of_the_card(tmp_path: Path) -> None:
    write(tmp_path / "README.md", TRAINED)
    assert model(tmp_path).metrics == ("accuracy", "f1")
    assert model(tmp_path).eval_results[0] == EvalResult(
        task="text-classification",
        dataset="emotion",
        metric="accuracy",
        value=0.9245,
        dataset_name="emotion",
        config="split",
        split="validation",
    )
    write(tmp_path / "README.md", LEADERBOARD)
    assert [one.value for one in model(tmp_path).eval_results] == [64.59, "20.0 ± 1.2"]


@pytest.mark.parametrize(
    ("architecture", "config", "task"),
    [
        ("GPT2LMHeadModel", {}, "text-generation"),
        ("BertForMaskedLM", {}, "fill-mask"),
        ("BertModel", {}, "feature-extraction"),
        ("T5ForConditionalGeneration", {"model_type": "t5"}, "text2text-generation"),
        ("WhisperForConditionalGeneration", {"model_type": "whisper"}, "automatic-speech-recognition"),
        (
            "Gemma3ForConditionalGeneration",
            {"model_type": "gemma3", "vision_config": {"model_type": "siglip", "hidden_size": 8}},
            "image-text-to-text",
        ),
        ("ViTForImageClassification", {}, "image-classification"),
        ("CLIPForZeroShotImageClassification", {}, "zero-shot-image-classification"),
        ("Strange", {}, None),
    ],
)
def test_tasks_by_architecture(
    tmp_path: Path, architecture: str, config: dict[str, Any], task: str | None
) -> None:
    write_json(tmp_path / "config.json", {"architectures": [architecture], **config})
    assert model(tmp_path).task == task


def test_facets() -> None:
    summary = Summary(
        tasks=("a", "B"),
        library="Transformers",
        licenses=("other",),
        license_name="mine",
        architectures=("LlamaForCausalLM",),
        model_type="llama",
        dtypes=("BF16",),
        quantisation="Q4_K_M",
        base_models=(BaseModel("Org/Base", "finetune"),),
        datasets=("Org/Data",),
        languages=("en",),
        tags=("T", "", " ", "x" * 201, "x" * 200),
    )
    assert facets(summary) == {
        ("task", "a"),
        ("task", "b"),
        ("library", "transformers"),
        ("license", "other"),
        ("license", "mine"),
        ("architecture", "llamaforcausallm"),
        ("architecture", "llama"),
        ("dtype", "bf16"),
        ("dtype", "q4_k_m"),
        ("base_model", "org/base"),
        ("dataset", "org/data"),
        ("language", "en"),
        ("tag", "t"),
        ("tag", "x" * 200),
    }


def test_there_are_two_hundred_facets_at_most() -> None:
    found = facets(Summary(task="t", tasks=("t",), tags=tuple(f"t{number}" for number in range(1000))))
    assert len(found) == 200
    assert ("task", "t") in found
