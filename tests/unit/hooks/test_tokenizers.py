import json
import tracemalloc
from typing import Any

import pytest

from hooks.formats.parsed import Parsed
from hooks.formats.source import BytesSource
from hooks.formats.tokenizers import parse_chat_template, parse_tokenizer, parse_tokenizer_config
from tests.support.parsed_checks import parse_soundly

MIB = 1024**2
ODD = ['"', "\\", 'a"b', "é", "😀", "\n", "Ġthe", "\u2028", '":', "</s>", "a\\\\"]


def tokenizer(model: dict[str, Any], added: list[str], ascii_only: bool = False) -> bytes:
    tokens = [{"id": number, "content": text, "special": True} for number, text in enumerate(added)]
    document = {"version": "1.0", "truncation": None, "added_tokens": tokens, "model": model}
    return json.dumps(document, ensure_ascii=ascii_only, indent=2).encode()


def metadata_of(parsed: Parsed) -> dict[str, Any]:
    assert parsed.metadata is not None, parsed.findings
    return dict(parsed.metadata)


def codes(parsed: Parsed) -> list[str]:
    return [finding.code for finding in parsed.findings]


@pytest.mark.parametrize("ascii_only", [False, True])
@pytest.mark.parametrize("kind", ["BPE", "WordPiece", "WordLevel", "Unigram"])
def test_counts_tokens_as_json_readers_do(kind: str, ascii_only: bool) -> None:
    tokens = [*(f"token{number}" for number in range(1000)), *ODD]
    vocab: Any = {token: number for number, token in enumerate(tokens)}
    if kind == "Unigram":
        vocab = [[token, -float(number)] for token, number in vocab.items()]
    added = ["<pad>", *ODD, "new"]
    data = tokenizer({"type": kind, "unk_token": "<unk>", "vocab": vocab}, added, ascii_only)
    metadata = metadata_of(parse_soundly(parse_tokenizer, data))
    assert metadata["kind"] == kind
    assert metadata["vocab_size"] == len({*tokens, *added})
    assert metadata["unk_token"] == "<unk>"
    assert metadata["added_tokens"] == {token: number for number, token in enumerate(added)}


@pytest.mark.parametrize(
    ("model", "kind"),
    [
        ({"vocab": {"a": 0}, "merges": []}, "BPE"),
        ({"vocab": [["a", 0.0]]}, "Unigram"),
        ({"vocab": {"a": 0}}, None),
        ({"type": ["BPE"], "vocab": {"a": 0}}, None),
    ],
)
def test_older_files_do_not_name_their_kind(model: dict[str, Any], kind: str | None) -> None:
    assert metadata_of(parse_soundly(parse_tokenizer, tokenizer(model, [])))["kind"] == kind


def test_a_large_vocabulary_takes_no_memory() -> None:
    data = tokenizer(
        {
            "type": "BPE",
            "vocab": {f"▁token{number}": number for number in range(60_000)},
            "merges": [[f"a{number}", f"b{number}"] for number in range(60_000)],
        },
        ["<bos>"],
    )
    assert len(data) > 4 * MIB
    tracemalloc.start()
    try:
        parsed = parse_tokenizer(BytesSource(data))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert metadata_of(parsed)["vocab_size"] == 60_001
    assert peak - len(data) < MIB  # the source's copy, and nothing else


def test_more_tokens_than_are_counted() -> None:
    data = b'{"model": {"vocab": {' + b'"":0,' * 2_100_000 + b'"":0}}}'
    parsed = parse_soundly(parse_tokenizer, data)
    assert metadata_of(parsed)["vocab_size"] is None
    assert codes(parsed) == ["tokenizer-too-large"]


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"", "tokenizer-invalid"),
        (b"[]", "tokenizer-invalid"),
        (b"{}", "tokenizer-invalid"),
        (b'{"model": []}', "tokenizer-invalid"),
        (b'{"model": {"vocab": {"a": 1}', "tokenizer-invalid"),
        (b'{"model": {}, "added_tokens": [{"id": "a", "content": "b"}]}', "tokenizer-invalid"),
        (b'{"model": {}, "added_tokens": [{"id": 1, "content": "\xff"}]}', "tokenizer-invalid"),
        (b'{"model": {"vocab": ' + b"[" * 100_000, "tokenizer-invalid"),
        (b'{"model": {"vocab": ' + b'{"a":' * 100_000, "tokenizer-invalid"),
        (b" " * 49 * MIB, "tokenizer-too-large"),
        (b'{"model": {}, "added_tokens": "' + b"x" * 9 * MIB + b'"}', "tokenizer-too-large"),
    ],
)
def test_what_is_no_tokenizer(data: bytes, code: str) -> None:
    parsed = parse_soundly(parse_tokenizer, data)
    assert (parsed.metadata, codes(parsed)) == (None, [code])


