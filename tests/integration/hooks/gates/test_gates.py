"""Gates as a whole: levels, overriding, which refs are to blame, and what they cost."""

import base64
import os
import time

import pytest

from core.access import Actor, ActorKind
from core.errors import PushRefused
from core.models import Account, Collaborator, Role
from core.settings import GatesSettings
from core.tokens import new_secret
from gitserver.commits import Put
from tests.support.gates import MAIN, Gated
from tests.support.git_world import git

TOKEN = new_secret().encode()
KEY = b"".join(
    [
        b"-----BEGIN OPENSSH PRIVATE KEY-----\n",
        base64.b64encode(bytes(range(180))),
        b"\n-----END OPENSSH PRIVATE KEY-----\n",
    ]
)
OFF = GatesSettings(
    missing_shard="off",
    safetensors="off",
    gguf="off",
    config="off",
    pickle="off",
    secret="off",
    big_file="off",
)
BIG = os.urandom(20_000)


async def test_a_secret(gated: Gated) -> None:
    await gated.commit({"src/a.py": b"import os\n\nTOKEN = '%s'\n" % TOKEN, "deploy/key": KEY})
    pushed = await gated.push()
    assert not pushed.ok
    assert {"src/a.py:3: has a Modelyard token", "deploy/key:1: has a private key"} <= set(pushed.remote)
    assert any("revoke it" in line for line in pushed.remote)
    said = "\n".join(pushed.remote) + str(pushed.report.refs)
    assert TOKEN.decode()[:8] not in said
    # Taking it out in a later commit leaves it in the history.
    await gated.commit({"src/a.py": b"import os\n", "deploy/key": None})
    assert not (await gated.push()).ok
    git(gated.work, "checkout", "-q", "--orphan", "clean")
    await gated.commit({"src/a.py": b"import os\nTOKEN = 'myd_xxxxxxxx'\n"}, branch="clean")
    assert (await gated.push("refs/heads/clean")).ok


async def test_a_secret_among_much_that_was_cleared_as_it_came(gated: Gated) -> None:
    """Whole texts are searched while git indexes; deltas, large files and the rest are searched behind it."""
    texts = {f"d/{number}.txt": os.urandom(100_000).hex().encode() for number in range(20)}
    whole = os.urandom(50_000).hex().encode() + b"\nTOKEN = '%s'\n" % TOKEN
    await gated.commit({**texts, "whole.txt": whole})
    await gated.commit({"d/7.txt": texts["d/7.txt"] + b"\n\n" + KEY})
    pushed = await gated.push()
    assert not pushed.ok
    found = {line.partition(" has")[0] for line in pushed.remote if " has a " in line}
    assert found == {"whole.txt:2:", "d/7.txt:3:"}
    gated.use(GatesSettings(secret="off"))
    assert (await gated.push()).ok


async def test_a_big_file(gated: Gated) -> None:
    gated.use(GatesSettings(big_file="refuse", big_file_bytes=10_000))
    await gated.commit({"small.dat": BIG[:9_999], "it's big, [1].dat": BIG})
    pushed = await gated.push()
    assert pushed.report.refs == {MAIN: "it's big, [1].dat: 20.0 kB in Git and not in LFS"}
    assert (
        "  `git lfs migrate import '--include=/it?s big? ?1?.dat' main` puts it into LFS; then push again"
        in pushed.remote
    )
    gated.reset("HEAD")
    await gated.commit({"it's big, [1].dat": BIG[:100]})
    assert not (await gated.push()).ok
    gated.use(GatesSettings(big_file_bytes=10_000))
    pushed = await gated.push()
    assert pushed.ok
    assert pushed.remote[0] == "warning: it's big, [1].dat: 20.0 kB in Git and not in LFS"
    # What refs have is not told again.
    await gated.commit({"more": b"1"})
    assert (await gated.push()).remote == []


async def test_off(gated: Gated) -> None:
    gated.use(OFF)
    await gated.commit({"a.py": TOKEN, "m.pkl": b"cos\nsystem\n(S'x'\ntR.", "m.safetensors": b"cut"})
    pushed = await gated.push()
    assert pushed.ok
    assert pushed.remote == []


async def test_an_administrator_overrides(gated_everywhere: Gated) -> None:
    gated = gated_everywhere
    world = gated.world
    async with world.database.transaction() as session:
        bob = Account(kind="user", name="bob")
        session.add(bob)
        await session.flush()
        session.add(Collaborator(repository_id=world.repository.id, user_id=bob.id, role=Role.WRITE))
    writer = Actor(ActorKind.USER, "bob", user_id=bob.id, credential="password")
    await gated.commit({"a.py": TOKEN, "b.py": TOKEN + b"\n", "m.pkl": b"cos\nsystem\n(S'x'\ntR."})
    pushed = await gated.push(actor=writer, options=["gate.allow=secret,pickle"])
    assert not pushed.ok
    assert "warning: gate.allow is for administrators of this repository" in pushed.remote
    # Each gate is overridden by its name alone.
    pushed = await gated.push(options=["gate.allow=secret"])
    assert "m.pkl: is a pickle that imports os.system" in pushed.report.refs[MAIN]
    pushed = await gated.push(options=["gate.allow=everything"])
    assert not pushed.ok
    assert any(
        line.startswith("warning: gate.allow=everything: there is no such gate") for line in pushed.remote
    )
    assert await gated.overrides() == []
    pushed = await gated.push(options=["gate.allow=secret", "gate.allow=pickle"])
    assert pushed.ok
    assert "warning: gate.allow=secret: 2 problems are let through" in pushed.remote
    rows = {row.details["rule"]: row for row in await gated.overrides()}
    assert rows.keys() == {"gate.secret", "gate.pickle"}
    row = rows["gate.secret"]
    assert (row.actor, row.target) == ("ann", "ann/model")
    assert row.details["paths"] == ["a.py:1", "b.py:1"]
    assert row.details["refs"] == [MAIN]


