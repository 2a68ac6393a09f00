"""The lock API over HTTP."""

import re

import pytest

from core.access import SYSTEM
from core.models import Role
from core.names import parse_address
from tests.support.lfs_http import LfsCaller, LfsServer, said


async def member(server: LfsServer, name: str, role: Role) -> LfsCaller:
    caller = LfsCaller(await server.user(name), "ann/model")
    await server.services.collaboration.set_collaborator(SYSTEM, parse_address("ann/model"), name, role)
    return caller


async def lock(caller: LfsCaller, path: str) -> str:
    reply = await caller("POST", "locks", {"path": path, "ref": {"name": "refs/heads/main"}})
    assert reply.status == 201, reply
    return str(reply.json["lock"]["id"])


async def test_the_life_of_a_lock(server: LfsServer, ann: LfsCaller) -> None:
    made = await ann("POST", "locks", {"path": "a/big.bin", "ref": {"name": "refs/heads/main"}})
    assert made.status == 201
    held = made.json["lock"]
    assert held["path"] == "a/big.bin"
    assert held["owner"] == {"name": "ann"}
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", held["locked_at"])
    assert re.fullmatch(r"[0-9a-f]{32}", held["id"])

    bob = await member(server, "bob", Role.WRITE)
    again = await bob("POST", "locks", {"path": "a/big.bin"})
    assert again.status == 409
    assert said(again)["lock"] == held

    assert (await bob("GET", "locks")).json == {"locks": [held]}
    assert (await ann("POST", "locks/verify", {"ref": {}})).json == {"ours": [held], "theirs": []}
    assert (await bob("POST", "locks/verify", data=b"")).json == {"ours": [], "theirs": [held]}

    refusal = await bob("POST", f"locks/{held['id']}/unlock", {})
    assert refusal.status == 403
    said(refusal)
    assert (await bob("POST", f"locks/{held['id']}/unlock", {"force": True})).status == 403
    unlocked = await ann("POST", f"locks/{held['id']}/unlock", {"force": False, "ref": None})
    assert (unlocked.status, unlocked.json) == (200, {"lock": held})
    assert (await ann("POST", f"locks/{held['id']}/unlock", {})).status == 404
    assert (await ann("GET", "locks")).json == {"locks": []}


async def test_administrators_may_force(server: LfsServer, ann: LfsCaller) -> None:
    bob = await member(server, "bob", Role.WRITE)
    number = await lock(bob, "a")
    assert (await ann("POST", f"locks/{number}/unlock", {})).status == 403
    assert (await ann("POST", f"locks/{number}/unlock", {"force": True})).status == 200


async def test_pages_and_filters(ann: LfsCaller) -> None:
    numbers = {path: await lock(ann, path) for path in ("a", "b", "c")}
    first = (await ann("GET", "locks?limit=2")).json
    assert [one["path"] for one in first["locks"]] == ["a", "b"]
    rest = (await ann("GET", f"locks?limit=2&cursor={first['next_cursor']}")).json
    assert ([one["path"] for one in rest["locks"]], "next_cursor" in rest) == (["c"], False)
    assert [one["id"] for one in (await ann("GET", "locks?path=b")).json["locks"]] == [numbers["b"]]
    assert [one["path"] for one in (await ann("GET", f"locks?id={numbers['c']}")).json["locks"]] == ["c"]
    assert (await ann("GET", "locks?path=none")).json == {"locks": []}
    assert len((await ann("GET", "locks?refspec=refs/heads/main&cursor=")).json["locks"]) == 3
    page = (await ann("POST", "locks/verify", {"limit": 1})).json
    assert len(page["ours"]) == 1
    assert page["next_cursor"]


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("POST", "locks", {}),
        ("POST", "locks", {"path": 1}),
        ("POST", "locks", {"path": "../x"}),
        ("POST", "locks", {"path": "a", "ref": "main"}),
        ("POST", "locks/verify", {"limit": "x"}),
        ("GET", "locks?limit=x", None),
        ("GET", "locks?limit=-1", None),
        ("POST", "locks/0/unlock", {"force": "yes"}),
    ],
)
async def test_nonsense(ann: LfsCaller, method: str, path: str, body: object) -> None:
    reply = await ann(method, path, body)
    assert reply.status == 422
    said(reply)


async def test_a_cursor_of_nobody(ann: LfsCaller) -> None:
    assert (await ann("GET", "locks?cursor=%ff")).status == 400


async def test_who_may(server: LfsServer, ann: LfsCaller) -> None:
    number = await lock(ann, "a")
    reader = await member(server, "rob", Role.READ)
    stranger = LfsCaller(await server.user("sue"), "ann/model")
    nobody = LfsCaller(server.api.anonymous, "ann/model")
    for caller, listed, changed in ((reader, 200, 403), (stranger, 404, 404), (nobody, 401, 401)):
        assert (await caller("GET", "locks")).status == listed
        for path, body in (
            ("locks", {"path": "b"}),
            ("locks/verify", {}),
            (f"locks/{number}/unlock", {"force": True}),
        ):
            assert (await caller("POST", path, body)).status == changed


async def test_no_lock_of_another_repository(server: LfsServer, ann: LfsCaller) -> None:
    number = await lock(ann, "secret")
    bob = await server.at_new_repository("bob")
    for query in ("", f"?id={number}", "?path=secret"):
        assert (await bob("GET", f"locks{query}")).json == {"locks": []}
    assert (await bob("POST", "locks/verify", {})).json == {"ours": [], "theirs": []}
    forced = await bob("POST", f"locks/{number}/unlock", {"force": True})
    none = await bob("POST", f"locks/{'0' * 32}/unlock", {"force": True})
    assert forced.status == none.status == 404
    assert said(forced) == said(none)
    assert await lock(bob, "secret") != number
