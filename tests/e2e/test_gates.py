"""Every gate, with real clients over both transports.

The bad push is refused with its path and what to do; doing it makes a good one; overriding leaves a trace.
"""

import asyncio
import json
import os
import pickle
import re
import shlex
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from core.access import SYSTEM
from core.audit import Action
from core.tokens import new_secret
from tests.support.git import Git, Result
from tests.support.git_lfs import NEWEST, lfs_client
from tests.support.model_files import CONFIG, llama_tensors, write_gguf, write_model, write_sharded
from tests.support.server import running_server
from tests.support.yard import USER, Yard

BIG_BYTES = 200_000
SETTINGS = {
    "MODELYARD_GATES__CONFIG": "refuse",
    "MODELYARD_GATES__BIG_FILE": "refuse",
    "MODELYARD_GATES__BIG_FILE_BYTES": str(BIG_BYTES),
}
_COMMAND = re.compile("`(git lfs migrate [^`]*)`")


@pytest.fixture(scope="module")
def yard(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Yard]:
    folder = tmp_path_factory.mktemp("gates")
    with running_server(folder / "server", env=SETTINGS) as server:
        yield asyncio.run(Yard.open(server, folder / "clients"))


@pytest.fixture(params=["http", "ssh"])
def transport(request: pytest.FixtureRequest) -> str:
    return str(request.param)


class Evil:
    def __reduce__(self) -> tuple[Callable[[str], int], tuple[str]]:
        return os.system, ("echo owned",)


@dataclass(frozen=True)
class Case:
    """Files that a gate refuses, and what it says of which path; None in `good` deletes a file."""

    gate: str
    bad: dict[str, bytes]
    path: str
    says: str
    remedy: str
    good: dict[str, bytes | None] = field(default_factory=dict)


def cases(folder: Path) -> list[Case]:
    weights = write_model(folder / "model").read_bytes()
    write_sharded(folder / "sharded", llama_tensors(), 2)
    shards = {path.name: path.read_bytes() for path in (folder / "sharded").iterdir()}
    lost = "model-00002-of-00002.safetensors"
    gguf = write_gguf(folder / "m.gguf", llama_tensors()).read_bytes()
    config = json.dumps(CONFIG).encode()
    return [
        Case(
            "missing_shard",
            {name: data for name, data in shards.items() if name != lost},
            "model.safetensors.index.json",
            f"names {lost}, which is not there",
            "write the model again",
            {lost: shards[lost]},
        ),
        Case(
            "safetensors",
            {"model.safetensors": weights[:-4]},
            "model.safetensors",
            "is cut",
            "upload it again",
            {"model.safetensors": weights},
        ),
        Case("gguf", {"m.gguf": gguf[:-100]}, "m.gguf", "is cut", "upload it again", {"m.gguf": gguf}),
        Case(
            "config",
            {"model.safetensors": weights, "config.json": json.dumps({**CONFIG, "hidden_size": 8}).encode()},
            "config.json",
            "`hidden_size` is 8",
            "that was saved with these weights",
            {"config.json": config},
        ),
        Case(
            "pickle",
            {"pytorch_model.bin": pickle.dumps(Evil())},
            "pytorch_model.bin",
            "imports posix.system",
            "as safetensors",
            {"pytorch_model.bin": pickle.dumps({"a": [1.0]})},
        ),
        Case(
            "secret",
            {".env": f"A=1\nTOKEN={new_secret()}\n".encode()},
            ".env:2",
            "has a Modelyard token",
            "revoke it",
            {".env": None},
        ),
    ]


GATES = ["missing_shard", "safetensors", "gguf", "config", "pickle", "secret"]


def case_of(gate: str, tmp_path: Path) -> Case:
    return next(case for case in cases(tmp_path / "cases") if case.gate == gate)


def remote_lines(result: Result) -> list[str]:
    lines = (line.rstrip() for line in result.stderr.split("\n"))
    return [line.removeprefix("remote: ") for line in lines if line.startswith("remote: ")]


async def work_of(yard: Yard, transport: str, path: str) -> Git:
    git = yard.git(await asyncio.to_thread(yard.new_folder))
    git("init", "-q", ".")
    url = yard.server.url(f"{path}.git") if transport == "http" else yard.ssh_url(path)
    git("remote", "add", "origin", url)
    return git


async def push(git: Git, *arguments: str) -> Result:
    return await asyncio.to_thread(git.run, "push", *arguments, "origin", "main")


async def overridden(yard: Yard, path: str) -> list[dict[str, object]]:
    async with yard.server.services() as services:
        rows = await services.audit.list(SYSTEM, action=Action.PUSH_OVERRIDE, target=path)
    assert all(row.actor == USER for row in rows)
    return [dict(row.details) for row in rows]


