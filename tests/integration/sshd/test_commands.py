"""What a key holder may run, and what they are told when they may not."""

import hashlib
import os

import pytest
from structlog.testing import capture_logs

from core.errors import Unavailable
from tests.support.ssh import ClientKey, run_ssh
from tests.support.ssh_server import Call, Running


async def test_no_shell_but_a_greeting_by_name(server: Running, ada: ClientKey) -> None:
    outcome = await run_ssh([*server.ssh(ada), "-T"])
    assert outcome.status == 1
    assert outcome.out == b""
    assert outcome.err == "Hi ada! You have authenticated, but Modelyard does not offer a shell.\n"
    assert server.observer.finished == [("greeting", "refused")]


async def test_a_terminal_is_refused(server: Running, ada: ClientKey) -> None:
    outcome = await run_ssh([*server.ssh(ada), "-tt"])
    assert outcome.status != 0
    assert outcome.out == b""
    assert "PTY allocation request failed" in outcome.err


@pytest.mark.parametrize(
    ("line", "call"),
    [
        ("git-upload-pack '/ada/bert.git'", Call("upload", "ada/bert", 0)),
        ("git upload-pack 'datasets/ada/squad'", Call("upload", "datasets/ada/squad", 0)),
        ("git-receive-pack '~/ada/bert.git'", Call("receive", "ada/bert", 0, "ada")),
        ("git-upload-archive ada/bert", Call("archive", "ada/bert")),
    ],
)
async def test_git_commands_reach_the_git_service(
    server: Running, ada: ClientKey, line: str, call: Call
) -> None:
    outcome = await run_ssh([*server.ssh(ada), line])
    assert (outcome.status, outcome.out, outcome.err) == (0, b"hello", "")
    assert server.git.calls == [call]
    assert [outcome for _, outcome in server.observer.finished] == ["ok"]


async def test_lfs_commands_reach_the_large_files(server: Running, ada: ClientKey) -> None:
    outcome = await run_ssh([*server.ssh(ada), "git-lfs-authenticate '/datasets/ada/squad.git' upload"])
    assert (outcome.status, outcome.out, outcome.err) == (0, b"ada at 127.0.0.1", "")
    outcome = await run_ssh([*server.ssh(ada), "git-lfs-transfer ada/bert download"], b"ping")
    assert (outcome.status, outcome.out, outcome.err) == (0, b"ping", "")
    assert server.large_files.calls == [
        ("authenticate", "datasets/ada/squad", "upload"),
        ("transfer", "ada/bert", "download"),
    ]
    assert server.observer.finished == [("git-lfs-authenticate", "ok"), ("git-lfs-transfer", "ok")]


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("ls -l", "modelyard: this command is not offered"),
        ("git-upload-pack ada/bert; id", "modelyard: git-upload-pack takes the path of one repository"),
        ("git-lfs-transfer ada/bert.git", "modelyard: git-lfs-transfer takes the path of one repository"),
        ("git-lfs-authenticate ada/bert.git steal", "modelyard: git-lfs-authenticate takes the path"),
        ("git-upload-pack " + "a" * 5000, "modelyard: the command line is too long"),
        ("git-upload-pack ../../etc", "modelyard: no such repository"),
        ("git-upload-pack ada/missing", "modelyard: no such repository"),
        ("git-receive-pack ada/readonly", "modelyard: you may read this repository, not write to it"),
    ],
)
async def test_refusals_are_one_line_and_status_1(
    server: Running, ada: ClientKey, line: str, reason: str
) -> None:
    outcome = await run_ssh([*server.ssh(ada), line])
    assert outcome.status == 1
    assert outcome.out == b""
    assert outcome.err.startswith(reason)
    assert outcome.err.count("\n") == 1
    assert server.git.calls == []


async def test_an_exec_request_that_is_not_utf8_is_refused(server: Running, ada: ClientKey) -> None:
    outcome = await run_ssh([*server.ssh(ada), os.fsdecode(b"git-upload-pack \xff")])
    assert outcome.status != 0
    assert server.git.calls == []


async def test_a_refusal_during_the_conversation_comes_behind_the_output(
    server: Running, ada: ClientKey
) -> None:
    outcome = await run_ssh([*server.ssh(ada), "git-upload-pack ada/refuse"])
    assert (outcome.status, outcome.out) == (1, b"some output")
    assert outcome.err == "modelyard: not?like ?[31mthis\n"


async def test_no_text_of_a_client_can_forge_a_log_line(server: Running, ada: ClientKey) -> None:
    with capture_logs() as entries:
        await run_ssh([*server.ssh(ada), "git-upload-pack ada/x\n2026 ssh login actor=root \x1b[2J\u202e"])
        await run_ssh([*server.ssh(ada), "git-upload-pack ada/refuse"])
    texts = [value for entry in entries for value in entry.values() if isinstance(value, str)]
    assert any("ssh login actor=root" in text for text in texts)
    assert all(text.isprintable() for text in texts)


async def test_a_bug_is_logged_under_an_id_and_not_shown(
    server: Running, ada: ClientKey, capfd: pytest.CaptureFixture[str]
) -> None:
    outcome = await run_ssh([*server.ssh(ada), "git-upload-pack ada/crash"])
    assert outcome.status == 1
    assert outcome.err.startswith("modelyard: internal error (id ")
    assert "secret detail" not in outcome.err
    reference = outcome.err.split("(id ")[1].split(")")[0]
    logged = capfd.readouterr().out
    assert "RuntimeError" in logged
    assert reference in logged
    assert server.observer.finished == [("git-upload-pack", "failed")]


@pytest.mark.parametrize(
    ("text", "protocol"),
    [
        ("version=2", 2),
        ("version=1", 1),
        ("version=2:evil", 2),
        ("evil=2", 0),
        ("version=2;id", 0),
        ("version=22", 0),
        ("", 0),
    ],
)
async def test_the_protocol_version_comes_from_the_environment_request(
    server: Running, ada: ClientKey, text: str, protocol: int
) -> None:
    command = [
        *server.ssh(ada, options=("-o", "SendEnv=GIT_PROTOCOL LD_PRELOAD")),
        "git-upload-pack ada/bert",
    ]
    outcome = await run_ssh(command, environment={"GIT_PROTOCOL": text, "LD_PRELOAD": ""})
    assert outcome.status == 0
    assert server.git.calls == [Call("upload", "ada/bert", protocol)]


async def test_input_and_its_end_reach_the_command(server: Running, ada: ClientKey) -> None:
    data = os.urandom(3_000_000)
    outcome = await run_ssh([*server.ssh(ada), "git-receive-pack ada/sink"], data)
    assert outcome.out.decode() == hashlib.sha256(data).hexdigest()
    echoed = await run_ssh([*server.ssh(ada), "git-receive-pack ada/echo"], data)
    assert echoed.out == data


async def test_the_client_is_told_when_the_database_is_away(server: Running, ada: ClientKey) -> None:
    server.keys.failure = Unavailable("the database is not available; try again")
    outcome = await run_ssh([*server.ssh(ada), "git-upload-pack ada/bert"])
    assert outcome.status == 255
    assert "the database is not available" in outcome.err
