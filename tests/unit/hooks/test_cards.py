from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import DatasetCard, ModelCard

from hooks.formats.card import parse_card
from hooks.formats.parsed import Finding, Parsed, Severity
from hooks.formats.source import BytesSource
from tests.support.cards import CONFIGS, DATASETS, MODELS, PLAIN, TRAINED, TRANSFORMERS
from tests.support.parsed_checks import parse_soundly
from tests.support.path_source import PathSource

MIB = 1024**2


def parse(text: str) -> Parsed:
    return parse_soundly(parse_card, text.encode())


def with_metadata(yaml: str) -> Parsed:
    return parse(f"---\n{yaml}\n---\n")


def metadata(yaml: str) -> dict[str, Any]:
    found = with_metadata(yaml).metadata
    assert found is not None
    return {key: value for key, value in found.items() if key != "fields"}


def only(parsed: Parsed) -> Finding:
    (finding,) = parsed.findings
    return finding


def listed(value: Any) -> list[Any]:
    """One or many, each once, as lists."""
    values = value if isinstance(value, list) else [] if value is None else [value]
    return list(dict.fromkeys(values))


@pytest.mark.parametrize("name", MODELS)
def test_models_as_huggingface_hub_reads_them(name: str, tmp_path: Path) -> None:
    file = tmp_path / "README.md"
    file.write_bytes(MODELS[name].encode())
    theirs = ModelCard.load(file).data

    ours = parse_card(PathSource(file, 2 * MIB)).metadata

    assert ours is not None
    for key in ("license", "language", "tags", "datasets", "metrics", "base_model"):
        assert ours.get(key, []) == listed(getattr(theirs, key)), key
    for key in ("pipeline_tag", "library_name", "license_name", "license_link", "model_name"):
        assert ours.get(key) == getattr(theirs, key), key
    assert ours.get("base_model_relation") == theirs.get("base_model_relation")
    results = [
        {key: value for key, value in asdict(result).items() if value is not None}
        for result in theirs.eval_results or []
    ]
    assert ours.get("eval_results", []) == results


@pytest.mark.parametrize("name", DATASETS)
def test_datasets_as_huggingface_hub_reads_them(name: str, tmp_path: Path) -> None:
    file = tmp_path / "README.md"
    file.write_bytes(DATASETS[name].encode())
    theirs = DatasetCard.load(file).data

    ours = parse_card(PathSource(file, 2 * MIB)).metadata

    assert ours is not None
    for key in ("license", "language", "size_categories", "task_categories", "task_ids", "source_datasets"):
        assert ours.get(key, []) == listed(getattr(theirs, key)), key
    assert ours.get("pretty_name") == theirs.pretty_name


@pytest.mark.parametrize(
    "name",
    [name for name in MODELS if name not in {"no-metadata", "custom-license"}] + ["dataset", "configs"],
)
def test_good_cards_have_no_findings(name: str) -> None:
    assert parse((MODELS | DATASETS)[name]).findings == ()


def test_title() -> None:
    parsed = parse(TRANSFORMERS)
    assert parsed.metadata is not None
    assert parsed.metadata["title"] == "SmolLM2 135M, tuned"
    assert (parse("```\n# code\n```\n#  Real #\n").metadata or {})["title"] == "Real"
    assert "title" not in (parse("---\nlicense: mit\n---\n## Second\n    # code\n").metadata or {})


def test_missing_metadata() -> None:
    parsed = parse("# Only\n")
    assert parsed.metadata == {"title": "Only"}
    message = "empty or missing yaml metadata in repo card"
    assert only(parsed) == Finding(Severity.WARNING, "card-metadata-missing", message, line=1)
    for empty in ("", "---\n\n---\n", "---\n# nothing\n---\n", "---\nlicense: mit\n"):
        assert only(parse(empty)).code == "card-metadata-missing"
    assert "no closing ---" in only(parse("---\nlicense: mit\n")).message


def test_broken_yaml_is_an_error_at_its_line() -> None:
    parsed = parse("---\nlicense: mit\nlanguage: a: b\n---\n# Title\n")
    assert parsed.metadata is None
    message = "Invalid YAML: mapping values are not allowed in this context"
    assert only(parsed) == Finding(Severity.ERROR, "yaml-syntax", message, line=3)
    assert only(parse("\ufeff\r\n---\r\na: 1\r\nb: [\r\n---\r\n")).line in (4, 5)
    assert only(parse("---\nx: 1\ny: \x07\n---\n")).line == 3


