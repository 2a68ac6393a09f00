"""What is different when a person sits at a terminal."""

import os
import pty
import select
import subprocess
import time

from tests.support.program import Program

SECONDS = 60


def at_terminal(
    program: Program, *arguments: str, dialogue: tuple[tuple[str, str], ...] = ()
) -> tuple[int, str]:
    """Runs at a terminal of its own; `dialogue` says what is typed once what was shown.

    Returns the exit status and everything that was shown.
    """
    master, slave = pty.openpty()
    process = subprocess.Popen(
        program.command(*arguments),
        cwd=program.directory,
        env={**program.child_environment(), "TERM": "xterm", "COLUMNS": "120"},
        preexec_fn=lambda: os.login_tty(slave),  # noqa: PLW1509 - nothing else makes it theirs
    )
    os.close(slave)
    shown, deadline, waiting = "", time.monotonic() + SECONDS, list(dialogue)
    try:
        while True:
            assert time.monotonic() < deadline, shown
            if not select.select([master], [], [], 0.2)[0]:
                continue
            try:
                chunk = os.read(master, 65536)
            except OSError:  # how Linux says that nobody holds the other end any more
                break
            if not chunk:
                break
            shown += chunk.decode()
            if waiting and waiting[0][0] in shown:
                os.write(master, waiting.pop(0)[1].encode() + b"\n")
        assert not waiting, shown
        return process.wait(SECONDS), shown
    finally:
        process.kill()
        process.wait()
        os.close(master)


def test_a_list_is_a_table_with_a_head(program: Program) -> None:
    status, shown = at_terminal(program, "user", "list")
    assert status == 0
    assert "full name" in shown
    assert "alice" in shown
    assert "\t" not in shown


def test_json_has_no_colours(program: Program) -> None:
    status, shown = at_terminal(program, "user", "list", "--json")
    assert status == 0
    assert "\x1b" not in shown
    assert '"name": "alice"' in shown


def test_a_password_is_asked_for_twice_and_not_shown(program: Program) -> None:
    secret = "correct horse battery"
    dialogue = (("Password: ", secret), ("confirmation: ", secret))
    status, shown = at_terminal(program, "user", "create", "typed", dialogue=dialogue)
    assert status == 0
    assert "created the user typed" in shown
    assert secret not in shown


def test_deletion_is_asked_for(program: Program) -> None:
    program.done("user", "create", "doomed", "--no-password")
    status, shown = at_terminal(program, "user", "delete", "doomed", dialogue=(("[y/N]", "n"),))
    assert (status, "modelyard: aborted" in shown) == (1, True)
    assert program.json("user", "show", "doomed")["name"] == "doomed"
    status, _ = at_terminal(program, "user", "delete", "doomed", dialogue=(("[y/N]", "y"),))
    assert status == 0
    program.run("user", "show", "doomed").refused("no such account")
