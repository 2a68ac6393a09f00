"""Commits, comparisons, branches and tags over REST."""

import asyncio
from typing import Any

import pytest

from tests.support.api import ApiServer, Caller, commit


@pytest.fixture
async def alice(api: ApiServer) -> Caller:
    return await api.user("alice")


@pytest.fixture
async def path(api: ApiServer, alice: Caller) -> str:
    return await api.repository(alice, "net")


def _commit(*operations: dict[str, Any], **members: Any) -> dict[str, Any]:
    return {"branch": "main", "message": "a change", "operations": list(operations), **members}


async def test_one_commit_changes_many_files(each_api: ApiServer) -> None:
    alice = await each_api.user("alice")
    path = await each_api.repository(alice, "net")
    tip = (await alice.ok("GET", f"{path}/branches/main"))["oid"]
    body = _commit(
        {"action": "put", "path": "docs/größe.md", "content": "ü\n"},
        {
            "action": "put",
            "path": "run.sh",
            "content": "IyEvYmluL3NoCg==",
            "encoding": "base64",
            "executable": True,
        },
        {"action": "move", "path": "src/main.py", "to": "lib/main.py"},
        {"action": "delete", "path": "README.md"},
        parent=tip,
        message="Reorder\n\nAll of it.",
        author={"name": "Bob", "email": "bob@example.org", "when": "2024-02-03T04:05:06+02:00"},
    )
    made = await alice("POST", f"{path}/commits", body)
    assert made.status == 201, made.body
    assert (made.json["parent"], made.json["branch"]) == (tip, "main")
    entries = await alice.ok("GET", f"{path}/tree/main?recursive=true")
    assert {one["path"]: one["mode"] for one in entries if one["kind"] == "blob"} == {
        "docs/größe.md": "100644",
        "lib/main.py": "100644",
        "run.sh": "100755",
    }
    read = await alice.ok("GET", made.headers["Location"])
    assert (read["summary"], read["message"]) == ("Reorder", "Reorder\n\nAll of it.\n")
    assert read["author"] == {"name": "Bob", "email": "bob@example.org", "when": "2024-02-03T04:05:06+02:00"}
    assert read["committer"]["name"] == "alice"
    assert {(one["status"], one["old_path"], one["new_path"]) for one in read["changes"]["files"]} == {
        ("added", None, "docs/größe.md"),
        ("added", None, "run.sh"),
        ("deleted", "README.md", None),
        ("renamed", "src/main.py", "lib/main.py"),
    }


async def test_of_many_writers_with_one_parent_one_wins(each_api: ApiServer) -> None:
    alice = await each_api.user("alice")
    path = await each_api.repository(alice, "net")
    tip = (await alice.ok("GET", f"{path}/branches/main"))["oid"]
    bodies = [
        _commit({"action": "put", "path": f"{number}.txt", "content": "x"}, parent=tip) for number in range(6)
    ]
    replies = await asyncio.gather(*(alice("POST", f"{path}/commits", body) for body in bodies))
    assert sorted(reply.status for reply in replies) == [201, 412, 412, 412, 412, 412]
    assert {reply.code for reply in replies if reply.status == 412} == {"stale_parent"}
    assert len(await alice.ok("GET", f"{path}/commits")) == 2


async def test_without_a_parent_all_land(api: ApiServer, alice: Caller, path: str) -> None:
    await asyncio.gather(*(commit(alice, path, {f"{number}.txt": b"x"}) for number in range(6)))
    assert len(await alice.ok("GET", f"{path}/commits")) == 7


@pytest.mark.parametrize(
    ("operation", "code"),
    [
        ({"action": "put", "path": "../x", "content": ""}, "invalid_path"),
        ({"action": "put", "path": "/x", "content": ""}, "invalid_path"),
        ({"action": "put", "path": ".git/config", "content": ""}, "invalid_path"),
        ({"action": "put", "path": "a/.GIT/x", "content": ""}, "invalid_path"),
        ({"action": "put", "path": "git~1", "content": ""}, "invalid_path"),
        ({"action": "put", "path": ".g\u200cit/x", "content": ""}, "invalid_path"),
        ({"action": "put", "path": "a\x00b", "content": ""}, "invalid_path"),
        ({"action": "put", "path": "x" * 5000, "content": ""}, "invalid_request"),
        ({"action": "put", "path": "README.md/x", "content": ""}, "path_conflict"),
        ({"action": "put", "path": "src", "content": ""}, "path_conflict"),
        ({"action": "put", "path": "x", "content": "=", "encoding": "base64"}, "invalid_request"),
        ({"action": "put", "path": "README.md", "content": "# hello\n"}, "nothing_to_commit"),
        ({"action": "delete", "path": "missing"}, "entry_not_found"),
        ({"action": "delete", "path": "src"}, "path_conflict"),
        ({"action": "move", "path": "src", "to": ".git"}, "invalid_path"),
        ({"action": "steal", "path": "src"}, "invalid_request"),
    ],
)
async def test_operations_that_cannot_be(
    alice: Caller, path: str, operation: dict[str, Any], code: str
) -> None:
    before = await alice.ok("GET", f"{path}/branches")
    assert (await alice("POST", f"{path}/commits", _commit(operation))).code == code
    assert await alice.ok("GET", f"{path}/branches") == before