def test_metadata_that_is_no_mapping() -> None:
    finding = only(with_metadata("- a\n- b"))
    assert (finding.severity, finding.message) == (
        Severity.ERROR,
        "repo card metadata block should be a dict",
    )


@pytest.mark.parametrize(
    ("yaml", "severity", "line", "message"),
    [
        ("license: Apache-2.0", "error", 2, '"license" must be one of [apache-2.0, mit, '),
        ("license:\n- mit\n- mine", "error", 4, '"license[1]" must be one of [apache-2.0, mit, '),
        ("library_name: 5", "error", 2, '"library_name" must be a string'),
        ("license: ''", "error", 2, '"license" is not allowed to be empty'),
        ("license: {a: b}", "error", 2, '"license" must be an array'),
        ("license: other", "warning", 2, 'with "license: other", say in "license_name" which one it is'),
        (
            "license: other\nlicense_name: My License",
            "error",
            3,
            '"license_name" with value "My License" fails to match the required pattern: /^[a-z0-9-.]+$/',
        ),
        ("license_link: COPYING", "warning", 2, '"license_link" must be LICENSE, LICENSE.md or a valid uri'),
        (
            "language: [en, pt_PT]",
            "error",
            2,
            '"language[1]" with value "pt_PT" is not valid. It must be an ISO 639-1, 639-2 or 639-3 code',
        ),
        ("language: English", "error", 2, '"language" with value "English" is not valid.'),
        ("tags:\n- a\n- 2024", "error", 4, '"tags[1]" must be a string'),
        ("datasets: [[]]", "error", 2, '"datasets[0]" must be a string'),
        ("datasets: a b", "warning", 2, '"datasets" with value "a b" is not valid. If possible, '),
        (
            "pipeline_tag: text-generaton",
            "warning",
            2,
            'The pipeline tag "text-generaton" (did you mean "text-generation"?) is not in the official ',
        ),
        ("task_categories: [chat]", "warning", 2, 'The task_categories "chat" is not in the official list: '),
        ("task_ids: [chat]", "warning", 2, 'The task_ids "chat" is not in the official list: '),
        ("size_categories: big", "warning", 2, 'The size_categories "big" is not in the official list: '),
        ("library_name: [a]", "error", 2, '"library_name" must be a string'),
        ("base_model: Kokoro 82M", "error", 2, '"base_model" with value "Kokoro 82M" is not valid. Use '),
        (
            "base_model: a/b\nbase_model_relation: lora",
            "error",
            3,
            '"base_model_relation" must be one of [adapter, merge, quantized, finetune], not "lora"',
        ),
        ("configs: x", "error", 2, '"configs" must be an array'),
        ("license: mit\nlicense: gpl", "warning", 3, 'duplicated mapping key "license"'),
        ("license: !mine mit", "error", 2, "unknown tag !<!mine>"),
        ("? [a]\n: b", "error", 2, "a key must be a text, this one is a collection"),
        ("date: 2020-13-40", "warning", 2, '"2020-13-40" is not a valid timestamp'),
    ],
)
def test_each_complaint(yaml: str, severity: str, line: int, message: str) -> None:
    finding = only(with_metadata(yaml))
    assert (finding.severity.value, finding.line) == (severity, line)
    assert finding.message.startswith(message)


@pytest.mark.parametrize(
    ("good", "broken", "line", "message"),
    [
        ("- name: distil", "- nom: distil", 11, '"model-index[0].name" is required'),
        ("  results:", "  result:", 11, '"model-index[0].results" is required'),
        ("      type: text-", "      kind: text-", 13, '"model-index[0].results[0].task.type" is required'),
        (
            "      type: emotion",
            "      type: [a]",
            18,
            '"model-index[0].results[0].dataset.type" must be a string',
        ),
        ("    dataset:", "    datasets:", 13, '"model-index[0].results[0].dataset" is required'),
        ("      type: accuracy", "", 24, '"model-index[0].results[0].metrics[0].type" is required'),
        ("      value: 0.9245\n", "", 24, '"model-index[0].results[0].metrics[0].value" is required'),
        (
            "    metrics:\n",
            "    metrics: x\n    x:\n",
            23,
            '"model-index[0].results[0].metrics" must be an array',
        ),
    ],
)
def test_results_that_break_their_form(good: str, broken: str, line: int, message: str) -> None:
    finding = only(parse(TRAINED.replace(good, broken, 1)))
    expected = Finding(Severity.ERROR, "card-model-index", message, line=line)
    assert finding == expected


