"""Repositories as a whole, and who else may use them, over REST."""

import asyncio
from pathlib import Path

import pytest

from core.models import RepositoryType, Scope
from core.names import Address
from core.settings import AuthSettings
from tests.support.api import ApiServer, api_settings, commit, running_api
from tests.support.database import Databases
from tests.support.git import Git

ED25519 = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGBKQXG+LjN2B+FIEgoWOi3kPrRgwTWAOAjCQXyp1osH alice@laptop"


async def test_the_life_of_a_repository(each_api: ApiServer) -> None:
    alice = await each_api.user("alice")
    made = await alice("POST", "/repositories", {"owner": "alice", "name": "net", "visibility": "public"})
    assert made.status == 201
    url = f"{each_api.base}/api/v1/repositories/models/alice/net"
    assert made.headers["Location"] == made.json["url"] == url
    assert made.json["http_url"] == f"{each_api.base}/alice/net.git"
    assert (await alice("POST", "/repositories", {"owner": "alice", "name": "net"})).code == "already_exists"
    assert await each_api.anonymous.ok("GET", url) == made.json
    changed = await alice.ok("PATCH", url, {"visibility": "private", "description": "A net."})
    assert (changed["visibility"], changed["description"]) == ("private", "A net.")
    assert (await each_api.anonymous("GET", url)).code == "authentication_required"
    await alice.ok("DELETE", url)
    assert (await alice("GET", url)).code == "repository_not_found"


async def test_the_default_branch_must_exist(api: ApiServer) -> None:
    alice = await api.user("alice")
    path = await api.repository(alice, "net")
    assert (await alice("PATCH", path, {"default_branch": "nowhere"})).status == 422
    await alice.ok("POST", f"{path}/branches", {"name": "next", "revision": "main"})
    assert (await alice.ok("PATCH", path, {"default_branch": "next"}))["default_branch"] == "next"
    assert (await alice("DELETE", f"{path}/branches/next")).code == "default_branch"


async def test_a_private_repository_looks_like_none(api: ApiServer) -> None:
    alice, bob = await api.user("alice"), await api.user("bob")
    path = await api.repository(alice, "secret")
    missing = "/repositories/models/alice/nothing"
    for rest in ("", "/branches", "/tree/main", "/raw/main/README.md", "/collaborators", "/archive/main.zip"):
        seen, unseen = await bob("GET", path + rest), await bob("GET", missing + rest)
        assert seen.code == unseen.code == "repository_not_found"
        assert seen.json["detail"] == unseen.json["detail"]
        seen, unseen = await api.anonymous("GET", path + rest), await api.anonymous("GET", missing + rest)
        assert seen.code == unseen.code == "authentication_required"
        assert seen.headers["WWW-Authenticate"].startswith("Basic ")


async def test_a_moved_repository_is_found_at_its_old_address(each_api: ApiServer) -> None:
    alice, bob = await each_api.user("alice"), await each_api.user("bob")
    old = await each_api.repository(alice, "net", visibility="public")
    await alice.ok("POST", "/organisations", {"name": "acme"})
    moved = await alice("POST", f"{old}/move", {"owner": "acme", "name": "model"})
    new = f"{each_api.base}/api/v1/repositories/models/acme/model"
    assert (moved.status, moved.headers["Location"]) == (200, new)
    for rest in ("", "/raw/main/src%2Fmain.py", "/compare/main...main?limit=3"):
        answer = await each_api.anonymous("GET", old + rest)
        assert (answer.status, answer.headers["Location"]) == (307, new + rest)
    assert (await alice("PATCH", old, {"description": "x"})).headers["Location"] == new
    assert (await bob("PATCH", old, {"description": "x"})).code == "permission_denied"
    await alice.ok("PATCH", new, {"visibility": "private"})
    assert (await bob("GET", old)).code == "repository_not_found", "nobody learns where it went"
    await alice.ok("POST", "/repositories", {"owner": "alice", "name": "net"})
    assert (await alice("GET", old)).json["name"] == "net", "a new one takes the address"


