"""The git that measures: without the configuration of whoever runs it."""

import os
import subprocess
from pathlib import Path

ENVIRONMENT = {
    "PATH": os.environ["PATH"],
    "HOME": os.devnull,
    "LC_ALL": "C",
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_CONFIG_GLOBAL": os.devnull,
    "GIT_TERMINAL_PROMPT": "0",
    "GIT_AUTHOR_NAME": "Ada",
    "GIT_AUTHOR_EMAIL": "ada@example.org",
    "GIT_COMMITTER_NAME": "Ada",
    "GIT_COMMITTER_EMAIL": "ada@example.org",
    "GIT_CONFIG_COUNT": "2",
    "GIT_CONFIG_KEY_0": "safe.directory",
    "GIT_CONFIG_VALUE_0": "*",
    "GIT_CONFIG_KEY_1": "gc.auto",
    "GIT_CONFIG_VALUE_1": "0",
}


def git(
    cwd: Path, *arguments: str | Path, data: bytes | None = None, extra: dict[str, str] | None = None
) -> str:
    """Runs git to its end and returns what it prints; raises when it fails."""
    done = subprocess.run(
        ["git", *map(str, arguments)],
        cwd=cwd,
        env={**ENVIRONMENT, **(extra or {})},
        input=data,
        stdin=subprocess.DEVNULL if data is None else None,
        capture_output=True,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"git {arguments[0]}: {done.stderr.decode(errors='replace')[-2000:]}")
    return done.stdout.decode()


def make_key(path: Path) -> Path:
    """An Ed25519 key without a passphrase at `path`, its public half beside it."""
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", path], check=True)
    return path


def ssh_environment(key: Path) -> dict[str, str]:
    """What makes git log in with that key, and trust whoever answers on loopback."""
    options = "-o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -o LogLevel=ERROR -F none"
    return {"GIT_SSH_COMMAND": f"ssh -i {key} -o IdentitiesOnly=yes {options}"}
