"""Git as a child process: started from an argument list, streamed, and never outliving its caller."""

import asyncio
import contextlib
import os
import resource
import signal
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path

import structlog

from core.errors import Unavailable
from gitserver.children import DEVNULL, PIPE, Child, spawn

PIPE_BYTES = 256 * 1024

# Histories in the wild carry these old blemishes; the big forges let them pass too.
FSCK_TOLERATED = ("badTimezone", "missingSpaceBeforeDate", "zeroPaddedFilemode")
# How `git index-pack` is told to check objects.
STRICT = "--strict=" + ",".join(f"{name}=ignore" for name in FSCK_TOLERATED)

_STDERR_KEPT = 64 * 1024
_running = 0

log = structlog.get_logger(__name__)

# The server's own git never reads a configuration file of the machine or of a user.
_BASE_ENVIRONMENT = {
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_CONFIG_GLOBAL": os.devnull,
    "GIT_TERMINAL_PROMPT": "0",
    "GIT_OPTIONAL_LOCKS": "0",
    "GIT_NO_REPLACE_OBJECTS": "1",
    "GIT_ATTR_NOSYSTEM": "1",
    "HOME": os.devnull,
    "LC_ALL": "C",
    "TZ": "UTC",
}


class GitFailed(Exception):
    """Git exited with an error. Internal: the caller says what it means for its client.

    Attributes:
        status: the exit status; negative for a signal.
        stderr: what Git said, at most 64 KiB, undecodable bytes replaced.
    """

    def __init__(self, arguments: Sequence[str], status: int, stderr: str) -> None:
        super().__init__(f"git {arguments[0]} exited with {status}: {stderr.strip()[-500:]}")
        self.status = status
        self.stderr = stderr

    @property
    def reason(self) -> str:
        """The first line in which Git says what was wrong, printable and without its prefix."""
        lines = [line.strip() for line in self.stderr.replace("\r", "\n").splitlines()]
        for prefix in ("fatal: ", "error: "):
            for line in lines:
                if line.startswith(prefix):
                    return _printable(line.removeprefix(prefix))
        return f"git exited with status {self.status}"


class GitMissing(Unavailable):
    """The configured git executable cannot be started."""

    code = "git_missing"