async def test_history_and_its_pages(api: ApiServer, alice: Caller, path: str) -> None:
    for number in range(5):
        await commit(alice, path, {"src/x.txt": b"%d" % number}, f"change {number}")
    pages = await alice.pages(f"{path}/commits?limit=2")
    assert [[one["summary"] for one in page] for page in pages] == [
        ["change 4", "change 3"],
        ["change 2", "change 1"],
        ["change 0", "a change"],
    ]
    of_file = await alice.ok("GET", f"{path}/commits?path=README.md")
    assert [one["summary"] for one in of_file] == ["a change"]
    first = await alice("GET", f"{path}/commits?limit=2")
    await commit(alice, path, {"new.txt": b"x"}, "meanwhile")
    following = first.headers["Link"].removeprefix("<").removesuffix('>; rel="next"')
    assert [one["summary"] for one in await alice.ok("GET", following)] == ["change 2", "change 1"]


async def test_comparisons(api: ApiServer, alice: Caller, path: str) -> None:
    await alice.ok("POST", f"{path}/branches", {"name": "topic", "revision": "main"})
    await commit(alice, path, {"a.txt": b"a\n"}, "on topic", branch="topic")
    await commit(alice, path, {"b.txt": b"b\n"}, "on main")
    found = await alice.ok("GET", f"{path}/compare/main...topic")
    assert (found["ahead"], found["behind"]) == (1, 1)
    assert [one["summary"] for one in found["commits"]] == ["on topic"]
    [change] = found["changes"]["files"]
    assert (change["status"], change["new_path"], change["additions"]) == ("added", "a.txt", 1)


async def test_a_commit_has_its_id_as_version(api: ApiServer, alice: Caller, path: str) -> None:
    answer = await alice("GET", f"{path}/commits/main")
    assert answer.headers["ETag"] == f'"{answer.json["oid"]}"'
    known = {"If-None-Match": answer.headers["ETag"]}
    assert (await alice("GET", f"{path}/commits/main", headers=known)).status == 304


async def test_branches(each_api: ApiServer) -> None:
    alice = await each_api.user("alice")
    path = await each_api.repository(alice, "net")
    made = await alice("POST", f"{path}/branches", {"name": "feature/ä", "revision": "HEAD"})
    assert made.status == 201
    assert await alice.ok("GET", made.headers["Location"]) == made.json
    assert (
        await alice("POST", f"{path}/branches", {"name": "feature", "revision": "HEAD"})
    ).code == "ref_conflict"
    assert (await alice("POST", f"{path}/branches", made.json | {"oid": 1})).code == "invalid_request"
    again = {"name": "feature/ä", "revision": "main"}
    assert (await alice("POST", f"{path}/branches", again)).code == "already_exists"
    wrong = f"{made.headers['Location']}?expected={'0' * 40}"
    assert (await alice("DELETE", wrong)).code == "stale_parent"
    await alice.ok("DELETE", made.headers["Location"])
    assert [one["name"] for one in await alice.ok("GET", f"{path}/branches")] == ["main"]


async def test_tags(each_api: ApiServer) -> None:
    alice = await each_api.user("alice")
    path = await each_api.repository(alice, "net")
    tip = (await alice.ok("GET", f"{path}/branches/main"))["oid"]
    light = await alice("POST", f"{path}/tags", {"name": "v1", "revision": "main"})
    assert (light.status, light.json["oid"], light.json["message"]) == (201, tip, None)
    heavy = await alice("POST", f"{path}/tags", {"name": "v/2", "revision": "v1", "message": "Two"})
    assert (heavy.json["target"], heavy.json["message"], heavy.json["tagger"]["name"]) == (
        tip,
        "Two\n",
        "alice",
    )
    assert heavy.json["oid"] != tip
    assert await alice.ok("GET", heavy.headers["Location"]) == heavy.json
    assert [one["name"] for one in await alice.ok("GET", f"{path}/tags")] == ["v/2", "v1"]
    await alice.ok("DELETE", f"{path}/tags/v%2F2")
    assert (await alice("GET", f"{path}/tags/v%2F2")).code == "revision_not_found"


@pytest.mark.parametrize(
    "name", ["..", "a..b", "x.lock", "a b", "-x", "a\x00", "a~1", "HEAD", "/a", "a//b", "@{", "a\\b"]
)
async def test_hostile_branch_names_are_refused(alice: Caller, path: str, name: str) -> None:
    assert (
        await alice("POST", f"{path}/branches", {"name": name, "revision": "main"})
    ).code == "invalid_name"


@pytest.mark.parametrize(
    "revision", ["--upload-pack=x", "main@{1}", "main^", "-1", ":/x", "main:src", "^main"]
)
async def test_revisions_are_names_and_no_language(alice: Caller, path: str, revision: str) -> None:
    assert (await alice("GET", f"{path}/commits?revision={revision}")).code == "revision_not_found"
    body = {"name": "x", "revision": revision}
    assert (await alice("POST", f"{path}/branches", body)).code == "revision_not_found"
