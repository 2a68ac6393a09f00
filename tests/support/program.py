"""The real `modelyard` program, run as a process of its own the way an administrator runs it."""

import json
import multiprocessing
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from modelyard.cli import run

PROJECT = Path(__file__).parents[2]
_SECONDS = 120

# Most of a run is importing, so runs are forked from a process that has imported everything already. It is
# not this one: whatever the tests imported or changed is not there.
_FORKSERVER = multiprocessing.get_context("forkserver")
_FORKSERVER.set_forkserver_preload(["tests.support.preloaded"])


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a run of the program ended."""

    arguments: tuple[str, ...]
    status: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """Standard output, which must be one JSON document."""
        return json.loads(self.out)

    @property
    def rows(self) -> list[list[str]]:
        """Standard output as a pipe gets it: lines of tab-separated cells."""
        return [line.split("\t") for line in self.out.splitlines()]

    def refused(self, reason: str, status: int = 1) -> None:
        """Asserts a refusal: nothing on standard output, and one line that says why."""
        assert self.status == status, self
        assert self.out == "", self
        assert self.err.count("\n") == 1, self
        assert self.err.startswith("modelyard: "), self
        assert reason in self.err, self


@dataclass(frozen=True, slots=True)
class Program:
    """Runs `modelyard …` on one data directory.

    Attributes:
        data: what `--data` names; None leaves the option out.
        directory: the working directory.
        environment: added to an environment that has no MODELYARD_ variables.
    """

    data: Path | None
    directory: Path
    environment: Mapping[str, str] = field(default_factory=dict)

    def child_environment(self) -> dict[str, str]:
        """The whole environment of the child."""
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("MODELYARD_")}
        ours = {
            "PYTHONPATH": str(PROJECT),
            "PYTHONWARNINGS": "error",
            # Compiled once for all runs of all tests, even where writing bytecode is switched off.
            "PYTHONDONTWRITEBYTECODE": "",
            "PYTHONPYCACHEPREFIX": str(PROJECT / ".cache" / "pycache"),
        }
        return {**inherited, **ours, **self.environment}

    def command(self, *arguments: str | Path) -> list[str]:
        """The command line of a run that starts from nothing, for what is about starting."""
        return [sys.executable, "-m", "modelyard", *self._given(arguments)]

    def start(self, *arguments: str | Path, stdin: str = "") -> Outcome:
        """Runs `python -m modelyard …` to the end, whatever it is."""
        command = self.command(*arguments)
        ended = subprocess.run(
            command,
            input=stdin,
            capture_output=True,
            text=True,
            timeout=_SECONDS,
            cwd=self.directory,
            env=self.child_environment(),
        )
        return Outcome(tuple(command[3:]), ended.returncode, ended.stdout, ended.stderr)

    def run(self, *arguments: str | Path, stdin: str = "") -> Outcome:
        """As `start`, from a process that has imported the program already."""
        given = self._given(arguments)
        with TemporaryDirectory() as name:
            streams = Path(name)
            (streams / "0").write_text(stdin)
            process = _FORKSERVER.Process(
                target=_child, args=(given, self.child_environment(), self.directory, streams)
            )
            process.start()
            process.join(_SECONDS)
            if process.exitcode is None:
                process.kill()
                process.join()
            status = process.exitcode
            assert status is not None
            process.close()
            return Outcome(given, status, (streams / "1").read_text(), (streams / "2").read_text())

    def done(self, *arguments: str | Path, stdin: str = "") -> Outcome:
        """Runs what must succeed, without a word on standard error."""
        outcome = self.run(*arguments, stdin=stdin)
        assert (outcome.status, outcome.err) == (0, ""), outcome
        return outcome

    def json(self, *arguments: str | Path, stdin: str = "") -> Any:
        """As `done`, with `--json`; returns the document."""
        return self.done(*arguments, "--json", stdin=stdin).json

    def _given(self, arguments: tuple[str | Path, ...]) -> tuple[str, ...]:
        return (*map(str, arguments), *(() if self.data is None else ("--data", str(self.data))))


def start_forkserver() -> None:
    """Starts what `Program.run` forks from, so that it belongs to the session and not to one test."""
    process = _FORKSERVER.Process(target=os.getpid)
    process.start()
    process.join()
    process.close()


def _child(arguments: tuple[str, ...], environment: dict[str, str], directory: Path, streams: Path) -> None:
    for number in range(3):
        flags = os.O_RDONLY if number == 0 else os.O_WRONLY | os.O_CREAT
        os.dup2(os.open(streams / str(number), flags, 0o600), number)
    # multiprocessing closed what stood for standard input.
    sys.stdin = open(0, encoding="utf-8", closefd=False)  # noqa: SIM115 - it lives as long as the process
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(directory)
    sys.exit(run(list(arguments)))