@pytest.mark.parametrize("gate", GATES)
async def test_each_gate(yard: Yard, transport: str, tmp_path: Path, gate: str) -> None:
    case = case_of(gate, tmp_path)
    path = await yard.new_repository()
    git = await work_of(yard, transport, path)
    git.commit(case.bad)
    refused = await push(git)
    assert refused.status != 0
    lines = remote_lines(refused)
    assert any(line.startswith(f"{case.path}: ") and case.says in line for line in lines), lines
    assert any(case.remedy in line for line in lines), lines
    assert "! [remote rejected] main -> main" in refused.stderr
    assert "refs/heads/main" not in await asyncio.to_thread(git.refs, "origin")
    allowed = await push(git, "-o", f"gate.allow={gate}")
    assert allowed.status == 0, allowed.output
    [details] = await overridden(yard, path)
    assert (details["rule"], details["paths"]) == (f"gate.{gate}", [case.path])


@pytest.mark.parametrize("gate", GATES)
async def test_the_good_push_lands(yard: Yard, transport: str, tmp_path: Path, gate: str) -> None:
    """Doing what the gate says is all that it takes."""
    case = case_of(gate, tmp_path)
    path = await yard.new_repository()
    git = await work_of(yard, transport, path)
    git.commit(case.bad)
    assert (await push(git)).status != 0
    for name, content in case.good.items():
        (git.cwd / name).write_bytes(content) if content is not None else (git.cwd / name).unlink()
    git("add", "-A", "-f", ".")
    git("commit", "-q", "--amend", "--allow-empty", "-m", "mended")
    landed = await push(git)
    assert landed.status == 0, landed.output
    assert not [line for line in remote_lines(landed) if "gate." in line]
    assert await overridden(yard, path) == []


@pytest.mark.parametrize("names", [["it's big, [1] ö.dat"], [f"d/{number}.weights" for number in range(4)]])
async def test_the_command_for_a_big_file(
    yard: Yard, transport: str, tmp_path: Path, names: list[str]
) -> None:
    """What the gate prints is typed into a shell; then the plain push lands, and published commits stay."""
    path = await yard.new_repository()
    plain = await work_of(yard, transport, path)
    url = plain("remote", "get-url", "origin").strip()
    client = lfs_client(NEWEST, tmp_path)
    git = client.over(plain) if transport == "http" else client.over_ssh(plain, url, pure=False)
    git.commit({"README.md": "hello"})
    assert (await push(git)).status == 0
    await asyncio.to_thread(git, "fetch", "-q", "origin")
    published = git("rev-parse", "HEAD").strip()
    contents = {name: os.urandom(BIG_BYTES + number) for number, name in enumerate(names)}
    git.commit(contents)
    git.commit({"more.txt": "1"})
    refused = await push(git)
    assert refused.status != 0
    for name in names:
        assert f"{name}: 200.0 kB in Git and not in LFS" in remote_lines(refused)
    [command] = _COMMAND.findall(refused.stderr)
    assert shlex.split(command)[:4] == ["git", "lfs", "migrate", "import"]
    await asyncio.to_thread(git, *shlex.split(command)[1:])
    landed = await push(git)
    assert landed.status == 0, landed.output
    assert git("rev-parse", "HEAD~2").strip() == published
    git("clone", "-q", url, "clone")
    for name, content in contents.items():
        assert (git.cwd / "clone" / name).read_bytes() == content
        assert git("cat-file", "-p", f"HEAD:{name}").startswith("version https://git-lfs")
    assert await overridden(yard, path) == []


async def test_the_command_after_a_warning(transport: str, tmp_path: Path) -> None:
    """The big file is published, so the branch is rewritten and the push is forced."""
    settings = {**SETTINGS, "MODELYARD_GATES__BIG_FILE": "warn"}
    async with running_server(tmp_path / "server", env=settings) as server:
        yard = await Yard.open(server, tmp_path / "clients")
        path = await yard.new_repository()
        plain = await work_of(yard, transport, path)
        url = plain("remote", "get-url", "origin").strip()
        client = lfs_client(NEWEST, tmp_path)
        git = client.over(plain) if transport == "http" else client.over_ssh(plain, url, pure=False)
        git.commit({"README.md": "hello", "big.dat": os.urandom(BIG_BYTES)})
        warned = await push(git)
        assert warned.status == 0, warned.output
        assert "warning: big.dat: 200.0 kB in Git and not in LFS" in remote_lines(warned)
        [command] = _COMMAND.findall(warned.stderr)
        await asyncio.to_thread(git, *shlex.split(command)[1:])
        assert "git push --force-with-lease" in warned.stderr
        landed = await push(git, "--force-with-lease")
        assert landed.status == 0, landed.output
        assert not [line for line in remote_lines(landed) if "not in LFS" in line]
