"""The real git-lfs client, in the versions that people have.

    client = lfs_client("3.3", tmp_path)
    git = client.over(yard.git(folder))         # git with that git-lfs, its filters and its hook
    git("push", url, "main")

`start` makes a repository with large files, and `traced` says what a command did on the wire.
"""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Literal

from tests.support.binaries import require_binary
from tests.support.git import Git, Result

Version = Literal["3.3", "3.8.1"]
VERSIONS: tuple[Version, ...] = ("3.3", "3.8.1")
NEWEST: Version = "3.8.1"
OLDEST: Version = "3.3"
_PROGRAMS = {"3.3": "git-lfs-3.3", "3.8.1": "git-lfs"}

NOTHING: Mapping[str, str] = MappingProxyType({})
ONLY_POINTERS: Mapping[str, str] = {"GIT_LFS_SKIP_SMUDGE": "1"}
ATTRIBUTES = "*.bin filter=lfs diff=lfs merge=lfs -text\n"
# What `git lfs install` writes into a configuration; here it comes by environment, as all of it does.
_FILTERS = {
    "filter.lfs.clean": "git-lfs clean -- %f",
    "filter.lfs.smudge": "git-lfs smudge -- %f",
    "filter.lfs.process": "git-lfs filter-process",
    "filter.lfs.required": "true",
}
_HOOK = '#!/bin/sh\nexec git lfs pre-push "$@"\n'
# What a host does that does not know the pure SSH protocol; clients before 3.5 cannot be told to leave it.
_NO_TRANSFER = """#!/bin/sh
case "$*" in *git-lfs-transfer*) echo 'git-lfs-transfer: not found' >&2; exit 127;; esac
exec "$@"
"""
_HTTP_LINE = re.compile(r"HTTP: (GET|HEAD|POST|PUT) (https?)://([^/\s]+)(/\S*)")
_PURE_SSH_FAILED = re.compile(r"pure SSH (?:protocol )?connection (?:failed|unsuccessful|unavailable)")
_STATUS_LINE = re.compile(r"HTTP: (\d{3})$", re.MULTILINE)


@dataclass(frozen=True)
class LfsClient:
    """One version of git-lfs; `folder` holds its program, named as git looks for it, and its hook."""

    version: Version
    folder: Path

    def over(
        self, git: Git, config: Mapping[str, str] = NOTHING, environment: Mapping[str, str] = NOTHING
    ) -> Git:
        """The same git client with this git-lfs. A failing transfer is tried again after a moment only."""
        path = os.pathsep.join([str(self.folder / "bin"), git.env()["PATH"]])
        settings = {
            **git.config,
            **_FILTERS,
            "core.hooksPath": str(self.folder / "hooks"),
            "lfs.transfer.maxretrydelay": "1",
            **config,
        }
        changed = {**git.environment, "PATH": path, **environment}
        made = Git(git.cwd, settings, changed, git.timeout)
        said = made("lfs", "version")
        assert said.startswith(f"git-lfs/{self.version}"), said
        return made

    def over_ssh(self, git: Git, url: str, *, pure: bool) -> Git:
        """As `over`, and large files of `url` only by the pure SSH protocol, or only over HTTP."""
        if pure:
            return self.over(git, {f"lfs.{url}.sshtransfer": "always"})
        if self.version != "3.3":
            return self.over(git, {f"lfs.{url}.sshtransfer": "never"})
        command = f"{self.folder / 'bin' / 'no-transfer'} {git.environment['GIT_SSH_COMMAND']}"
        return self.over(git, environment={"GIT_SSH_COMMAND": command})


def lfs_client(version: Version, folder: Path) -> LfsClient:
    """The client of that version, with a folder of its own below `folder`; skips or fails without it."""
    program = require_binary(_PROGRAMS[version])
    own = folder / f"git-lfs-{version}"
    if not own.exists():
        (own / "bin").mkdir(parents=True)
        (own / "hooks").mkdir()
        (own / "bin" / "git-lfs").symlink_to(program.resolve())
        _write_script(own / "bin" / "no-transfer", _NO_TRANSFER)
        _write_script(own / "hooks" / "pre-push", _HOOK)
    return LfsClient(version, own)


def _write_script(path: Path, text: str) -> None:
    path.write_text(text)
    path.chmod(0o755)


def start(git: Git, files: Mapping[str, str | bytes]) -> Git:
    """A new repository with these files in one commit; what ends in `.bin` is large."""
    git("init", "-q", ".")
    git.commit({".gitattributes": ATTRIBUTES, **files})
    return git


def same_files(cwd: Path, files: Mapping[str, bytes]) -> None:
    """Every file is there with all of its bytes, and no pointer in its place."""
    for name, content in files.items():
        assert (cwd / name).read_bytes() == content, name


@dataclass(frozen=True)
class Requested:
    """A request as the client's trace tells it."""

    method: str
    host: str
    path: str


@dataclass(frozen=True)
class Trace:
    """What a command did, with its result."""

    result: Result
    requests: list[Requested]
    statuses: list[int]
    pure_ssh: bool
    authenticated_by_ssh: bool


def traced(git: Git, *arguments: str | Path) -> Trace:
    """Runs a command with the client's trace; whether it succeeded, the caller asks."""
    tracing = Git(git.cwd, git.config, {**git.environment, "GIT_TRACE": "1"}, git.timeout)
    result = tracing.run(*arguments)
    return Trace(
        result,
        [Requested(method, host, path) for method, _, host, path in _HTTP_LINE.findall(result.stderr)],
        [int(status) for status in _STATUS_LINE.findall(result.stderr)],
        "attempting pure SSH" in result.stderr and _PURE_SSH_FAILED.search(result.stderr) is None,
        "git-lfs-authenticate" in result.stderr,
    )


def done(trace: Trace) -> Trace:
    """The same, and insists on success."""
    assert trace.result.status == 0, trace.result.output[-6000:]
    return trace
