"""The listener's own life: limits, floods, shutdown, addresses."""

import asyncio
import socket
from contextlib import AsyncExitStack, suppress
from pathlib import Path

import asyncssh
import pytest

from core.errors import SettingsError
from core.settings import SshSettings
from sshd.server import SshServer
from tests.support.ssh import ClientKey, run_ssh
from tests.support.ssh_server import (
    Running,
    ScriptedGit,
    ScriptedKeys,
    ScriptedLargeFiles,
    ScriptedRepositories,
    connect,
    eventually,
    serving,
)


@pytest.mark.parametrize("limit", ["max_connections", "max_connections_per_address"])
async def test_connections_beyond_the_limit_are_refused_and_come_back(
    tmp_path: Path, ada: ClientKey, limit: str
) -> None:
    async with serving(tmp_path, {ada.fingerprint: "ada"}, **{limit: 2}) as server:
        command = [*server.ssh(ada), "git-upload-pack ada/bert"]
        async with AsyncExitStack() as stack:
            for _ in range(2):
                await stack.enter_async_context(connect(server, ada))
            assert (await run_ssh(command)).status == 255
            with pytest.raises((asyncssh.DisconnectError, ConnectionError)):
                await connect(server, ada)
            assert server.observer.opened == 2
        await eventually(lambda: server.observer.connections == 0)
        assert (await run_ssh(command)).out == b"hello"


async def test_sessions_of_a_connection_are_limited(tmp_path: Path, ada: ClientKey) -> None:
    async with (
        serving(tmp_path, {ada.fingerprint: "ada"}, max_sessions_per_connection=2) as server,
        connect(server, ada) as connection,
    ):
        held = [await connection.create_process("git-upload-pack ada/stall") for _ in range(2)]
        with pytest.raises(asyncssh.ChannelOpenError, match="too many sessions"):
            await connection.create_process("git-upload-pack ada/bert")
        held[0].close()
        await held[0].wait_closed()
        assert (await connection.run("git-upload-pack ada/bert")).stdout == "hello"


async def test_variables_without_end_cut_the_connection(server: Running, ada: ClientKey) -> None:
    async with connect(server, ada) as connection:
        variables = {f"V{number}": "x" for number in range(100)}
        await connection.create_process("git-upload-pack ada/stall", env=variables)
        async with asyncio.timeout(60):
            await connection.wait_closed()
    await eventually(lambda: server.git.cancelled == 1)


async def test_a_session_without_a_command_is_closed(tmp_path: Path, ada: ClientKey) -> None:
    async with (
        serving(tmp_path, {ada.fingerprint: "ada"}, login_seconds=5) as server,
        connect(server, ada) as connection,
    ):
        channel = SilentChannel(connection, asyncio.get_running_loop())
        await channel.open_only()
        async with asyncio.timeout(60):
            await channel.wait_closed()
        assert server.observer.finished == []
        assert (await connection.run("git-upload-pack ada/bert")).stdout == "hello"


class SilentChannel(asyncssh.SSHClientChannel[bytes]):
    """A session channel that is opened and then asks for nothing."""

    def __init__(self, connection: asyncssh.SSHClientConnection, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(connection, loop, "strict", None, "strict", 2**20, 2**15)

    async def open_only(self) -> None:
        packet = await self._open(b"session")
        packet.check_end()
        self._session = asyncssh.SSHClientSession()
        self._session.connection_made(self)
        self.resume_reading()


async def test_garbage_instead_of_ssh_ends_the_connection_only(server: Running, ada: ClientKey) -> None:
    for garbage in (
        b"GET / HTTP/1.1\r\n\r\n",
        b"\0" * 20000,
        b"SSH-2.0-x\r\n" + b"\xff" * 5000,
        b"SSH-1.5-x\r\n",
    ):
        reader, writer = await asyncio.open_connection("127.0.0.1", server.server.port)
        writer.write(garbage)
        async with asyncio.timeout(60):
            with suppress(ConnectionResetError):
                await reader.read()
        writer.close()
    assert (await run_ssh([*server.ssh(ada), "git-upload-pack ada/bert"])).out == b"hello"


async def test_closing_lets_running_commands_finish(tmp_path: Path, ada: ClientKey) -> None:
    async with serving(tmp_path, {ada.fingerprint: "ada"}) as server:
        process = await asyncio.create_subprocess_exec(
            *server.ssh(ada),
            "git-receive-pack ada/echo",
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
        )
        assert process.stdin is not None
        port = server.server.port
        idle = await connect(server, ada)
        await server.git.started.wait()
        closing = asyncio.ensure_future(server.server.close(300))
        await idle.wait_closed()
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection("127.0.0.1", port)
        out, _ = await process.communicate(b"to the very end" * 100_000)
        assert out == b"to the very end" * 100_000
        assert process.returncode == 0
        async with asyncio.timeout(60):
            await closing


async def test_closing_ends_what_does_not_finish_and_says_why(tmp_path: Path, ada: ClientKey) -> None:
    async with serving(tmp_path, {ada.fingerprint: "ada"}) as server:
        running = asyncio.ensure_future(run_ssh([*server.ssh(ada), "git-upload-pack ada/stall"]))
        await server.git.started.wait()
        async with asyncio.timeout(60):
            await server.server.close(0.5)
        outcome = await running
        assert outcome.status == 1
        assert outcome.err == "modelyard: the server is shutting down; try again\n"
        assert server.git.cancelled == 1
        assert server.observer.finished == [("git-upload-pack", "shutdown")]


async def test_a_draining_server_starts_no_new_command(tmp_path: Path, ada: ClientKey) -> None:
    async with serving(tmp_path, {ada.fingerprint: "ada"}) as server, connect(server, ada) as connection:
        process = await connection.create_process("git-receive-pack ada/echo")
        await server.git.started.wait()
        closing = asyncio.ensure_future(server.server.close(300))
        await asyncio.sleep(0)
        late = await connection.run("git-upload-pack ada/bert")
        assert (late.exit_status, late.stdout) == (1, "")
        assert late.stderr == "modelyard: the server is shutting down; try again\n"
        process.stdin.write("bye")
        process.stdin.write_eof()
        assert (await process.wait()).stdout == "bye"
        async with asyncio.timeout(60):
            await connection.wait_closed()
            await closing


async def test_a_given_socket_is_used(tmp_path: Path, ada: ClientKey) -> None:
    bound = socket.create_server(("127.0.0.1", 0))
    keys = ScriptedKeys({ada.fingerprint: "ada"})
    server = SshServer(
        SshSettings(), ScriptedRepositories(), keys, ScriptedGit(), ScriptedLargeFiles(), tmp_path / "key"
    )
    assert await server.start(sockets=[bound]) == [bound.getsockname()[1]] == [server.port]
    await server.close()


@pytest.mark.parametrize(
    "listen", ["", "2222", "127.0.0.1", "127.0.0.1:ssh", "127.0.0.1:99999", "203.0.113.1:0"]
)
async def test_an_unusable_address_names_the_setting(tmp_path: Path, listen: str) -> None:
    server = SshServer(
        SshSettings(listen=listen),
        ScriptedRepositories(),
        ScriptedKeys({}),
        ScriptedGit(),
        ScriptedLargeFiles(),
        tmp_path / "key",
    )
    with pytest.raises(SettingsError, match=r"\[ssh\] listen"):
        await server.start()
    await server.close()
