"""Starting, stopping and dying of the real server."""

import asyncio
import base64
import json
import signal
import socket
import stat
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from urllib.error import HTTPError, URLError

import pytest

from tests.support.ports import free_port
from tests.support.processes import processes, wait_until
from tests.support.server import PASSWORD, RunningServer, running_server

LS_REFS = b"0014command=ls-refs\n00010000"
# Longer than any test waits.
PATIENT = {"MODELYARD_SERVER__DRAIN_SECONDS": "300"}


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RunningServer]:
    with running_server(tmp_path) as running:
        yield running


def fetch(server: RunningServer, path: str, *, user: str = "", secret: str = PASSWORD) -> tuple[int, bytes]:
    """Status and body of a GET on a connection of its own."""
    request = urllib.request.Request(server.url(path))
    if user:
        request.add_header("Authorization", _basic(user, secret))
    try:
        with urllib.request.urlopen(request, context=server.ssl_context(), timeout=60) as answer:
            return answer.status, answer.read()
    except HTTPError as error:
        return error.code, error.read()


def _basic(user: str, secret: str) -> str:
    return "Basic " + base64.b64encode(f"{user}:{secret}".encode()).decode()


class SlowPush:
    """A request that Ann has begun and not finished: the server waits for the rest of its body."""

    def __init__(self, server: RunningServer) -> None:
        asyncio.run(server.add_user("ann"))
        asyncio.run(server.add_repository("ann", "demo"))
        host, _, port = server.http.rpartition("/")[2].partition(":")
        self.socket = socket.create_connection((host, int(port)), timeout=60)
        head = [
            "POST /ann/demo.git/git-upload-pack HTTP/1.1",
            "Host: localhost",
            f"Authorization: {_basic('ann', PASSWORD)}",
            "Content-Type: application/x-git-upload-pack-request",
            "Git-Protocol: version=2",
            f"Content-Length: {len(LS_REFS)}",
            "",
            "",
        ]
        self.socket.sendall("\r\n".join(head).encode() + LS_REFS[:10])
        wait_until(lambda: _in_flight(server) == 2, "the request is being answered")

    def finish(self) -> bytes:
        """Sends the rest and returns the whole answer."""
        self.socket.sendall(LS_REFS[10:])
        return self.rest()

    def rest(self) -> bytes:
        answer = b""
        with self.socket:
            while chunk := self.socket.recv(65536):
                answer += chunk
        return answer


def _in_flight(server: RunningServer) -> float:
    return sample(fetch(server, "metrics")[1].decode(), "modelyard_http_in_flight")


def sample(metrics: str, name: str, **labels: str) -> float:
    """The sum of the samples of a metric that have these labels."""
    return sum(
        float(line.rpartition(" ")[2])
        for line in metrics.splitlines()
        if line.startswith(name + "{") and all(f'{key}="{value}"' in line for key, value in labels.items())
    )


def refuses(server: RunningServer) -> bool:
    try:
        fetch(server, "healthz")
    except URLError as error:
        return isinstance(error.reason, ConnectionRefusedError)
    return False


def test_the_first_run(server: RunningServer) -> None:
    ready = json.loads((server.directory / "ready.json").read_text())
    assert ready == {"http": server.http, "ssh": server.ssh, "pid": server.process.pid}
    assert not server.http.endswith(":0")
    assert not server.ssh.endswith(":0")
    assert fetch(server, "healthz") == (200, b'{"status": "ok"}')
    with socket.create_connection(("127.0.0.1", server.ssh_port)) as ssh:
        assert ssh.recv(100).startswith(b"SSH-2.0-Modelyard")
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in [server.data, *server.data.iterdir()]}
    assert modes["data"] == modes["objects"] == modes["cache"] == 0o700
    assert modes["sealing.key"] == modes["ssh_host_ed25519_key"] == 0o600
    status, body = fetch(server, "api/v1/user", user="admin", secret=server.admin_password)
    assert (status, json.loads(body)["name"]) == (200, "admin")
    assert server.admin_password not in server.log_text()