class GitRunner:
    """Starts git children with the server's environment and limits."""

    def __init__(self, executable: str = "git", *, max_object_bytes: int = 0) -> None:
        """`max_object_bytes` bounds one allocation of a child, and with it what one object may weigh."""
        self.executable = executable
        self._limit = max_object_bytes

    def environment(
        self,
        config: Mapping[str, str] | None = None,
        extra: Mapping[str, str] | None = None,
    ) -> dict[str, str]:
        """The whole environment of a child; `config` is passed by GIT_CONFIG_COUNT."""
        pairs = {"safe.directory": "*", "gc.auto": "0", "core.hooksPath": os.devnull, **(config or {})}
        environment = {"PATH": os.environ.get("PATH", os.defpath), **_BASE_ENVIRONMENT}
        if self._limit:
            environment["GIT_ALLOC_LIMIT"] = str(self._limit)
        environment["GIT_CONFIG_COUNT"] = str(len(pairs))
        for index, (key, value) in enumerate(pairs.items()):
            environment[f"GIT_CONFIG_KEY_{index}"] = key
            environment[f"GIT_CONFIG_VALUE_{index}"] = value
        environment.update(extra or {})
        return environment

    @contextlib.asynccontextmanager
    async def start(
        self,
        arguments: Sequence[str],
        *,
        cwd: Path | None = None,
        environment: Mapping[str, str] | None = None,
        stdin: int = PIPE,
        stdout: int = PIPE,
        cpu_seconds: int | None = None,
    ) -> AsyncIterator[Child]:
        """A running child with piped stdin, stdout and stderr, or with descriptors given for the first two.

        However the block is left, the child and whatever it started are dead and reaped afterwards.

        Raises:
            GitMissing: git cannot be started.
        """
        global _running  # noqa: PLW0603 - a gauge of the process
        try:
            process = await spawn(
                [self.executable, *arguments],
                cwd=cwd,
                env=environment if environment is not None else self.environment(),
                stdin=stdin,
                stdout=stdout,
                limit=PIPE_BYTES,
            )
        except OSError as error:
            raise GitMissing(f"cannot start {self.executable}: {error.strerror}") from error
        _running += 1
        try:
            if cpu_seconds is not None:
                _limit_cpu(process.pid, cpu_seconds)
            yield process
        finally:
            _running -= 1
            await end(process)

    async def run(
        self,
        arguments: Sequence[str],
        *,
        data: bytes = b"",
        cwd: Path | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> bytes:
        """Runs git to its end and returns what it printed; for outputs known to be small.

        Raises:
            GitFailed: it exited with anything but 0.
            GitMissing: git cannot be started.
        """
        stdin = PIPE if data else DEVNULL
        async with self.start(arguments, cwd=cwd, environment=environment, stdin=stdin) as process:
            assert process.stdout is not None
            assert process.stderr is not None
            out, err, _ = await asyncio.gather(
                process.stdout.read(), process.stderr.read(), _feed_all(process.stdin, data)
            )
            if await process.wait() != 0:
                raise GitFailed(arguments, process.returncode or 0, err.decode(errors="replace"))
            return out

    async def run_into(
        self, output: int, arguments: Sequence[str], *, data: bytes, environment: Mapping[str, str]
    ) -> None:
        """Runs git to its end with its standard output going to an open file. Raises as `run` does."""
        async with self.start(arguments, environment=environment, stdout=output) as process:
            said, _ = await asyncio.gather(collect_stderr(process), _feed_all(process.stdin, data))
            if await process.wait() != 0:
                raise GitFailed(arguments, process.returncode or 0, said)

    async def version(self) -> tuple[int, ...]:
        """The version of the executable, as in `(2, 39, 5)`."""
        text = (await self.run(["version"])).decode().removeprefix("git version ")
        return tuple(int(part) for part in text.split()[0].split(".") if part.isdigit())


def running_children() -> int:
    """How many git children of this process run now."""
    return _running


async def feed(stdin: asyncio.StreamWriter, data: bytes) -> bool:
    """Hands bytes to a child; False once it reads no more, for which its exit status has the reason."""
    # A child may end at any time. Writing to its closed pipe is an error of its own kind in uvloop.
    if stdin.is_closing():
        return False
    try:
        stdin.write(data)
        await stdin.drain()
    except (BrokenPipeError, ConnectionResetError):
        return False
    return True


async def _feed_all(stdin: asyncio.StreamWriter | None, data: bytes) -> None:
    if stdin is not None:
        await feed(stdin, data)
        stdin.close()


async def collect_stderr(process: Child) -> str:
    """Reads standard error to its end, keeping the last 64 KiB."""
    assert process.stderr is not None
    kept = b""
    while chunk := await process.stderr.read(8192):
        kept = (kept + chunk)[-_STDERR_KEPT:]
    return kept.decode(errors="replace")


def _limit_cpu(pid: int, seconds: int) -> None:
    try:
        resource.prlimit(pid, resource.RLIMIT_CPU, (seconds, seconds + 5))
    except ProcessLookupError:
        log.debug("child ended before its limits were set", pid=pid)


async def end(process: Child) -> None:
    """Kills the child's process group and reaps the child, even when the caller is being cancelled."""
    try:
        if process.returncode is None:
            # Only while the child is not reaped: afterwards its number may belong to somebody else.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            await asyncio.shield(process.wait())
    finally:
        process.close()  # also when the caller is cancelled a second time meanwhile


def _printable(text: str) -> str:
    return "".join(character if character.isprintable() else "?" for character in text)[:500]
