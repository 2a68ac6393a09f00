"""Users, organisations, keys and tokens over REST."""

import pytest

from core.access import SYSTEM
from core.models import Scope
from tests.support.api import PASSWORD, ApiServer

ED25519 = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGBKQXG+LjN2B+FIEgoWOi3kPrRgwTWAOAjCQXyp1osH alice@laptop"


async def test_the_life_of_a_user(each_api: ApiServer) -> None:
    root = each_api.root
    made = await root("POST", "/users", {"name": "alice", "password": PASSWORD, "email": "a@example.org"})
    assert made.status == 201
    assert made.headers["Location"] == f"{each_api.base}/api/v1/users/alice"
    assert made.json["email"] == "a@example.org"
    alice = each_api.basic("alice", PASSWORD)
    assert (await alice.ok("GET", "/user"))["name"] == "alice"
    changed = await alice.ok("PATCH", "/users/alice", {"full_name": "Alice Liddell"})
    assert (changed["full_name"], changed["email"]) == ("Alice Liddell", "a@example.org")
    weak = await each_api.token("root-user", Scope.READ)
    assert (await weak.ok("GET", "/users/alice"))["email"] is None, "not with every token of an administrator"
    stranger = await each_api.anonymous.ok("GET", "/users/alice")
    assert (stranger["full_name"], stranger["email"]) == ("Alice Liddell", None)
    assert (await alice("PATCH", "/users/alice", {"is_admin": True})).code == "permission_denied"
    await alice.ok("PUT", "/users/alice/password", {"password": PASSWORD + "!"})
    assert (await alice("GET", "/user")).code == "invalid_credentials"
    alice = each_api.basic("alice", PASSWORD + "!")
    assert (await alice("PUT", "/users/alice/suspension")).code == "permission_denied"
    assert (await root.ok("PUT", "/users/alice/suspension"))["suspended"] is True
    assert (await alice("GET", "/user")).status == 401
    await root.ok("DELETE", "/users/alice/suspension")
    renamed = await alice.ok("POST", "/users/alice/rename", {"name": "alicia"})
    assert renamed["name"] == "alicia"
    assert (await root.ok("GET", "/users/alice"))["name"] == "alicia", "a former name leads on"
    assert await root.ok("DELETE", "/users/alicia") is None
    assert (await root("GET", "/users/alicia")).code == "account_not_found"


async def test_organisations_keep_an_owner(each_api: ApiServer) -> None:
    alice, bob = await each_api.user("alice"), await each_api.user("bob")
    await alice.ok("POST", "/organisations", {"name": "acme", "full_name": "Acme"})
    assert (
        await bob("PUT", "/organisations/acme/members/bob", {"role": "admin"})
    ).code == "permission_denied"
    member = await alice.ok("PUT", "/organisations/acme/members/bob", {"role": "write"})
    assert (member["user"], member["role"]) == ("bob", "write")
    members = await bob.ok("GET", "/organisations/acme/members")
    assert [(one["user"], one["role"]) for one in members] == [("alice", "admin"), ("bob", "write")]
    assert [one["organisation"] for one in await bob.ok("GET", "/users/bob/organisations")] == ["acme"]
    assert (await alice("DELETE", "/organisations/acme/members/alice")).code == "conflict"
    await bob.ok("DELETE", "/organisations/acme/members/bob")
    assert (await alice("GET", "/users/acme")).code == "account_not_found"
    assert (await alice("GET", "/organisations/alice")).code == "account_not_found"
    await alice.ok("PATCH", "/organisations/acme", {"full_name": "Acme Ltd"})
    await alice.ok("POST", "/organisations/acme/rename", {"name": "acme-ltd"})
    assert [one["name"] for one in await bob.ok("GET", "/organisations?search=ltd")] == ["acme-ltd"]
    await alice.ok("DELETE", "/organisations/acme-ltd")


async def test_a_secret_is_shown_once(each_api: ApiServer) -> None:
    alice = await each_api.user("alice")
    made = await alice("POST", "/users/alice/tokens", {"name": "ci", "scope": "read", "expires_in_days": 30})
    assert made.status == 201
    assert made.headers["Cache-Control"] == "no-store"
    secret = made.json["token"]
    assert (await each_api.bearer(secret).ok("GET", "/user"))["name"] == "alice"
    listed = await alice("GET", "/users/alice/tokens")
    assert secret.encode() not in listed.body
    assert [one["name"] for one in listed.json] == ["test", "ci"]
    weak = each_api.bearer(secret)
    assert (await weak("GET", "/users/alice/tokens")).code == "permission_denied"
    assert (await weak("POST", "/repositories", {"owner": "alice", "name": "x"})).code == "permission_denied"
    location = made.headers["Location"]
    assert "token" not in await alice.ok("GET", location)
    await alice.ok("DELETE", location)
    assert (await weak("GET", "/user")).code == "invalid_credentials"
    assert (await alice("GET", location)).code == "not_found"


async def test_others_tokens_and_keys_are_out_of_reach(api: ApiServer) -> None:
    await api.user("alice")
    bob = await api.user("bob")
    _, token = await api.services.keyring.mint_token(SYSTEM, "alice", "ci", Scope.READ)
    for path in ("tokens", f"tokens/{token.id}", "keys", "keys/1"):
        assert (await bob("GET", f"/users/alice/{path}")).code == "permission_denied"
    assert (await bob("DELETE", f"/users/alice/tokens/{token.id}")).code == "permission_denied"
    assert (await bob("DELETE", f"/users/bob/tokens/{token.id}")).code == "not_found"
    assert (await bob("GET", f"/users/bob/tokens/{token.id}")).code == "not_found"


async def test_keys(each_api: ApiServer) -> None:
    alice, bob = await each_api.user("alice"), await each_api.user("bob")
    made = await alice("POST", "/users/alice/keys", {"key": ED25519})
    assert made.status == 201, made.body
    assert made.json["title"] == "alice@laptop"
    assert made.json["fingerprint"].startswith("SHA256:")
    assert (await alice.ok("GET", made.headers["Location"])) == made.json
    assert (await bob("POST", "/users/bob/keys", {"key": ED25519})).code == "already_exists"
    assert (await bob("POST", "/users/bob/keys", {"key": "ssh-dss AAAA"})).code == "invalid_key"
    await alice.ok("DELETE", made.headers["Location"])
    assert await alice.ok("GET", "/users/alice/keys") == []


async def test_the_audit_log_is_for_administrators(each_api: ApiServer) -> None:
    alice = await each_api.user("alice")
    await each_api.root.ok("PUT", "/users/alice/suspension")
    await each_api.root.ok("DELETE", "/users/alice/suspension")
    entries = await each_api.root.ok("GET", "/audit?target=alice")
    assert [one["action"] for one in entries[:2]] == ["user:unsuspend", "user:suspend"]
    assert {one["actor"] for one in entries[:2]} == {"root-user"}
    assert (await alice("GET", "/audit")).code == "permission_denied"
    assert (await each_api.anonymous("GET", "/audit")).code == "authentication_required"


@pytest.mark.parametrize(
    "name", ["api", "Upper", "a--b", "-a", "a" * 40, "a\x00b", "ä", "a/b", "..", "\u0430lice"]
)
async def test_hostile_account_names_are_refused(api: ApiServer, name: str) -> None:
    assert (await api.root("POST", "/users", {"name": name})).code == "invalid_name"
    assert (await api.root("POST", "/organisations", {"name": name})).code == "invalid_name"
