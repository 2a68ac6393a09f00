"""An SSH connection that carries many commands, for tests of rights and names, where ssh(1) would be slow."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass

import asyncssh

from tests.support.ssh import ClientKey
from tests.support.wire import pkt

FLUSH = b"0000"

# What a client sends that wants nothing, or for the archive one file list.
FAREWELLS = {
    "git-upload-pack": FLUSH,
    "git-receive-pack": FLUSH,
    "git-upload-archive": pkt("argument --format=tar\n") + pkt("argument HEAD\n") + FLUSH,
}


@dataclass(frozen=True)
class Said:
    """How a command ended."""

    status: int
    out: bytes
    err: str

    def refused(self, reason: str) -> None:
        """Asserts a refusal: no output, and one clear line."""
        assert (self.status, self.out) == (1, b""), self
        assert self.err.startswith("modelyard: "), self
        assert self.err.count("\n") == 1, self
        assert self.err.endswith("\n"), self
        assert self.err[:-1].isprintable(), self
        assert reason in self.err, self


@dataclass(frozen=True)
class SshClient:
    """One logged-in connection."""

    connection: asyncssh.SSHClientConnection

    async def run(self, command: str, data: bytes = b"") -> Said:
        """Runs a command, byte for byte as it is written; `data` is all of its input."""
        process = await self.connection.create_process(command, encoding=None)
        with suppress(BrokenPipeError):  # refused before it was read; the answer is what counts
            process.stdin.write(data)
            process.stdin.write_eof()
        done = await process.wait(timeout=60)
        assert isinstance(done.stdout, bytes)
        assert isinstance(done.stderr, bytes)
        return Said(done.exit_status or 0, done.stdout, done.stderr.decode())

    async def git(self, service: str, path: str) -> Said:
        """Asks for a Git service and takes leave at once."""
        return await self.run(f"{service} '{path}'", FAREWELLS[service])


@asynccontextmanager
async def ssh_client(port: int, key: ClientKey | None) -> AsyncIterator[SshClient]:
    """A connection as `git@`. Raises `asyncssh.PermissionDenied` for a key, or none, that is not accepted."""
    connection = asyncssh.connect(
        "127.0.0.1",
        port,
        username="git",
        client_keys=[str(key.file)] if key else [],
        agent_path=None,
        known_hosts=None,
        config=None,
    )
    async with connection as opened:
        yield SshClient(opened)
