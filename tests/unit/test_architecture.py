"""Rules about the shape of the project that no linter knows."""

import importlib.metadata
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
PACKAGES = sorted(path.parent.name for path in ROOT.glob("*/__init__.py"))
MAX_LINES = 400


def test_every_package_is_shipped_typed_and_checked() -> None:
    tools = PROJECT["tool"]
    assert sorted(tools["hatch"]["build"]["targets"]["wheel"]["packages"]) == PACKAGES
    assert sorted(tools["importlinter"]["root_packages"]) == PACKAGES
    assert set(PACKAGES) < set(tools["mypy"]["packages"])
    assert [name for name in PACKAGES if not (ROOT / name / "py.typed").exists()] == []


def test_no_module_is_too_long() -> None:
    modules = [path for name in [*PACKAGES, "tests"] for path in (ROOT / name).rglob("*.py")]
    assert len(modules) > len(PACKAGES)
    lengths = {str(path.relative_to(ROOT)): len(path.read_text().splitlines()) for path in modules}
    assert {name: lines for name, lines in lengths.items() if lines > MAX_LINES} == {}


def test_nobody_else_claims_our_top_level_names() -> None:
    claimed = importlib.metadata.packages_distributions()
    others = {name: [*{*claimed.get(name, [])} - {"modelyard"}] for name in [*PACKAGES, "tests"]}
    assert {name: owners for name, owners in others.items() if owners} == {}
    assert set(PACKAGES) & sys.stdlib_module_names == set()


def test_no_package_hides_in_the_tests() -> None:
    # tests/core/__init__.py would make `import core` find the tests.
    assert list((ROOT / "tests").rglob("__init__.py")) == []


def test_imports_point_downwards() -> None:
    command = [str(Path(sys.executable).with_name("lint-imports")), "--no-cache"]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr


def test_every_dependency_has_its_reason() -> None:
    groups = PROJECT["dependency-groups"].values()
    declared = [*PROJECT["project"]["dependencies"], *(entry for group in groups for entry in group)]
    names = {re.split(r"[\[<>=! ]", entry)[0] for entry in declared if isinstance(entry, str)}
    described = set(
        re.findall(r"^\| `([^`]+)` \|", (ROOT / "docs/dependencies.md").read_text(), re.MULTILINE)
    )
    assert names - described == set()


@pytest.mark.parametrize("lock", sorted(path.name for path in ROOT.glob("requirements*.lock")))
def test_locks_hold_hashes_and_no_addresses(lock: str) -> None:
    text = (ROOT / lock).read_text()
    entries = re.split(r"\n(?=\S)", text.strip())
    assert [entry for entry in entries if not re.match(r"[a-z0-9.-]+(\[[a-z,]+\])?==", entry)] == []
    assert [entry for entry in entries if "--hash=sha256:" not in entry] == []
    assert "://" not in text
