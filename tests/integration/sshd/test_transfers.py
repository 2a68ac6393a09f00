"""Bytes: whole, in parallel, under backpressure, and stopped when the client goes."""

import asyncio
import hashlib
import resource
import signal
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.support.ssh import ClientKey, stop
from tests.support.ssh_server import MEBIBYTE, Running, big_digest, connect, eventually, serving


async def digest_of(command: Sequence[str], *, pause: float = 0) -> tuple[str, int]:
    """The SHA-256 of what a client prints, and its status."""
    process = await asyncio.create_subprocess_exec(
        *command, stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, limit=2**20
    )
    assert process.stdout is not None
    digest = hashlib.sha256()
    while data := await process.stdout.read(2**20):
        digest.update(data)
        await asyncio.sleep(pause)
    return digest.hexdigest(), await process.wait()


async def test_a_long_stream_arrives_whole(server: Running, ada: ClientKey) -> None:
    async with asyncio.timeout(120):
        assert await digest_of([*server.ssh(ada), "git-upload-pack ada/big"]) == (big_digest(), 0)


async def test_eight_long_streams_at_once_arrive_whole(server: Running, ada: ClientKey) -> None:
    command = [*server.ssh(ada), "git-upload-pack ada/big"]
    results = await asyncio.gather(*(digest_of(command) for _ in range(8)))
    assert results == [(big_digest(), 0)] * 8
    assert server.observer.finished == [("git-upload-pack", "ok")] * 8


async def test_a_slow_reader_gets_everything(server: Running, ada: ClientKey) -> None:
    command = [*server.ssh(ada), "git-upload-pack ada/big"]
    assert await digest_of(command, pause=0.01) == (big_digest(), 0)


async def test_keys_change_in_the_middle_of_a_stream(server: Running, ada: ClientKey) -> None:
    command = [*server.ssh(ada, options=("-o", "RekeyLimit=4M")), "git-upload-pack ada/big"]
    assert await digest_of(command) == (big_digest(), 0)


async def test_sessions_of_one_connection_are_independent(server: Running, ada: ClientKey) -> None:
    async with connect(server, ada) as connection:
        stalled = await connection.create_process("git-upload-pack ada/stall", encoding=None)
        digests = []
        for _ in range(2):
            result = await connection.run("git-upload-pack ada/big", encoding=None)
            assert isinstance(result.stdout, bytes)
            digests.append(hashlib.sha256(result.stdout).hexdigest())
        assert digests == [big_digest()] * 2
        stalled.close()
        await eventually(lambda: server.git.cancelled == 1)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
@pytest.mark.parametrize("name", ["endless", "stall", "echo"])
async def test_a_client_that_dies_stops_its_command(
    server: Running, ada: ClientKey, name: str, number: signal.Signals
) -> None:
    process = await asyncio.create_subprocess_exec(
        *server.ssh(ada),
        f"git-upload-pack ada/{name}",
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.DEVNULL,
    )
    await server.git.started.wait()
    await asyncio.sleep(0.2)
    process.send_signal(number)
    await eventually(lambda: server.git.cancelled == 1)
    await eventually(lambda: server.observer.finished == [("git-upload-pack", "gone")])
    await process.wait()


async def test_a_closed_session_stops_its_command_though_input_waits_unread(
    server: Running, ada: ClientKey
) -> None:
    """asyncssh holds back a close behind input that nobody reads; the connection itself stays."""
    async with connect(server, ada) as connection:
        process = await connection.create_process("git-receive-pack ada/stall", encoding=None)
        process.stdin.write(bytes(1536 * 1024))
        await server.git.started.wait()
        await asyncio.sleep(0.3)
        process.channel.abort()
        await eventually(lambda: server.git.cancelled == 1)
        assert (await connection.run("git-upload-pack ada/bert")).stdout == "hello"


