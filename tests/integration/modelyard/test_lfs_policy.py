"""No ref reaches a pointer whose object the repository cannot serve (invariant I2)."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import delete, insert, select, update

from core.access import Actor, ActorKind
from core.database import Database
from core.errors import PushRefused
from core.models import (
    Account,
    AccountKind,
    AuditEntry,
    Collaborator,
    LfsLink,
    LfsObject,
    Role,
    Scope,
    StoreKind,
    now,
)
from core.repositories import RepositoryInfo
from core.settings import LfsSettings
from gitserver.children import Child
from gitserver.commits import Put
from gitserver.policy import ProposedPush
from gitserver.process import GitRunner
from gitserver.publish import lock_repository
from lfs.objects import Objects, new_key
from lfs.pointer import Pointer, write_pointer
from modelyard.lfs_policy import ALLOW_MISSING, MissingObjects
from tests.support.git_pushes import CAPABILITIES, push
from tests.support.git_world import ACTOR, GitWorld, git, open_world
from tests.support.statements import counted

MAIN = "refs/heads/main"
REASON = "missing on the server: run `git lfs push --all <remote>`"


class Never:
    """A policy that refuses everything once all is read."""

    async def before_pack(self, *_: object) -> Mapping[str, str]:
        return {}

    async def check(self, push: ProposedPush) -> Mapping[str, str]:
        return {one.name: "never" for one in push.updates}


class Collector(Never):
    """Trashes every object once, as a collection does, right after the others have agreed."""

    def __init__(self, world: GitWorld) -> None:
        self._world = world
        self._done = False

    async def check(self, push: ProposedPush) -> Mapping[str, str]:
        if not self._done:
            self._done = True
            async with self._world.database.transaction() as session:
                repository = await lock_repository(session, push.repository.id)
                repository.prune_epoch += 1
                await session.execute(update(LfsLink).values(trashed_at=now()))
        return {}


@pytest.fixture
async def world(database: Database, tmp_path: Path) -> AsyncIterator[GitWorld]:
    async with open_world(database, tmp_path) as opened:
        opened.policies.append(MissingObjects(database, opened.git, Objects(database), LfsSettings()))
        yield opened
        assert opened.leftovers() == []


@pytest.fixture
def work(tmp_path: Path) -> Path:
    path = tmp_path / "work"
    path.mkdir()
    git(path, "init", "-q", "-b", "main", ".")
    return path


def pointer_to(data: bytes) -> Pointer:
    return Pointer(sha256(data).hexdigest(), len(data))


def commit(work: Path, files: Mapping[str, bytes | Pointer], *, branch: str = "main") -> str:
    git(work, "checkout", "-q", "-B", branch)
    for name, content in files.items():
        path = work / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(write_pointer(content) if isinstance(content, Pointer) else content)
    git(work, "add", "-A")
    git(work, "commit", "-q", "--allow-empty", "-m", "m")
    return git(work, "rev-parse", "HEAD").decode().strip()


async def store(world: GitWorld, repository: RepositoryInfo, *pointers: Pointer) -> None:
    """Makes the rows of objects that were uploaded."""
    async with world.database.transaction() as session:
        for one in pointers:
            if await session.get(LfsObject, one.oid) is None:
                session.add(
                    LfsObject(oid=one.oid, size=one.size, store=StoreKind.LOCAL, key=new_key(one.oid))
                )
                await session.flush()
            session.add(LfsLink(repository_id=repository.id, oid=one.oid))


async def refs(world: GitWorld, repository: RepositoryInfo) -> set[str]:
    return set((await world.snapshots.state(repository.id)).refs)


async def test_refused_with_paths_and_then_lands(world: GitWorld, work: Path) -> None:
    repository = await world.repository()
    one, two = pointer_to(b"one"), pointer_to(b"two")
    commit(work, {"a.bin": one, "sub dir/größe.bin": two, "README": b"text"})
    pushed = await push(world, repository, work, [MAIN])
    assert pushed.report.refs == {MAIN: f"2 LFS objects are {REASON}"}
    assert f"  {one.oid} a.bin" in pushed.remote
    assert f"  {two.oid} sub dir/größe.bin" in pushed.remote
    assert await refs(world, repository) == set()
    await store(world, repository, one)
    pushed = await push(world, repository, work, [MAIN])
    assert pushed.report.refs == {MAIN: f"1 LFS object is {REASON}"}
    await store(world, repository, two)
    pushed = await push(world, repository, work, [MAIN])
    assert pushed.ok
    assert pushed.remote == []


async def test_another_repository_s_object_does_not_count(world: GitWorld, work: Path) -> None:
    """And nothing in the answer tells that it exists."""
    repository, other = await world.repository(), await world.repository(name="other")
    secret = pointer_to(b"secret")
    commit(work, {"a.bin": secret})
    before = await push(world, repository, work, [MAIN])
    await store(world, other, secret)
    assert await push(world, repository, work, [MAIN]) == before
    assert not before.ok


async def test_trashed_damaged_and_wrong_sizes(world: GitWorld, work: Path) -> None:
    repository = await world.repository()
    trashed, damaged, sized = pointer_to(b"trashed"), pointer_to(b"damaged"), pointer_to(b"sized")
    await store(world, repository, trashed, damaged, sized)
    async with world.database.transaction() as session:
        await session.execute(update(LfsLink).where(LfsLink.oid == trashed.oid).values(trashed_at=now()))
        await session.execute(update(LfsObject).where(LfsObject.oid == damaged.oid).values(damaged_at=now()))
    commit(work, {"t": trashed, "d": damaged, "s": Pointer(sized.oid, 99), "ok": sized})
    pushed = await push(world, repository, work, [MAIN])
    assert pushed.report.refs == {MAIN: f"3 LFS objects are {REASON}"}
    assert f"  {trashed.oid} t" in pushed.remote
    assert f"  {damaged.oid} d (damaged on the server; uploading it again mends it)" in pushed.remote
    assert f"  {sized.oid} s (has 5 bytes, the pointer says 99)" in pushed.remote
    assert not any(line.endswith(" ok") for line in pushed.remote)


@pytest.mark.parametrize(
    "content",
    [
        b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"a" * 63 + b"\nsize 1\n",
        b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"A" * 64 + b"\nsize 1\n",
        b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"a" * 64 + b"\nsize -1\n",
        b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"a" * 64 + b"\nsize " + b"9" * 4000,
        b"version https://example.org/v1\noid sha256:" + b"a" * 64 + b"\nsize 1\n",
        b"version https://git-lfs.github.com/spec/v1\n" + b"x" * 2000,
        b"\xff\xfeversion ",
        b"",
        write_pointer(Pointer(sha256(b"").hexdigest(), 0)),
    ],
)
async def test_what_is_no_pointer_lands(world: GitWorld, work: Path, content: bytes) -> None:
    repository = await world.repository()
    commit(work, {"a.bin": content})
    assert (await push(world, repository, work, [MAIN])).ok


async def test_a_nothing_that_claims_to_be_something(world: GitWorld, work: Path) -> None:
    """Clients make an empty file of any pointer of size 0, so only the true one may pass."""
    repository = await world.repository()
    commit(work, {"a.bin": Pointer("a" * 64, 0)})
    assert not (await push(world, repository, work, [MAIN])).ok


async def test_only_the_refs_that_reach_them(world: GitWorld, work: Path) -> None:
    repository = await world.repository()
    commit(work, {"README": b"1"})
    commit(work, {"clean": b"1"}, branch="clean")
    git(work, "checkout", "-q", "main")
    commit(work, {"a.bin": pointer_to(b"a")}, branch="bad")
    git(work, "tag", "-a", "-m", "x", "v1")
    # The same pointer in other bytes is another blob.
    crlf = write_pointer(pointer_to(b"a")).replace(b"\n", b"\r\n")
    git(work, "checkout", "-q", "main")
    commit(work, {"b.bin": crlf}, branch="other")
    names = [MAIN, "refs/heads/clean", "refs/heads/bad", "refs/tags/v1", "refs/heads/other"]
    pushed = await push(world, repository, work, names)
    assert await refs(world, repository) == {MAIN, "refs/heads/clean"}
    assert all("1 LFS object is" in pushed.report.refs[name] for name in names[2:])
    names, atomic = ["refs/heads/bad", ":refs/heads/clean"], CAPABILITIES + " atomic"
    pushed = await push(world, repository, work, names, capabilities=atomic)
    assert pushed.report.refs["refs/heads/clean"] == "atomic push failed"
    assert await refs(world, repository) == {MAIN, "refs/heads/clean"}


async def test_history_tags_and_forced_pushes(world: GitWorld, work: Path) -> None:
    repository = await world.repository()
    kept, lost = pointer_to(b"kept"), pointer_to(b"lost")
    await store(world, repository, kept)
    commit(work, {"a.bin": kept})
    assert (await push(world, repository, work, [MAIN])).ok
    # Missing in the middle of the history only.
    commit(work, {"a.bin": lost})
    commit(work, {"a.bin": kept})
    assert not (await push(world, repository, work, [MAIN])).ok
    git(work, "tag", "middle", "main~1")
    assert not (await push(world, repository, work, ["refs/tags/middle"])).ok
    # What refs reach already is not asked for again, even when its object is gone.
    async with world.database.transaction() as session:
        await session.execute(delete(LfsLink))
    git(work, "reset", "-q", "--hard", "main~2")
    commit(work, {"b": b"1"})
    git(work, "tag", "old", "main~1")
    assert (await push(world, repository, work, [MAIN, "refs/tags/old"])).ok
    git(work, "commit", "-q", "--amend", "-m", "forced")
    assert (await push(world, repository, work, [MAIN])).ok
    assert (await push(world, repository, work, [":refs/tags/old"])).ok
    blob = git(work, "hash-object", "-w", "--stdin", data=write_pointer(lost)).decode().strip()
    git(work, "tag", "blob", blob)
    assert not (await push(world, repository, work, ["refs/tags/blob"])).ok


async def test_a_ref_to_what_lies_about(world: GitWorld, work: Path) -> None:
    """A branch was deleted and its object went to the trash: bringing it back without the object fails."""
    repository = await world.repository()
    one = pointer_to(b"one")
    await store(world, repository, one)
    commit(work, {"README": b"1"})
    oid = commit(work, {"a.bin": one}, branch="side")
    assert (await push(world, repository, work, [MAIN, "refs/heads/side"])).ok
    assert (await push(world, repository, work, [":refs/heads/side"])).ok
    async with world.database.transaction() as session:
        await session.execute(update(LfsLink).values(trashed_at=now()))
    assert not (await push(world, repository, work, ["refs/heads/side"])).ok
    with pytest.raises(PushRefused, match="1 LFS object is missing"):
        await world.branches.create(repository, ACTOR, "again", oid)


async def test_hostile_paths_in_the_answer(world: GitWorld, work: Path) -> None:
    repository = await world.repository()
    names = [
        "a\nremote: all good",
        "\x1b[2J",
        "cr\rx",
        "\u202egpj",
        b"\xff".decode("utf-8", "surrogateescape"),
    ]
    shown = []
    for number, name in enumerate(names):
        git(work, "rm", "-q", "--ignore-unmatch", "-r", ".")
        commit(work, {name: pointer_to(b"alone %d" % number)})
        pushed = await push(world, repository, work, [MAIN])
        assert not pushed.ok
        assert all(line.isprintable() for line in pushed.remote)
        assert not any(line.startswith("remote:") for line in pushed.remote)
        shown.append(pushed.remote[1].split(maxsplit=1)[1])
    assert shown == ["a", "\\x1b[2J", "cr\\x0dx", "\\u202egpj", "\\xff"]


async def test_ten_thousand_pointers(world: GitWorld, work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither a statement nor a child of git for each of them."""
    children: list[object] = []
    start = GitRunner.start

    def noted(git: GitRunner, *arguments: Any, **options: Any) -> AbstractAsyncContextManager[Child]:
        children.append(arguments)
        return start(git, *arguments, **options)

    monkeypatch.setattr(GitRunner, "start", noted)
    repository = await world.repository()
    pointers = [pointer_to(b"%d" % number) for number in range(10_050)]
    commit(work, {f"d{number % 50}/{number}.bin": one for number, one in enumerate(pointers)})
    with counted(world.database) as statements:
        pushed = await push(world, repository, work, [MAIN])
    assert len(statements) < 100
    assert pushed.report.refs == {MAIN: f"at least 10000 LFS objects are {REASON}"}
    assert len([line for line in pushed.remote if ".bin" in line]) == 100
    assert "  and at least 9900 more" in pushed.remote
    async with world.database.transaction() as session:
        objects = [
            {"oid": one.oid, "size": one.size, "store": StoreKind.LOCAL, "key": one.oid} for one in pointers
        ]
        await session.execute(insert(LfsObject), objects)
        links = [{"repository_id": repository.id, "oid": one.oid} for one in pointers]
        await session.execute(insert(LfsLink), links)
    with counted(world.database) as statements:
        assert (await push(world, repository, work, [MAIN])).ok
    assert len(statements) < 100
    assert len(children) < 50


