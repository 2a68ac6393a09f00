"""Modelyard, as a peer among the others: one worker, the defaults, and a user who may do everything."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import Request, urlopen

from bench.gitclient import make_key
from bench.peer import Peer

_PROGRAM = [sys.executable, "-m", "modelyard"]
_QUEUE = "modelyard_maintenance_queue{"
_ROOT = Path(__file__).resolve().parents[1]


class Modelyard(Peer):
    """The server with a user `ann`, her token and her key."""

    name = "Modelyard"

    def __init__(self, folder: Path, settings: Mapping[str, str] | None = None) -> None:
        """`settings` as `MODELYARD_SECTION__KEY`."""
        super().__init__(folder)
        self.data = self.folder / "data"
        self.ssh_port = 0
        self._settings = {
            "MODELYARD_HTTP__REQUESTS_PER_MINUTE": "0",
            "MODELYARD_HTTP__ANONYMOUS_REQUESTS_PER_MINUTE": "0",
            "MODELYARD_LFS__REQUESTS_PER_MINUTE": "0",
            "MODELYARD_SERVER__LOG_LEVEL": "warning",
            **(settings or {}),
        }
        self.key = make_key(self.folder / "key")
        self.run("migrate")
        self.run("user", "create", "ann", "--no-password", "--admin")
        self.run("key", "add", "ann", f"{self.key}.pub")
        printed = self.run("token", "create", "ann", "--name", "bench", "--scope", "admin")
        self.token = next(word for word in printed.split() if word.startswith("myd_"))

    def command(self) -> Sequence[str | Path]:
        ready = self.folder / "ready.json"
        listen = ["--http", f"127.0.0.1:{self.port}", "--ssh", "127.0.0.1:0"]
        return [*_PROGRAM, "serve", "--data", self.data, *listen, "--ready-file", ready]

    def environment(self) -> Mapping[str, str]:
        return {"PYTHONPATH": str(_ROOT), **self._settings}

    def start(self) -> None:
        (self.folder / "ready.json").unlink(missing_ok=True)
        super().start()
        ready = json.loads((self.folder / "ready.json").read_text())
        self.ssh_port = urlsplit(ready["ssh"]).port or 0

    def _answers(self) -> bool:
        return (self.folder / "ready.json").exists()

    def run(self, *arguments: str | Path) -> str:
        """An administration command; returns what it prints."""
        done = subprocess.run(
            [*_PROGRAM, *map(str, arguments), "--data", str(self.data)],
            env={"PATH": os.environ["PATH"], "HOME": str(self.folder), **self.environment()},
            cwd=self.folder,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise RuntimeError(f"modelyard {' '.join(map(str, arguments))}: {done.stderr[-2000:]}")
        return done.stdout

    def add(self, name: str, source: Path | None = None) -> str:
        """A public repository, imported from `source` or empty; returns its URL."""
        self.run("repo", "create", f"ann/{name}", "--public")
        if source:
            self.run("repo", "import", f"ann/{name}", source)
            self.run("gc", "--full", "--repo", f"ann/{name}")
        return f"{self.url}/ann/{name}.git"

    def push_url(self, name: str) -> str:
        """Where ann pushes over HTTP."""
        return f"http://ann:{self.token}@127.0.0.1:{self.port}/ann/{name}.git"

    def ssh_url(self, name: str) -> str:
        """Where ann's key opens it over SSH."""
        return f"ssh://git@127.0.0.1:{self.ssh_port}/ann/{name}.git"

    def object_file(self, oid: str) -> Path:
        """Where the large file lies."""
        folder = self.data / "objects" / "data" / "lfs" / oid[:2] / oid[2:4]
        return next(folder.glob(f"{oid}.*"))

    def maintains(self) -> bool:
        """Whether a repository waits for maintenance, or is being worked on."""
        asked = Request(f"{self.url}/metrics", headers={"Authorization": f"Bearer {self.token}"})
        with urlopen(asked) as answer:
            lines = answer.read().decode().splitlines()
        return any(float(line.split()[-1]) > 0 for line in lines if line.startswith(_QUEUE))

    def forget_clones(self) -> None:
        """Empties the cache of clone answers."""
        shutil.rmtree(self.data / "cache" / "clones", ignore_errors=True)
