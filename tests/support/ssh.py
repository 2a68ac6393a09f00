"""The real OpenSSH client for tests: keys made by ssh-keygen, and no configuration of the machine."""

import asyncio
import os
import subprocess
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class ClientKey:
    """A key pair on disk."""

    file: Path
    public: str
    fingerprint: str


@dataclass(frozen=True)
class Outcome:
    """What the client did."""

    status: int
    out: bytes
    err: str


def make_key(directory: Path, name: str, *arguments: str) -> ClientKey:
    """A new key without a passphrase; `arguments` go to ssh-keygen, `-t ed25519` by default."""
    file = directory / name
    kind = arguments or ("-t", "ed25519")
    subprocess.run(["ssh-keygen", "-q", *kind, "-N", "", "-C", name, "-f", file], check=True)
    shown = subprocess.run(["ssh-keygen", "-l", "-f", file], check=True, capture_output=True, text=True)
    return ClientKey(file, file.with_suffix(".pub").read_text().strip(), shown.stdout.split()[1])


def ssh_command(
    port: int, *keys: ClientKey | Path, options: Sequence[str] = (), user: str = "git"
) -> list[str]:
    """The command line up to the host; a remote command may follow."""
    return [*ssh_program(port, *keys, options=options), f"{user}@127.0.0.1"]


def ssh_program(port: int, *keys: ClientKey | Path, options: Sequence[str] = ()) -> list[str]:
    """`ssh` with everything but the host; joined by blanks it is a GIT_SSH_COMMAND.

    `options` win over the usual ones, because ssh takes the first value that it is given.
    """
    command = ["ssh", "-F", "/dev/null", "-p", str(port), *options]
    for option in (
        "StrictHostKeyChecking=no",
        "UserKnownHostsFile=/dev/null",
        "LogLevel=ERROR",
        "IdentitiesOnly=yes",
        "IdentityAgent=none",
        "BatchMode=yes",
        "ConnectTimeout=20",
    ):
        command += ["-o", option]
    for key in keys:
        command += ["-i", str(key.file if isinstance(key, ClientKey) else key)]
    return command


async def run_ssh(
    command: Sequence[str],
    data: bytes = b"",
    *,
    environment: dict[str, str] | None = None,
    timeout: float = 60,
) -> Outcome:
    """Runs a client to its end; killed after `timeout` seconds, which fails the test."""
    process = await asyncio.create_subprocess_exec(
        *command,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={"PATH": os.environ.get("PATH", os.defpath), **(environment or {})},
    )
    try:
        async with asyncio.timeout(timeout):
            out, err = await process.communicate(data)
    finally:
        await stop(process)
    return Outcome(process.returncode or 0, out, err.decode(errors="replace"))


async def stop(process: asyncio.subprocess.Process) -> None:
    """Kills a client, if it still runs, and leaves none of its pipes behind."""
    with suppress(ProcessLookupError):
        process.kill()
    await process.communicate()
