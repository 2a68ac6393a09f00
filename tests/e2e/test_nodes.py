"""A node's disk is a cache (invariant I4): any node serves any repository, and `rm -rf` loses nothing."""

import asyncio
import contextlib
import random
import shutil
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import msgspec
import pytest
from aiohttp import ClientSession

from core.access import SYSTEM, Permission
from core.errors import ModelyardError
from core.models import PackKind
from core.names import parse_address
from gitserver.commits import Put
from gitserver.process import GitFailed
from gitserver.snapshots import CacheUnavailable
from modelyard.services import open_services
from tests.support.api import Caller
from tests.support.database import Databases
from tests.support.git import Git
from tests.support.minio_server import MinioServer
from tests.support.program import start_forkserver
from tests.support.server import RunningServer, running_server
from tests.support.soundness import assert_sound, refs_of, state_of
from tests.support.yard import Yard


@pytest.fixture(scope="module", autouse=True)
def forkserver() -> None:
    start_forkserver()


@dataclass
class Cluster:
    """Two nodes on one database and one bucket."""

    minio: MinioServer
    a: Yard
    b: Yard

    def client(self) -> Git:
        """A client that ann uses with both nodes over HTTP."""
        return self.a.git(self.a.new_folder())


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory, databases: Databases) -> Iterator[Cluster]:
    folder = tmp_path_factory.mktemp("cluster")
    with MinioServer(folder / "minio") as minio, asyncio.Runner() as runner:
        database = databases.fresh("postgresql")
        url = runner.run(database.__aenter__())
        # Maintenance is busy all the while, so that it meets whatever the tests do to the caches.
        busy = {"MODELYARD_MAINTENANCE__PACKS_THRESHOLD": "3", "MODELYARD_MAINTENANCE__POLL_SECONDS": "0.3"}
        env = {**minio.environment(), **busy}
        with (
            running_server(folder / "a", database_url=url, env=env) as one,
            running_server(folder / "b", database_url=url, env=env) as other,
        ):
            a = runner.run(Yard.open(one, folder / "clients-a"))
            yield Cluster(minio, a, Yard(other, folder / "clients-b", a.key, a.secret))
        runner.run(database.__aexit__(None, None, None))


async def start_history(yard: Yard, git: Git) -> tuple[str, str]:
    """A new repository with one commit; its path and the commit."""
    path = await yard.new_repository()
    git("init", "-q", ".")
    head = git.commit({"a": "1\n"})
    git("push", "-q", yard.url(path), "main")
    return path, head


def empty_cache(server: RunningServer) -> None:
    """`rm -rf` of the cache; a server that makes new files meanwhile is welcome."""
    shutil.rmtree(server.data / "cache", ignore_errors=True)


async def test_a_push_to_one_node_is_there_on_the_other(cluster: Cluster) -> None:
    git = cluster.client()
    path, first = await start_history(cluster.a, git)
    assert (cluster.a.data / "objects").exists() is False, "the bucket is the store, not the disk"
    copy = cluster.client()
    copy("clone", "-q", cluster.b.ssh_url(path), ".")
    assert copy("rev-parse", "HEAD") == first
    second = copy.commit({"b": "2\n"})
    copy("push", "-q", cluster.b.url(path), "main")
    git("fetch", "-q", cluster.a.ssh_url(path), "main")
    assert git("rev-parse", "FETCH_HEAD") == second
    git("fsck", "--strict", "--no-dangling")


async def test_ten_pushes_in_turn_to_both_nodes(cluster: Cluster) -> None:
    git = cluster.client()
    path, tip = await start_history(cluster.a, git)
    for turn in range(10):
        to, other = (cluster.a, cluster.b) if turn % 2 else (cluster.b, cluster.a)
        tip = git.commit({"a": f"{turn}\n"})
        git("push", "-q", to.url(path), "main")
        assert git.refs(other.url(path))["refs/heads/main"] == tip
        git("fetch", "-q", other.url(path), "main")


async def test_nodes_share_one_branch_and_one_winner(cluster: Cluster) -> None:
    git = cluster.client()
    path, _ = await start_history(cluster.a, git)
    racers = []
    for number in range(6):
        racer = cluster.client()
        racer("clone", "-q", cluster.a.url(path), ".")
        racers.append((racer, racer.commit({f"f{number}": "x"})))
    outcomes = await asyncio.gather(
        *(
            asyncio.to_thread(racer.run, "push", (cluster.a if number % 2 else cluster.b).url(path), "main")
            for number, (racer, _) in enumerate(racers)
        )
    )
    won = [tip for outcome, (_, tip) in zip(outcomes, racers, strict=True) if outcome.status == 0]
    assert len(won) == 1
    assert (await refs_of(cluster.a.server, path))["refs/heads/main"] == won[0]


