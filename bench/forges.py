"""Whole forges that join in where their binary is on PATH: no registry has them."""

import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from bench.gitclient import git, ssh_environment
from bench.peer import Missing, Peer, free_port


def program(name: str) -> Path:
    """Where the binary is. Raises `Missing`."""
    found = shutil.which(name)
    if found is None:
        raise Missing(f"{name} is not on PATH")
    return Path(found)


class SoftServe(Peer):
    """soft-serve, whose repositories come to be by the first push over SSH."""

    name = "soft-serve"

    def __init__(self, folder: Path, key: Path) -> None:
        super().__init__(folder)
        self._program = program("soft")
        self._key = key
        self._ssh_port = free_port()

    def command(self) -> Sequence[str | Path]:
        return [self._program, "serve"]

    def environment(self) -> Mapping[str, str]:
        return {
            "SOFT_SERVE_DATA_PATH": str(self.folder / "data"),
            "SOFT_SERVE_HTTP_LISTEN_ADDR": f"127.0.0.1:{self.port}",
            "SOFT_SERVE_HTTP_PUBLIC_URL": self.url,
            "SOFT_SERVE_SSH_LISTEN_ADDR": f"127.0.0.1:{self._ssh_port}",
            "SOFT_SERVE_GIT_LISTEN_ADDR": f"127.0.0.1:{free_port()}",
            "SOFT_SERVE_STATS_LISTEN_ADDR": f"127.0.0.1:{free_port()}",
            "SOFT_SERVE_INITIAL_ADMIN_KEYS": self._key.with_suffix(".pub").read_text().strip(),
        }

    def push_url(self, name: str) -> str:
        """Where the administrator pushes."""
        return f"ssh://127.0.0.1:{self._ssh_port}/{name}"

    def push_environment(self) -> dict[str, str]:
        return ssh_environment(self._key)

    def add(self, name: str, source: Path) -> str:
        """A copy of a repository; returns where anybody clones it."""
        git(source, "push", "-q", "--mirror", self.push_url(name), extra=self.push_environment())
        return f"{self.url}/{name}.git"


class Gitea(Peer):
    """Gitea on SQLite, with an administrator `ann`."""

    name = "Gitea"
    _password = "bench-password-1"

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._program = program("gitea")
        self._config = self.folder / "app.ini"
        self._config.write_text(
            f"""I_AM_BEING_UNSAFE_RUNNING_AS_ROOT = true
RUN_MODE = prod
WORK_PATH = {self.folder}
[server]
HTTP_ADDR = 127.0.0.1
HTTP_PORT = {self.port}
ROOT_URL = {self.url}/
DISABLE_SSH = true
OFFLINE_MODE = true
[database]
DB_TYPE = sqlite3
PATH = {self.folder}/gitea.db
[repository]
ENABLE_PUSH_CREATE_USER = true
DEFAULT_PUSH_CREATE_PRIVATE = false
[security]
INSTALL_LOCK = true
[log]
LEVEL = Warn
"""
        )

    def command(self) -> Sequence[str | Path]:
        return [self._program, "web", "--config", self._config]

    def start(self) -> None:
        if not (self.folder / "gitea.db").exists():
            self._run("migrate")
            user = ["--username", "ann", "--password", self._password, "--email", "ann@example.org"]
            self._run("admin", "user", "create", "--admin", "--must-change-password=false", *user)
        super().start()

    def _run(self, *arguments: str) -> None:
        environment = {"PATH": os.environ["PATH"], "HOME": str(self.folder)}
        command = [str(self._program), "--config", str(self._config), *arguments]
        subprocess.run(command, env=environment, check=True, capture_output=True)

    def push_url(self, name: str) -> str:
        """Where ann pushes."""
        return f"http://ann:{self._password}@127.0.0.1:{self.port}/ann/{name}.git"

    def push_environment(self) -> dict[str, str]:
        return {}

    def add(self, name: str, source: Path) -> str:
        """A copy of a repository; returns where anybody clones it."""
        git(source, "push", "-q", "--mirror", self.push_url(name))
        return f"{self.url}/ann/{name}.git"
