"""git-lfs over SSH alone and with its bytes over HTTP: real clients, and what they do when it goes wrong."""

import asyncio
import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Literal

import pytest
from aiohttp import ClientSession

from core.access import SYSTEM
from gitserver.protocol import DELIM, FLUSH, pkt_line
from tests.support.gauge import MIB, watched
from tests.support.git import Git
from tests.support.git_lfs import (
    NEWEST,
    VERSIONS,
    LfsClient,
    Trace,
    Version,
    done,
    lfs_client,
    same_files,
    start,
    traced,
)
from tests.support.lfs_talk import Talk, head, request, talk
from tests.support.server import RunningServer, running_server
from tests.support.ssh import ssh_command
from tests.support.ssh_client import SshClient, ssh_client
from tests.support.streams import noise
from tests.support.yard import USER, Yard

Mode = Literal["pure", "authenticate"]
MODES: tuple[Mode, ...] = ("pure", "authenticate")
BIG = 20 * 1000**2
FILES = 30


@pytest.fixture(params=VERSIONS)
def client(request: pytest.FixtureRequest, tmp_path: Path) -> LfsClient:
    version: Version = request.param
    return lfs_client(version, tmp_path)


@pytest.fixture
def newest(tmp_path: Path) -> LfsClient:
    return lfs_client(NEWEST, tmp_path)


def files_of(seed: str) -> dict[str, bytes]:
    files = {f"data/{n:02}.bin": noise(1 + n**3 * 7, f"{seed} {n}") for n in range(FILES - 1)}
    return {**files, "big.bin": noise(BIG, f"{seed} big")}


def over(client: LfsClient, yard: Yard, path: str, mode: Mode) -> Git:
    """A client in a new folder that speaks SSH to the repository."""
    return client.over_ssh(yard.git(yard.new_folder()), yard.ssh_url(path), pure=mode == "pure")


def went(trace: Trace, mode: Mode) -> None:
    """It succeeded, and in this way."""
    done(trace)
    assert (trace.pure_ssh, trace.authenticated_by_ssh) == (mode == "pure", mode == "authenticate")
    assert bool(trace.requests) == (mode == "authenticate")


@pytest.mark.parametrize("mode", MODES)
async def test_push_clone_pull(yard: Yard, client: LfsClient, mode: Mode) -> None:
    path = await yard.new_repository()
    files = files_of(f"{path} {mode}")
    source = start(over(client, yard, path, mode), files)
    source("remote", "add", "origin", yard.ssh_url(path))
    went(traced(source, "push", "-u", "origin", "main"), mode)
    copy = over(client, yard, path, mode)
    went(traced(copy, "clone", yard.ssh_url(path), "."), mode)
    same_files(copy.cwd, files)
    assert "OK" in copy("lfs", "fsck")
    changed = {"data/03.bin": noise(123_456, f"{path} changed")}
    source.commit(changed)
    source("push", "origin", "main")
    went(traced(copy, "pull"), mode)
    same_files(copy.cwd, {**files, **changed})


async def test_left_to_itself_a_client_stays_on_ssh(yard: Yard, newest: LfsClient) -> None:
    """Today's git-lfs negotiates, and takes the pure protocol where there is one."""
    path = await yard.new_repository()
    source = start(newest.over(yard.git(yard.new_folder())), {"a.bin": noise(1000, path)})
    trace = done(traced(source, "push", yard.ssh_url(path), "main"))
    assert (trace.pure_ssh, trace.authenticated_by_ssh, trace.requests) == (True, False, [])


async def test_a_push_creates_its_repository_first(yard: Yard, newest: LfsClient) -> None:
    path = f"{USER}/made-by-ssh"
    files = {"a.bin": noise(100_000, path)}
    source = start(over(newest, yard, path, "pure"), files)
    went(traced(source, "push", yard.ssh_url(path), "main"), "pure")
    copy = over(newest, yard, path, "pure")
    copy("clone", "-q", yard.ssh_url(path), ".")
    same_files(copy.cwd, files)