@pytest.mark.parametrize(("override", "passes"), [("nobody", False), ("write", True)])
async def test_who_may_override(gated: Gated, override: str, passes: bool) -> None:
    gated.use(GatesSettings(override="nobody" if override == "nobody" else "write"))
    await gated.commit({"a.py": TOKEN})
    pushed = await gated.push(options=["gate.allow=secret"])
    assert pushed.ok is passes
    assert ("warning: gate.allow is for nobody on this server" in pushed.remote) is not passes
    assert not any(line.endswith("lets it through; it is for nobody") for line in pushed.remote)


async def test_only_the_refs_that_bring_it(gated: Gated) -> None:
    await gated.commit({"README.md": b"1"})
    await gated.commit({"clean": b"1"}, branch="clean")
    git(gated.work, "checkout", "-q", "main")
    await gated.commit({"a.py": TOKEN}, branch="bad")
    git(gated.work, "tag", "-a", "-m", "x", "v1")
    git(gated.work, "checkout", "-q", "main")
    await gated.commit({"m.safetensors": b"cut"}, branch="damaged")
    names = [MAIN, *(f"refs/heads/{name}" for name in ("clean", "bad", "damaged")), "refs/tags/v1"]
    pushed = await gated.push(*names)
    assert await gated.branches() == {MAIN, "refs/heads/clean"}
    assert pushed.report.refs["refs/heads/bad"] == "a.py:1: has a Modelyard token"
    assert pushed.report.refs["refs/tags/v1"] == "a.py:1: has a Modelyard token"
    assert pushed.report.refs["refs/heads/damaged"].startswith("m.safetensors: ")
    pushed = await gated.push(":refs/heads/clean")
    assert pushed.ok


async def test_what_is_there_is_not_looked_at_again(gated: Gated) -> None:
    gated.use(OFF)
    await gated.commit({"a.py": TOKEN, "m.safetensors": b"cut", "m.pkl": b"cos\nsystem\n(S'x'\ntR."})
    assert (await gated.push()).ok
    gated.use(GatesSettings())
    git(gated.work, "tag", "v1")
    git(gated.work, "branch", "other")
    await gated.commit({"README.md": b"1"})
    pushed = await gated.push(MAIN, "refs/heads/other", "refs/tags/v1")
    assert pushed.ok
    assert pushed.remote == []


async def test_commits_over_the_api(gated_everywhere: Gated) -> None:
    world = gated_everywhere.world
    put = Put("config.py", b"TOKEN = '%s'" % TOKEN)
    with pytest.raises(PushRefused, match=r"config\.py:1: has a Modelyard token") as caught:
        await world.git.committer.commit(world.repository, world.lfs.owner, "main", [put], "m")
    messages = caught.value.fields["messages"]
    assert isinstance(messages, list)
    assert messages[0] == "config.py:1: has a Modelyard token"
    assert "gate.allow=secret" in messages[-1]
    made = await world.git.committer.commit(
        world.repository, world.lfs.owner, "main", [put], "m", options=["gate.allow=secret"]
    )
    assert "warning: gate.allow=secret: 1 problem is let through" in made.messages
    assert [row.details["rule"] for row in await gated_everywhere.overrides()] == ["gate.secret"]


async def test_never_too_many_lines(gated: Gated) -> None:
    gated.use(GatesSettings(big_file="refuse", big_file_bytes=1000))
    files = {
        f"{number}.{ending}": TOKEN + os.urandom(8) * 200 for number in range(200) for ending in ("txt", "x")
    }
    files |= {f"{number}.pkl": b"cos\nsystem\n(S'%d'\ntR." % number for number in range(200)}
    files |= {f"{number}.safetensors": b"cut %d" % number for number in range(200)}
    await gated.commit(files)
    pushed = await gated.push()
    assert not pushed.ok
    assert len(pushed.remote) <= 100
    assert all(line.isprintable() for line in pushed.remote)


async def test_hostile_paths(gated: Gated) -> None:
    names = ["\x1b[2J.py", "cr\rx.py", "\u202egpj.py", b"\xff.py".decode("utf-8", "surrogateescape")]
    await gated.commit({name: TOKEN + b"#%d" % number for number, name in enumerate(names)})
    pushed = await gated.push()
    assert not pushed.ok
    assert all(line.isprintable() for line in pushed.remote)
    assert {"\\x1b[2J.py:1: has a Modelyard token", "\\xff.py:1: has a Modelyard token"} <= set(pushed.remote)


@pytest.mark.slow
async def test_fifty_thousand_small_files(gated: Gated) -> None:
    """The gates cost a fraction of what such a push costs anyway."""
    words = b"It was a bright cold day in April, and the clocks were striking thirteen.\n" * 10
    await gated.commit({f"d{number % 100}/{number}.txt": words + b"%d" % number for number in range(50_000)})
    gated.use(OFF)
    begun = time.monotonic()
    git(gated.work, "branch", "one", "main")
    assert (await gated.push("refs/heads/one")).ok
    without = time.monotonic() - begun
    await gated.push(":refs/heads/one")
    gated.use(GatesSettings())
    begun = time.monotonic()
    assert (await gated.push()).ok
    assert time.monotonic() - begun < without + 60, "a child of git for each would take minutes"
