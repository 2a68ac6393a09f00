"""What is cleared while a pack comes in."""

import asyncio
import hashlib
import random
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from core.access import Actor
from core.database import Database
from core.models import ObjectFormat
from core.repositories import RepositoryInfo
from gitserver.glance import Clearing, Glance
from gitserver.policy import ProposedPush
from gitserver.updates import RefUpdate
from tests.support.git_pushes import push
from tests.support.git_world import git, open_world

SHA1 = ObjectFormat.SHA1
MAIN = "refs/heads/main"
BAD = b"BAD"


def text(seed: int, size: int) -> bytes:
    """Does not compress to less than half."""
    return random.Random(seed).randbytes(size // 2).hex().encode()


def name_of(data: bytes) -> bytes:
    return hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).digest()


class Noting:
    """A policy that notes what was cleared."""

    def __init__(self) -> None:
        self.cleared: list[set[bytes]] = []

    async def before_pack(
        self, repository: RepositoryInfo, actor: Actor, updates: Sequence[RefUpdate]
    ) -> Mapping[str, str]:
        return {}

    async def check(self, push: ProposedPush) -> Mapping[str, str]:
        self.cleared.append(set(push.cleared))
        return {}


def commit(work: Path, files: Mapping[str, bytes]) -> None:
    for name, content in files.items():
        (work / name).write_bytes(content)
    git(work, "add", ".")
    git(work, "commit", "-q", "-m", "m")


async def test_what_policies_are_told(sqlite: Database, tmp_path: Path) -> None:
    work = tmp_path / "work"
    work.mkdir()
    git(work, "init", "-q", "-b", "main", ".")
    noting = Noting()
    async with open_world(sqlite, tmp_path / "world") as world:
        repository = await world.repository()
        world.policies.append(noting)
        world.clearing = Clearing(300_000, lambda data: BAD not in data)
        good = [text(number, 200_000) for number in range(12)]
        files = {f"good{number}": data for number, data in enumerate(good)}
        commit(work, {**files, "bad": text(20, 100_000) + BAD, "large": text(21, 300_002)})
        assert (await push(world, repository, work, [MAIN])).ok
        assert noting.cleared.pop() == set(map(name_of, good))
        # What is made of what the server has is a delta, and a small push is not worth a thread.
        commit(work, {"good0": good[0] + BAD, "small": b"1"})
        assert (await push(world, repository, work, [MAIN])).ok
        assert noting.cleared.pop() == set()
        world.clearing = None
        commit(work, {"other": text(30, 2_000_000)})
        assert (await push(world, repository, work, [MAIN])).ok
        assert noting.cleared.pop() == set()


async def test_git_may_be_done_first(tmp_path: Path) -> None:
    """Whoever feeds git is then cancelled in the middle of a wait; what came in counts all the same."""
    git(tmp_path, "init", "-q", "-b", "main", ".")
    contents = [text(number, 500_000) for number in range(8)]
    commit(tmp_path, {f"f{number}": content for number, content in enumerate(contents)})
    pack = git(tmp_path, "pack-objects", "--revs", "--stdout", "-q", data=b"HEAD\n")
    go_on = threading.Event()

    def slowly(data: bytes) -> bool:
        return go_on.wait(60)

    with ThreadPoolExecutor(1) as threads, Glance(Clearing(1 << 20, slowly), SHA1, threads) as glance:
        half = len(pack) // 2
        await glance.add(pack[:half])
        feeding = asyncio.create_task(glance.add(pack[half:]))
        await asyncio.sleep(0.05)
        feeding.cancel()
        with pytest.raises(asyncio.CancelledError):
            await feeding
        go_on.set()
        assert await glance.cleared() == set(map(name_of, contents))


async def test_a_push_that_is_given_up_leaves_no_work_behind(tmp_path: Path) -> None:
    go_on, looked = threading.Event(), 0

    def slowly(data: bytes) -> bool:
        nonlocal looked
        looked += 1
        return go_on.wait(60)

    git(tmp_path, "init", "-q", "-b", "main", ".")
    commit(tmp_path, {"f": text(1, 1_000_000)})
    pack = git(tmp_path, "pack-objects", "--revs", "--stdout", "-q", data=b"HEAD\n") + bytes(600_000)
    with ThreadPoolExecutor(1) as threads:
        for _ in range(3):
            with Glance(Clearing(1 << 20, slowly), SHA1, threads) as glance:
                await glance.add(pack)
        go_on.set()
    assert looked == 1


async def test_a_fault_clears_nothing_more_and_ends_no_push(tmp_path: Path) -> None:
    def fail(data: bytes) -> bool:
        raise ValueError("a bug")

    git(tmp_path, "init", "-q", "-b", "main", ".")
    commit(tmp_path, {f"f{number}": text(number, 900_000) for number in range(3)})
    pack = git(tmp_path, "pack-objects", "--revs", "--stdout", "-q", data=b"HEAD\n")
    with ThreadPoolExecutor(1) as threads, Glance(Clearing(1 << 20, fail), SHA1, threads) as glance:
        for start in range(0, len(pack), 100_000):
            await glance.add(pack[start : start + 100_000])
        assert await glance.cleared() == set()