@pytest.mark.parametrize("mode", MODES)
async def test_an_interrupted_push_succeeds_the_second_time(
    tmp_path: Path, newest: LfsClient, mode: Mode
) -> None:
    async with running_server(tmp_path / "server") as server:
        yard = await Yard.open(server, tmp_path / "clients")
        path = await yard.new_repository()
        files = files_of(f"{path} {mode}")
        source = start(over(newest, yard, path, mode), files)
        pushing = await asyncio.create_subprocess_exec(
            "git",
            "push",
            yard.ssh_url(path),
            "main",
            cwd=source.cwd,
            env=source.env(),
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
        )
        drafts = server.data / "objects" / "tmp"
        while not (drafts.is_dir() and any(map(_has_bytes, drafts.iterdir()))):
            assert pushing.returncode is None, "the push was over before it could be interrupted"
            await asyncio.sleep(0.002)
        await asyncio.to_thread(server.kill)
        assert await pushing.wait() != 0
        await asyncio.to_thread(server.start)
        went(traced(source, "push", yard.ssh_url(path), "main"), mode)
        copy = over(newest, yard, path, mode)
        copy("clone", "-q", yard.ssh_url(path), ".")
        same_files(copy.cwd, files)


async def test_wrong_bytes_are_told_and_not_stored(yard: Yard) -> None:
    path = await yard.new_repository()
    data = noise(500_000, path)
    oid = hashlib.sha256(data).hexdigest()
    async with ssh_client(yard.server.ssh_port, yard.key) as client:
        async with talk(client.connection, path, "upload") as conversation:
            refused = await conversation.put(data[:-1] + b"x", oid=oid)
            assert (refused.status, "sha256" in refused.message) == (422, True)
            assert (await conversation.ask(f"verify-object {oid}", f"size={len(data)}")).status == 404
            assert (await conversation.put(data)).status == 200
        async with talk(client.connection, path, "download") as conversation:
            assert (await conversation.ask(f"get-object {oid}")).data == data


async def test_memory_stays_flat_whatever_the_client_sends_at_once(yard: Yard, tmp_path: Path) -> None:
    """A client that waits for nothing, over OpenSSH, which fills every window that it is granted."""
    path = await yard.new_repository()
    piece = noise(32768, path)
    count = 400 * MIB // len(piece)
    digest = hashlib.sha256()
    for _ in range(count):
        digest.update(piece)
    upload, oid = tmp_path / "upload", digest.hexdigest()
    with upload.open("wb") as file:
        file.write(request("version 1"))
        file.write(head(f"put-object {oid}", f"size={count * len(piece)}") + DELIM)
        for _ in range(count):
            file.write(pkt_line(piece))
        file.write(FLUSH + request("quit"))
    download, out = tmp_path / "download", tmp_path / "out"
    download.write_bytes(request("version 1") + request(f"get-object {oid}") + request("quit"))
    for operation, source, least in (("upload", upload, 0), ("download", download, 400 * MIB)):
        command = [*ssh_command(yard.server.ssh_port, yard.key), f"git-lfs-transfer {path} {operation}"]
        with watched(yard.server) as gauge, source.open("rb") as stdin, out.open("wb") as stdout:
            process = await asyncio.create_subprocess_exec(*command, stdin=stdin, stdout=stdout)
            assert await process.wait() == 0
        assert gauge.above_idle("Rss") < 40 * MIB
        assert out.stat().st_size > least
        assert b"status 4" not in out.read_bytes()[:1000]


async def test_what_a_session_token_is_good_for(yard: Yard) -> None:
    """It is for one repository and one operation, and dies with the key that it came from."""
    mine, other = await yard.new_repository(), await yard.new_repository()
    key = await yard.server.add_key(USER)
    async with ssh_client(yard.server.ssh_port, key) as client:
        reading = await session(client, mine, "download")
        writing = await session(client, mine, "upload")
    batch = {"operation": "upload", "objects": [{"oid": "ab" * 32, "size": 1}]}
    assert await post(yard.server, mine, "objects/batch", writing, batch) == 200
    assert await post(yard.server, mine, "objects/batch", reading, batch) == 403
    assert await post(yard.server, mine, "objects/batch", reading, {**batch, "operation": "download"}) == 200
    assert await post(yard.server, mine, "locks", reading, {"path": "a"}) == 403
    assert await post(yard.server, other, "objects/batch", writing, batch) in {401, 403, 404}
    assert await post(yard.server, mine, "objects/batch", writing[:-2] + "xx", batch) == 401
    async with yard.server.services() as services:
        keys = await services.keyring.keys(SYSTEM, USER)
        await services.keyring.remove_key(SYSTEM, USER, max(one.id for one in keys))
    assert await post(yard.server, mine, "objects/batch", writing, batch) == 401


