"""Answers to clones are made once, replayed to everybody who asks the same, and to nobody else."""

import asyncio
import os
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path

import pytest

from core.errors import ProtocolError
from core.repositories import RepositoryInfo
from core.settings import GitSettings, MaintenanceSettings
from gitserver.clones import Clones, digest_of, sweep_clones, this_boot
from gitserver.process import GitRunner, running_children
from gitserver.protocol import FLUSH
from gitserver.sweeper import Sweeper
from gitserver.upload import Uploader
from tests.support.clones import Client, until
from tests.support.git_world import ACTOR, GitWorld, git
from tests.support.wire import pkt

CAPABILITIES = ("agent=git/2.39", "object-format=sha1")


class CountingRunner(GitRunner):
    """Remembers what it started: every child is given its environment first."""

    def __init__(self) -> None:
        super().__init__()
        self.children = 0

    def environment(
        self, config: Mapping[str, str] | None = None, extra: Mapping[str, str] | None = None
    ) -> dict[str, str]:
        self.children += 1
        return super().environment(config, extra)


class Bytes:
    """A client's request."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    async def read(self, n: int) -> bytes:
        chunk, self._data = self._data[:n], self._data[n:]
        return chunk


class Stand:
    """An uploader with a cache over one world."""

    def __init__(self, world: GitWorld, max_bytes: int = 10**9) -> None:
        self.world = world
        self.runner = CountingRunner()
        self.clones = Clones(world.cache, max_bytes)
        self.uploader = Uploader(world.snapshots, self.clones, self.runner, GitSettings())

    async def fetch(
        self,
        repository: RepositoryInfo,
        *arguments: str,
        capabilities: Sequence[str] = CAPABILITIES,
        client: Client | None = None,
    ) -> Client:
        lines = [*(pkt(f"{line}\n") for line in ("command=fetch", *capabilities)), b"0001"]
        body = b"".join([*lines, *(pkt(f"{line}\n") for line in arguments), FLUSH])
        client = client or Client()
        await self.uploader.serve_stateless(repository, 2, Bytes(body), client, "ann")
        return client

    def kept(self, repository: RepositoryInfo) -> list[str]:
        folder = self.world.cache / "clones" / repository.id
        return sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []


@pytest.fixture
async def stand(world: GitWorld) -> AsyncIterator[Stand]:
    stand = Stand(world)
    yield stand
    await stand.clones.close()


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A bare repository with one pack of some 400 KiB."""
    work = tmp_path / "work"
    git(tmp_path, "init", "-q", "-b", "main", work)
    for number in range(3):
        (work / f"weights{number}").write_bytes(os.urandom(130_000))
        git(work, "add", "-A")
        git(work, "commit", "-q", "-m", f"c{number}")
    git(work, "tag", "-a", "v1", "-m", "one")
    git(tmp_path, "clone", "-q", "--bare", work, tmp_path / "source.git")
    git(tmp_path / "source.git", "repack", "-adq")
    return tmp_path / "source.git"


def tip(source: Path, name: str = "main") -> str:
    return git(source, "rev-parse", name).decode().strip()


def objects_in(pack: bytes, folder: Path) -> int:
    """How many objects a pack has, once git found it sound."""
    folder.mkdir()
    git(folder, "init", "-q", "--bare", ".")
    git(folder, "index-pack", "--stdin", "--fix-thin", data=pack)
    return len(git(folder, "cat-file", "--batch-all-objects", "--batch-check").splitlines())


async def test_the_second_clone_needs_no_git_and_gets_the_same(
    stand: Stand, source: Path, tmp_path: Path
) -> None:
    repository = await stand.world.adopt(source)
    want = f"want {tip(source)}"
    first = await stand.fetch(repository, "ofs-delta", want, "done")
    second = await stand.fetch(
        repository, want, "ofs-delta", "done", capabilities=("object-format=sha1", "agent=another")
    )
    assert stand.runner.children == 1
    assert first.received == second.received
    assert objects_in(first.pack(), tmp_path / "copy") == 9


