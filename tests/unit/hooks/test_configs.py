import json
from typing import Any

import pytest

from hooks.formats.configs import parse_config, parse_generation_config
from hooks.formats.parsed import Parsed, Severity
from hooks.formats.source import BytesSource
from tests.support.parsed_checks import parse_soundly

SMOLLM = {
    "architectures": ["LlamaForCausalLM"],
    "attention_bias": False,
    "bos_token_id": 1,
    "hidden_act": "silu",
    "hidden_size": 576,
    "initializer_range": 0.041666666666666664,
    "intermediate_size": 1536,
    "max_position_embeddings": 8192,
    "model_type": "llama",
    "num_attention_heads": 9,
    "num_hidden_layers": 30,
    "num_key_value_heads": 3,
    "rope_scaling": None,
    "tie_word_embeddings": True,
    "torch_dtype": "bfloat16",
    "transformers.js_config": {"kv_cache_dtype": {"q4f16": "float16"}},
    "transformers_version": "4.42.3",
    "vocab_size": 49152,
}


def config(values: Any) -> Parsed:
    return parse_soundly(parse_config, json.dumps(values).encode())


def metadata_of(parsed: Parsed) -> dict[str, Any]:
    assert parsed.metadata is not None, parsed.findings
    return dict(parsed.metadata)


def codes(parsed: Parsed) -> list[str]:
    return [finding.code for finding in parsed.findings]


def test_a_language_model() -> None:
    parsed = config(SMOLLM)
    metadata = metadata_of(parsed)
    assert parsed.findings == ()
    for key in (
        *("architectures", "model_type", "hidden_size", "num_hidden_layers", "vocab_size", "torch_dtype"),
        *("max_position_embeddings", "num_attention_heads", "num_key_value_heads", "intermediate_size"),
        "tie_word_embeddings",
    ):
        assert metadata[key] == SMOLLM[key]
    assert metadata["library_hints"] == ["transformers"]
    assert metadata["raw"] == {
        key: value for key, value in SMOLLM.items() if not isinstance(value, dict | list)
    }


@pytest.mark.parametrize(
    ("values", "sizes"),
    [
        ({"n_embd": 768, "n_layer": 12, "n_positions": 1024, "vocab_size": 50257}, (768, 12, 50257, 1024)),
        ({"d_model": 512, "num_layers": 6, "vocab_size": 32128}, (512, 6, 32128, None)),
        ({"dim": 768, "n_layers": 6, "hidden_dim": 3072, "vocab_size": 30522}, (768, 6, 30522, None)),
        ({"d_model": 384, "encoder_layers": 4, "max_target_positions": 448}, (384, 4, None, 448)),
        ({"hidden_size": 4096, "num_layers": 28, "padded_vocab_size": 65024}, (4096, 28, 65024, None)),
    ],
)
def test_names_that_families_of_models_use(values: dict[str, Any], sizes: tuple[int | None, ...]) -> None:
    metadata = metadata_of(config(values))
    keys = ("hidden_size", "num_hidden_layers", "vocab_size", "max_position_embeddings")
    assert tuple(metadata[key] for key in keys) == sizes


@pytest.mark.parametrize("name", ["text_config", "llm_config", "language_config"])
def test_a_model_of_several_parts_has_the_sizes_of_its_text_part(name: str) -> None:
    metadata = metadata_of(
        config(
            {
                "architectures": ["LlavaForConditionalGeneration"],
                "model_type": "llava",
                "hidden_size": 1,
                "tie_word_embeddings": False,
                name: {"model_type": "llama", "hidden_size": 4096, "vocab_size": 32064, "dtype": "float16"},
                "vision_config": {"model_type": "clip_vision_model", "hidden_size": 1024, "image_size": 336},
            }
        )
    )
    assert (metadata["hidden_size"], metadata["vocab_size"]) == (4096, 32064)
    assert metadata["torch_dtype"] == "float16"
    assert metadata["tie_word_embeddings"] is False
    assert metadata["model_type"] == "llava"
    assert metadata["parts"]["vision_config"] == {"model_type": "clip_vision_model", "hidden_size": 1024}


def test_text_parts_inside_of_others() -> None:
    metadata = metadata_of(config({"thinker_config": {"text_config": {"hidden_size": 3584}}}))
    assert metadata["hidden_size"] == 3584


def test_quantisation_and_code_of_its_own() -> None:
    quantisation = {"quant_method": "gptq", "bits": 4, "group_size": 128}
    parsed = config({"quantization_config": quantisation, "auto_map": {"AutoModel": "modeling_x.X"}})
    assert metadata_of(parsed)["quantization_config"] == quantisation
    assert metadata_of(parsed)["custom_code"] is True
    assert [(finding.severity, finding.code) for finding in parsed.findings] == [
        (Severity.INFO, "config-custom-code")
    ]


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("hidden_size", "576"),
        ("hidden_size", -1),
        ("vocab_size", 2**63),
        ("vocab_size", 1.5),
        ("num_hidden_layers", True),
        ("model_type", 7),
        ("architectures", [1]),
        ("torch_dtype", ["a\nb"]),
    ],
)
def test_values_of_the_wrong_kind_are_findings(key: str, value: Any) -> None:
    parsed = config({**SMOLLM, key: value})
    assert codes(parsed) == ["config-bad-value"]
    assert parsed.findings[0].severity is Severity.WARNING
    assert f'"{key}" is "' in parsed.findings[0].message
    assert metadata_of(parsed)[key] in (None, [])


def test_infinity_as_python_writes_it() -> None:
    data = b'{"hidden_size": 8, "limits": [0.0, Infinity], "x": -Infinity, "NaN": "Infinity \\" NaN"}'
    parsed = parse_soundly(parse_config, data)
    assert codes(parsed) == ["json-constant"]
    assert metadata_of(parsed)["hidden_size"] == 8
    assert metadata_of(parsed)["raw"] == {"hidden_size": 8, "x": None, "NaN": 'Infinity " NaN'}


@pytest.mark.parametrize(
    ("data", "code", "line"),
    [
        (b"", "json-invalid", 1),
        (b'{\n"a": 1,\n}', "json-invalid", 3),
        (b"[]", "json-not-object", None),
        (b"null", "json-not-object", None),
        (b'{"a": "\xff"}', "json-invalid", 1),
        (b'{"a": "\\ud800"}', "json-invalid", None),
        (b'{"a":' * 100_000, "json-too-large", None),
        (b"[" * 100_000, "json-too-large", None),
        (b'{"a": [' + b"0," * 2_500_000, "json-too-large", None),
        (b'{"a": ' + b"9" * 100_000 + b"}", "json-invalid", None),
    ],
)
def test_what_is_no_json_object(data: bytes, code: str, line: int | None) -> None:
    for parse in (parse_config, parse_generation_config):
        parsed = parse_soundly(parse, data)
        assert parsed.metadata is None
        assert [(finding.code, finding.line) for finding in parsed.findings] == [(code, line)]


def test_many_and_long_values_are_cut() -> None:
    metadata = metadata_of(config({f"key{number}": "x" * 10_000 for number in range(350)}))
    assert len(metadata["raw"]) == 300
    parsed = parse_generation_config(BytesSource(json.dumps({"a": ["x" * 10_000] * 400}).encode()))
    assert len(json.dumps(parsed.metadata)) < 200_000


def test_generation_config() -> None:
    values = {"do_sample": True, "eos_token_id": [1, 2], "temperature": 0.6, "transformers_version": "4.42.3"}
    assert metadata_of(parse_soundly(parse_generation_config, json.dumps(values).encode())) == values
