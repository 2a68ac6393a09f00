"""Users, organisations, tokens and SSH keys."""

import subprocess
from pathlib import Path

import pytest

from tests.support.program import Program

PASSWORD = "correct horse battery\n"


def make_key(directory: Path, name: str, kind: str = "ed25519") -> Path:
    path = directory / name
    command = ["ssh-keygen", "-q", "-t", kind, "-N", "", "-C", f"{name}@laptop", "-f", str(path)]
    subprocess.run(command, check=True)
    return path.with_suffix(".pub")


class TestUsers:
    def test_a_user_from_create_to_delete(self, program: Program) -> None:
        made = program.json(
            "user", "create", "carol", "--admin", "--full-name", "Carol C.", "--email", "c@example.org",
            "--password-stdin", stdin=PASSWORD,
        )  # fmt: skip
        assert (made["name"], made["admin"], made["full_name"]) == ("carol", True, "Carol C.")
        assert "password" not in " ".join(made)

        shown = program.json("user", "show", "Carol")
        assert (shown["email"], shown["suspended"], shown["organisations"]) == ("c@example.org", False, [])

        program.done("user", "create", "root2", "--admin", "--no-password")
        assert program.json("user", "update", "carol", "--no-admin", "--full-name", "C")["admin"] is False
        assert program.json("user", "suspend", "carol")["suspended"] is True
        assert program.json("user", "unsuspend", "carol")["suspended"] is False
        program.done("user", "password", "carol", "--password-stdin", stdin="another horse battery\n")
        program.done("user", "password", "carol", "--no-password")
        assert program.done("user", "rename", "carol", "caroline").out == "carol is now caroline\n"
        assert program.json("user", "show", "carol")["name"] == "caroline"
        program.done("user", "delete", "caroline", "--yes")
        program.run("user", "show", "caroline").refused("no such account")

    def test_refusals(self, program: Program) -> None:
        program.run("user", "create", "alice", "--no-password").refused("the name alice is taken")
        program.run("user", "create", "Not Good", "--no-password").refused("lower-case")
        program.run("user", "create", "api", "--no-password").refused("reserved")
        program.run("user", "create", "dave", "--password-stdin", stdin="short\n").refused("password")
        program.run("user", "create", "dave", "--password-stdin").refused("password")
        program.run("user", "suspend", "nobody").refused("no such account")
        program.run("user", "show", "dave").refused("no such account")

    def test_a_password_is_never_guessed_at(self, program: Program) -> None:
        program.run("user", "create", "dave", stdin=PASSWORD).refused("--password-stdin", status=2)
        both = ("--no-password", "--password-stdin")
        program.run("user", "create", "dave", *both, stdin=PASSWORD).refused("--no-password", status=2)

    def test_deletion_is_never_assumed(self, program: Program) -> None:
        program.run("user", "delete", "bob").refused("--yes", status=2)
        assert program.json("user", "show", "bob")["name"] == "bob"


class TestOrganisations:
    def test_an_organisation_from_create_to_delete(self, program: Program) -> None:
        assert program.json("org", "create", "acme", "--owner", "alice")["name"] == "acme"
        program.done("org", "add", "acme", "bob", "--role", "write")
        members = program.json("org", "members", "acme")
        assert [(one["user"], one["role"]) for one in members] == [("alice", "admin"), ("bob", "write")]
        assert program.json("user", "show", "bob")["organisations"] == [{"name": "acme", "role": "write"}]
        assert program.json("org", "add", "acme", "bob")["role"] == "read"
        program.done("org", "remove", "acme", "bob")
        assert [row[0] for row in program.done("org", "members", "acme").rows] == ["alice"]
        program.done("org", "rename", "acme", "acme-labs")
        assert [one["name"] for one in program.json("org", "list")] == ["acme-labs"]
        program.done("org", "delete", "acme-labs", "--yes")
        assert program.json("org", "list") == []

    def test_refusals(self, program: Program) -> None:
        program.done("org", "create", "last", "--owner", "alice")
        program.run("org", "create", "alice", "--owner", "bob").refused("taken")
        program.run("org", "create", "other").refused("--owner", status=2)
        program.run("org", "create", "other", "--owner", "nobody").refused("no such account")
        program.run("org", "remove", "last", "alice").refused("last owner")
        program.run("org", "add", "alice", "bob").refused("not an organisation")
        program.run("user", "delete", "last", "--yes").refused("organisation")
        program.run("org", "delete", "alice", "--yes").refused("user")
        program.run("user", "delete", "alice", "--yes").refused("last owner")