def test_the_password_is_printed_once(server: RunningServer) -> None:
    password, key = server.admin_password, (server.data / "ssh_host_ed25519_key").read_bytes()
    http = server.http
    server.restart()
    assert server.http == http
    assert server.printed().count("with the password") == 1
    assert (server.data / "ssh_host_ed25519_key").read_bytes() == key
    assert fetch(server, "api/v1/user", user="admin", secret=password)[0] == 200


def test_no_administrator_is_made_beside_other_accounts(tmp_path: Path) -> None:
    server = running_server(tmp_path)
    asyncio.run(server.add_user("ann"))
    with server:
        assert "password" not in server.printed()


def test_it_stops_at_once_when_idle(tmp_path: Path) -> None:
    with running_server(tmp_path, env=PATIENT) as server:
        assert server.terminate(timeout=60) == 0
        assert not (server.directory / "ready.json").exists()
        assert [line["event"] for line in server.log()][-1] == "stopped"


def test_it_drains(server: RunningServer) -> None:
    push = SlowPush(server)
    server.signal(signal.SIGTERM)
    wait_until(lambda: refuses(server), "nothing is accepted any more")
    time.sleep(1)
    assert server.running
    answer = push.finish()
    assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
    assert b"Connection: close\r\n" in answer
    assert answer.endswith(b"0000\r\n0\r\n\r\n")
    assert server.wait() == 0


def test_it_drains_no_longer_than_the_settings_say(tmp_path: Path) -> None:
    with running_server(tmp_path, env={"MODELYARD_SERVER__DRAIN_SECONDS": "1"}) as server:
        push = SlowPush(server)
        began = time.monotonic()
        assert server.terminate() == 0, "the push would never end"
        assert time.monotonic() - began >= 1
        assert push.rest() == b""
        assert server.log("requests cut off")[0]["requests"] == 1


def test_a_second_signal_ends_the_drain(tmp_path: Path) -> None:
    with running_server(tmp_path, env=PATIENT) as server:
        push = SlowPush(server)
        server.signal(signal.SIGTERM)
        wait_until(lambda: refuses(server), "nothing is accepted any more")
        server.signal(signal.SIGINT)
        assert server.wait(timeout=60) == 0
        assert push.rest() == b""


