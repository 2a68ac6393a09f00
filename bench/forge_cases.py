"""The real client beside other forges: what a person waits for a clone and for a first push."""

import shutil
import sys
from itertools import count

from bench.forges import Gitea, SoftServe
from bench.git_cases import timed
from bench.gitclient import git, ssh_environment
from bench.material import CODE, PUSH
from bench.peer import Missing
from bench.stage import Row, Stage, paired, row

_numbers = count()


def soft_serve(stage: Stage) -> list[Row]:
    """Clone and push beside soft-serve; left out where it is not on PATH."""
    try:
        return _beside(stage, stage.soft_serve, bar=1.0)
    except Missing as error:
        print(f"  left out: {error}", file=sys.stderr)
        return []


def gitea(stage: Stage) -> list[Row]:
    """Clone and push beside Gitea; left out where it is not on PATH."""
    try:
        return _beside(stage, stage.gitea, bar=None)
    except Missing as error:
        print(f"  left out: {error}", file=sys.stderr)
        return []


def _beside(stage: Stage, forge: SoftServe | Gitea, *, bar: float | None) -> list[Row]:
    source = stage.material.repository("code", CODE)
    ours, _ = stage.both("code", source)
    theirs = forge.add("code", source)

    def clone(url: str) -> float:
        target = stage.folder / f"forge{next(_numbers)}"
        try:
            return timed(lambda: git(stage.folder, "clone", "-q", "--bare", url, target))
        finally:
            shutil.rmtree(target)

    samples = paired(stage.rounds(3), lambda: clone(ours), lambda: clone(theirs))
    rows = [row("git clone, 105 MB, wall", "s", forge.name, samples, bar=bar)]

    pushed = stage.material.repository("push", PUSH)
    over_ssh = isinstance(forge, SoftServe)  # each by the same way

    def push_ours() -> float:
        name = f"forge{next(_numbers)}"
        stage.ours.add(name)
        url = stage.ours.ssh_url(name) if over_ssh else stage.ours.push_url(name)
        extra = ssh_environment(stage.ours.key) if over_ssh else {}
        return timed(lambda: git(pushed, "push", "-q", url, "main", extra=extra))

    def push_theirs() -> float:
        url = forge.push_url(f"forge{next(_numbers)}")
        return timed(lambda: git(pushed, "push", "-q", url, "main", extra=forge.push_environment()))

    samples = paired(stage.rounds(3), push_ours, push_theirs)
    rows.append(row("push of 48 MB, wall", "s", forge.name, samples, bar=bar))
    return rows
