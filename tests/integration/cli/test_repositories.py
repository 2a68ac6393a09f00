"""Repositories, and who else may use them."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.integration.cli.test_accounts import make_key
from tests.support.program import PROJECT, Program


def test_a_repository_from_create_to_delete(program: Program) -> None:
    made = program.json("repo", "create", "alice/bert", "--public", "--description", "A model")
    assert (made["path"], made["type"], made["visibility"]) == ("alice/bert", "model", "public")
    assert (made["default_branch"], made["object_format"]) == ("main", "sha1")

    data = program.json(
        "repo", "create", "alice/words", "--type", "dataset", "--private",
        "--default-branch", "trunk", "--object-format", "sha256",
    )  # fmt: skip
    assert (data["path"], data["visibility"]) == ("datasets/alice/words", "private")
    assert (data["default_branch"], data["object_format"]) == ("trunk", "sha256")
    assert program.json("repo", "create", "datasets/bob/more")["visibility"] == "private"

    assert [row[0] for row in program.done("repo", "list").rows] == [
        "datasets/alice/words",
        "alice/bert",
        "datasets/bob/more",
    ]
    assert [one["path"] for one in program.json("repo", "list", "--owner", "bob")] == ["datasets/bob/more"]
    assert [one["path"] for one in program.json("repo", "list", "--type", "model")] == ["alice/bert"]
    assert [one["path"] for one in program.json("repo", "list", "--search", "BER")] == ["alice/bert"]

    assert program.json("repo", "visibility", "alice/bert", "private")["visibility"] == "private"
    assert program.json("repo", "default-branch", "alice/bert", "dev")["default_branch"] == "dev"
    assert program.done("repo", "move", "alice/bert", "bob/bert2").out == "alice/bert is now bob/bert2\n"
    assert program.json("repo", "show", "alice/bert")["path"] == "bob/bert2"
    moved = program.json("repo", "move", "datasets/alice/words", "alice/sentences")
    assert moved["path"] == "datasets/alice/sentences"
    program.run("user", "delete", "bob", "--yes").refused("owns repositories")
    program.done("repo", "delete", "bob/bert2", "--yes")
    program.run("repo", "show", "bob/bert2").refused("no such repository")


def test_many_repositories_are_all_listed(program: Program) -> None:
    # Through the services, because a hundred runs of the program take minutes.
    names = [f"many-{number:03}" for number in range(205)]
    script = (
        "import asyncio, sys\n"
        "from pathlib import Path\n"
        "from core.access import SYSTEM\n"
        "from core.names import parse_address\n"
        "from core.settings import load_settings\n"
        "from modelyard.services import open_services\n"
        "async def main():\n"
        "    settings = load_settings(overrides={'server': {'data': sys.argv[1]}})\n"
        "    async with open_services(settings) as services:\n"
        "        for number in range(205):\n"
        "            await services.repositories.create(SYSTEM, parse_address(f'bob/many-{number:03}'))\n"
        "asyncio.run(main())\n"
    )
    subprocess.run(
        [sys.executable, "-c", script, str(program.data)],
        check=True,
        cwd=PROJECT,
        env=program.child_environment(),
    )
    found = program.json("repo", "list", "--search", "many-")
    assert [one["name"] for one in found] == names


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (("create", "alice"), "OWNER/NAME"),
        (("create", "alice/.."), "a repository name has"),
        (("create", "alice/x.git/y"), "a repository name has"),
        (("create", "Al ice/x"), "an account name has"),
        (("create", "alice/settings"), "reserved"),
        (("create", "nobody/x"), "no such account"),
        (("create", "datasets/alice/x", "--type", "model"), "--type"),
        (("create", "alice/x", "--default-branch", "a..b"), "branch"),
        (("show", "alice/none"), "no such repository"),
        (("show", "../../etc"), "no such repository"),
        (("delete", "alice/none", "--yes"), "no such repository"),
        (("move", "alice/none", "alice/other"), "no such repository"),
        (("visibility", "alice/none", "public"), "no such repository"),
    ],
)
def test_refusals(program: Program, arguments: tuple[str, ...], reason: str) -> None:
    program.run("repo", *arguments).refused(reason)


def test_a_taken_address(program: Program) -> None:
    program.done("repo", "create", "alice/taken")
    program.run("repo", "create", "alice/taken").refused("alice/taken exists already")
    program.run("repo", "delete", "alice/taken").refused("--yes", status=2)


def test_collaborators(program: Program) -> None:
    program.done("repo", "create", "alice/shared")
    added = program.json("repo", "collaborator", "add", "alice/shared", "bob", "--role", "write")
    assert (added["user"], added["role"]) == ("bob", "write")
    assert [row[:2] for row in program.done("repo", "collaborator", "list", "alice/shared").rows] == [
        ["bob", "write"]
    ]
    program.done("repo", "collaborator", "remove", "alice/shared", "bob")
    assert program.json("repo", "collaborator", "list", "alice/shared") == []
    program.run("repo", "collaborator", "remove", "alice/shared", "bob").refused("not a collaborator")
    program.run("repo", "collaborator", "add", "alice/shared", "alice").refused("owns")


def test_deploy_keys(program: Program, tmp_path: Path) -> None:
    program.done("repo", "create", "alice/deployed")
    reader, writer = make_key(tmp_path, "reader"), make_key(tmp_path, "writer")
    added = program.json("repo", "deploy-key", "add", "alice/deployed", reader)
    program.done("repo", "deploy-key", "add", "alice/deployed", writer, "--write", "--title", "robot")
    listed = program.json("repo", "deploy-key", "list", "alice/deployed")
    assert [(one["title"], one["read_only"]) for one in listed] == [("reader@laptop", True), ("robot", False)]
    program.done("repo", "deploy-key", "remove", "alice/deployed", str(added["id"]))
    program.run("repo", "deploy-key", "remove", "alice/deployed", str(added["id"])).refused("no such")
    assert len(program.done("repo", "deploy-key", "list", "alice/deployed").rows) == 1


def test_branch_rules(program: Program) -> None:
    program.done("repo", "create", "alice/ruled")
    rule = program.json("repo", "rule", "add", "alice/ruled", "main", "--pusher", "alice", "--pusher", "bob")
    assert (rule["pattern"], rule["pushers"]) == ("main", ["alice", "bob"])
    assert (rule["allow_force"], rule["allow_delete"]) == (False, False)
    frozen = program.json("repo", "rule", "add", "alice/ruled", "release/*", "--no-pushers", "--allow-delete")
    assert (frozen["pushers"], frozen["allow_delete"]) == ([], True)
    assert program.json("repo", "rule", "add", "alice/ruled", "dev", "--allow-force")["pushers"] is None
    program.done("repo", "rule", "remove", "alice/ruled", str(rule["id"]))
    assert [row[1] for row in program.done("repo", "rule", "list", "alice/ruled").rows] == [
        "release/*",
        "dev",
    ]
    program.run("repo", "rule", "add", "alice/ruled", "dev").refused("already")
    program.run("repo", "rule", "add", "alice/ruled", "refs/heads/x").refused("pattern")
    program.run("repo", "rule", "remove", "alice/ruled", "4711").refused("no such")
