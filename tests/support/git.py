"""The real git client, with a configuration that knows nothing of the machine it runs on."""

import os
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path


@dataclass
class Result:
    """What a command printed; `output` has both streams as the user sees them."""

    status: int
    stdout: str
    stderr: str

    @property
    def output(self) -> str:
        return self.stdout + self.stderr


class GitError(AssertionError):
    """A git command failed that should not have."""


@dataclass
class Git:
    """Runs git in one directory. `config` is given to every call by environment."""

    cwd: Path
    config: Mapping[str, str] = field(default_factory=dict)
    environment: Mapping[str, str] = field(default_factory=dict)
    timeout: float = 120

    def env(self) -> dict[str, str]:
        pairs = {
            "user.name": "Ada",
            "user.email": "ada@example.org",
            "init.defaultBranch": "main",
            "protocol.file.allow": "always",
            "gc.auto": "0",
            "maintenance.auto": "false",
            "advice.detachedHead": "false",
            **self.config,
        }
        env = {
            "PATH": os.environ["PATH"],
            "HOME": str(self.cwd),
            "GIT_CONFIG_NOSYSTEM": "1",
            "GIT_CONFIG_GLOBAL": os.devnull,
            "GIT_TERMINAL_PROMPT": "0",
            "GIT_ASKPASS": "true",
            "GIT_AUTHOR_DATE": "1700000000 +0000",
            "GIT_COMMITTER_DATE": "1700000000 +0000",
            "LC_ALL": "C",
            "GIT_CONFIG_COUNT": str(len(pairs)),
        }
        for index, (key, value) in enumerate(pairs.items()):
            env[f"GIT_CONFIG_KEY_{index}"] = key
            env[f"GIT_CONFIG_VALUE_{index}"] = value
        return {**env, **self.environment}

    def run(self, *arguments: str | Path, data: bytes | None = None) -> Result:
        """Runs and returns whatever came of it."""
        done = subprocess.run(
            ["git", *map(str, arguments)],
            cwd=self.cwd,
            env=self.env(),
            input=data,
            stdin=subprocess.DEVNULL if data is None else None,
            capture_output=True,
            timeout=self.timeout,
            check=False,
        )
        return Result(
            done.returncode, done.stdout.decode(errors="replace"), done.stderr.decode(errors="replace")
        )

    def __call__(self, *arguments: str | Path, data: bytes | None = None) -> str:
        """Runs, insists on success, and returns standard output without its last newline."""
        done = self.run(*arguments, data=data)
        if done.status != 0:
            raise GitError(f"git {' '.join(map(str, arguments))} -> {done.status}\n{done.output}")
        return done.stdout.removesuffix("\n")

    def at(self, cwd: Path) -> "Git":
        """The same client in another directory."""
        return Git(cwd, self.config, self.environment, self.timeout)

    def commit(self, files: Mapping[str, str | bytes], message: str = "change") -> str:
        """Writes files, commits everything, returns the commit."""
        for name, content in files.items():
            path = self.cwd / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content.encode() if isinstance(content, str) else content)
        self("add", "-A")
        self("commit", "-q", "--allow-empty", "-m", message)
        return self("rev-parse", "HEAD")

    def refs(self, where: str | Path = ".") -> dict[str, str]:
        """Every ref of a repository or URL, peeled entries included."""
        lines = self("ls-remote", str(where)).splitlines()
        return {name: oid for oid, name in (line.split("\t") for line in lines)}