def test_results_that_are_good_stay_when_others_are_not() -> None:
    parsed = parse(TRAINED.replace("      value: 0.9245\n", ""))
    assert parsed.metadata is not None
    assert [one["metric_type"] for one in parsed.metadata["eval_results"]] == ["f1"]


def test_norwegian_is_a_language() -> None:
    assert metadata("language: no")["language"] == ["no"]
    assert metadata("language: [no, nb, on, yue, code]\nx: yes")["language"] == [
        "no",
        "nb",
        "on",
        "yue",
        "code",
    ]


def test_configurations() -> None:
    parsed = parse(CONFIGS)
    assert parsed.metadata is not None
    assert parsed.metadata["configs"] == [
        {"config_name": "default", "data_files": [{"split": "train", "path": ["data/*.csv"]}]},
        {
            "config_name": "pair",
            "data_dir": "pair",
            "data_files": [{"split": "train", "path": ["a.csv", "b.csv"]}],
        },
        {
            "config_name": "split",
            "data_files": [
                {"split": "train", "path": ["x/a.jsonl", "x/b.jsonl"]},
                {"split": "test", "path": ["x/c.jsonl"]},
            ],
        },
        {
            "config_name": "mapping",
            "data_files": [
                {"split": "train", "path": ["train.csv"]},
                {"split": "test", "path": ["test.csv"]},
            ],
        },
    ]


def test_known_splits() -> None:
    parsed = parse(DATASETS["dataset"])
    assert parsed.metadata is not None
    assert parsed.metadata["dataset_info"] == [
        {
            "config_name": "plain_text",
            "splits": [
                {"name": "train", "num_examples": 87599},
                {"name": "validation", "num_examples": 10570},
            ],
            "features": ["id", "answers"],
        }
    ]


def test_values_that_are_not_json_become_texts() -> None:
    card = """
model-index:
- name: m
  results:
  - task: {type: t}
    dataset: {type: d, name: d, args: {when: 2020-01-01, at: 2020-01-01T10:00:00Z}}
    metrics: [{type: a, value: .nan}, {type: b, value: -.inf}, {type: c, value: 12345678901234567890}]
tags: ["a\\0b"]
"""
    found = metadata(card)
    assert [one["metric_value"] for one in found["eval_results"]] == [
        "nan",
        "-inf",
        "12345678901234567890",
    ]
    arguments = {"when": "2020-01-01", "at": "2020-01-01T10:00:00+00:00"}
    assert found["eval_results"][0]["dataset_args"] == arguments
    assert found["tags"] == ["a\ufffdb"]


def test_merge_keys_and_sets() -> None:
    found = metadata(
        "a: &a {split: train, path: x}\nconfigs:\n- data_files:\n  - <<: *a\n    path: y\ntags: !!set {p, q}"
    )
    assert found["configs"][0]["data_files"] == [{"split": "train", "path": ["y"]}]
    assert found["tags"] == ["p", "q"]


def test_a_text_that_is_not_utf8_is_still_read() -> None:
    parsed = parse_soundly(parse_card, "---\nlicense: mit\npretty_name: café\n---\n".encode("latin-1"))
    assert only(parsed) == Finding(Severity.ERROR, "card-encoding", "it is not in UTF-8", line=3)
    assert (parsed.metadata or {})["license"] == ["mit"]


def test_only_the_first_bytes_of_a_long_card_are_read(tmp_path: Path) -> None:
    file = tmp_path / "README.md"
    file.write_text(PLAIN + "é" * (3 * MIB))
    source = PathSource(file, 2 * MIB)
    assert (parse_card(source).metadata or {})["license"] == ["mit"]
    assert source.bytes_read == 2 * MIB


def test_there_are_a_hundred_findings_at_most() -> None:
    parsed = with_metadata("license: [" + ", ".join(f"l{n}" for n in range(500)) + "]")
    assert len(parsed.findings) == 101
    assert parsed.findings[-1].message == "400 more findings in this card"


def test_the_source_is_not_changed_by_parsing_twice() -> None:
    source = BytesSource(TRAINED.encode())
    assert parse_card(source) == parse_card(source)