async def test_many_at_once_share_one_child(stand: Stand, source: Path, tmp_path: Path) -> None:
    repository = await stand.world.adopt(source)
    clients = await asyncio.gather(
        *(stand.fetch(repository, f"want {tip(source)}", "done") for _ in range(12))
    )
    assert stand.runner.children == 1
    assert len({bytes(client.received) for client in clients}) == 1
    assert objects_in(clients[0].pack(), tmp_path / "copy") == 9


async def test_what_changes_the_answer_makes_another(stand: Stand, source: Path, tmp_path: Path) -> None:
    repository = await stand.world.adopt(source)
    want, tag = f"want {tip(source)}", f"want {tip(source, 'v1')}"
    asked = [(want,), (want, "deepen 1"), (want, "filter blob:none"), (want, tag), (want, "include-tag")]
    counts = []
    for number, arguments in enumerate(asked):
        await stand.fetch(repository, *arguments, "done")
        client = await stand.fetch(repository, *arguments, "done")
        counts.append(objects_in(client.pack(), tmp_path / str(number)))
    assert counts == [9, 5, 6, 10, 10]
    assert stand.runner.children == len(asked) == len(stand.kept(repository))


async def test_only_clones_are_kept(stand: Stand, source: Path) -> None:
    repository = await stand.world.adopt(source)
    blob = tip(source, "main:weights0")
    await stand.fetch(repository, f"want {blob}", "done")
    await stand.fetch(repository, f"want {tip(source)}", f"have {tip(source, 'main~1')}", "done")
    await stand.fetch(repository, "want-ref refs/heads/main", "done")
    with pytest.raises(ProtocolError):
        await stand.fetch(repository, "want-ref refs/heads/none", "done")
    await stand.fetch(repository, f"want {'1' * 40}", "done")
    assert stand.kept(repository) == []


async def test_a_refusal_is_not_kept(stand: Stand, source: Path) -> None:
    repository = await stand.world.adopt(source)
    for _ in range(2):
        with pytest.raises(ProtocolError, match="filter"):
            await stand.fetch(repository, f"want {tip(source)}", "filter nonsense", "done")
    assert stand.kept(repository) == []


async def test_a_new_state_makes_a_new_answer(stand: Stand, source: Path) -> None:
    repository = await stand.world.adopt(source)
    want = f"want {tip(source)}"
    await stand.fetch(repository, want, "done")
    before = stand.kept(repository)
    await stand.world.branches.create(repository, ACTOR, "side", tip(source))
    await stand.fetch(repository, want, "done")
    after = stand.kept(repository)
    assert stand.runner.children == 2
    assert len(after) == 1
    assert after != before


async def test_repositories_share_nothing(stand: Stand, source: Path) -> None:
    one = await stand.world.adopt(source, name="one")
    two = await stand.world.adopt(source, name="two")
    for repository in (one, two):
        await stand.fetch(repository, f"want {tip(source)}", "done")
    assert stand.runner.children == 2


async def test_a_slow_reader_holds_no_child(stand: Stand, source: Path) -> None:
    repository = await stand.world.adopt(source)
    gate = asyncio.Event()
    slow = asyncio.create_task(stand.fetch(repository, f"want {tip(source)}", "done", client=Client(gate)))
    await until(lambda: any(not name.startswith(".") for name in stand.kept(repository)))
    assert running_children() == 0
    quick = await stand.fetch(repository, f"want {tip(source)}", "done")
    gate.set()
    assert (await slow).received == quick.received


async def test_whoever_leaves_takes_nothing_from_the_others(stand: Stand, source: Path) -> None:
    repository = await stand.world.adopt(source)
    asked = (f"want {tip(source)}", "done")
    leaving = asyncio.create_task(stand.fetch(repository, *asked))
    staying = asyncio.create_task(stand.fetch(repository, *asked))
    await until(lambda: stand.runner.children)
    leaving.cancel()
    client = await staying
    with pytest.raises(asyncio.CancelledError):
        await leaving
    assert stand.runner.children == 1
    assert client.pack()[:4] == b"PACK"


