"""Which rules a push fires, and that each fires once."""

import asyncio
from pathlib import Path

import msgspec
import pytest

from core.access import SYSTEM
from core.errors import RepositoryNotFound
from core.models import RequestKind
from gitserver.updates import RefUpdate
from hooks.received import Report
from hooks.triggers import effort
from hooks.triggers.spec import RuleSpec
from tests.support.git_pushes import push as push_refs
from tests.support.git_world import git
from tests.support.hooks_world import HooksWorld, pointer_to
from tests.support.triggers import FILE, Rig, rule, with_updates

CARD = b"---\nlicense: mit\npipeline_tag: text-generation\n---\n"


@pytest.fixture
async def rig(world: HooksWorld) -> Rig:
    return Rig(world)


async def test_a_rule_fires_with_everything_that_a_consumer_needs(rig: Rig) -> None:
    parameters = 'parameters = { epochs = 3, at = "${repository}@${commit} ${ref} ${branch}<${tag}>" }'
    commit = await rig.world.commit(
        {FILE: rule("finetune", "when.license = 'mit'", parameters).encode(), "README.md": CARD}
    )
    (line,) = await rig.run()
    (request,) = await rig.requests()
    assert line == f'training "finetune" requested ({request.id})'
    (event,) = await rig.world.events("training.requested")
    assert event.repository_id == rig.world.repository.id
    metadata = event.payload.pop("metadata")
    assert (metadata["task"], metadata["licenses"]) == ("text-generation", ["mit"])
    push = await rig.received()
    assert event.payload == {
        "request_id": request.id,
        "rule": "finetune",
        "source": "file",
        "ref": "refs/heads/main",
        "commit": commit,
        "parameters": {"epochs": 3, "at": f"ann/model@{commit} refs/heads/main main<>"},
        "chain": [],
        "push_id": push.id,
        "actor": push.actor,
    }
    assert msgspec.json.decode(request.payload) == {**event.payload, "metadata": metadata}
    assert (request.kind, request.ref, request.commit) == (RequestKind.TRAINING, "refs/heads/main", commit)
    assert request.parameters == event.payload["parameters"]


async def test_the_same_push_fires_once(rig: Rig) -> None:
    first = await rig.push({FILE: rule("a") + rule("b", run="evaluation")})
    assert await rig.run() == first
    lines = await asyncio.gather(*(rig.run() for _ in range(4)))
    assert lines == [first] * 4
    assert await rig.fired() == ["a", "b"]
    assert [event["rule"] for event in await rig.events()] == ["a", "b"]


async def test_by_default_a_rule_is_about_the_default_branch(rig: Rig) -> None:
    await rig.world.commit({FILE: rule("a").encode()})
    head = (await rig.world.git.snapshots.state(rig.world.repository.id)).refs["refs/heads/main"].oid
    assert len(await rig.run()) == 1
    for ref in ("refs/heads/other", "refs/tags/main", "refs/notes/main"):
        await rig.world.point(ref, head)
        assert await rig.run() == []


async def test_branches_and_tags(rig: Rig) -> None:
    rules = rule("b", "on.branches = ['release/*', '!release/old']") + rule("t", "on.tags = ['v*']")
    await rig.world.commit(
        {FILE: (rules + rule("both", "on.branches = ['main']", "on.tags = ['*']")).encode()}
    )
    assert await rig.fired() == []
    await rig.run()
    assert await rig.fired() == ["both"]
    head = (await rig.world.git.snapshots.state(rig.world.repository.id)).refs["refs/heads/main"].oid
    for ref, names in (
        ("refs/heads/release/1", ["b"]),
        ("refs/heads/release/old", []),
        ("refs/heads/release/1/2", None),
        ("refs/tags/v1", ["t", "both"]),
        ("refs/tags/x", ["both"]),
        ("refs/tags/a/b", []),
    ):
        if names is None:  # a name cannot be a directory too
            continue
        before = len(await rig.requests())
        await rig.world.point(ref, head)
        await rig.run()
        new = (await rig.requests())[before:]
        assert {one.rule for one in new} == set(names), ref
        assert {one.commit for one in new} <= {head}


async def test_an_annotated_tag_stands_for_its_commit(rig: Rig) -> None:
    commit = await rig.world.commit(
        {FILE: rule("t", "on.tags = ['v*']", 'parameters.of = "${tag}"').encode()}
    )
    await rig.world.git.branches.create_tag(rig.world.repository, SYSTEM, "v1", "main", message="One")
    state = await rig.world.git.snapshots.state(rig.world.repository.id)
    assert state.refs["refs/tags/v1"].oid != commit
    await rig.run()
    (request,) = await rig.requests()
    assert (request.commit, request.ref, request.parameters) == (commit, "refs/tags/v1", {"of": "v1"})


