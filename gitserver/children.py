"""Starting child processes cheaply under any event loop.

uvloop starts a child with fork(), which copies the page tables of the whole server: measured at 6 ms of
processor time for each child of a server of 130 MB, against 1 ms for the standard library's vfork(). A push
starts half a dozen children. So `subprocess` starts them, and the event loop only watches their pipes and
their end.
"""

import asyncio
import contextlib
import os
import subprocess
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO

PIPE = subprocess.PIPE
DEVNULL = subprocess.DEVNULL


class _End:
    """Our end of a pipe, for an event loop to close exactly once.

    uvloop lets libuv close the descriptor and then closes the file, too; by then a thread may have a file of
    its own under that number. When connecting is cancelled, the file even stays, to be closed at any later
    time. So uvloop is given what closes nothing.
    """

    def __init__(self, pipe: IO[bytes]) -> None:
        with pipe:
            self._descriptor = os.dup(pipe.fileno())
        self._is_ours = isinstance(asyncio.get_running_loop(), asyncio.BaseEventLoop)

    def fileno(self) -> int:
        return self._descriptor

    def close(self) -> None:
        if self._is_ours:
            self._is_ours = False
            os.close(self._descriptor)


class Child:
    """A running process, in a session of its own; what `asyncio.subprocess.Process` offers, as far as needed.

    Attributes:
        stdin, stdout, stderr: streams; None where no pipe was asked for.
        returncode: the exit status, negative for a signal; None while it runs or was not reaped.
    """

    def __init__(self, process: "subprocess.Popen[bytes]") -> None:
        self._process = process
        self._ended = asyncio.Event()
        self._pipes: list[asyncio.BaseTransport] = []
        self.stdin: asyncio.StreamWriter | None = None
        self.stdout: asyncio.StreamReader | None = None
        self.stderr: asyncio.StreamReader | None = None

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def returncode(self) -> int | None:
        return self._process.returncode

    async def wait(self) -> int:
        """Its exit status, once it has ended and is reaped."""
        await self._ended.wait()
        assert self._process.returncode is not None
        return self._process.returncode

    def close(self) -> None:
        """Lets go of the pipes; what was not read is lost."""
        for pipe in self._pipes:
            pipe.close()
        for file in (self._process.stdin, self._process.stdout, self._process.stderr):
            if file is not None:
                file.close()  # does nothing to those that became an `_End`

    async def _connect(self, limit: int) -> None:
        loop = asyncio.get_running_loop()
        if self._process.stdin is not None:
            # The protocol of a reader that never reads is what gives a writer its flow control.
            protocol = asyncio.StreamReaderProtocol(asyncio.StreamReader())
            writing, _ = await loop.connect_write_pipe(lambda: protocol, _End(self._process.stdin))
            self._pipes.append(writing)
            self.stdin = asyncio.StreamWriter(writing, protocol, None, loop)
        self.stdout = await self._reader(self._process.stdout, limit)
        self.stderr = await self._reader(self._process.stderr, limit)

    async def _reader(self, pipe: IO[bytes] | None, limit: int) -> asyncio.StreamReader | None:
        if pipe is None:
            return None
        reader = asyncio.StreamReader(limit)
        loop = asyncio.get_running_loop()
        transport, _ = await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), _End(pipe))
        self._pipes.append(transport)
        return reader

    def _watch(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            descriptor = os.pidfd_open(self._process.pid)
        except OSError:  # a kernel before 5.3, or a sandbox without the call
            threading.Thread(target=self._wait_in_thread, args=(loop,), daemon=True).start()
            return

        def ended() -> None:
            if self._process.poll() is not None:
                loop.remove_reader(descriptor)
                os.close(descriptor)
                self._ended.set()

        loop.add_reader(descriptor, ended)

    def _wait_in_thread(self, loop: asyncio.AbstractEventLoop) -> None:
        self._process.wait()
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
            loop.call_soon_threadsafe(self._ended.set)


async def spawn(
    command: Sequence[str | Path],
    *,
    cwd: Path | None,
    env: Mapping[str, str],
    stdin: int = PIPE,
    stdout: int = PIPE,
    limit: int,
) -> Child:
    """Starts a child, with standard error always in a pipe; `limit` bounds what each reader buffers.

    Raises:
        OSError: it cannot be started.
    """
    # Blocks for about a millisecond; in a thread it would too, because it holds the interpreter's lock.
    process = subprocess.Popen(  # noqa: ASYNC220
        command,
        cwd=cwd,
        env=env,
        stdin=stdin,
        stdout=stdout,
        stderr=PIPE,
        bufsize=0,
        start_new_session=True,
    )
    child = Child(process)
    child._watch()
    try:
        await child._connect(limit)
    except BaseException:
        process.kill()  # and whoever watches reaps it
        child.close()
        raise
    return child
