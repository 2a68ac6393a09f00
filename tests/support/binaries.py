"""Programs that some tests need beside Python.

They are looked for in the project's cache folder, which `make test` fills, then on PATH. At home a missing
one skips the test with the reason in view; under `CI=true` it fails it.
"""

import os
import shutil
from pathlib import Path
from typing import NoReturn

import pytest

CACHE = Path(__file__).resolve().parents[2] / ".cache" / "bin"


def find_binary(name: str) -> Path | None:
    """Where the program is, if anywhere."""
    found = shutil.which(name, path=search_path())
    return Path(found) if found else None


def require_binary(name: str) -> Path:
    """Where the program is; without it the test is skipped, or fails under `CI=true`."""
    found = find_binary(name)
    if found is None:
        absent(f"{name} is neither in {CACHE} nor on PATH; `make test` installs what it can")
    return found


def absent(reason: str) -> NoReturn:
    """Ends the test because this machine lacks something: a skip, or a failure under `CI=true`."""
    if os.environ.get("CI") == "true":
        pytest.fail(reason, pytrace=False)
    pytest.skip(reason)


def search_path() -> str:
    """A PATH on which children find the cached programs too: git looks for git-lfs there."""
    return os.pathsep.join([str(CACHE), os.environ.get("PATH", os.defpath)])
