"""Every change of rights or credentials leaves one entry, in its own transaction, without secrets."""

from collections.abc import Awaitable

import pytest

from core.access import ANONYMOUS, SYSTEM
from core.audit import Action
from core.errors import AuthenticationRequired, ModelyardError, PermissionDenied
from core.models import Role, Scope, Visibility
from core.names import parse_address
from tests.support.core_services import PASSWORD, Core
from tests.support.ssh_public_keys import public_key_text


async def test_each_change_leaves_one_entry(core: Core) -> None:
    accounts, keyring, collaboration = core.accounts, core.keyring, core.collaboration
    repositories, organisations = core.repositories, core.organisations
    address, moved = parse_address("datasets/alice/x"), parse_address("datasets/alice/y")
    alice = await core.user("alice")
    await core.user("bob")
    seen = 2

    async def expect(action: Action, target: str, change: Awaitable[object]) -> None:
        nonlocal seen
        await change
        entries = await core.audit.list(SYSTEM)
        assert len(entries) == seen + 1, action
        assert (entries[0].action, entries[0].target) == (action, target)
        assert entries[0].actor in {"alice", "system"}
        assert entries[0].details["credential"] in {"password", "system"}
        seen += 1

    await expect(Action.USER_CREATE, "carol", accounts.create_user(SYSTEM, "carol", password=PASSWORD))
    await expect(Action.USER_UPDATE, "alice", accounts.update_user(alice, "alice", email="a@b.c"))
    await expect(Action.USER_UPDATE, "carol", accounts.update_user(SYSTEM, "carol", is_admin=True))
    await expect(Action.USER_SUSPEND, "bob", accounts.suspend(SYSTEM, "bob"))
    await expect(Action.USER_UNSUSPEND, "bob", accounts.unsuspend(SYSTEM, "bob"))
    await expect(Action.USER_PASSWORD, "alice", keyring.set_password(alice, "alice", PASSWORD))
    await expect(Action.TOKEN_MINT, "alice", keyring.mint_token(alice, "alice", "ci", Scope.READ))
    [token] = await keyring.tokens(alice, "alice")
    await expect(Action.TOKEN_REVOKE, "alice", keyring.revoke_token(alice, "alice", token.id))
    await expect(Action.KEY_ADD, "alice", keyring.add_key(alice, "alice", public_key_text()))
    [key] = await keyring.keys(alice, "alice")
    await expect(Action.KEY_REMOVE, "alice", keyring.remove_key(alice, "alice", key.id))

    await expect(Action.ORGANISATION_CREATE, "acme", accounts.create_organisation(alice, "acme"))
    await expect(Action.ORGANISATION_UPDATE, "acme", accounts.update_user(alice, "acme", full_name="A"))
    await expect(Action.MEMBER_SET, "acme", organisations.set_member(alice, "acme", "bob", Role.READ))
    await expect(Action.MEMBER_REMOVE, "acme", organisations.remove_member(alice, "acme", "bob"))
    await expect(Action.ORGANISATION_RENAME, "emca", accounts.rename(alice, "acme", "emca"))
    await expect(Action.ORGANISATION_DELETE, "emca", accounts.delete(alice, "emca"))

    path = "datasets/alice/x"
    await expect(Action.REPOSITORY_CREATE, path, repositories.create(alice, address))
    public = repositories.update(alice, address, visibility=Visibility.PUBLIC)
    await expect(Action.REPOSITORY_UPDATE, path, public)
    collaborator = collaboration.set_collaborator(alice, address, "bob", Role.READ)
    await expect(Action.COLLABORATOR_SET, path, collaborator)
    gone = collaboration.remove_collaborator(alice, address, "bob")
    await expect(Action.COLLABORATOR_REMOVE, path, gone)
    deploy = collaboration.add_deploy_key(alice, address, public_key_text())
    await expect(Action.DEPLOY_KEY_ADD, path, deploy)
    [deploy_key] = await collaboration.deploy_keys(alice, address)
    no_key = collaboration.remove_deploy_key(alice, address, deploy_key.id)
    await expect(Action.DEPLOY_KEY_REMOVE, path, no_key)
    await expect(Action.BRANCH_RULE_ADD, path, collaboration.add_branch_rule(alice, address, "main"))
    [rule] = await collaboration.branch_rules(alice, address)
    looser = collaboration.update_branch_rule(
        alice, address, rule.id, allow_force=True, allow_delete=True, pushers=["alice"]
    )
    await expect(Action.BRANCH_RULE_UPDATE, path, looser)
    no_rule = collaboration.remove_branch_rule(alice, address, rule.id)
    await expect(Action.BRANCH_RULE_REMOVE, path, no_rule)
    await expect(Action.REPOSITORY_MOVE, moved.path, repositories.move(alice, address, moved))
    await expect(Action.REPOSITORY_DELETE, moved.path, repositories.delete(alice, moved))
    await expect(Action.USER_RENAME, "bobby", accounts.rename(SYSTEM, "bob", "bobby"))
    await expect(Action.USER_DELETE, "bobby", accounts.delete(SYSTEM, "bobby"))

    entries = await core.audit.list(SYSTEM)
    subjects = ("lfs", "lock", "push", "quota", "trigger_rule", "webhook")
    elsewhere = {one for one in Action if one.partition(":")[0] in subjects}
    found = {entry.action for entry in entries}
    assert found == set(Action) - elsewhere, "this test changes something of each kind that core has"


