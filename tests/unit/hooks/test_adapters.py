import json
from typing import Any

import pytest

from hooks.formats.adapters import parse_adapter
from hooks.formats.parsed import Parsed, Severity
from tests.support.parsed_checks import parse_soundly

LORA: dict[str, Any] = {
    "auto_mapping": None,
    "base_model_name_or_path": "HuggingFaceTB/SmolLM2-135M-Instruct",
    "inference_mode": True,
    "lora_alpha": 32,
    "lora_dropout": 0.05,
    "modules_to_save": ["lm_head"],
    "peft_type": "LORA",
    "r": 16,
    "revision": "main",
    "target_modules": ["q_proj", "v_proj"],
    "task_type": "CAUSAL_LM",
}


def adapter(**changes: Any) -> Parsed:
    return parse_soundly(parse_adapter, json.dumps(LORA | changes).encode())


def metadata_of(parsed: Parsed) -> dict[str, Any]:
    assert parsed.metadata is not None
    return dict(parsed.metadata)


def test_an_adapter() -> None:
    parsed = adapter()
    metadata = metadata_of(parsed)
    assert parsed.findings == ()
    assert metadata["base_model"] == LORA["base_model_name_or_path"]
    assert metadata["base_revision"] == "main"
    for key in (
        "peft_type",
        "task_type",
        "r",
        "lora_alpha",
        "lora_dropout",
        "target_modules",
        "modules_to_save",
    ):
        assert metadata[key] == LORA[key]
    assert metadata["raw"]["inference_mode"] is True


@pytest.mark.parametrize("targets", ["all-linear", r".*\.(q|v)_proj", ["a"] * 3, None])
def test_targets(targets: Any) -> None:
    assert metadata_of(adapter(target_modules=targets))["target_modules"] == targets


def test_many_targets_are_cut() -> None:
    assert len(metadata_of(adapter(target_modules=["x" * 500] * 5000))["target_modules"]) == 1000


@pytest.mark.parametrize(
    "path", ["/home/me/base", "./base", "../base", "~/base", r"C:\base", "out/run/checkpoint-5"]
)
def test_a_base_model_on_one_machine_is_a_finding(path: str) -> None:
    parsed = adapter(base_model_name_or_path=path)
    assert [finding.code for finding in parsed.findings] == ["adapter-local-base-model"]
    assert metadata_of(parsed)["base_model"] == path


@pytest.mark.parametrize("name", ["gpt2", "org/model.v1", "o-r-g/model_2"])
def test_a_base_model_in_a_repository_is_none(name: str) -> None:
    assert adapter(base_model_name_or_path=name).findings == ()


@pytest.mark.parametrize("name", [None, "", 5])
def test_no_base_model_is_a_finding(name: Any) -> None:
    parsed = adapter(base_model_name_or_path=name)
    assert parsed.findings[-1].code == "adapter-no-base-model"
    assert metadata_of(parsed)["base_model"] is None


def test_no_type_is_an_error() -> None:
    parsed = adapter(peft_type=None)
    assert [(finding.severity, finding.code) for finding in parsed.findings] == [
        (Severity.ERROR, "adapter-no-type")
    ]


@pytest.mark.parametrize("data", [b"", b"[]", b'{"a":' * 100_000])
def test_what_is_no_adapter(data: bytes) -> None:
    assert parse_soundly(parse_adapter, data).metadata is None
