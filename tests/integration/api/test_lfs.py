"""Large files over REST: where they are used, how much they are, and nothing of anybody else's."""

from typing import Any

import pytest
from sqlalchemy import update

from core.access import SYSTEM, Permission
from core.models import LfsLink, now
from core.names import parse_address
from lfs.pointer import Pointer, write_pointer
from tests.support.api import ApiServer, Caller, commit
from tests.support.lfs_world import oid_of
from tests.support.streams import pieces

NOBODY = "0" * 64


def pointer(data: bytes) -> bytes:
    return write_pointer(Pointer(oid_of(data), len(data)))


async def upload(api: ApiServer, repository: str, data: bytes) -> str:
    """Uploads bytes to a repository, past HTTP."""
    address = parse_address(repository.removeprefix("/repositories/"))
    info = await api.services.repositories.open(SYSTEM, address, Permission.WRITE)
    await api.services.large_files.uploads.receive(info.id, SYSTEM, oid_of(data), len(data), pieces(data))
    return oid_of(data)


async def push(api: ApiServer, caller: Caller, repository: str, files: dict[str, bytes], **rest: Any) -> Any:
    """Uploads these files and commits their pointers."""
    for data in files.values():
        await upload(api, repository, data)
    return await commit(caller, repository, {path: pointer(data) for path, data in files.items()}, **rest)


@pytest.fixture
async def alice(api: ApiServer) -> Caller:
    return await api.user("alice")


async def test_objects_with_their_paths(each_api: ApiServer) -> None:
    alice = await each_api.user("alice")
    path = await each_api.repository(alice, "net")
    assert await alice.ok("GET", f"{path}/lfs/objects") == []
    assert await alice.ok("GET", f"{path}/lfs/usage") == {"objects": 0, "bytes": 0}
    await push(
        each_api, alice, path, {"w.bin": b"weights", "deep/er/w.bin": b"weights", "v\u00e4r .bin": b"v"}
    )
    unused = await upload(each_api, path, b"unused")
    found = {one["oid"]: one for one in await alice.ok("GET", f"{path}/lfs/objects")}
    assert list(found) == sorted([oid_of(b"weights"), oid_of(b"v"), unused])
    assert {oid: one["paths"] for oid, one in found.items()} == {
        oid_of(b"weights"): ["deep/er/w.bin", "w.bin"],
        oid_of(b"v"): ["v\u00e4r .bin"],
        unused: [],
    }
    assert (found[unused]["size"], found[unused]["damaged"]) == (6, False)
    assert await alice.ok("GET", f"{path}/lfs/usage") == {"objects": 3, "bytes": 14}
    pages = await alice.pages(f"{path}/lfs/objects?limit=2")
    assert [len(page) for page in pages] == [2, 1]
    assert [one for page in pages for one in page] == list(found.values())


async def test_another_revision(api: ApiServer, alice: Caller) -> None:
    path = await api.repository(alice, "net")
    first = await push(api, alice, path, {"old.bin": b"weights"})
    await alice.ok(
        "POST",
        f"{path}/commits",
        {
            "branch": "main",
            "message": "move it",
            "operations": [{"action": "move", "path": "old.bin", "to": "new.bin"}],
        },
    )
    (now_,) = await alice.ok("GET", f"{path}/lfs/objects")
    (then,) = await alice.ok("GET", f"{path}/lfs/objects?revision={first['oid']}")
    assert (now_["paths"], then["paths"]) == (["new.bin"], ["old.bin"])
    assert (await alice("GET", f"{path}/lfs/objects?revision=nowhere")).code == "revision_not_found"


async def test_an_empty_repository(api: ApiServer, alice: Caller) -> None:
    await alice.ok("POST", "/repositories", {"owner": "alice", "name": "empty"})
    path = "/repositories/models/alice/empty"
    oid = await upload(api, path, b"first")
    (one,) = await alice.ok("GET", f"{path}/lfs/objects")
    assert (one["oid"], one["paths"]) == (oid, [])
    detail = await alice.ok("GET", f"{path}/lfs/objects/{oid}")
    assert (detail["paths"], detail["refs"], detail["commits"]) == ([], [], [])


async def test_where_one_object_is_used(api: ApiServer, alice: Caller) -> None:
    path = await api.repository(alice, "net")
    added = await push(api, alice, path, {"a.bin": b"weights", "odd : .bin": b"weights", "other": b"other"})
    await alice.ok("POST", f"{path}/tags", {"name": "v1", "revision": "main", "message": "One"})
    await alice.ok("POST", f"{path}/branches", {"name": "topic", "revision": "main"})
    gone = await alice.ok(
        "POST",
        f"{path}/commits",
        {
            "branch": "main",
            "message": "remove it",
            "operations": [{"action": "delete", "path": "a.bin"}, {"action": "delete", "path": "odd : .bin"}],
        },
    )
    copied = await push(api, alice, path, {"b.bin": b"weights"}, branch="topic")
    detail = await alice.ok("GET", f"{path}/lfs/objects/{oid_of(b'weights')}")
    assert detail["paths"] == ["a.bin", "b.bin", "odd : .bin"]
    assert detail["refs"] == ["refs/heads/topic", "refs/tags/v1"]
    assert set(detail["commits"]) == {added["oid"], gone["oid"], copied["oid"]}
    assert detail["commits"][-1] == added["oid"]
    other = await alice.ok("GET", f"{path}/lfs/objects/{oid_of(b'other')}")
    assert (other["paths"], other["commits"]) == (["other"], [added["oid"]])
    assert other["refs"] == ["refs/heads/main", "refs/heads/topic", "refs/tags/v1"]


