"""A client that goes away in the middle: children, quarantine and lease go within 5 seconds."""

import asyncio
import base64
import contextlib
import fcntl
import os
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.support.processes import kill_tree, wait_until
from tests.support.ssh import ssh_command
from tests.support.streams import noise
from tests.support.wire import ZERO, PackBuilder, pkt, push_request, simple_commit
from tests.support.yard import USER, Yard

SECONDS = 5
# More than all buffers between server and client can hold together.
BLOB_BYTES = 24 * 1024**2


@dataclass
class Big:
    """A repository that takes a while to send, and a push that takes a while to receive."""

    yard: Yard
    path: str
    head: str
    push: bytes

    def fetch(self, *, done: bool = True) -> bytes:
        """Everything, in protocol version 2, for somebody who has something else: git waits for no clone."""
        return (
            (pkt("command=fetch") + b"0001" + pkt("no-progress") + pkt(f"want {self.head}"))
            + pkt(f"have {'1' * 40}")
            + (pkt("done") if done else b"")
            + b"0000"
        )

    def leases(self) -> list[Path]:
        """The snapshots that somebody uses now."""
        return [lease for lease in (self.yard.data / "cache").glob("snapshots/*/*/lease") if _is_held(lease)]

    def at_work(self) -> bool:
        return bool(self.yard.server.git_children())

    async def busy(self) -> None:
        """Waits until the server is in the middle of it: otherwise its end would prove nothing."""
        await asyncio.to_thread(wait_until, self.at_work, "a child of git")
        assert self.leases(), "whoever works holds a snapshot"

    async def forgotten(self) -> None:
        """Nothing of it is left, and nothing changed."""
        await self.yard.quiet(seconds=SECONDS)
        await asyncio.to_thread(wait_until, lambda: not self.leases(), "released leases", seconds=SECONDS)
        refs = await asyncio.to_thread(self.yard.git(self.yard.folder).refs, self.yard.url(self.path))
        assert refs == {"HEAD": self.head, "refs/heads/main": self.head}


def _is_held(lease: Path) -> bool:
    try:
        descriptor = os.open(lease, os.O_RDONLY)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


@pytest.fixture(scope="module")
def big(yard: Yard) -> Big:
    path = asyncio.run(yard.new_repository())
    work = yard.git(yard.new_folder())
    work("init", "-q", ".")
    head = work.commit({"weights": noise(BLOB_BYTES)})
    work("push", "-q", yard.url(path), "main")
    pack = PackBuilder()
    tip = simple_commit(pack, content=noise(BLOB_BYTES, "other"))
    return Big(yard, path, head, push_request([(ZERO, tip, "refs/heads/side")], pack.build()))


Hang = Callable[[asyncio.StreamWriter], None]


def reset(writer: asyncio.StreamWriter) -> None:
    """As when the process is killed with bytes unread."""
    writer.transport.abort()


def close(writer: asyncio.StreamWriter) -> None:
    """As when the process is killed while it waits."""
    writer.close()


@contextlib.asynccontextmanager
async def http_client(big: Big, service: str, length: int) -> AsyncIterator[asyncio.StreamWriter]:
    """A connection behind the head of a POST; it reads a few bytes and then no more."""
    address = urlsplit(big.yard.server.http)
    _reader, writer = await asyncio.open_connection(address.hostname, address.port, limit=1024)
    login = base64.b64encode(f"{USER}:{big.yard.secret}".encode()).decode()
    head = (
        f"POST /{big.path}.git/{service} HTTP/1.1\r\nHost: {address.netloc}\r\n"
        f"Authorization: Basic {login}\r\n"
        f"Content-Type: application/x-{service}-request\r\nContent-Length: {length}\r\n"
        "Git-Protocol: version=2\r\n\r\n"
    )
    writer.write(head.encode())
    try:
        yield writer
    finally:
        reset(writer)
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()


@contextlib.asynccontextmanager
async def ssh_client(big: Big, service: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """A real client whose output nobody reads once the server has said what it offers."""
    options = ["SetEnv=GIT_PROTOCOL=version=2"] if service == "git-upload-pack" else []
    command = ssh_command(
        big.yard.server.ssh_port, big.yard.key, options=[part for one in options for part in ("-o", one)]
    )
    process = await asyncio.create_subprocess_exec(
        *command,
        f"{service} '{big.path}.git'",
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        limit=1024,
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            await asyncio.to_thread(kill_tree, process.pid)
        await process.communicate()


async def told(process: asyncio.subprocess.Process) -> None:
    """Reads the advertisement, up to its flush."""
    assert process.stdout is not None
    while (length := int(await process.stdout.readexactly(4), 16)) > 0:
        await process.stdout.readexactly(max(length - 4, 0))


@pytest.mark.parametrize("leave", [reset, close])
async def test_fetch_over_http(big: Big, leave: Hang) -> None:
    request = big.fetch()
    async with http_client(big, "git-upload-pack", len(request)) as writer:
        writer.write(request)
        await writer.drain()
        await big.busy()
        await asyncio.sleep(0.5)
        assert big.at_work(), "it must be waiting for the client to read"
        leave(writer)
        await big.forgotten()


async def test_fetch_over_ssh(big: Big) -> None:
    async with ssh_client(big, "git-upload-pack") as process:
        await told(process)
        assert process.stdin is not None
        process.stdin.write(big.fetch())
        await process.stdin.drain()
        await big.busy()
        await asyncio.sleep(0.5)
        assert big.at_work(), "it must be waiting for the client to read"
        process.kill()
        await big.forgotten()


@pytest.mark.parametrize("leave", [reset, close])
async def test_push_over_http(big: Big, leave: Hang) -> None:
    async with http_client(big, "git-receive-pack", len(big.push)) as writer:
        await half(big, writer)
        leave(writer)
        await big.forgotten()


async def test_push_over_ssh(big: Big) -> None:
    async with ssh_client(big, "git-receive-pack") as process:
        await told(process)
        assert process.stdin is not None
        await half(big, process.stdin)
        process.kill()
        await big.forgotten()


async def half(big: Big, writer: asyncio.StreamWriter) -> None:
    """Sends half of the push; half of that must arrive."""
    writer.write(big.push[: len(big.push) // 2])
    await writer.drain()
    await big.busy()
    quarantine = big.yard.data / "cache" / "quarantine"

    def arrived() -> bool:
        sizes = [file.stat().st_size for file in quarantine.rglob("tmp_pack_*")]
        return sum(sizes) > len(big.push) // 4

    await asyncio.to_thread(wait_until, arrived, "a quarter of the pack in quarantine")


async def test_real_clients_killed(big: Big) -> None:
    """The same with git itself, stopped in the middle and then killed."""
    for address in (big.yard.url(big.path), big.yard.ssh_url(big.path)):
        git = big.yard.git(big.yard.new_folder())
        process = await asyncio.create_subprocess_exec(
            "git",
            "clone",
            "-q",
            "--bare",
            address,
            ".",
            cwd=git.cwd,
            env=git.env(),
            stderr=asyncio.subprocess.DEVNULL,
        )
        try:
            await asyncio.to_thread(wait_until, big.at_work, "a child of git")
        finally:
            await asyncio.to_thread(kill_tree, process.pid)
            await process.wait()
        await big.forgotten()
