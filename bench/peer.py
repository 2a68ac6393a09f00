"""A server to measure, and how one is started: in a folder of its own, on a free port of loopback."""

import contextlib
import os
import signal
import socket
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import ClassVar, Self

from bench.processes import Group, cpu_seconds, memory_bytes, tree

CACHE = Path(__file__).resolve().parents[1] / ".cache" / "bench"
DEBIAN = CACHE / "root"
_START_SECONDS = 30


class Missing(Exception):
    """The peer's program is not on this machine; what is measured against it is left out."""


def free_port() -> int:
    """A port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def find(*places: Path | str) -> Path:
    """The first of these programs that exists. Raises `Missing`."""
    for place in map(Path, places):
        if place.exists():
            return place
    raise Missing(f"{places[0]} is missing")


class Peer:
    """One server. Used in a `with` block; a peer is a `command` and what it needs on disk."""

    name: ClassVar[str]

    def __init__(self, folder: Path) -> None:
        self.folder = folder / self.name.lower().replace(" ", "-")
        self.folder.mkdir(parents=True)
        self.port = free_port()
        self._process: subprocess.Popen[bytes] | None = None
        self._group: Group | None = None
        with contextlib.suppress(OSError):
            self._group = Group()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def command(self) -> Sequence[str | Path]:
        """What starts it in the foreground."""
        raise NotImplementedError

    def environment(self) -> Mapping[str, str]:
        """What it needs besides PATH."""
        return {}

    def start(self) -> None:
        """Starts it and waits until its port answers."""
        environment = {
            "PATH": os.environ["PATH"],
            "LC_ALL": "C",
            "HOME": str(self.folder),
            **self.environment(),
        }
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [*self._join(), *(str(word) for word in self.command())],
                cwd=self.folder,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        deadline = time.monotonic() + _START_SECONDS
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.stop()
                raise RuntimeError(f"{self.name} did not start:\n{(self.folder / 'log').read_text()[-2000:]}")
            time.sleep(0.01)

    def _join(self) -> list[str]:
        """What a command needs in front to run in the control group."""
        if self._group is None:
            return []
        return ["/bin/sh", "-c", 'echo $$ > "$0" && exec "$@"', str(self._group.members)]

    def _answers(self) -> bool:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), timeout=1):
            return True
        return False

    def stop(self) -> None:
        """Ends it and everything below it."""
        if self._process is None:
            return
        below = tree(self._process.pid)
        self._process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(10)
        for pid in below:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self._process.wait()
        self._process = None

    def discard(self) -> None:
        """Ends it for good."""
        self.stop()
        if self._group:
            self._group.remove()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.discard()

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def cpu(self) -> float:
        """Processor seconds used so far by all its processes."""
        return self._group.cpu_seconds() if self._group else cpu_seconds(self.pid)

    def memory(self) -> int:
        """Bytes in use now by all its processes; shared pages count once."""
        return memory_bytes(self.pid)