async def test_paths(rig: Rig) -> None:
    rules = rule("data", "on.paths = ['data/**', '!data/README.md']") + rule("code", "on.paths = ['*.py']")
    await rig.push({FILE: rules, "data/1.csv": "a\n"})
    assert await rig.fired() == ["data"], "all of a new branch counts as changed"
    await rig.push({"data/README.md": "x"})
    await rig.push({"other/data/1.csv": "x"})
    assert await rig.fired() == ["data"]
    await rig.push({"src/train.py": "x"})
    assert await rig.fired() == ["data", "code"]
    await rig.push({"data/README.md": "y", "data/2.csv": "x", "a.py": ""})
    assert sorted((await rig.fired())[2:]) == ["code", "data"]


async def test_what_was_removed_has_changed(rig: Rig) -> None:
    await rig.push({FILE: rule("a", "on.paths = ['data/']"), "x": ""})
    first = (await rig.world.git.snapshots.state(rig.world.repository.id)).refs["refs/heads/main"].oid
    await rig.push({"data/1": "x"})
    await rig.world.point("refs/heads/main", first)
    await rig.run()
    assert await rig.fired() == ["a", "a"]


async def test_too_many_paths_match_everything(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(effort, "MAX_EFFORT", 10_000 * 20)
    lines = await rig.push({FILE: rule("a", "on.paths = ['data/']"), "a-rather-long-path": ""})
    assert "too much changed in main: every path is taken to have changed" in lines
    assert await rig.fired() == ["a"]


async def test_an_old_tip_that_is_gone(rig: Rig) -> None:
    await rig.world.commit({FILE: rule("a", "on.paths = ['data/']").encode()})
    push = await rig.received()
    lost = RefUpdate("refs/heads/main", "1" * 40, push.updates[0].new)
    report = Report()
    await rig.step.run(with_updates(push, lost), report)
    assert "every path is taken to have changed" in report.lines[0]
    assert await rig.fired() == ["a"]


async def test_metadata_conditions(rig: Rig) -> None:
    rules = (
        rule("mit", "when = { license = ['MIT', 'bsd-*'], task = 'text-generation' }")
        + rule("big", "when.min_parameters = 1_000")
        + rule("sound", "when.has_errors = false")
        + rule("broken", "when.has_errors = true")
    )
    await rig.push({FILE: rules, "README.md": CARD})
    assert sorted(await rig.fired()) == ["mit", "sound"]
    await rig.push({"model.safetensors": b"\xff" * 100})
    assert sorted((await rig.fired())[2:]) == ["broken", "mit"]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (rule("a") + "colour = 1\n", "4:1: unknown key `colour`"),
        (rule("a") + "x = = 1\n", "4:5: invalid value"),
        (b"\xff", "1:1: this is not UTF-8"),
        (b"#" * 70_000, "1:1: this is larger than 65536 bytes"),
        (pointer_to(b"x"), "1:1: this file is in Git LFS"),
    ],
)
async def test_a_broken_file_is_reported_and_fires_nothing(rig: Rig, text: str | bytes, problem: str) -> None:
    spec = RuleSpec(name="rest", run=RequestKind.DEPLOYMENT)
    await rig.rules.add(SYSTEM, rig.world.repository.address, spec)
    lines = await rig.push({FILE: text}, "run=a")
    assert lines[0].startswith(f"{FILE}:{problem}")
    assert "until it is mended" in lines[1]
    assert lines[2] == "-o run=a: there is no such rule here; there are: rest"
    assert await rig.fired() == ["rest"], "what is not in the file goes on"
    assert "mended" not in str(await rig.push({FILE: rule("a")}))
    assert sorted((await rig.fired())[1:]) == ["a", "rest"]


@pytest.mark.parametrize(("mode", "what"), [("120000", "symbolic link"), ("160000", "submodule")])
async def test_only_a_file_has_rules(rig: Rig, tmp_path: Path, mode: str, what: str) -> None:
    work = tmp_path / "work"
    work.mkdir()
    git(work, "init", "-q", "-b", "main")
    git(work, "commit", "-q", "--allow-empty", "-m", "x")
    oid = (
        git(work, "rev-parse", "HEAD")
        if mode == "160000"
        else git(work, "hash-object", "-w", "--stdin", data=rule("a").encode())
    )
    git(work, "update-index", "--add", "--cacheinfo", f"{mode},{oid.decode().strip()},{FILE}")
    git(work, "commit", "-q", "-m", "y")
    pushed = await push_refs(rig.world.git, rig.world.repository, work, ["refs/heads/main"])
    assert pushed.ok, pushed
    lines = await rig.run()
    assert lines[0] == f"{FILE}:1:1: this is a {what}; only a file has rules"
    assert await rig.fired() == []