def test_it_says_why_it_does_not_start(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        for env, reason in (
            ({"MODELYARD_HTTP__CERT": "/nowhere.pem"}, "both or neither"),
            ({"MODELYARD_HTTP__TRUSTED_PROXIES": "10.0.0.0/8,proxy"}, "trusted_proxies"),
            ({"MODELYARD_DATABASE__URL": "postgresql://127.0.0.1:1/none"}, "database is not available"),
            ({"MODELYARD_FAILPOINT": "no.such.point"}, "no such failpoint"),
        ):
            server = running_server(tmp_path, env=env)
            with pytest.raises(AssertionError, match=reason):
                server.start()
            server.wait()
        server = running_server(tmp_path)
        server._listen["ssh"] = f"127.0.0.1:{port}"
        with pytest.raises(AssertionError, match="ended with 1"):
            server.start()
        server.wait()
        assert server.log_text().splitlines()[-1].startswith("modelyard: cannot listen at 127.0.0.1:")


def test_a_server_without_ssh(tmp_path: Path) -> None:
    with running_server(tmp_path, env={"MODELYARD_SSH__ENABLED": "false"}) as server:
        assert server.ssh == ""
        assert json.loads((tmp_path / "ready.json").read_text())["ssh"] is None
        assert fetch(server, "healthz")[0] == 200


def test_slow_heads_are_cut_off(tmp_path: Path) -> None:
    with running_server(tmp_path, env={"MODELYARD_HTTP__IDLE_SECONDS": "1"}) as server:
        host, _, port = server.http.rpartition("/")[2].partition(":")
        with socket.create_connection((host, int(port)), timeout=60) as silent:
            with socket.create_connection((host, int(port)), timeout=60) as slow:
                slow.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\n")
                with pytest.raises(OSError):  # noqa: PT012 - one of these bytes is one too many
                    for _ in range(600):
                        slow.sendall(b"X")
                        time.sleep(0.1)
            assert silent.recv(1) == b""


def test_two_servers_cannot_share_a_port(tmp_path: Path) -> None:
    with running_server(tmp_path / "one", workers=2) as first:
        second = running_server(tmp_path / "two", workers=2)
        second._listen["http"] = first.http.rpartition("/")[2]
        with pytest.raises(AssertionError, match="Address already in use"):
            second.start()
        second.wait()


# -- several workers ---------------------------------------------------------------------------------


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[RunningServer]:
    with running_server(tmp_path, workers=2) as running:
        yield running


def workers(server: RunningServer) -> list[int]:
    return [child.pid for child in server.children() if "modelyard.worker" in child.command]


def answering(server: RunningServer) -> set[str]:
    """The labels of the workers that answer."""
    found = set()
    for _ in range(40):
        text = fetch(server, "metrics")[1].decode()
        found.add(next(line for line in text.splitlines() if line.startswith("modelyard_ssh_connections{")))
    return {line.partition('worker="')[2].partition('"')[0] for line in found}


def test_workers_share_the_ports_and_the_data(pair: RunningServer, tmp_path: Path) -> None:
    assert len(workers(pair)) == 2
    assert answering(pair) == {"1", "2"}
    assert pair.printed().count("with the password") == 1
    asyncio.run(pair.add_user("ann"))
    asyncio.run(pair.add_key("ann"))
    git = pair.git(tmp_path, user="ann")
    git("init", "-q", "work")
    work = git.at(tmp_path / "work")
    commit = work.commit({"a": "b"})
    work("push", "-q", pair.url("ann/demo"), "main")
    assert all(git.refs(pair.url("ann/demo"))["refs/heads/main"] == commit for _ in range(4))
    assert all(git.refs(pair.ssh_url("ann/demo"))["refs/heads/main"] == commit for _ in range(4))


def test_a_killed_worker_is_replaced(pair: RunningServer) -> None:
    before = set(workers(pair))
    subprocess.run(["kill", "-9", str(min(before))], check=True)
    wait_until(lambda: len(set(workers(pair)) - before) == 1, "there is a new worker")
    wait_until(lambda: answering(pair) == {"1", "2"}, "both answer")
    assert pair.log("worker ended; starting it again")[0]["status"] == -9
    assert pair.terminate() == 0


def test_workers_drain(pair: RunningServer) -> None:
    asyncio.run(pair.add_user("bea"))
    children = workers(pair)
    assert pair.terminate() == 0
    assert not set(children) & set(processes())
    assert len(pair.log("stopped")) == 2


def test_workers_do_not_outlive_their_supervisor(pair: RunningServer) -> None:
    children = workers(pair)
    pair.signal(signal.SIGKILL)
    assert pair.wait() == -9
    wait_until(lambda: not set(children) & set(processes()), "the workers are gone")


def test_a_worker_that_cannot_start_is_told_once(tmp_path: Path) -> None:
    port = free_port()
    env = {"MODELYARD_SSH__HOST_KEY": str(tmp_path / "key"), "MODELYARD_SSH__LISTEN": f"127.0.0.1:{port}"}
    (tmp_path / "key").write_text("no key")
    server = running_server(tmp_path / "s", workers=2, env=env)
    with pytest.raises(AssertionError, match="before it was ready"):
        server.start()
    assert server.wait() == 1
    last = server.log_text().splitlines()[-1]
    assert last.startswith("modelyard: worker ")
    assert last.endswith("before it was ready")
    assert "no key" not in server.log_text()


async def test_workers_start_on_an_empty_database(empty_database_url: str, tmp_path: Path) -> None:
    async with running_server(tmp_path, workers=2, database_url=empty_database_url) as server:
        status, _ = await asyncio.to_thread(
            fetch, server, "api/v1/user", user="admin", secret=server.admin_password
        )
        assert status == 200
