"""A child process that prints what it sees, and where it listens before that."""

import re
import signal
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.support.processes import wait_until


@dataclass(frozen=True, slots=True)
class PrintingChild:
    """A child that runs; its output and its errors are in files."""

    process: subprocess.Popen[bytes]
    out: Path
    err: Path

    @property
    def url(self) -> str:
        """What it said it listens at."""
        found = re.search(r"http://[0-9.:]+/", self.out.read_text())
        assert found, self.err.read_text()
        return found[0]

    @property
    def lines(self) -> list[str]:
        """What it printed since, in whole lines."""
        return [line for line in self.out.read_text().splitlines(keepends=True)[1:] if line.endswith("\n")]

    def wait_for(self, count: int, *, seconds: float = 60) -> list[str]:
        """Waits until it has printed so many lines."""
        wait_until(lambda: len(self.lines) >= count, f"{count} lines: {self.lines}", seconds=seconds)
        return self.lines

    def end(self) -> int:
        """As Ctrl-C does; returns the exit status."""
        self.process.send_signal(signal.SIGINT)
        return self.process.wait(60)


@contextmanager
def printing_child(
    command: Sequence[str], folder: Path, environment: Mapping[str, str], *, cwd: Path
) -> Iterator[PrintingChild]:
    """Inside the block it runs, and has said where it listens. Its files are in `folder`, for one child."""
    folder.mkdir()
    child_out, child_err = folder / "out", folder / "err"
    with child_out.open("wb") as out, child_err.open("wb") as err:
        process = subprocess.Popen(
            command, cwd=cwd, env=environment, stdin=subprocess.DEVNULL, stdout=out, stderr=err
        )
    child = PrintingChild(process, child_out, child_err)
    try:
        wait_until(lambda: b"\n" in child_out.read_bytes() or process.poll() is not None, "it listens")
        assert child.url
        yield child
    finally:
        process.kill()
        process.wait()
