"""JavaScript clients: Node.js and the packages of `tools/node`, as `make test` installs them."""

import os
import subprocess
from collections.abc import Mapping
from pathlib import Path

from tests.support.binaries import CACHE, absent, require_binary

_PACKAGES = CACHE.parent / "node" / "node_modules"


class NodeError(Exception):
    """A script failed; the message is what it said."""


def require_node_package(name: str) -> None:
    """Without Node.js or the package the test is skipped, or fails under `CI=true`."""
    require_binary("node")
    if not (_PACKAGES / name).is_dir():
        absent(f"{name} is not in {_PACKAGES}; `make test` installs it")


def run_node(script: Path, *arguments: str | Path, environment: Mapping[str, str]) -> str:
    """Runs a script that finds the packages. Raises `NodeError`."""
    done = subprocess.run(
        [require_binary("node"), script, *arguments],
        env={"PATH": os.environ["PATH"], "NODE_PATH": str(_PACKAGES), **environment},
        capture_output=True,
        text=True,
        timeout=240,
    )
    if done.returncode != 0:
        raise NodeError(done.stderr)
    return done.stdout
