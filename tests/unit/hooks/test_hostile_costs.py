"""Small files that would cost a lot: of time in which nothing else runs, or of what is kept of them."""

from collections.abc import Callable

import pytest

from hooks.data_files import data
from hooks.formats.card import parse_card
from hooks.formats.configs import parse_config
from hooks.formats.gguf import parse_gguf
from hooks.formats.onnx import parse_onnx
from hooks.formats.parsed import Parsed
from hooks.formats.source import Source
from hooks.formats.tokenizers import parse_tokenizer_config
from hooks.parsed_tree import ParsedTree
from tests.support.costs import costs_at_most
from tests.support.model_files import GgufBytes
from tests.support.parsed_checks import parse_soundly

NO_END = b'{"a": NaN, "' + b'\\"' * 1_000_000


@pytest.mark.parametrize("end", [b"", b"\\", b'"}'])
@pytest.mark.parametrize("parse", [parse_config, parse_tokenizer_config])
def test_a_text_of_quotation_marks_without_end(parse: Callable[[Source], Parsed], end: bytes) -> None:
    parsed = parse_soundly(parse, NO_END + end)
    assert parsed.metadata is None


def card(text: str) -> bytes:
    return f"---\n{text}\n---\n".encode()


def test_directives_without_end() -> None:
    parsed = parse_soundly(parse_card, card("".join(f"%TAG !{one}! tag:x,\n" for one in range(50_000))))
    assert [one.code for one in parsed.findings] == ["yaml-too-large"]
    few = "".join(f"%TAG !a{one}! tag:x,\n" for one in range(3))
    parsed = parse_soundly(parse_card, card(few + "license: mit"))
    assert [one.code for one in parsed.findings] == ["yaml-syntax"]  # a document needs its `---` after them


def test_many_aliases_of_a_long_list() -> None:
    text = f"tags: &long [{'é' * 400_000}]\nmetrics:\n" + "- *long\n" * 70_000
    parsed = parse_soundly(parse_card, card(text))
    assert parsed.metadata is not None
    assert len(parsed.metadata["tags"]) == 1


def test_aliases_are_keys_where_they_are_texts() -> None:
    parsed = parse_soundly(parse_card, card("license: &key tags\n*key : [a]"))
    assert parsed.metadata is not None
    assert parsed.metadata["tags"] == ["a"]


def test_as_many_dtypes_as_tensors_in_gguf() -> None:
    file = GgufBytes().text("general.architecture", "llama")
    for number in range(5000):
        file.tensor(f"t{number}", [2], 1000 + number, 0)
    metadata = parse_soundly(parse_gguf, file.file()).metadata
    assert metadata is not None
    assert len(metadata["parameters"]) == 101
    assert metadata["parameters"]["others"] == 4900 * 2
    assert metadata["parameters_total"] == 5000 * 2


def test_as_many_dtypes_as_tensors_in_onnx() -> None:
    tensors = b"".join(
        message(5, number(1, 3) + number(2, 1000 + one) + message(8, b"n%d" % one)) for one in range(5000)
    )
    metadata = parse_soundly(parse_onnx, number(1, 8) + message(7, tensors)).metadata
    assert metadata is not None
    assert len(metadata["parameters"]) == 101
    assert metadata["parameters"]["others"] == 4900 * 3
    assert metadata["parameters_total"] == 5000 * 3


def varint(value: int) -> bytes:
    return bytes([value]) if value < 128 else bytes([value & 127 | 128]) + varint(value >> 7)


def number(field: int, value: int) -> bytes:
    return varint(field << 3) + varint(value)


def message(field: int, payload: bytes) -> bytes:
    return varint(field << 3 | 2) + varint(len(payload)) + payload


def test_patterns_that_nearly_match_every_path() -> None:
    files = {f"{'a' * 990}{one:04}.csv": ("csv", Parsed({"rows": 1})) for one in range(2000)}
    paths = [f"*{'a' * 480}b{one}" for one in range(100)]
    configs = [{"config_name": "x", "data_files": [{"split": "test", "path": paths}]}]
    files["README.md"] = ("card", Parsed({"configs": configs}))
    with costs_at_most(3):
        found = data(ParsedTree(files))
    assert (found.rows, [split.split for split in found.splits]) == (2000, ["train"])


def test_directories_without_end() -> None:
    """Below the thirtieth they count as one, of which the first word that means something counts."""
    files = {f"{'a/' * 490}test/train/{one:04}/x.csv": ("csv", Parsed({"rows": 1})) for one in range(2000)}
    splits = data(ParsedTree(files)).splits
    assert [(one.config, one.split, one.files) for one in splits] == [("/".join("a" * 30), "test", 2000)]
