"""What a rule asks of a model, and what the summary of a commit says."""

from typing import Any

import msgspec
import pytest

from hooks.lineage import BaseModel
from hooks.summary import Summary
from hooks.triggers.conditions import holds
from hooks.triggers.effort import Effort, TooMuchEffort
from hooks.triggers.spec import When

MODEL = Summary(
    task="text-generation",
    tasks=("text-generation", "summarization"),
    library="transformers",
    licenses=("apache-2.0",),
    languages=("en", "de"),
    tags=("chat",),
    architectures=("LlamaForCausalLM",),
    model_type="llama",
    parameters=134_515_008,
    dtypes=("BF16", "F32"),
    quantisation="Q4_K",
    context_length=8192,
    base_models=(BaseModel("HuggingFaceTB/SmolLM2-135M", "finetune"),),
    datasets=("acme/chats",),
)


@pytest.mark.parametrize(
    ("when", "true"),
    [
        ({}, True),
        ({"task": "text-generation"}, True),
        ({"task": "Summarization"}, True),
        ({"task": "text-*"}, True),
        ({"task": "text"}, False),
        ({"library": ["diffusers", "transformers"]}, True),
        ({"library": ["diffusers"]}, False),
        ({"license": "apache-2.0"}, True),
        ({"license": ["*", "!apache-*"]}, False),
        ({"language": "de"}, True),
        ({"tag": "chat"}, True),
        ({"architecture": "llama"}, True),
        ({"architecture": "LlamaForCausalLM"}, True),
        ({"architecture": "bert"}, False),
        ({"dtype": "bf16"}, True),
        ({"quantisation": "Q4_*"}, True),
        ({"base_model": "huggingfacetb/*"}, True),
        ({"base_model": "*"}, False),
        ({"dataset": "acme/chats"}, True),
        ({"min_parameters": 134_515_008, "max_parameters": 134_515_008}, True),
        ({"min_parameters": 134_515_009}, False),
        ({"max_parameters": 134_515_007}, False),
        ({"min_context_length": 8192}, True),
        ({"min_context_length": 8193}, False),
        ({"min_rows": 0}, False),
        ({"max_rows": 10}, False),
        ({"has_errors": False}, True),
        ({"has_errors": True}, False),
        ({"task": "text-generation", "license": "mit"}, False),
    ],
)
def test_conditions(when: dict[str, Any], true: bool) -> None:
    assert holds(msgspec.convert(when, When), MODEL, has_errors=False, effort=Effort()) is true


@pytest.mark.parametrize(
    "when",
    [
        {"task": "*"},
        {"min_parameters": 0},
        {"max_parameters": 1},
        {"license": ["*", "!mit"]},
        {"max_rows": 5},
    ],
)
def test_what_a_commit_does_not_say_fulfils_nothing(when: dict[str, Any]) -> None:
    assert not holds(msgspec.convert(when, When), Summary(), has_errors=False, effort=Effort())


def test_every_condition_is_about_something() -> None:
    for name in When.__struct_fields__:
        value: Any = (
            True if name == "has_errors" else 10**15 if "_" in name and name[:3] == "min" else "nothing"
        )
        if name.startswith("max"):
            value = 0
        assert not holds(msgspec.convert({name: value}, When), MODEL, has_errors=False, effort=Effort()), name


def test_many_long_conditions_on_long_texts_are_not_tried() -> None:
    """Each alone is fine; together, tried for each rule and branch, they would take minutes."""
    costly = When(tag=tuple("*a" * 99 + "*b" for _ in range(20)))
    summary = Summary(tags=("a" * 200,) * 200)
    effort = Effort()

    def try_all() -> None:
        for _ in range(1000):
            assert not holds(costly, summary, has_errors=False, effort=effort)

    with pytest.raises(TooMuchEffort):
        try_all()
