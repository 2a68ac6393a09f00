"""`modelyard doctor` on installations that lack something."""

import os
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from gitserver import leases
from modelyard.services import HOST_KEY
from tests.integration.cli.test_accounts import make_key
from tests.support.database import Databases
from tests.support.minio_server import MinioServer
from tests.support.nginx import nginx_before_minio
from tests.support.program import Program


def findings(program: Program, *options: str) -> dict[str, list[dict[str, Any]]]:
    """What the doctor says, by check; the exit status must fit."""
    outcome = program.run("doctor", "--json", *options)
    found: dict[str, list[dict[str, Any]]] = {}
    for finding in outcome.json:
        found.setdefault(finding["check"], []).append(finding)
    errors = sum(finding["level"] == "error" for finding in outcome.json)
    assert (outcome.status, outcome.err.count("\n")) == ((1, 1) if errors else (0, 0)), outcome
    return found


def levels(program: Program, check: str) -> set[str]:
    return {finding["level"] for finding in findings(program)[check]}


@pytest.fixture
def installed(untouched: Program) -> Program:
    """An installation without a fault."""
    untouched.done("user", "create", "alice", "--no-password")
    return untouched


def data_of(program: Program) -> Path:
    assert program.data is not None
    return program.data


def test_a_sound_installation(installed: Program) -> None:
    found = findings(installed)
    assert found.keys() >= {
        "data",
        "keys",
        "disk",
        "git",
        "cache",
        "ssh",
        "tls",
        "store",
        "database",
        "packs",
    }
    # The machine's own git and disk are what they are.
    rest = [one for check, ones in found.items() if check not in ("git", "disk") for one in ones]
    assert {one["level"] for one in rest} == {"ok"}, rest
    rows = installed.run("doctor").rows
    assert all(len(row) == 4 for row in rows)


def test_nothing_is_made_where_nothing_is(untouched: Program, tmp_path: Path) -> None:
    found = findings(untouched)
    assert found["data"][0]["level"] == found["database"][0]["level"] == "error"
    assert "--data" in found["data"][0]["remedy"]
    assert list(tmp_path.iterdir()) == []


def test_what_others_can_read_is_closed_on_demand(installed: Program) -> None:
    data = data_of(installed)
    secrets = [data / "sealing.key", make_key(data, HOST_KEY).with_suffix("")]
    for path, mode in ((data, 0o755), *((secret, 0o644) for secret in secrets)):
        path.chmod(mode)
    found = findings(installed)
    assert found["data"][0]["remedy"] == f"chmod 700 {data}"
    assert [one["remedy"] for one in found["keys"]] == [f"chmod 600 {secret}" for secret in secrets]
    assert {one["level"] for one in found["data"] + found["keys"]} == {"error"}

    fixed = findings(installed, "--fix")
    assert all(one["fixed"] for one in fixed["data"] + fixed["keys"])
    assert [path.stat().st_mode & 0o777 for path in (data, *secrets)] == [0o700, 0o600, 0o600]
    assert levels(installed, "data") == levels(installed, "keys") == {"ok"}


def test_the_remains_of_a_dead_push_are_swept_on_demand(installed: Program) -> None:
    quarantine = data_of(installed) / "cache" / "quarantine"
    dead, alive = quarantine / "dead", quarantine / "alive"
    os.close(leases.make(dead))
    lease = leases.make(alive)
    try:
        assert levels(installed, "cache") == {"ok", "warning"}
        assert any(finding["fixed"] for finding in findings(installed, "--fix")["cache"])
        assert not dead.exists()
        assert alive.exists()
        assert levels(installed, "cache") == {"ok"}
    finally:
        os.close(lease)


def test_hook_programs(installed: Program, tmp_path: Path) -> None:
    hooks = tmp_path / "hooks"
    (hooks / "update.d").mkdir(parents=True)
    environment = {**installed.environment, "MODELYARD_HOOKS__DIRECTORY": str(hooks)}
    program = Program(installed.data, installed.directory, environment)
    assert levels(program, "hooks") == {"ok"}
    unsafe = hooks / "update.d" / "check"
    unsafe.write_text("#!/bin/sh\n")
    (finding,) = findings(program)["hooks"]
    problem = f"{unsafe} is not executable"
    assert finding["level"] == "error"
    assert finding["message"].startswith(problem)
    program.run("user", "list").refused(f"[hooks] directory: {problem}")


def test_a_database_of_another_version(installed: Program) -> None:
    with sqlite3.connect(data_of(installed) / "modelyard.db") as connection:
        connection.execute("UPDATE alembic_version SET version_num = 'elsewhere'")
    connection.close()
    (_, finding) = findings(installed)["database"]
    assert (finding["level"], finding["remedy"]) == ("error", "modelyard migrate")
    assert "packs" not in findings(installed)


def test_a_database_that_is_none(installed: Program) -> None:
    for suffix in ("", "-wal", "-shm"):
        (data_of(installed) / f"modelyard.db{suffix}").unlink(missing_ok=True)
    (data_of(installed) / "modelyard.db").write_text("this is no database " * 100)
    assert levels(installed, "database") == {"error"}


