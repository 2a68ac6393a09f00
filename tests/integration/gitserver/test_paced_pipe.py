"""A pipe that is filled every few milliseconds carries everything, in few writes, under both event loops."""

import asyncio
import errno
import fcntl
import hashlib
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from core.errors import Unavailable
from gitserver.paced_pipe import PacedPipe
from tests.support.loops import Loops
from tests.support.streams import noise

DATA = noise(6_000_000)
PIECE = 250_000
# Reads as git does, and says what came.
IN_LITTLE_STEPS = """
import hashlib, os
digest = hashlib.sha256()
while piece := os.read(0, 4096):
    digest.update(piece)
print(digest.hexdigest())
"""


@contextmanager
def child(pipe: PacedPipe, program: str) -> Iterator["subprocess.Popen[bytes]"]:
    command = [sys.executable, "-c", program]
    with subprocess.Popen(command, stdin=pipe.reader, stdout=subprocess.PIPE) as process:
        try:
            pipe.close_reader()
            yield process
        finally:
            process.kill()


def open_files() -> set[str]:
    return {path.name for path in Path("/proc/self/fd").iterdir()}


@pytest.fixture
def writes(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How much each write to a pipe offered."""
    found: list[int] = []
    write = os.write

    def noted(descriptor: int, data: bytes) -> int:
        found.append(len(data))
        return write(descriptor, data)

    monkeypatch.setattr(os, "write", noted)
    return found


@pytest.fixture(params=[True, False], ids=["large", "small"])
def is_large(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Whether the kernel makes large pipes, as it does until one user has many."""
    large: bool = request.param
    if not large:
        real = fcntl.fcntl

        def refusing(descriptor: int, command: int, argument: int = 0) -> int:
            if command == fcntl.F_SETPIPE_SZ:
                raise PermissionError(errno.EPERM, "Operation not permitted")
            return real(descriptor, command, argument)

        monkeypatch.setattr(fcntl, "fcntl", refusing)
    return large


def test_everything_comes_in_order(loops: Loops, is_large: bool, writes: list[int]) -> None:
    async def send() -> bytes:
        async with PacedPipe() as pipe:
            with child(pipe, IN_LITTLE_STEPS) as process:
                for start in range(0, len(DATA), PIECE):
                    assert await pipe.write(DATA[start : start + PIECE])
                pipe.close_writer()
                assert process.stdout is not None
                return await asyncio.to_thread(process.stdout.read)

    begun = time.monotonic()
    with asyncio.Runner(loop_factory=loops) as runner:
        assert runner.run(send()).decode().strip() == hashlib.sha256(DATA).hexdigest()
    if is_large:
        # However slow the child is: one look each 2 ms.
        assert len(writes) < len(DATA) / PIECE + (time.monotonic() - begun) / 0.0015
    else:
        # One for each page that was read, and no more: nobody looks in vain.
        assert len(writes) < len(DATA) / PIECE + len(DATA) / 4096 + 50


def test_a_child_that_reads_no_more(loops: Loops, is_large: bool) -> None:
    async def send() -> int:
        async with PacedPipe() as pipe:
            with child(pipe, "import os; os.read(0, 4096)") as process:
                async with asyncio.timeout(60):
                    assert not await pipe.write(DATA)
                    assert not await pipe.write(b"more")
                return await asyncio.to_thread(process.wait)

    with asyncio.Runner(loop_factory=loops) as runner:
        assert runner.run(send()) == 0


def test_whoever_gives_up_leaves_nothing_open(loops: Loops, is_large: bool) -> None:
    async def give_up() -> None:
        async with PacedPipe() as pipe:
            with child(pipe, "import time; time.sleep(600)"), pytest.raises(TimeoutError):
                async with asyncio.timeout(0.2):
                    await pipe.write(DATA)

    async def run() -> None:
        await give_up()  # whatever is opened once and kept
        before = open_files()
        await give_up()
        async with PacedPipe():
            pass  # no child came of it
        assert open_files() == before

    with asyncio.Runner(loop_factory=loops) as runner:
        runner.run(run())


async def test_what_is_closed_is_not_used() -> None:
    async with PacedPipe() as pipe:
        pipe.close_reader()
        with pytest.raises(ValueError, match="closed"):
            _ = pipe.reader
        pipe.close_writer()
        with pytest.raises(ValueError, match="closed"):
            await pipe.write(b"late")


async def test_without_descriptors(monkeypatch: pytest.MonkeyPatch) -> None:
    def none_left() -> tuple[int, int]:
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(os, "pipe", none_left)
    with pytest.raises(Unavailable, match="Too many open files"):
        PacedPipe()
