import json
from pathlib import Path
from typing import Any

import pytest

from hooks.formats.configs import parse_config
from hooks.formats.diffusers import parse_diffusers
from hooks.formats.parsed import Parsed, Severity
from tests.support.dataset_files import diffusers_layout
from tests.support.parsed_checks import parse_soundly
from tests.support.path_source import PathSource


def index(values: Any) -> Parsed:
    return parse_soundly(parse_diffusers, json.dumps(values).encode())


def metadata_of(parsed: Parsed) -> dict[str, Any]:
    assert parsed.metadata is not None
    return dict(parsed.metadata)


def test_a_pipeline(tmp_path: Path) -> None:
    diffusers_layout(tmp_path)
    parsed = parse_diffusers(PathSource(tmp_path / "model_index.json", 2**20))
    metadata = metadata_of(parsed)
    written = json.loads((tmp_path / "model_index.json").read_text())
    assert parsed.findings == ()
    assert metadata["class_name"] == "StableDiffusionPipeline"
    assert metadata["diffusers_version"] == "0.31.0"
    assert metadata["components"] == {key: value for key, value in written.items() if isinstance(value, list)}
    assert metadata["components"]["feature_extractor"] == [None, None]
    assert metadata["components_total"] == 6
    assert metadata["raw"]["requires_safety_checker"] is False
    component = metadata_of(parse_config(PathSource(tmp_path / "unet" / "config.json", 2**20)))
    assert component["library_hints"] == ["diffusers"]


def test_a_pipeline_of_its_own_code() -> None:
    metadata = metadata_of(index({"_class_name": ["pipeline", "MyPipeline"], "unet": ["my_unet", "MyUnet"]}))
    assert (metadata["class_name"], metadata["custom_pipeline"]) == ("MyPipeline", True)
    assert metadata["components"] == {"unet": ["my_unet", "MyUnet"]}


def test_modular_pipelines_specify_more() -> None:
    metadata = metadata_of(
        index({"_class_name": "X", "vae": ["diffusers", "AutoencoderKL", {"repo": "a/b"}]})
    )
    assert metadata["components"] == {"vae": ["diffusers", "AutoencoderKL"]}


@pytest.mark.parametrize("values", [{}, {"_class_name": 3}, {"_class_name": []}, {"_class_name": None}])
def test_no_class_is_an_error(values: dict[str, Any]) -> None:
    parsed = index(values)
    assert [(finding.severity, finding.code) for finding in parsed.findings] == [
        (Severity.ERROR, "diffusers-no-class")
    ]
    assert metadata_of(parsed)["class_name"] is None


def test_what_is_no_component_is_left_out() -> None:
    values = {
        "_class_name": "X",
        "a": [1, 2],
        "b": ["x"],
        "c": [],
        "_d": ["l", "c"],
        "e": ["l", {}],
        "f": "x",
    }
    assert metadata_of(index(values))["components"] == {}


def test_many_components_are_cut() -> None:
    parsed = index({"_class_name": "X"} | {f"c{number}": ["l" * 300, "c"] for number in range(500)})
    assert len(metadata_of(parsed)["components"]) == 200
    assert metadata_of(parsed)["components_total"] == 500


@pytest.mark.parametrize("data", [b"", b"[]", b'{"a":' * 100_000])
def test_what_is_no_index(data: bytes) -> None:
    assert parse_soundly(parse_diffusers, data).metadata is None