async def test_repack_on_one_node_reaches_the_other(cluster: Cluster) -> None:
    git = cluster.client()
    path, _ = await start_history(cluster.a, git)
    for turn in range(3):
        git.commit({"a": f"{turn}\n"})
        git("push", "-q", cluster.b.url(path), "main")
    async with cluster.a.server.services() as services:
        repository = await services.repositories.open(SYSTEM, parse_address(path), Permission.WRITE)
        await services.maintenance.run(repository.id)
        await services.sweeper.sweep(grace_seconds=0)
    packs = (await state_of(cluster.a.server, path)).packs
    assert PackKind.REPACK in {pack.kind for pack in packs}, "by this run, or by a node that was faster"
    copy = cluster.client()
    copy("clone", "-q", "--mirror", cluster.b.url(path), ".")
    copy("fsck", "--strict")
    empty_cache(cluster.b.server)
    git("fetch", "-q", cluster.b.url(path), "main")
    await assert_sound(cluster.a.server)


async def test_cache_deleted_between_requests(cluster: Cluster) -> None:
    git = cluster.client()
    path, tip = await start_history(cluster.a, git)
    for _ in range(2):
        empty_cache(cluster.a.server)
        copy = cluster.client()
        copy("clone", "-q", cluster.a.url(path), ".")
        assert copy("rev-parse", "HEAD") == tip
        empty_cache(cluster.a.server)
        tip = copy.commit({"b": f"{tip}\n"})
        copy("push", "-q", cluster.a.ssh_url(path), "main")
    await assert_sound(cluster.a.server)


@pytest.mark.parametrize("where", ["cluster", "single"])
async def test_cache_deleted_under_the_servers_feet(where: str, cluster: Cluster, yard: Yard) -> None:
    """Over and over, while clients work: one may be told to try again, but what was acknowledged stays."""
    yard = cluster.a if where == "cluster" else yard
    git = yard.git(yard.new_folder())
    path, tip = await start_history(yard, git)
    stop = threading.Event()

    def demolish() -> None:
        pauses = random.Random(1)
        while not stop.wait(pauses.uniform(0, 1.5)):
            empty_cache(yard.server)

    demolition = asyncio.create_task(asyncio.to_thread(demolish))
    try:
        landed, refused = await asyncio.to_thread(_push_on, git, yard, path)
    finally:
        stop.set()
        await demolition
    tip = landed[-1] if landed else tip
    assert landed, refused
    assert all("internal error" not in output for output in refused), refused
    # As soon as the vandal is gone, everything works: nothing half-deleted is in the way.
    copy = yard.git(yard.new_folder())
    copy("clone", "-q", yard.url(path), ".")
    assert copy("rev-parse", "HEAD") in {tip, *landed}
    assert (await refs_of(yard.server, path))["refs/heads/main"] == copy("rev-parse", "HEAD")
    copy("fsck", "--strict")
    copy.commit({"c": "3\n"})
    copy("push", "-q", yard.ssh_url(path), "main")
    await yard.quiet()
    assert yard.server.running
    assert not [line for line in yard.server.log() if line.get("level") in ("error", "critical")]
    await assert_sound(yard.server)


def _push_on(git: Git, yard: Yard, path: str) -> tuple[list[str], list[str]]:
    """Pushes and fetches 25 times; returns the commits that landed, and what was said otherwise."""
    landed, refused = [], []
    for turn in range(25):
        tip = git.commit({"a": f"{turn}\n"})
        outcome = git.run("push", "-q", "--force", yard.ssh_url(path) if turn % 2 else yard.url(path), "main")
        if outcome.status == 0:
            landed.append(tip)
        else:
            refused.append(outcome.output)
        outcome = git.run("fetch", "-q", yard.url(path), "+refs/heads/*:refs/remotes/o/*")
        if outcome.status != 0:
            refused.append(outcome.output)
    return landed, refused