def test_parts_that_cannot_be_used(installed: Program, tmp_path: Path) -> None:
    (tmp_path / "not-a-key").write_text("nothing")
    (tmp_path / "not-a-key").chmod(0o600)
    broken = {
        "MODELYARD_GIT__EXECUTABLE": "/nonexistent/git",
        "MODELYARD_SSH__HOST_KEY": str(tmp_path / "not-a-key"),
        "MODELYARD_HTTP__CERT": str(tmp_path / "missing.pem"),
        "MODELYARD_HTTP__KEY": str(tmp_path / "missing.key"),
        "MODELYARD_FAILPOINT": "push.before-commit",
    }
    found = findings(Program(installed.data, tmp_path, broken))
    for check in ("git", "ssh", "tls", "environment"):
        assert found[check][0]["level"] == "error", found[check]
        assert found[check][0]["remedy"], found[check]


def test_a_store_that_is_away(installed: Program) -> None:
    away = {
        "MODELYARD_STORAGE__KIND": "minio",
        "MODELYARD_STORAGE__ENDPOINT": "127.0.0.1:1",
        "MODELYARD_STORAGE__SECURE": "false",
        "MODELYARD_STORAGE__ACCESS_KEY": "someone",
        "MODELYARD_STORAGE__SECRET_KEY": "hush-hush",
    }
    program = Program(installed.data, installed.directory, away)
    assert levels(program, "store") == {"error"}
    assert "hush-hush" not in program.run("doctor").out


def test_where_clients_are_sent_for_large_files(installed: Program, tmp_path: Path) -> None:
    def transfers(**environment: str) -> list[dict[str, Any]]:
        program = Program(installed.data, tmp_path, {**minio.environment(bucket="large"), **environment})
        return findings(program).get("transfers", [])

    with MinioServer(tmp_path / "minio") as minio:
        public = {"MODELYARD_STORAGE__PUBLIC_ENDPOINT": minio.endpoint}
        assert transfers() == []
        assert transfers(**public, MODELYARD_LFS__TRANSFER="proxy") == []
        [careful] = transfers(**public)
        assert careful["level"] == "warning"
        assert "through this server" in careful["message"]
        [careless] = transfers(MODELYARD_LFS__TRANSFER="redirect")
        assert careless["level"] == "error"
        assert "deploy/README.md" in careless["remedy"]
        [unknown] = transfers(MODELYARD_STORAGE__PUBLIC_ENDPOINT="127.0.0.1:1")
        assert (unknown["level"], "no answer" in unknown["message"]) == ("warning", True)
        with nginx_before_minio(tmp_path / "nginx", minio.endpoint, "large") as proxy:
            assert [one["level"] for one in transfers(MODELYARD_STORAGE__PUBLIC_ENDPOINT=proxy)] == ["ok"]


def test_plain_http_on_the_network_is_a_warning(installed: Program) -> None:
    def tls(**environment: str) -> str:
        level: str = findings(Program(installed.data, installed.directory, environment))["tls"][0]["level"]
        return level

    assert tls(MODELYARD_HTTP__LISTEN="[::1]:80") == "ok"
    assert tls(MODELYARD_HTTP__LISTEN="0.0.0.0:80") == "warning"
    assert tls(MODELYARD_HTTP__LISTEN=":80", MODELYARD_HTTP__PUBLIC_URL="https://x.example.org") == "ok"


def test_a_certificate_near_its_end(installed: Program, tmp_path: Path) -> None:
    def level(days: str) -> set[str]:
        files = ("--cert", str(tmp_path / "c.pem"), "--key", str(tmp_path / "k.pem"))
        installed.done("tls", "self-signed", "localhost", "--days", days, "--force", *files)
        names = {"MODELYARD_HTTP__CERT": files[1], "MODELYARD_HTTP__KEY": files[3]}
        return levels(Program(installed.data, tmp_path, names), "tls")

    assert level("300") == {"ok"}
    assert level("3") == {"warning"}


def test_failpoints_are_listed(untouched: Program) -> None:
    names = [row[0] for row in untouched.done("doctor", "--failpoints").rows]
    assert {"push.before-store", "push.before-commit", "push.after-commit"} <= set(names)
    assert names == sorted(names)
    unknown = Program(untouched.data, untouched.directory, {"MODELYARD_FAILPOINT": "nowhere"})
    unknown.run("user", "list").refused("nowhere")


async def test_postgresql(databases: Databases, untouched: Program) -> None:
    async with databases.fresh("postgresql") as url:
        environment = {"MODELYARD_DATABASE__URL": url}
        program = Program(untouched.data, untouched.directory, environment)
        program.done("user", "create", "alice", "--no-password")
        assert [row[0] for row in program.done("user", "list").rows] == ["alice"]
        found = findings(program)
        assert found["database"] == [
            {
                "check": "database",
                "level": "ok",
                "message": "postgresql answers",
                "remedy": "",
                "fixed": False,
            }
        ]
        assert "clock" not in found
        assert found["packs"][0]["level"] == "ok"
