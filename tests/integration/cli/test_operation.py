"""Serving, migrating, certificates, the audit log, and administration beside a running server."""

import socket
import ssl
import subprocess
from pathlib import Path

from tests.support.program import Program
from tests.support.server import running_server


def test_administration_beside_a_running_server(tmp_path: Path) -> None:
    with running_server(tmp_path) as server:
        program = Program(server.data, tmp_path)
        program.done("user", "create", "carol", "--password-stdin", stdin="correct horse battery\n")
        program.done("repo", "create", "carol/demo", "--private")
        token = program.done("token", "create", "carol", "--name", "t", "--scope", "write").out.strip()
        git = server.git(tmp_path)
        url = server.url("carol/demo.git", user="carol", secret=token)
        git("init", "-q", "work")
        work = server.git(tmp_path / "work")
        work("commit", "-q", "--allow-empty", "-m", "first")
        work("push", "-q", url, "HEAD:main")
        assert "refs/heads/main" in git("ls-remote", url)
        assert program.run("doctor").status == 0
        assert program.json("gc", "--full")["failed"] == []
        program.done("repo", "fsck")

        program.done("user", "suspend", "carol")
        assert git.run("ls-remote", url).status != 0
        # A server that runs already keeps its ports.
        second = Program(tmp_path / "other", tmp_path)
        second.start("serve", "--http", server.http.removeprefix("http://"), "--ssh", "127.0.0.1:0").refused(
            "in use"
        )


def test_serve_refuses_what_cannot_be(untouched: Program, tmp_path: Path) -> None:
    untouched.start("serve", "--http", "nonsense").refused("nonsense")
    untouched.start("serve", "--http", "127.0.0.1:99999").refused("127.0.0.1:99999")
    unknown = Program(tmp_path / "data", tmp_path, {"MODELYARD_HTTP__LISTNE": "x"})
    unknown.start("serve").refused("listne")
    assert not (tmp_path / "data").exists()


def test_migrate(untouched: Program) -> None:
    first = untouched.json("migrate")
    assert first["before"] is None
    assert first["after"]
    assert untouched.json("migrate") == {"before": first["after"], "after": first["after"]}
    assert untouched.done("migrate").out == f"the database is at revision {first['after']}\n"
    untouched.done("user", "list")


def test_without_migration_an_empty_database_is_refused(tmp_path: Path) -> None:
    program = Program(tmp_path / "data", tmp_path, {"MODELYARD_DATABASE__MIGRATE": "false"})
    outcome = program.run("user", "list")
    assert (outcome.status, outcome.err.count("\n")) == (1, 1)
    program.done("migrate")
    assert program.json("user", "list") == []


def test_a_database_that_cannot_be_reached(tmp_path: Path) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        url = f"postgresql://u:hush-hush@127.0.0.1:{closed.getsockname()[1]}/x"
        program = Program(tmp_path / "data", tmp_path, {"MODELYARD_DATABASE__URL": url})
        program.run("user", "list").refused("database is not available")
        program.run("migrate").refused("database is not available")
    odd = Program(tmp_path / "data", tmp_path, {"MODELYARD_DATABASE__URL": "mysql://u:hush-hush@h/x"})
    odd.run("user", "list").refused("not supported")


class TestCertificates:
    def test_a_certificate_that_python_and_openssl_accept(self, untouched: Program) -> None:
        assert untouched.data is not None
        made = untouched.json("tls", "self-signed", "models.example.org", "127.0.0.1")
        cert, key = Path(made["cert"]), Path(made["key"])
        assert (cert.parent, made["names"]) == (untouched.data, ["models.example.org", "127.0.0.1"])
        assert (key.stat().st_mode & 0o777, untouched.data.stat().st_mode & 0o777) == (0o600, 0o700)
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(cert, key)
        shown = subprocess.run(
            ["openssl", "x509", "-in", cert, "-noout", "-text"], capture_output=True, text=True, check=True
        )
        assert "DNS:models.example.org, IP Address:127.0.0.1" in shown.stdout

        untouched.run("tls", "self-signed").refused("exists already")
        assert f'cert = "{cert}"' in untouched.done("tls", "self-signed", "--force").out

    def test_refusals(self, untouched: Program, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("")
        untouched.run("tls", "self-signed", "--key", tmp_path / "file" / "key").refused("cannot write")
        untouched.run("tls", "self-signed", "bad..name").refused("host name")
        untouched.run("tls", "self-signed", "--days", "0").refused("--days", status=2)


def test_the_audit_log(program: Program) -> None:
    program.done("user", "create", "audited", "--no-password")
    program.done("user", "suspend", "audited")
    program.done("user", "unsuspend", "audited")
    entries = program.json("audit", "list", "--target", "audited")
    assert [one["action"] for one in entries] == ["user:unsuspend", "user:suspend", "user:create"]
    assert {one["actor"] for one in entries} == {"system"}
    assert len(program.json("audit", "list", "--target", "audited", "--action", "user:create")) == 1
    assert len(program.done("audit", "list", "--limit", "2").rows) == 2
    program.run("audit", "list", "--action", "user:invent").refused("--action", status=2)
    program.run("audit", "list", "--limit", "0").refused("--limit", status=2)