@pytest.mark.parametrize(
    ("after", "victims"),
    [
        ("cat-file", "$GIT_OBJECT_DIRECTORY/pack"),  # the last look at a push before it is stored
        ("cat-file", "$GIT_OBJECT_DIRECTORY/pack/*.idx"),
        ("index-pack", "$GIT_OBJECT_DIRECTORY/pack"),
        ("index-pack", "$GIT_OBJECT_DIRECTORY/pack/*.idx"),
        ("index-pack", "$GIT_DIR"),
        ("repack", "$GIT_DIR/objects/pack/*.pack"),
        ("repack", "$GIT_DIR/objects/pack/*.idx"),
        ("commit-graph", "$GIT_DIR/objects/pack/*"),  # the last step of a repack before it is stored
        ("commit-graph", "$GIT_DIR"),
        ("rev-list", "$GIT_DIR/objects/pack/*.pack"),
    ],
)
async def test_cache_deleted_at_the_worst_moment(
    yard: Yard, tmp_path: Path, after: str, victims: str
) -> None:
    """What vanishes between a check and the commit is missed: a ref never names what is not stored."""
    program = tmp_path / "git"
    program.write_text(
        f'#!/bin/sh\ngit "$@"; status=$?\n[ "$1" = {after} ] && rm -rf {victims}\nexit $status\n'
    )
    program.chmod(0o755)
    git = yard.git(yard.new_folder())
    path, tip = await start_history(yard, git)
    git.commit({"b": "2\n"})
    git("push", "-q", yard.url(path), "main:second")
    before = await state_of(yard.server, path)
    settings = yard.server.settings
    treacherous = msgspec.structs.replace(
        settings, git=msgspec.structs.replace(settings.git, executable=str(program))
    )
    async with open_services(treacherous) as services:
        repository = await services.repositories.open(SYSTEM, parse_address(path), Permission.WRITE)
        for full in (False, True):
            with contextlib.suppress(CacheUnavailable, GitFailed):
                await services.maintenance.run(repository.id, full=full, prune=True)
        with contextlib.suppress(ModelyardError):
            await services.committer.commit(repository, SYSTEM, "main", [Put("c", b"3")], "by the server")
    assert (await state_of(yard.server, path)).refs["refs/heads/second"] == before.refs["refs/heads/second"]
    empty_cache(yard.server)
    copy = yard.git(yard.new_folder())
    copy("clone", "-q", "--mirror", yard.url(path), ".")
    copy("fsck", "--strict")
    copy("merge-base", "--is-ancestor", tip, "main")
    await assert_sound(yard.server)


@pytest.mark.parametrize(
    "damage",
    ["*/*/lease", "*/*/objects/pack/*.pack", "*/*/objects/pack/*.idx", "*/*/packed-refs", "*/*/HEAD"],
)
async def test_snapshot_deleted_by_half(yard: Yard, damage: str) -> None:
    """What an interrupted `rm -rf` leaves does not pass for a snapshot."""
    git = yard.git(yard.new_folder())
    path, tip = await start_history(yard, git)
    yard.git(yard.new_folder())("clone", "-q", yard.url(path), ".")
    damaged = list((yard.data / "cache" / "snapshots").glob(damage))
    assert damaged
    for file in damaged:
        file.unlink()
    copy = yard.git(yard.new_folder())
    copy("clone", "-q", yard.url(path), ".")
    assert copy("rev-parse", "HEAD") == tip
    copy.commit({"b": "2\n"})
    copy("push", "-q", yard.ssh_url(path), "main")
    await yard.quiet()


async def test_cache_of_a_single_node_is_a_cache_as_well(yard: Yard) -> None:
    git = yard.git(yard.new_folder())
    path, tip = await start_history(yard, git)
    yard.server.stop()
    empty_cache(yard.server)
    yard.server.start()
    copy = yard.git(yard.new_folder())
    copy("clone", "-q", yard.url(path), ".")
    assert copy("rev-parse", "HEAD") == tip
    copy("fsck", "--strict")
    await assert_sound(yard.server)


async def test_bucket_that_is_away(cluster: Cluster) -> None:
    """Pushes and commits are refused with the reason and change nothing; afterwards all works again."""
    git = cluster.client()
    path, first = await start_history(cluster.a, git)
    second = git.commit({"a": "2\n"})
    cluster.minio.stop()
    try:
        for address in (cluster.a.url(path), cluster.b.ssh_url(path)):
            outcome = await asyncio.to_thread(git.run, "push", address, "main")
            assert outcome.status != 0
            assert "object store" in outcome.output, outcome.output
        async with ClientSession() as session:
            caller = Caller(session, cluster.a.server.http, {"Authorization": f"Bearer {cluster.a.secret}"})
            change = {"action": "put", "path": "b", "content": "x"}
            wish = {"branch": "main", "message": "m", "operations": [change]}
            reply = await caller("POST", f"/repositories/models/{path}/commits", wish)
        assert (reply.status, reply.code) == (503, "store_unavailable")
        assert await refs_of(cluster.a.server, path) == {"refs/heads/main": first}
        # What the node has in its cache it still serves.
        copy = cluster.client()
        copy("clone", "-q", cluster.a.url(path), ".")
    finally:
        await asyncio.to_thread(cluster.minio.start)
    git("push", "-q", cluster.a.url(path), "main")
    assert git.refs(cluster.b.url(path))["refs/heads/main"] == second
    await cluster.a.quiet()
    await assert_sound(cluster.a.server)
