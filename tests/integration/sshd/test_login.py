"""Who gets in: `git`, with a known key that signs, and nobody else."""

import socket
from pathlib import Path

import asyncssh
import pytest

from sshd.client import MAX_OFFERED_KEYS
from sshd.host_key import fingerprint
from tests.support.ssh import ClientKey, make_key, run_ssh
from tests.support.ssh_server import Running, eventually, serving


@pytest.mark.parametrize(
    "kind", [("-t", "ecdsa", "-b", "256"), ("-t", "ecdsa", "-b", "521"), ("-t", "rsa", "-b", "2048")]
)
async def test_every_offered_kind_of_key_logs_in(tmp_path: Path, kind: tuple[str, ...]) -> None:
    key = make_key(tmp_path, "key", *kind)
    async with serving(tmp_path, {key.fingerprint: "ada"}) as server:
        outcome = await run_ssh([*server.ssh(key), "git-upload-pack ada/bert"])
        assert (outcome.status, outcome.out) == (0, b"hello")


async def test_an_unknown_key_is_refused(server: Running, eve: ClientKey) -> None:
    outcome = await run_ssh([*server.ssh(eve), "git-upload-pack ada/bert"])
    assert outcome.status == 255
    assert "Permission denied (publickey)" in outcome.err
    assert server.git.calls == []


@pytest.mark.parametrize("user", ["root", "ada", "Git", "gït"])
async def test_another_user_is_told_which_one_to_use(server: Running, ada: ClientKey, user: str) -> None:
    outcome = await run_ssh(server.ssh(ada, options=("-o", "LogLevel=INFO"), user=user))
    assert outcome.status == 255
    assert "modelyard: log in as git" in outcome.err
    assert server.keys.asked == []


async def test_passwords_and_other_methods_are_not_offered(server: Running) -> None:
    options = (
        "-v",
        "-o",
        "LogLevel=DEBUG1",
        "-o",
        "PreferredAuthentications=password,keyboard-interactive,none",
    )
    outcome = await run_ssh(server.ssh(options=options))
    assert outcome.status == 255
    assert "Authentications that can continue: publickey\r\n" in outcome.err


async def test_a_password_that_is_sent_anyway_is_refused(server: Running) -> None:
    with pytest.raises(asyncssh.PermissionDenied):
        await asyncssh.connect(
            "127.0.0.1",
            server.server.port,
            username="git",
            password="x",
            client_keys=None,
            known_hosts=None,
            config=None,
        )


async def test_the_identity_is_the_key_that_signed_not_one_that_was_offered(
    server: Running, ada: ClientKey, eve: ClientKey, tmp_path: Path
) -> None:
    """Attack: offer somebody else's public key, hear that it is welcome, then sign with one's own."""
    server.keys.people[eve.fingerprint] = "eve"
    stolen = tmp_path / "stolen.pub"
    stolen.write_text(ada.public + "\n")
    stolen.chmod(0o600)
    outcome = await run_ssh([*server.ssh(stolen, eve), "-T"])
    assert server.keys.asked[:2] == [ada.fingerprint, eve.fingerprint]
    assert "Hi eve! You have authenticated" in outcome.err


async def test_a_public_key_alone_opens_nothing(server: Running, ada: ClientKey, tmp_path: Path) -> None:
    stolen = tmp_path / "stolen.pub"
    stolen.write_text(ada.public + "\n")
    outcome = await run_ssh([*server.ssh(stolen), "-T"])
    assert server.keys.asked == [ada.fingerprint]
    assert outcome.status == 255


async def test_a_false_signature_opens_nothing(server: Running, ada: ClientKey) -> None:
    """Attack: claim a known public key and sign with another one."""
    public = asyncssh.import_public_key(ada.public)

    class Forged(asyncssh.SSHKeyPair):
        def __init__(self) -> None:
            super().__init__(
                public.algorithm, public.algorithm, public.sig_algorithms, (), public.public_data, None
            )
            self._signer = asyncssh.generate_private_key("ssh-ed25519")

        def sign(self, data: bytes) -> bytes:
            return self._signer.sign(data, b"ssh-ed25519")

    with pytest.raises(asyncssh.PermissionDenied):
        await asyncssh.connect(
            "127.0.0.1",
            server.server.port,
            username="git",
            client_keys=[Forged()],
            agent_path=None,
            known_hosts=None,
            config=None,
        )
    assert ada.fingerprint in server.keys.asked


async def test_keys_without_end_are_cut_off(server: Running) -> None:
    keys = [asyncssh.generate_private_key("ssh-ed25519") for _ in range(MAX_OFFERED_KEYS + 5)]
    with pytest.raises(asyncssh.PermissionDenied, match="too many keys"):
        await asyncssh.connect(
            "127.0.0.1",
            server.server.port,
            username="git",
            client_keys=keys,
            agent_path=None,
            known_hosts=None,
            config=None,
        )
    assert len(server.keys.asked) == MAX_OFFERED_KEYS


async def test_who_does_not_log_in_is_disconnected(tmp_path: Path) -> None:
    async with serving(tmp_path, {}, login_seconds=1) as server:
        with socket.create_connection(("127.0.0.1", server.server.port)) as idle:
            idle.setblocking(False)
            await eventually(lambda: server.observer.connections == 1)
            await eventually(lambda: server.observer.connections == 0)


async def test_a_live_connection_ends_with_its_key(server: Running, ada: ClientKey, tmp_path: Path) -> None:
    """A suspended user keeps the connection they have, and can start nothing on it."""
    socket_path = tmp_path / "master"
    sharing = ("-o", f"ControlPath={socket_path}", "-o", "ControlMaster=auto", "-o", "ControlPersist=60")
    command = [*server.ssh(ada, options=sharing), "git-upload-pack ada/bert"]
    try:
        assert (await run_ssh(command)).out == b"hello"
        assert (await run_ssh(command)).out == b"hello"
        assert server.observer.opened == 1
        server.keys.people.clear()
        refused = await run_ssh(command)
        assert server.observer.opened == 1
        assert (refused.status, refused.out) == (1, b"")
        assert refused.err == "modelyard: this SSH key is not accepted any more\n"
        assert len(server.git.calls) == 2
    finally:
        await run_ssh([*server.ssh(ada, options=(*sharing, "-O", "exit"))])


async def test_the_server_proves_its_host_key(server: Running, ada: ClientKey, tmp_path: Path) -> None:
    known = tmp_path / "known"
    options = ("-o", f"UserKnownHostsFile={known}", "-o", "StrictHostKeyChecking=accept-new")
    outcome = await run_ssh([*server.ssh(ada, options=options), "git-upload-pack ada/bert"])
    assert outcome.status == 0
    line = known.read_text().split(None, 1)[1]
    assert asyncssh.import_public_key(line).get_fingerprint() == fingerprint(tmp_path / "host_key")