async def overrides(world: GitWorld) -> list[AuditEntry]:
    async with world.database.read() as session:
        return list(await session.scalars(select(AuditEntry).where(AuditEntry.action == "push:override")))


async def test_an_administrator_lets_it_through(world: GitWorld, work: Path) -> None:
    repository = await world.repository()
    async with world.database.transaction() as session:
        session.add(Account(id=2, kind=AccountKind.USER, name="bob"))
        await session.flush()
        session.add(Collaborator(repository_id=repository.id, user_id=2, role=Role.WRITE))
    one = pointer_to(b"one")
    commit(work, {"a.bin": one})
    others = [
        Actor(ActorKind.USER, "bob", user_id=2, credential="password"),
        Actor(ActorKind.USER, "ann", user_id=1, credential="password", scope=Scope.WRITE),
        Actor(ActorKind.DEPLOY_KEY, "ci", repository_id=repository.id, credential="password"),
    ]
    for actor in others:
        pushed = await push(world, repository, work, [MAIN], actor=actor, options=[ALLOW_MISSING])
        assert not pushed.ok
        assert f"{ALLOW_MISSING} is for administrators of this repository" in pushed.remote
        assert f"  {one.oid} a.bin" in pushed.remote
    assert await overrides(world) == []
    pushed = await push(world, repository, work, [MAIN], options=[ALLOW_MISSING])
    assert pushed.ok
    assert pushed.remote == [f"{ALLOW_MISSING}: 1 LFS objects are missing on the server"]
    [entry] = await overrides(world)
    assert (entry.actor, entry.target) == ("ann", "ann/model")
    assert entry.details["rule"] == "lfs.missing_objects"
    assert entry.details["refs"] == [MAIN]
    assert entry.details["oids"] == [one.oid]