async def test_a_refused_change_leaves_none(core: Core) -> None:
    alice, bob = await core.user("alice"), await core.user("bob")
    address = (await core.repository("alice/x")).address
    before = len(await core.audit.list(SYSTEM))
    for refused in (
        core.repositories.delete(bob, address),
        core.accounts.suspend(bob, "alice"),
        core.keyring.mint_token(bob, "alice", "ci", Scope.READ),
        core.collaboration.set_collaborator(bob, address, "bob", Role.ADMIN),
        core.accounts.delete(alice, "alice"),
        core.repository("alice/x"),
    ):
        with pytest.raises(ModelyardError):
            await refused
    assert len(await core.audit.list(SYSTEM)) == before


async def test_no_entry_holds_a_secret(core: Core) -> None:
    await core.accounts.create_user(SYSTEM, "alice", password=PASSWORD)
    secret, _ = await core.keyring.mint_token(SYSTEM, "alice", "ci", Scope.READ)
    await core.keyring.set_password(SYSTEM, "alice", "another good one")
    everything = repr(await core.audit.list(SYSTEM))
    for hidden in (PASSWORD, "another good one", secret, "argon2"):
        assert hidden not in everything


async def test_the_log_is_paged_narrowed_and_for_administrators(core: Core) -> None:
    root, alice = await core.user("ruth", is_admin=True), await core.user("alice")
    entries = await core.audit.list(root)
    assert [entry.target for entry in entries] == ["alice", "ruth"]
    assert await core.audit.list(root, limit=1) == entries[:1]
    assert await core.audit.list(root, before=entries[0].id) == entries[1:]
    assert await core.audit.list(root, target="ruth") == entries[1:]
    assert await core.audit.list(root, action="user:delete") == []
    assert await core.audit.list(root, target="ru\0th") == await core.audit.list(root, target="ruth")
    with pytest.raises(PermissionDenied):
        await core.audit.list(alice)
    with pytest.raises(AuthenticationRequired):
        await core.audit.list(ANONYMOUS)


async def test_entries_survive_what_they_speak_of(core: Core) -> None:
    await core.user("alice")
    await core.accounts.delete(SYSTEM, "alice")
    entries = await core.audit.list(SYSTEM, target="alice")
    assert [entry.action for entry in entries] == [Action.USER_DELETE, Action.USER_CREATE]