async def test_nobody_moves_a_repository_where_they_may_not_create(api: ApiServer) -> None:
    alice, _ = await api.user("alice"), await api.user("bob")
    path = await api.repository(alice, "net")
    assert (await alice("POST", f"{path}/move", {"owner": "bob"})).code == "permission_denied"
    assert (await alice("POST", f"{path}/move", {"name": "x.git"})).code == "invalid_name"
    assert (await alice("POST", f"{path}/move", {"owner": "nobody"})).code == "account_not_found"


async def test_lists_show_what_the_caller_may_see(each_api: ApiServer) -> None:
    alice, bob = await each_api.user("alice"), await each_api.user("bob")
    for number in range(3):
        name = f"net-{number}"
        await alice.ok("POST", "/repositories", {"owner": "alice", "name": name, "visibility": "public"})
    await alice.ok("POST", "/repositories", {"owner": "alice", "name": "hidden"})
    await bob.ok("POST", "/repositories", {"owner": "bob", "name": "set", "type": "dataset"})

    async def names(caller: object, query: str = "") -> list[str]:
        assert callable(caller)
        return [one["path"] for one in (await caller("GET", f"/repositories{query}")).json]

    public = ["alice/net-0", "alice/net-1", "alice/net-2"]
    assert await names(each_api.anonymous) == public
    assert await names(alice) == ["alice/hidden", *public]
    assert await names(bob, "?type=dataset") == ["datasets/bob/set"]
    [dataset] = await bob.ok("GET", "/repositories?type=dataset")
    assert dataset["url"].endswith("/repositories/datasets/bob/set")
    assert await bob.ok("GET", dataset["url"]) == dataset
    assert await names(alice, "?owner=alice&search=HID") == ["alice/hidden"]
    pages = await alice.pages("/repositories?limit=2&owner=alice")
    assert [[one["path"] for one in page] for page in pages] == [["alice/hidden", public[0]], public[1:]]


async def test_collaborators(each_api: ApiServer) -> None:
    alice, bob = await each_api.user("alice"), await each_api.user("bob")
    path = await each_api.repository(alice, "net")
    assert (await bob("GET", path)).status == 404
    await alice.ok("PUT", f"{path}/collaborators/bob", {"role": "read"})
    assert (await bob("GET", path)).status == 200
    assert (await bob("PATCH", path, {"description": "x"})).code == "permission_denied"
    assert (
        await bob("POST", f"{path}/branches", {"name": "x", "revision": "main"})
    ).code == "permission_denied"
    await alice.ok("PUT", f"{path}/collaborators/bob", {"role": "write"})
    assert (await bob("POST", f"{path}/branches", {"name": "x", "revision": "main"})).status == 201
    assert [one["user"] for one in await alice.ok("GET", f"{path}/collaborators")] == ["bob"]
    assert (await bob("GET", f"{path}/collaborators")).code == "permission_denied"
    assert (await alice("PUT", f"{path}/collaborators/alice", {"role": "read"})).status == 422
    await alice.ok("DELETE", f"{path}/collaborators/bob")
    assert (await bob("GET", path)).status == 404
    assert (await alice("DELETE", f"{path}/collaborators/bob")).code == "not_found"


async def test_deploy_keys(each_api: ApiServer) -> None:
    alice = await each_api.user("alice")
    path, other = await each_api.repository(alice, "net"), await each_api.repository(alice, "other")
    made = await alice("POST", f"{path}/deploy-keys", {"key": ED25519, "title": "robot"})
    assert (made.status, made.json["read_only"], made.json["title"]) == (201, True, "robot")
    assert (await alice("POST", f"{other}/deploy-keys", {"key": ED25519})).code == "already_exists"
    assert (await alice("GET", f"{other}/deploy-keys/{made.json['id']}")).code == "not_found"
    assert (await alice("DELETE", f"{other}/deploy-keys/{made.json['id']}")).code == "not_found"
    assert await alice.ok("GET", f"{path}/deploy-keys") == [made.json]
    await alice.ok("DELETE", made.headers["Location"])
    assert await alice.ok("GET", f"{path}/deploy-keys") == []