async def test_nothing_of_other_repositories(api: ApiServer, alice: Caller) -> None:
    bob = await api.user("bob")
    secret = await api.repository(alice, "secret")
    oid = (await push(api, alice, secret, {"w": b"weights"})) and oid_of(b"weights")
    mine = await api.repository(bob, "mine")
    await commit(bob, mine, {"w": b"not a pointer"})
    known = await bob("GET", f"{mine}/lfs/objects/{oid}")
    unknown = await bob("GET", f"{mine}/lfs/objects/{NOBODY}")
    assert known.code == unknown.code == "lfs_object_missing"
    assert known.json["detail"] == unknown.json["detail"]
    assert await bob.ok("GET", f"{mine}/lfs/objects") == []
    for rest in ("usage", "objects", f"objects/{oid}", "trash"):
        assert (await bob("GET", f"{secret}/lfs/{rest}")).code == "repository_not_found"
        assert (await api.anonymous("GET", f"{secret}/lfs/{rest}")).code == "authentication_required"
    assert (await bob("GET", f"{mine}/lfs/objects/{oid.upper()}")).status in (400, 404, 422)


async def test_the_trash_is_for_administrators(api: ApiServer, alice: Caller) -> None:
    bob = await api.user("bob")
    path = await api.repository(alice, "net", visibility="public")
    oid = await upload(api, path, b"rubbish")
    async with api.services.database.transaction() as session:
        await session.execute(update(LfsLink).values(trashed_at=now()))
    (one,) = await alice.ok("GET", f"{path}/lfs/trash")
    assert (one["oid"], one["size"]) == (oid, 7)
    assert one["until"] > one["trashed_at"]
    assert (await bob("GET", f"{path}/lfs/trash")).code == "permission_denied"
    assert await bob.ok("GET", f"{path}/lfs/objects") == []
    assert (await bob("GET", f"{path}/lfs/objects/{oid}")).code == "lfs_object_missing"
    assert await bob.ok("GET", f"{path}/lfs/usage") == {"objects": 0, "bytes": 0}
    usage = await alice.ok("GET", "/users/alice/lfs/usage")
    assert (usage["bytes"], usage["trashed_objects"], usage["trashed_bytes"]) == (0, 1, 7)


async def test_usage_and_quotas_of_owners(each_api: ApiServer) -> None:
    api = each_api
    alice, bob = await api.user("alice"), await api.user("bob")
    await upload(api, await api.repository(alice, "one"), b"four")
    await upload(api, await api.repository(alice, "two"), b"four")
    usage = await alice.ok("GET", "/users/alice/lfs/usage")
    nothing = {"trashed_objects": 0, "trashed_bytes": 0, "quota_bytes": None}
    assert usage == {"owner": "alice", "objects": 2, "bytes": 8, **nothing}
    assert await api.root.ok("GET", "/users/alice/lfs/usage") == usage
    assert (await bob("GET", "/users/alice/lfs/usage")).code == "permission_denied"
    assert (await api.anonymous("GET", "/users/alice/lfs/usage")).code == "authentication_required"
    await alice.ok("POST", "/organisations", {"name": "acme"})
    assert (await alice.ok("GET", "/organisations/acme/lfs/usage"))["bytes"] == 0
    assert (await alice("GET", "/users/acme/lfs/usage")).code == "account_not_found"
    assert (await bob("GET", "/organisations/acme/lfs/usage")).code == "permission_denied"

    limited = await api.root.ok("PUT", "/users/alice/lfs/quota", {"bytes": 10})
    assert limited == {**usage, "quota_bytes": 10}
    assert (await api.root.ok("PUT", "/organisations/acme/lfs/quota", {"bytes": 0}))["quota_bytes"] is None
    assert (await api.root.ok("PUT", "/users/alice/lfs/quota", {"bytes": None})) == usage
    assert (await alice("PUT", "/users/alice/lfs/quota", {"bytes": 0})).code == "permission_denied"
    assert (await api.root("PUT", "/users/alice/lfs/quota", {"bytes": -1})).status == 422
    assert (await api.root("PUT", "/users/nobody/lfs/quota", {"bytes": 1})).code == "account_not_found"