@pytest.mark.parametrize(
    ("environment", "href"),
    [
        ({"MODELYARD_HTTP__PUBLIC_URL": "https://hub.example.org/git/"}, "https://hub.example.org/git"),
        ({"MODELYARD_SSH__PUBLIC_HOST": "hub.example.org"}, "http://hub.example.org:{port}"),
        ({}, "http://127.0.0.1:{port}"),
    ],
)
async def test_clients_are_sent_to_an_address_that_they_can_reach(
    tmp_path: Path, environment: dict[str, str], href: str
) -> None:
    async with running_server(tmp_path / "server", env=environment) as server:
        yard = await Yard.open(server, tmp_path / "clients")
        path = await yard.new_repository()
        async with ssh_client(server.ssh_port, yard.key) as client:
            said = await client.run(f"git-lfs-authenticate {path} download")
        port = server.http.rpartition(":")[2]
        assert json.loads(said.out)["href"] == f"{href.format(port=port)}/{path}.git/info/lfs"


async def test_a_push_waits_for_its_large_files_longer_than_silence_is_allowed(
    tmp_path: Path, newest: LfsClient
) -> None:
    """git connects, then runs the hook that uploads, and says nothing to the server in the meantime."""
    async with running_server(tmp_path / "server", env={"MODELYARD_SSH__IDLE_SECONDS": "2"}) as server:
        yard = await Yard.open(server, tmp_path / "clients")
        path = await yard.new_repository()
        files = {"a.bin": noise(1000, path)}
        source = start(over(newest, yard, path, "authenticate"), files)
        hooks = source.cwd / "hooks"
        hooks.mkdir()
        (hooks / "pre-push").write_text('#!/bin/sh\nsleep 5\nexec git lfs pre-push "$@"\n')
        (hooks / "pre-push").chmod(0o755)
        source = Git(source.cwd, {**source.config, "core.hooksPath": str(hooks)}, source.environment)
        source("push", yard.ssh_url(path), "main")
        async with ssh_client(server.ssh_port, yard.key) as client:
            async with talk(client.connection, path, "download") as conversation:
                await asyncio.sleep(4)
                assert (await conversation.ask("batch")).status == 200
            async with talk(client.connection, path, "upload") as conversation:
                await stall(conversation)


async def stall(conversation: Talk) -> None:
    """In the middle of an object silence is not allowed."""
    conversation.send(b"0009put-o")  # a packet and nothing behind it
    status, _, error = await conversation.ended()
    assert (status, error) == (1, "modelyard: no data was exchanged for too long\n")


@pytest.fixture(scope="module", autouse=True)
def quiet_end(yard: Yard) -> Iterator[None]:
    """No conversation fails for a reason of ours."""
    yield
    assert yard.server.log("ssh command failed") == []


async def session(client: SshClient, path: str, operation: str) -> str:
    said = await client.run(f"git-lfs-authenticate '{path}.git' {operation}")
    assert (said.status, said.err) == (0, "")
    authorization: str = json.loads(said.out)["header"]["Authorization"]
    return authorization


async def post(
    server: RunningServer, path: str, where: str, authorization: str, body: Mapping[str, object]
) -> int:
    """The status of an LFS request."""
    kind = "application/vnd.git-lfs+json"
    headers = {"Authorization": authorization, "Accept": kind, "Content-Type": kind}
    async with (
        ClientSession() as http,
        http.post(server.url(f"{path}.git/info/lfs/{where}"), json=body, headers=headers) as answer,
    ):
        return answer.status


def _has_bytes(draft: Path) -> bool:
    try:
        return draft.stat().st_size > 0
    except FileNotFoundError:  # became an object since it was listed
        return False