async def test_when_all_leave_nothing_is_left(stand: Stand, source: Path) -> None:
    repository = await stand.world.adopt(source)
    only = asyncio.create_task(stand.fetch(repository, f"want {tip(source)}", "done"))
    await until(running_children)
    only.cancel()
    with pytest.raises(asyncio.CancelledError):
        await only
    await until(lambda: not (running_children() or stand.kept(repository)))
    again = await stand.fetch(repository, f"want {tip(source)}", "done")
    assert again.pack()[:4] == b"PACK"


async def test_the_least_recently_used_go_first(world: GitWorld, source: Path) -> None:
    stand = Stand(world, max_bytes=1_700_000)  # four answers of 400 KB
    repository = await world.adopt(source)
    want = f"want {tip(source)}"
    asked = [(want, f"deepen {depth}") for depth in range(101, 105)]
    for arguments in asked:
        await stand.fetch(repository, *arguments, "done")
    folder = world.cache / "clones" / repository.id
    for age, path in enumerate(sorted(folder.iterdir(), key=lambda path: path.stat().st_mtime)):
        os.utime(path, (1_700_000_000 + age, 1_700_000_000 + age))
    await stand.fetch(repository, *asked[0], "done")  # used again: now the youngest
    await stand.fetch(repository, want, "deepen 105", "done")
    started = stand.runner.children
    await stand.fetch(repository, *asked[0], "done")
    assert stand.runner.children == started
    await stand.fetch(repository, *asked[1], "done")
    assert stand.runner.children == started + 1
    assert sum(path.stat().st_size for path in folder.iterdir()) <= 1_700_000


async def test_what_is_too_big_to_keep_is_piped(world: GitWorld, source: Path) -> None:
    stand = Stand(world, max_bytes=1_000_000)
    repository = await world.adopt(source)
    client = await stand.fetch(repository, f"want {tip(source)}", "done")
    assert client.pack()[:4] == b"PACK"
    assert stand.kept(repository) == []


async def test_an_emptied_cache_only_costs_time(stand: Stand, source: Path) -> None:
    repository = await stand.world.adopt(source)
    first = await stand.fetch(repository, f"want {tip(source)}", "done")
    gone = sweep_clones(stand.world.cache / "clones" / repository.id, None, 0)
    second = await stand.fetch(repository, f"want {tip(source)}", "done")
    assert (gone, stand.runner.children) == (1, 2)
    assert first.pack()[:4] == second.pack()[:4] == b"PACK"


async def test_the_sweeper_keeps_the_current_state_only(stand: Stand, source: Path) -> None:
    world = stand.world
    repository = await world.adopt(source)
    await stand.fetch(repository, f"want {tip(source)}", "done")
    folder = world.cache / "clones" / repository.id
    (folder / "1-former.digest").write_bytes(b"old")
    (folder / ".draft-of-now").write_bytes(b"")
    stranger = world.cache / "clones" / ("0" * 32)
    stranger.mkdir()
    (stranger / "1-gone.digest").write_bytes(b"old")
    await Sweeper(world.database, world.store, world.snapshots, MaintenanceSettings()).sweep()
    left = stand.kept(repository)
    assert len(left) == 2
    assert left[0] == ".draft-of-now"
    assert not stranger.exists()


def test_no_answer_survives_a_new_start_of_the_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = digest_of([], [b"done"])
    assert digest_of([], [b"done"]) == before
    (tmp_path / "boot_id").write_text("another")
    monkeypatch.setattr("gitserver.clones._BOOT_ID", tmp_path / "boot_id")
    this_boot.cache_clear()
    try:
        assert digest_of([], [b"done"]) != before
    finally:
        this_boot.cache_clear()