class TestTokens:
    def test_a_token_is_printed_alone_and_only_once(self, program: Program) -> None:
        created = program.done("token", "create", "alice", "--name", "ci", "--scope", "write")
        secret = created.out.removesuffix("\n")
        assert secret.startswith("myd_")
        assert len(secret) == 50
        listed = program.json("token", "list", "alice")
        assert [(one["name"], one["scope"], one["expires_at"]) for one in listed] == [("ci", "write", None)]
        assert secret not in str(listed)

        program.done("repo", "create", "alice/secret-model", "--private")
        limited = program.json(
            "token", "create", "alice", "--name", "limited", "--scope", "read",
            "--repo", "alice/secret-model", "--expires", "30",
        )  # fmt: skip
        assert limited["token"].startswith("myd_")
        assert limited["repository"] == "alice/secret-model"
        assert limited["expires_at"] > limited["created_at"]
        program.done("token", "revoke", "alice", str(limited["id"]))
        assert [one["name"] for one in program.json("token", "list", "alice")] == ["ci"]
        program.done("token", "create", "alice", "--name", "runner", "--scope", "write", "--for-runs")
        flags = {one["name"]: one["for_runs"] for one in program.json("token", "list", "alice")}
        assert flags == {"ci": False, "runner": True}
        program.done("token", "revoke", "alice", str(program.json("token", "list", "alice")[-1]["id"]))

    def test_refusals(self, program: Program) -> None:
        scope = ("--name", "x", "--scope", "read")
        program.run("token", "create", "nobody", *scope).refused("no such account")
        program.run("token", "create", "bob", *scope, "--repo", "bob/missing").refused("no such repository")
        program.run("token", "create", "bob", *scope, "--expires", "0").refused("expires")
        program.run("token", "create", "bob", "--scope", "read").refused("--name", status=2)
        program.run("token", "revoke", "bob", "4711").refused("no such token")


class TestKeys:
    def test_a_key_from_add_to_remove(self, program: Program, tmp_path: Path) -> None:
        public = make_key(tmp_path, "id")
        added = program.json("key", "add", "alice", public)
        assert added["title"] == "id@laptop"
        expected = subprocess.run(["ssh-keygen", "-lf", public], capture_output=True, text=True, check=True)
        assert added["fingerprint"] in expected.stdout
        program.run("key", "add", "bob", public).refused("in use")

        text = make_key(tmp_path, "second", "ecdsa").read_text()
        program.done("key", "add", "alice", "-", "--title", "Desk", stdin=text)
        assert [row[1] for row in program.done("key", "list", "alice").rows] == ["id@laptop", "Desk"]
        program.done("key", "remove", "alice", str(added["id"]))
        assert [one["title"] for one in program.json("key", "list", "alice")] == ["Desk"]

    @pytest.mark.parametrize(
        ("content", "reason"),
        [
            (b"not a key", "key"),
            (b"\xff\xfe\x00", "not an OpenSSH public key"),
            (b"-----BEGIN OPENSSH PRIVATE KEY-----\nAAAA\n", "private key"),
        ],
    )
    def test_what_is_no_public_key(
        self, program: Program, tmp_path: Path, content: bytes, reason: str
    ) -> None:
        (tmp_path / "bad.pub").write_bytes(content)
        program.run("key", "add", "alice", tmp_path / "bad.pub").refused(reason)

    def test_refusals(self, program: Program, tmp_path: Path) -> None:
        program.run("key", "add", "alice", tmp_path / "missing.pub").refused("missing.pub")
        program.run("key", "add", "alice", tmp_path).refused("cannot read")
        program.run("key", "remove", "bob", "4711").refused("no such key")