def test_a_type_of_megabytes_is_not_shown() -> None:
    data = tokenizer({"type": "😀" + "x" * MIB, "vocab": {}}, [])
    assert metadata_of(parse_soundly(parse_tokenizer, data))["kind"] is None


def config(values: dict[str, Any]) -> dict[str, Any]:
    return metadata_of(parse_soundly(parse_tokenizer_config, json.dumps(values).encode()))


def test_a_tokenizer_config() -> None:
    metadata = config(
        {
            "added_tokens_decoder": {"0": {"content": "<|endoftext|>"}, "1": {"content": "<|im_start|>"}},
            "additional_special_tokens": ["<|im_start|>", {"content": "<|im_end|>", "lstrip": False}],
            "bos_token": "<|im_start|>",
            "chat_template": "{% for message in messages %}…{% endfor %}",
            "eos_token": {"__type": "AddedToken", "content": "<|im_end|>"},
            "pad_token": None,
            "model_max_length": 8192,
            "tokenizer_class": "GPT2Tokenizer",
            "vocab_size": 49152,
        }
    )
    assert metadata["kind"] == "GPT2Tokenizer"
    assert metadata["vocab_size"] == 49152
    assert metadata["model_max_length"] == 8192
    assert metadata["added_tokens_total"] == 2
    assert metadata["special_tokens"] == {
        "bos_token": "<|im_start|>",
        "eos_token": "<|im_end|>",
        "additional_special_tokens": ["<|im_start|>", "<|im_end|>"],
    }
    template = "{% for message in messages %}…{% endfor %}"
    assert metadata["chat_template"] == {"template": template, "bytes": len(template.encode())}
    assert "chat_template" not in metadata["raw"]


@pytest.mark.parametrize(
    ("length", "known"), [(int(1e30), None), (1e30, None), (512, 512), (512.0, 512), (-1, None), (True, None)]
)
def test_a_length_without_limit_is_none(length: float, known: int | None) -> None:
    assert config({"model_max_length": length})["model_max_length"] == known


def test_the_default_of_several_templates() -> None:
    templates = [{"name": "tool_use", "template": "T"}, {"name": "default", "template": "D"}]
    assert config({"chat_template": templates})["chat_template"]["template"] == "D"
    assert config({"chat_template": templates[:1]})["chat_template"]["template"] == "T"
    assert config({"chat_template": [1, {}]})["chat_template"] is None


def test_a_special_tokens_map() -> None:
    metadata = config({"unk_token": {"content": "[UNK]"}, "mask_token": "[MASK]", "cls_token": 3})
    assert metadata["special_tokens"] == {"unk_token": "[UNK]", "mask_token": "[MASK]"}


@pytest.mark.parametrize(
    "text", ["{% if x %}é{% endif %}", "{{ messages }}", "{# note #}", "plain", "\ufeffx"]
)
def test_templates(text: str) -> None:
    metadata = metadata_of(parse_soundly(parse_chat_template, text.encode()))
    text = text.removeprefix("\ufeff")
    assert metadata == {"template": text, "bytes": len(text.encode())}


def test_the_older_form_of_a_template() -> None:
    data = json.dumps({"chat_template": "{{ x }}"}, indent=2).encode()
    assert metadata_of(parse_soundly(parse_chat_template, data))["template"] == "{{ x }}"


def test_long_templates_are_cut() -> None:
    metadata = metadata_of(parse_soundly(parse_chat_template, b"x\0" * 100_000))
    assert (len(metadata["template"]), metadata["bytes"]) == (64 * 1024, 200_000)


@pytest.mark.parametrize(
    ("data", "codes_found"),
    [
        (b" \n", ["chat-template-empty"]),
        (b"{% \xff %}", ["chat-template-not-utf8"]),
        (b'{"template": "x"}', ["chat-template-invalid"]),
        (b'{"chat_template": ', ["chat-template-invalid"]),
        (b'{"a":' * 100_000, ["chat-template-invalid"]),
        (b"x" * 3 * MIB, ["chat-template-too-large"]),
    ],
)
def test_bad_templates(data: bytes, codes_found: list[str]) -> None:
    assert codes(parse_soundly(parse_chat_template, data)) == codes_found
