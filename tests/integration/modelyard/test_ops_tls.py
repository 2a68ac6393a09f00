"""Built-in TLS of the real server."""

import asyncio
import hashlib
import signal
import socket
import ssl
from pathlib import Path

import pytest

from modelyard.tls import write_self_signed
from tests.integration.modelyard.test_ops_process import fetch
from tests.support.processes import wait_until
from tests.support.server import RunningServer, running_server


def connect(server: RunningServer) -> ssl.SSLSocket:
    host, _, port = server.http.rpartition("/")[2].partition(":")
    context = server.ssl_context()
    assert context is not None
    raw = socket.create_connection((host, int(port)), timeout=60)
    return context.wrap_socket(raw, server_hostname="localhost")


def fingerprint(server: RunningServer) -> str:
    with connect(server) as connection:
        der = connection.getpeercert(binary_form=True)
    assert der is not None
    return hashlib.sha256(der).hexdigest()


def ask(connection: ssl.SSLSocket) -> bytes:
    connection.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
    return connection.recv(65536)


@pytest.mark.parametrize("workers", [1, 2])
def test_git_over_https_and_a_new_certificate_without_a_restart(tmp_path: Path, workers: int) -> None:
    with running_server(tmp_path, tls=True, workers=workers) as server:
        assert server.http.startswith("https://127.0.0.1:")
        assert fetch(server, "healthz")[0] == 200
        asyncio.run(server.add_user("ann"))
        git = server.git(tmp_path, user="ann")
        git("init", "-q", "work")
        work = git.at(tmp_path / "work")
        commit = work.commit({"a": "b"})
        work("push", "-q", server.url("ann/demo"), "main")
        assert git.refs(server.url("ann/demo"))["refs/heads/main"] == commit

        before = fingerprint(server)
        assert server.certificate is not None
        key = server.certificate.with_name("key.pem")
        with connect(server) as old:
            assert ask(old).startswith(b"HTTP/1.1 200")
            write_self_signed(server.certificate, key, ["localhost", "127.0.0.1"], overwrite=True)
            server.signal(signal.SIGHUP)
            wait_until(lambda: len(server.log("certificate reloaded")) == workers, "they reloaded")
            assert fingerprint(server) != before
            assert ask(old).startswith(b"HTTP/1.1 200"), "the old connection was not disturbed"
        assert git.refs(server.url("ann/demo"))["refs/heads/main"] == commit

        now = fingerprint(server)
        key.write_text("garbage")
        server.signal(signal.SIGHUP)
        wait_until(lambda: len(server.log("certificate not reloaded")) == workers, "they refused")
        assert fingerprint(server) == now


def test_old_protocols_and_plain_http_are_refused(tmp_path: Path) -> None:
    with running_server(tmp_path, tls=True) as server:
        host, _, port = server.http.rpartition("/")[2].partition(":")
        old = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        old.check_hostname = False
        old.verify_mode = ssl.CERT_NONE
        old.set_ciphers("DEFAULT:@SECLEVEL=0")
        with pytest.warns(DeprecationWarning, match="TLSv1_1"):
            old.maximum_version = ssl.TLSVersion.TLSv1_1
        with socket.create_connection((host, int(port)), timeout=60) as raw, pytest.raises(ssl.SSLError):
            old.wrap_socket(raw)
        with socket.create_connection((host, int(port)), timeout=60) as plain:
            plain.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            assert not plain.recv(100).startswith(b"HTTP")
        assert fetch(server, "healthz")[0] == 200
