"""A pipe that is filled every few milliseconds carries everything, in few writes."""

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
from tests.support.streams import noise

DATA = noise(6_000_000)
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
            pipe.started()
            yield process
        finally:
            process.kill()


def open_files() -> set[str]:
    return {path.name for path in Path("/proc/self/fd").iterdir()}


@pytest.fixture
def writes(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How much each write offered."""
    found: list[int] = []
    write = os.write

    def noted(descriptor: int, data: bytes) -> int:
        found.append(len(data))
        return write(descriptor, data)

    monkeypatch.setattr(os, "write", noted)
    return found


def refuse_large_pipes(monkeypatch: pytest.MonkeyPatch) -> None:
    """As the kernel does to a user who has many of them."""
    real = fcntl.fcntl

    def refusing(descriptor: int, command: int, argument: int = 0) -> int:
        if command == fcntl.F_SETPIPE_SZ:
            raise PermissionError(errno.EPERM, "Operation not permitted")
        return real(descriptor, command, argument)

    monkeypatch.setattr(fcntl, "fcntl", refusing)


@pytest.mark.parametrize("large", [True, False])
async def test_everything_comes_in_order(
    large: bool, writes: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    if not large:
        refuse_large_pipes(monkeypatch)
    begun = time.monotonic()
    async with PacedPipe() as pipe:
        with child(pipe, IN_LITTLE_STEPS) as process:
            for start in range(0, len(DATA), 250_000):
                assert await pipe.write(DATA[start : start + 250_000])
            pipe.close()
            assert process.stdout is not None
            out = await asyncio.to_thread(process.stdout.read)
    assert out.decode().strip() == hashlib.sha256(DATA).hexdigest()
    if large:
        # However slow the child is, one look each 4 ms.
        assert len(writes) < 24 + (time.monotonic() - begun) / 0.003


async def test_a_child_that_reads_no_more(writes: list[int]) -> None:
    async with PacedPipe() as pipe:
        with child(pipe, "import os; os.read(0, 4096)") as process:
            async with asyncio.timeout(60):
                assert not await pipe.write(DATA)
                assert not await pipe.write(b"more")
            assert process.wait() == 0


async def test_whoever_is_cancelled_leaves_nothing_open() -> None:
    before = open_files()
    async with PacedPipe() as pipe:
        with child(pipe, "import time; time.sleep(600)"), pytest.raises(TimeoutError):
            async with asyncio.timeout(0.1):
                await pipe.write(DATA)
    assert open_files() == before


async def test_without_descriptors(monkeypatch: pytest.MonkeyPatch) -> None:
    def none_left() -> tuple[int, int]:
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(os, "pipe", none_left)
    with pytest.raises(Unavailable, match="Too many open files"):
        PacedPipe()