async def test_what_is_too_large_to_be_read_holds_nothing_else_up(rig: Rig, tmp_path: Path) -> None:
    """It will not be smaller at the next try: the push's other branches fire, and the step is done."""
    work = tmp_path / "work"
    work.mkdir()
    git(work, "init", "-q", "-b", "main")
    (work / FILE).write_text(rule("a", "on.branches = ['**']"))
    git(work, "add", ".")
    git(work, "commit", "-q", "-m", "x")
    git(work, "switch", "-q", "-c", "wordy")
    git(work, "commit", "-q", "--allow-empty", "-F", "-", data=b"word " * 200_000)
    pushed = await push_refs(
        rig.world.git, rig.world.repository, work, ["refs/heads/main", "refs/heads/wordy"]
    )
    assert pushed.ok, pushed
    await rig.run()
    assert [one.ref for one in await rig.requests()] == ["refs/heads/main"]


async def test_deletions_and_other_refs_fire_nothing(rig: Rig) -> None:
    await rig.push({FILE: rule("a", "on.branches = ['**']", "on.tags = ['**']")}, branch="main")
    head = (await rig.world.git.snapshots.state(rig.world.repository.id)).refs["refs/heads/main"].oid
    await rig.world.point("refs/heads/b", head)
    assert len(await rig.run()) == 1
    await rig.world.point("refs/heads/b", None)
    assert await rig.run("run=a", "skip") == []
    await rig.world.point("refs/notes/x", head)
    assert await rig.run("run=a") == []
    assert await rig.fired() == ["a", "a"]


async def test_many_refs_at_once_fire_little(rig: Rig) -> None:
    await rig.world.commit({FILE: rule("a", "on.branches = ['**']").encode()})
    push = await rig.received()
    new = push.updates[0].new
    updates = [RefUpdate(f"refs/heads/b{number:02}", "0" * 40, new) for number in range(30)]
    report = Report()
    await rig.step.run(with_updates(push, *updates, RefUpdate("refs/heads/main", "0" * 40, new)), report)
    assert report.lines[0] == "rules are tried on the first 20 of 31 branches and tags only"
    refs = {one.ref for one in await rig.requests()}
    assert len(refs) == 20
    assert "refs/heads/main" in refs
    assert any(line.startswith('training "a" requested for main (req_') for line in report.lines)


async def test_a_commit_that_is_gone_fires_nothing(rig: Rig) -> None:
    await rig.world.commit({FILE: rule("a").encode()})
    push = await rig.received()
    report = Report()
    await rig.step.run(with_updates(push, RefUpdate("refs/heads/main", "0" * 40, "1" * 40)), report)
    assert await rig.fired() == []


async def test_a_repository_that_is_gone(rig: Rig) -> None:
    await rig.push({FILE: rule("a")}, "skip")
    push = await rig.received()
    await rig.world.lfs.core.repositories.delete(SYSTEM, rig.world.repository.address)
    with pytest.raises(RepositoryNotFound):
        await rig.step.run(push, Report())


# -- push options ------------------------------------------------------------------------------------


async def test_skip(rig: Rig) -> None:
    assert await rig.push({FILE: rule("a")}, "skip", "run=a") == ["no rule fires: skipped with -o skip"]
    assert await rig.fired() == []


async def test_run_sets_conditions_aside(rig: Rig) -> None:
    rules = rule("a", "on.branches = ['never']", "on.paths = ['x']", "when.license = 'x'") + rule(
        "b", "on.branches = ['never']"
    )
    lines = await rig.push({FILE: rules}, "run=a", "run=c")
    assert lines[0] == "-o run=c: there is no such rule here; there are: a, b"
    assert await rig.fired() == ["a"]
    await rig.push({"x": ""}, "run=b", "run=a")
    assert sorted((await rig.fired())[1:]) == ["a", "b"]


async def test_run_does_not_wake_a_disabledrule(rig: Rig) -> None:
    spec = RuleSpec(name="a", run=RequestKind.TRAINING)
    await rig.rules.add(SYSTEM, rig.world.repository.address, spec, enabled=False)
    assert await rig.push({FILE: rule("a")}, "run=a") == ["-o run=a: this rule is disabled"]
    assert await rig.push({"README.md": "x"}) == []
    assert await rig.fired() == [], "nor does the one in the file that it stands for"