async def test_a_client_that_grants_much_and_reads_nothing_fills_no_memory(
    server: Running, ada: ClientKey
) -> None:
    """Attack: a window of two gigabytes and a socket that is never read."""
    async with connect(server, ada) as connection:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        process = await connection.create_process(
            "git-upload-pack ada/endless", encoding=None, window=2**31 - 1
        )
        transport = connection._transport
        assert transport is not None
        transport.pause_reading()
        await server.git.started.wait()
        await asyncio.sleep(1.5)
        sent = server.git.sent
        assert sent < 64 * MEBIBYTE
        await asyncio.sleep(0.5)
        assert server.git.sent == sent
        assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 64 * 1024
        process.channel.abort()
    await eventually(lambda: server.git.cancelled == 1)


async def test_a_client_that_sends_what_nobody_reads_is_held_back(server: Running, ada: ClientKey) -> None:
    async with connect(server, ada) as connection:
        process = await connection.create_process("git-receive-pack ada/stall", encoding=None)
        process.stdin.write(bytes(8 * MEBIBYTE))
        await asyncio.sleep(0.5)
        assert process.channel.get_write_buffer_size() > 4 * MEBIBYTE


async def test_a_client_that_sends_faster_than_it_is_read_is_held_back(
    server: Running, ada: ClientKey
) -> None:
    """What is on its way stays within a few windows of two MiB, however long it goes on."""
    total = 48 * MEBIBYTE
    async with connect(server, ada) as connection:
        process = await connection.create_process("git-receive-pack ada/sip", encoding=None)
        process.stdin.write(bytes(total))
        process.stdin.write_eof()
        most = 0
        while server.git.sipped < total:
            unsent = process.channel.get_write_buffer_size()
            most = max(most, total - unsent - server.git.sipped)
            await asyncio.sleep(0.01)
        assert MEBIBYTE < most < 8 * MEBIBYTE
        assert (await process.wait()).exit_status == 0


async def test_silence_ends_a_command_but_not_its_busy_neighbour(tmp_path: Path, ada: ClientKey) -> None:
    async with (
        serving(tmp_path, {ada.fingerprint: "ada"}, idle_seconds=4) as server,
        connect(server, ada) as connection,
    ):
        lively = await connection.create_process("git-receive-pack ada/echo", encoding=None)
        silent = await connection.create_process("git-upload-pack ada/stall", encoding=None)
        waiting = asyncio.ensure_future(silent.wait())
        while not waiting.done():
            lively.stdin.write(b"x")
            assert await lively.stdout.read(1) == b"x"
            await asyncio.sleep(0.1)
        result = waiting.result()
        assert result.exit_status == 1
        assert result.stderr == b"modelyard: no data was exchanged for too long\n"
        assert server.git.cancelled == 1
        assert server.observer.finished == [("git-upload-pack", "idle")]
        lively.stdin.write_eof()
        assert (await lively.wait()).exit_status == 0
        await connection.wait_closed()  # nothing runs any more: the connection itself is idle now


@pytest.mark.parametrize("command", ["git-receive-pack ada/echo", "git-lfs-transfer ada/bert upload"])
async def test_a_client_with_reasons_to_wait_may_be_silent_before_its_first_word(
    tmp_path: Path, ada: ClientKey, command: str
) -> None:
    """git holds the connection of a push open while git-lfs uploads for hours on another one."""
    async with (
        serving(tmp_path, {ada.fingerprint: "ada"}, idle_seconds=1) as server,
        connect(server, ada) as connection,
    ):
        process = await connection.create_process(command, encoding=None)
        await asyncio.sleep(3)
        process.stdin.write(b"x")
        assert await process.stdout.read(1) == b"x"
        result = await process.wait(timeout=60)  # and not once it has begun
        assert result.stderr == b"modelyard: no data was exchanged for too long\n"
        assert server.observer.finished[0][1] == "idle"


async def test_a_stalled_reader_is_cut_off(tmp_path: Path, ada: ClientKey) -> None:
    async with serving(tmp_path, {ada.fingerprint: "ada"}, idle_seconds=1) as server:
        process = await asyncio.create_subprocess_exec(
            *server.ssh(ada),
            "git-upload-pack ada/endless",
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
        )
        await eventually(lambda: server.git.cancelled == 1)
        assert server.observer.finished == [("git-upload-pack", "idle")]
        await eventually(lambda: server.observer.connections == 0)
        await stop(process)