async def test_branch_rules_hold_for_the_api_too(each_api: ApiServer) -> None:
    alice, bob = await each_api.user("alice"), await each_api.user("bob")
    path = await each_api.repository(alice, "net")
    await alice.ok("PUT", f"{path}/collaborators/bob", {"role": "write"})
    rule = await alice("POST", f"{path}/branch-rules", {"pattern": "release/*", "pushers": ["alice"]})
    assert rule.status == 201
    assert (await alice("POST", f"{path}/branch-rules", {"pattern": "release/*"})).code == "already_exists"
    new = {"name": "release/1", "revision": "main"}
    assert (await bob("POST", f"{path}/branches", new)).code == "push_refused"
    await alice.ok("POST", f"{path}/branches", new)
    assert (await alice("DELETE", f"{path}/branches/release%2F1")).code == "push_refused"
    changed = await alice.ok("PUT", rule.headers["Location"], {"allow_delete": True})
    assert (changed["allow_delete"], changed["pushers"]) == (True, None)
    await bob.ok("DELETE", f"{path}/branches/release%2F1")
    await alice.ok("DELETE", rule.headers["Location"])
    assert await alice.ok("GET", f"{path}/branch-rules") == []


async def test_tokens_reach_only_as_far_as_they_say(api: ApiServer) -> None:
    alice = await api.user("alice")
    path, other = await api.repository(alice, "net"), await api.repository(alice, "other")
    reader = await api.token("alice", Scope.READ)
    limited = await api.token("alice", Scope.WRITE, repository=Address(RepositoryType.MODEL, "alice", "net"))
    assert (await reader("GET", path)).status == 200
    new = {"name": "x", "revision": "main"}
    assert (await reader("POST", f"{path}/branches", new)).code == "permission_denied"
    assert (await limited("POST", f"{path}/branches", new)).status == 201
    assert (await limited("GET", other)).code == "repository_not_found"
    assert (await limited("DELETE", path)).code == "permission_denied"
    assert [one["name"] for one in await limited.ok("GET", "/repositories")] == ["net"]


async def test_a_server_without_anonymous_readers(tmp_path: Path, databases: Databases) -> None:
    async with databases.fresh("sqlite") as url:
        settings = api_settings(tmp_path, url, auth=AuthSettings(anonymous_read=False))
        async with running_api(settings) as api:
            alice, bob = await api.user("alice"), await api.user("bob")
            path = await api.repository(alice, "net", visibility="public")
            for hidden in ("/repositories", "/users/alice", path, f"{path}/raw/main/README.md"):
                assert (await api.anonymous("GET", hidden)).code == "authentication_required"
                assert (await bob("GET", hidden)).status == 200


async def test_what_the_api_commits_git_clones(api: ApiServer, tmp_path: Path) -> None:
    alice = await api.user("alice")
    path = await api.repository(alice, "net", visibility="public")
    await commit(alice, path, {"weights.bin": bytes(range(256)) * 1000})
    url = (await alice.ok("GET", path))["http_url"]
    git = Git(tmp_path)
    await asyncio.to_thread(git, "clone", url, "copy")
    copy = tmp_path / "copy"
    assert (copy / "weights.bin").read_bytes() == bytes(range(256)) * 1000
    assert (copy / "src" / "main.py").read_bytes() == b"print(1)\n"


@pytest.mark.parametrize(
    "name", ["..", "a..b", "x.git", "x.lock", "UPPER", "a/b", "-x", "x\x00", "\uff4eet", "raw"]
)
async def test_hostile_repository_names_are_refused(api: ApiServer, name: str) -> None:
    alice = await api.user("alice")
    assert (await alice("POST", "/repositories", {"owner": "alice", "name": name})).code == "invalid_name"
