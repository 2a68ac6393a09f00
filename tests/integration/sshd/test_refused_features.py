"""Everything an SSH server could do beside running three commands: refused, with the real client asking."""

import asyncio
import tempfile
from pathlib import Path

import asyncssh
import pytest

from tests.support.ports import free_port
from tests.support.ssh import ClientKey, run_ssh, stop
from tests.support.ssh_server import Running, connect, eventually


async def test_local_forwarding(server: Running, ada: ClientKey) -> None:
    """`-W` asks for exactly what each connection to a `-L` port asks for."""
    outcome = await run_ssh([*server.ssh(ada, options=("-W", f"127.0.0.1:{server.server.port}"))])
    assert outcome.status != 0
    assert outcome.out == b""
    assert "stdio forwarding failed" in outcome.err


async def test_local_forwarding_through_a_listening_port(server: Running, ada: ClientKey) -> None:
    port = free_port()
    forward = ("-L", f"127.0.0.1:{port}:127.0.0.1:{server.server.port}")
    process = await asyncio.create_subprocess_exec(
        *server.ssh(ada, options=forward), "git-upload-pack ada/stall", stdin=asyncio.subprocess.DEVNULL
    )
    try:
        await server.git.started.wait()
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        assert await reader.read() == b""
        writer.close()
        await writer.wait_closed()
        assert server.observer.opened == 1
    finally:
        await stop(process)


async def test_remote_forwarding(server: Running, ada: ClientKey) -> None:
    forward = ("-R", "127.0.0.1:0:127.0.0.1:9", "-o", "ExitOnForwardFailure=yes")
    outcome = await run_ssh([*server.ssh(ada, options=forward), "git-upload-pack ada/bert"])
    assert outcome.status == 255
    assert "remote port forwarding failed" in outcome.err
    assert server.git.calls == []


async def test_sockets_and_tunnels(server: Running, ada: ClientKey, tmp_path: Path) -> None:
    path = tmp_path / "socket"
    forward = ("-R", f"{path}:127.0.0.1:9", "-o", "ExitOnForwardFailure=yes")
    outcome = await run_ssh([*server.ssh(ada, options=forward), "git-upload-pack ada/bert"])
    assert outcome.status == 255
    assert not path.exists()
    async with connect(server, ada) as connection:
        with pytest.raises(asyncssh.ChannelOpenError):
            await connection.open_unix_connection("/var/run/docker.sock")
        with pytest.raises(asyncssh.ChannelOpenError):
            await connection.open_tun()


def agent_sockets() -> list[Path]:
    """Where asyncssh puts the sockets of forwarded agents."""
    return list(Path(tempfile.gettempdir()).glob("asyncssh-*"))


async def test_agent_forwarding_gives_no_agent(server: Running, ada: ClientKey, tmp_path: Path) -> None:
    agent = tmp_path / "agent"
    daemon = await asyncio.create_subprocess_exec(
        "ssh-agent", "-D", "-a", str(agent), stdout=asyncio.subprocess.DEVNULL
    )
    try:
        await eventually(agent.exists)
        command = server.ssh(
            ada, options=("-v", "-A", "-o", "LogLevel=DEBUG1", "-o", f"IdentityAgent={agent}")
        )
        environment = {"SSH_AUTH_SOCK": str(agent)}
        outcome = await run_ssh([*command, "git-upload-pack ada/bert"], environment=environment)
        assert (outcome.status, outcome.out) == (0, b"hello")
        assert "Requesting authentication agent forwarding" in outcome.err
        assert agent_sockets() == []
    finally:
        daemon.terminate()
        await daemon.wait()


async def test_x11_forwarding(server: Running, ada: ClientKey, tmp_path: Path) -> None:
    display = {"DISPLAY": "127.0.0.1:77", "HOME": str(tmp_path)}
    command = server.ssh(ada, options=("-v", "-Y", "-o", "LogLevel=DEBUG1", "-o", "XAuthLocation=/bin/false"))
    outcome = await run_ssh([*command, "git-upload-pack ada/bert"], environment=display)
    assert outcome.out == b"hello"
    assert "X11 forwarding request failed on channel 0" in outcome.err


@pytest.mark.parametrize("subsystem", ["sftp", "netconf", "git-upload-pack ada/bert"])
async def test_subsystems(server: Running, ada: ClientKey, subsystem: str) -> None:
    outcome = await run_ssh([*server.ssh(ada, options=("-s",)), subsystem])
    assert outcome.status != 0
    assert "subsystem request failed" in outcome.err
    assert server.git.calls == []


async def test_compression_and_chacha_are_not_chosen(server: Running, ada: ClientKey) -> None:
    command = server.ssh(ada, options=("-v", "-C", "-o", "LogLevel=DEBUG1"))
    outcome = await run_ssh([*command, "git-upload-pack ada/bert"])
    assert outcome.out == b"hello"
    ciphers = [line for line in outcome.err.splitlines() if "cipher:" in line]
    assert len(ciphers) == 2
    assert all("-gcm@openssh.com" in line and "compression: none" in line for line in ciphers)


@pytest.mark.parametrize(
    "option",
    [
        "Ciphers=chacha20-poly1305@openssh.com",
        "Ciphers=aes128-ctr",
        "KexAlgorithms=diffie-hellman-group14-sha1",
        "KexAlgorithms=diffie-hellman-group18-sha512",
    ],
)
async def test_weak_or_costly_algorithms_are_not_offered(
    server: Running, ada: ClientKey, option: str
) -> None:
    options = ("-o", "LogLevel=INFO", "-o", option)
    outcome = await run_ssh([*server.ssh(ada, options=options), "git-upload-pack ada/bert"])
    assert outcome.status == 255
    assert "no matching" in outcome.err


async def test_a_client_without_aes_gcm_is_served(server: Running, ada: ClientKey) -> None:
    algorithms = {"encryption_algs": ["aes256-ctr"], "mac_algs": ["hmac-sha2-256"]}
    async with connect(server, ada, **algorithms) as connection:
        assert (await connection.run("git-upload-pack ada/bert")).stdout == "hello"
