"""The operator's hook programs: what they get and what they decide, with git commands inside them."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from core.errors import PushRefused
from core.models import ObjectFormat
from core.repositories import RepositoryInfo
from gitserver.commits import Put
from tests.support.database import Databases
from tests.support.git_pushes import CAPABILITIES, push
from tests.support.git_world import ACTOR, GitWorld, git
from tests.support.hook_programs import (
    MAIN,
    SIDE,
    Hooks,
    after,
    commit,
    hooked_world,
    new_work,
    publish,
    received,
)
from tests.support.wire import ZERO

ATOMIC = f"atomic {CAPABILITIES}"


@pytest.fixture
def hooks(tmp_path: Path) -> Hooks:
    return Hooks(tmp_path / "hooks")


@pytest.fixture
async def world(databases: Databases, tmp_path: Path, hooks: Hooks) -> AsyncIterator[GitWorld]:
    async with hooked_world(databases, tmp_path, hooks) as opened:
        yield opened


@pytest.fixture
async def repository(world: GitWorld) -> RepositoryInfo:
    return await world.repository()


@pytest.fixture
def work(tmp_path: Path) -> Path:
    return new_work(tmp_path / "work")


# -- what programs get -------------------------------------------------------------------------------


async def test_pre_receive_gets_what_git_gives(
    world: GitWorld, repository: RepositoryInfo, hooks: Hooks, work: Path
) -> None:
    hooks.write(
        "pre-receive",
        """
        read -r old new ref
        echo "$old $new $ref"
        git log --format='%s' "$new" --not --all
        git cat-file -p "$new:file"
        read -r old new ref
        echo "$old $new $ref"
        test "$(pwd)" = "$GIT_DIR" && git rev-parse --is-bare-repository
        test -d "$GIT_QUARANTINE_PATH" && test -d "$GIT_OBJECT_DIRECTORY" && echo quarantine
        echo "$GIT_PUSH_OPTION_COUNT|$GIT_PUSH_OPTION_0|$GIT_PUSH_OPTION_1"
        echo "$MODELYARD_REPOSITORY $MODELYARD_REPOSITORY_ID $MODELYARD_ACTOR $MODELYARD_TRANSPORT"
        """,
    )
    old = await publish(world, repository, work)
    new = commit(work, "second")
    outcome = await push(world, repository, work, [MAIN, f":{SIDE}"], options=["a=b", "c d"])
    assert outcome.ok
    assert outcome.remote == [
        f"{old} {new} {MAIN}",
        "second",
        "second",
        f"{old} {ZERO} {SIDE}",
        "true",
        "quarantine",
        "2|a=b|c d",
        f"ann/model {repository.id} ann http",
    ]


async def test_update_gets_what_git_gives(
    world: GitWorld, repository: RepositoryInfo, hooks: Hooks, work: Path
) -> None:
    hooks.write("update", """echo "$#|$1|$2|$3|$(git log --format=%s "$3" --not --all)|$(cat)" """)
    old = await publish(world, repository, work)
    new = commit(work, "second")
    git(work, "branch", "-f", "side", "main")
    outcome = await push(world, repository, work, [MAIN, SIDE])
    assert outcome.ok
    assert outcome.remote == [f"3|{name}|{old}|{new}|second|" for name in (MAIN, SIDE)]


async def test_post_receive_gets_what_git_gives(
    world: GitWorld, repository: RepositoryInfo, hooks: Hooks, work: Path
) -> None:
    hooks.write(
        "post-receive",
        """
        read -r old new ref
        echo "$old $new $ref"
        git log --format='%s' "$new"
        git rev-parse refs/heads/main
        test "$(pwd)" = "$GIT_DIR" && git rev-parse --is-bare-repository
        echo "$GIT_PUSH_OPTION_COUNT|$GIT_PUSH_OPTION_0|$GIT_PUSH_OPTION_1|$GIT_QUARANTINE_PATH"
        echo "$MODELYARD_REPOSITORY $MODELYARD_ACTOR $MODELYARD_TRANSPORT $MODELYARD_PUSH_ID"
        """,
    )
    new = await publish(world, repository, work)
    assert await after(world, hooks, received(repository, new)) == [
        f"{ZERO} {new} {MAIN}",
        "first",
        new,
        "true",
        "2|a=b|c d|",
        "ann/model ann ssh 7",
    ]


async def test_nothing_of_the_server_leaks(
    world: GitWorld, repository: RepositoryInfo, hooks: Hooks, work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in (
        "MODELYARD_STORAGE__SECRET_KEY",
        "MODELYARD_DATABASE__URL",
        "AWS_SECRET_ACCESS_KEY",
        "PGPASSWORD",
    ):
        monkeypatch.setenv(name, "hunter2")
    monkeypatch.setenv("LANG", "C.UTF-8")
    for name in ("pre-receive", "update", "post-receive"):
        hooks.write(name, "env; ls /proc/self/fd | wc -l")
    lines = (await push(world, repository, work, [MAIN])).remote
    lines += await after(world, hooks, received(repository, ZERO))
    assert "hunter2" not in "".join(lines)
    names = {line.partition("=")[0] for line in lines if "=" in line}
    assert {"PATH", "LANG", "GIT_DIR"} < names
    known = (
        "PATH",
        "HOME",
        "USER",
        "LOGNAME",
        "SHELL",
        "LANG",
        "LC_",
        "TZ",
        "TMPDIR",
        "PWD",
        "_",
        "SHLVL",
        "OLDPWD",
    )
    ours = ("GIT_", "MODELYARD_REPOSITORY", "MODELYARD_ACTOR", "MODELYARD_TRANSPORT", "MODELYARD_PUSH_ID")
    assert [name for name in names if not name.startswith(known + ours)] == []
    # Standard input, output, error, and what `ls` opens: no socket or database of the server.
    assert {line for line in lines if line.isdigit()} == {"4"}


@pytest.mark.parametrize("object_format", ObjectFormat)
async def test_what_programs_write_is_gone(
    world: GitWorld, hooks: Hooks, work: Path, object_format: ObjectFormat
) -> None:
    """A snapshot is never changed: others read it at this moment."""
    script = """
        set -e
        made=$(git -c user.name=x -c user.email=x@example.org commit-tree -m made HEAD^{tree})
        git cat-file -e "$made"
        git config core.bigFileThreshold 1
        unset GIT_QUARANTINE_PATH
        git update-ref refs/heads/other "$made"
        git symbolic-ref HEAD refs/heads/other
        git update-ref -d refs/heads/main
        git pack-refs --all --prune
        git gc -q
        git rev-parse --verify -q refs/heads/other > /dev/null
        echo done
        """
    repository = await world.repository(object_format)
    made = await world.committer.commit(repository, ACTOR, "main", [Put("a", b"1")], "first")
    for name in ("pre-receive", "post-receive"):
        hooks.write(name, script)

    def contents(path: Path) -> dict[str, bytes]:
        return {str(one.relative_to(path)): one.read_bytes() for one in path.rglob("*") if one.is_file()}

    async with world.snapshots.open(repository.id) as snapshot:
        before = contents(snapshot.path)
        assert await after(world, hooks, received(repository, made.oid)) == ["done"]
        assert contents(snapshot.path) == before
        second = await world.committer.commit(repository, ACTOR, "main", [Put("b", b"2")], "second")
        assert second.messages == ("done",)
        assert contents(snapshot.path) == before
    refs = (await world.snapshots.state(repository.id)).refs
    assert {name: value.oid for name, value in refs.items()} == {MAIN: second.oid}


# -- what programs say -------------------------------------------------------------------------------


async def test_pre_receive_refuses_everything(
    world: GitWorld, repository: RepositoryInfo, hooks: Hooks, work: Path
) -> None:
    hooks.write("pre-receive", "echo no; echo really >&2; exit 1")
    hooks.write("update", "echo asked")
    outcome = await push(world, repository, work, [MAIN, SIDE])
    reason = "pre-receive hook declined: it exited with 1"
    assert outcome.report.refs == {MAIN: reason, SIDE: reason}
    assert sorted(outcome.remote) == ["no", "really"]
    assert not (await world.snapshots.state(repository.id)).refs


async def test_update_refuses_one_ref(
    world: GitWorld, repository: RepositoryInfo, hooks: Hooks, work: Path
) -> None:
    hooks.write("update", """test "$1" != refs/heads/main || { echo "not $1"; exit 3; }""")
    outcome = await push(world, repository, work, [MAIN, SIDE])
    assert outcome.report.refs == {MAIN: "update hook declined: it exited with 3", SIDE: "ok"}
    assert outcome.remote == ["not refs/heads/main"]
    outcome = await push(world, repository, work, [MAIN, f":{SIDE}"], capabilities=ATOMIC)
    assert "ok" not in outcome.report.refs.values()
    assert list((await world.snapshots.state(repository.id)).refs) == [SIDE]


async def test_programs_run_in_order_until_one_refuses(
    world: GitWorld, repository: RepositoryInfo, hooks: Hooks, work: Path
) -> None:
    hooks.write("pre-receive", "echo first")
    hooks.write("pre-receive.d/20-third", "echo third; exit 2")
    hooks.write("pre-receive.d/10-second", "echo second")
    hooks.write("pre-receive.d/30-never", "echo never")
    hooks.write("pre-receive.d/10-second~", "echo backup")
    hooks.write("pre-receive.d/.10-second.swp", "echo editor", mode=0o600)
    hooks.write("pre-receive.sample", "echo sample")
    outcome = await push(world, repository, work, [MAIN])
    assert outcome.report.refs == {MAIN: "pre-receive.d/20-third hook declined: it exited with 2"}
    assert outcome.remote == ["first", "second", "third"]


async def test_a_program_dropped_in_works_at_once(
    world: GitWorld, repository: RepositoryInfo, hooks: Hooks, work: Path
) -> None:
    assert (await push(world, repository, work, [SIDE])).ok
    hooks.write("update.d/no", "exit 1")
    outcome = await push(world, repository, work, [MAIN])
    assert outcome.report.refs == {MAIN: "update.d/no hook declined: it exited with 1"}


async def test_commits_made_here_ask_too(world: GitWorld, repository: RepositoryInfo, hooks: Hooks) -> None:
    hooks.write(
        "pre-receive", """read -r old new ref; git show "$new:a" | grep -q good || { echo bad; exit 1; }"""
    )
    hooks.write("pre-receive.d/say", """echo "$MODELYARD_TRANSPORT" """)
    with pytest.raises(PushRefused, match="pre-receive hook declined") as caught:
        await world.committer.commit(repository, ACTOR, "main", [Put("a", b"bad")], "first")
    assert caught.value.fields["messages"] == ["bad"]
    made = await world.committer.commit(repository, ACTOR, "main", [Put("a", b"good")], "first")
    assert made.messages == ("api",)


async def test_what_others_refuse_is_not_asked_about(
    world: GitWorld, repository: RepositoryInfo, hooks: Hooks, work: Path
) -> None:
    """Git's hooks may have effects: they are asked only about what is going to be."""
    old = await publish(world, repository, work)
    hooks.write("pre-receive", "cat")
    new = commit(work, "second")
    git(work, "branch", "-f", "side", new)
    # The default branch is never deleted.
    outcome = await push(world, repository, work, [SIDE, f":{MAIN}"])
    assert outcome.report.refs[SIDE] == "ok"
    assert outcome.remote == [f"{old} {new} {SIDE}"]
    git(work, "branch", "-f", "side", old)
    outcome = await push(world, repository, work, [SIDE, f":{MAIN}"], capabilities=ATOMIC)
    assert outcome.report.refs[SIDE] != "ok"
    assert outcome.remote == []


async def test_post_receive_can_refuse_nothing(
    world: GitWorld, repository: RepositoryInfo, hooks: Hooks, work: Path
) -> None:
    new = await publish(world, repository, work)
    hooks.write("post-receive.d/10-bad", "echo bad; exit 5")
    hooks.write("post-receive.d/20-killed", "kill -SEGV $$")
    hooks.write("post-receive.d/30-good", "echo good")
    assert await after(world, hooks, received(repository, new)) == [
        "bad",
        "post-receive.d/10-bad hook: it exited with 5",
        "post-receive.d/20-killed hook: it was killed by signal 11 (Segmentation fault)",
        "good",
    ]