async def test_an_override_that_does_not_land_is_not_in_the_log(world: GitWorld, work: Path) -> None:
    repository = await world.repository()
    commit(work, {"a.bin": pointer_to(b"one")})
    world.policies.append(Never())
    assert not (await push(world, repository, work, [MAIN], options=[ALLOW_MISSING])).ok
    assert await overrides(world) == []


async def test_the_setting_allows_all(database: Database, tmp_path: Path, work: Path) -> None:
    async with open_world(database, tmp_path) as world:
        settings = LfsSettings(missing_objects="allow")
        world.policies.append(MissingObjects(database, world.git, Objects(database), settings))
        repository = await world.repository()
        commit(work, {"a.bin": pointer_to(b"one")})
        assert (await push(world, repository, work, [MAIN])).ok


async def test_commits_over_the_api(world: GitWorld) -> None:
    repository = await world.repository()
    one = pointer_to(b"one")
    put = Put("a.bin", write_pointer(one))
    with pytest.raises(PushRefused, match="1 LFS object is missing") as caught:
        await world.committer.commit(repository, ACTOR, "main", [put], "m")
    assert caught.value.status == 422
    assert caught.value.fields["ref"] == MAIN
    messages = caught.value.fields["messages"]
    assert isinstance(messages, list)
    assert f"  {one.oid} a.bin" in messages
    options = [ALLOW_MISSING]
    made = await world.committer.commit(repository, ACTOR, "main", [put], "m", options=options)
    assert made.messages == (f"{ALLOW_MISSING}: 1 LFS objects are missing on the server",)
    two = pointer_to(b"two")
    await store(world, repository, two)
    made = await world.committer.commit(repository, ACTOR, "main", [Put("b", write_pointer(two))], "m")
    assert made.messages == ()


async def test_a_client_without_sideband_gets_the_report_alone(world: GitWorld, work: Path) -> None:
    repository = await world.repository()
    commit(work, {"a.bin": pointer_to(b"one")})
    pushed = await push(world, repository, work, [MAIN], capabilities="report-status object-format=sha1")
    assert pushed.remote == []
    assert pushed.report.raw.startswith(b"000eunpack ok\n")
    assert b"ng refs/heads/main 1 LFS object is missing" in pushed.report.raw


async def test_a_prune_in_between_is_judged_again(world: GitWorld, work: Path) -> None:
    """A collection moves the object to the trash after the check: the push does not slip through."""
    repository = await world.repository()
    one = pointer_to(b"one")
    await store(world, repository, one)
    world.policies.append(Collector(world))
    commit(work, {"a.bin": one})
    async with asyncio.timeout(30):
        pushed = await push(world, repository, work, [MAIN])
    assert pushed.report.refs == {MAIN: f"1 LFS object is {REASON}"}
