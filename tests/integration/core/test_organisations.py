"""Members of organisations."""

import pytest

from core.access import SYSTEM, Actor, ActorKind, Permission
from core.errors import AccountNotFound, Conflict, PermissionDenied, RepositoryNotFound
from core.models import Role, Scope
from tests.support.core_services import Core


async def roles(core: Core) -> dict[str, Role]:
    return {member.user: member.role for member in await core.organisations.members("acme")}


async def test_joining_changing_and_leaving(core: Core) -> None:
    alice, bob = await core.user("alice"), await core.user("bob")
    await core.accounts.create_organisation(alice, "acme")
    repository = await core.repository("acme/x")
    added = await core.organisations.set_member(alice, "ACME", "bob", Role.READ)
    assert (added.organisation, added.user, added.role) == ("acme", "bob", Role.READ)
    changed = await core.organisations.set_member(alice, "acme", "bob", Role.WRITE)
    assert (changed.role, changed.since) == (Role.WRITE, added.since)
    assert await roles(core) == {"alice": Role.ADMIN, "bob": Role.WRITE}
    await core.repositories.open(bob, repository.address, Permission.WRITE)
    await core.organisations.remove_member(bob, "acme", "bob")
    with pytest.raises(RepositoryNotFound):
        await core.repositories.open(bob, repository.address, Permission.READ)
    with pytest.raises(AccountNotFound):
        await core.organisations.remove_member(alice, "acme", "bob")


async def test_an_owner_remains(core: Core) -> None:
    alice, bob = await core.user("alice"), await core.user("bob")
    await core.accounts.create_organisation(alice, "acme")
    await core.organisations.set_member(alice, "acme", "bob", Role.WRITE)
    for refused in (
        core.organisations.remove_member(alice, "acme", "alice"),
        core.organisations.remove_member(SYSTEM, "acme", "alice"),
        core.organisations.set_member(alice, "acme", "alice", Role.READ),
    ):
        with pytest.raises(Conflict, match="last owner"):
            await refused
    await core.organisations.set_member(alice, "acme", "bob", Role.ADMIN)
    await core.organisations.set_member(bob, "acme", "alice", Role.READ)
    assert await roles(core) == {"alice": Role.READ, "bob": Role.ADMIN}


async def test_members_do_not_manage_members(core: Core) -> None:
    alice, bob = await core.user("alice"), await core.user("bob")
    await core.user("carol")
    await core.accounts.create_organisation(alice, "acme")
    await core.organisations.set_member(alice, "acme", "bob", Role.WRITE)
    for refused in (
        core.organisations.set_member(bob, "acme", "bob", Role.ADMIN),
        core.organisations.set_member(bob, "acme", "carol", Role.READ),
        core.organisations.remove_member(bob, "acme", "alice"),
        core.accounts.update_user(bob, "acme", full_name="Mine"),
        core.accounts.delete(bob, "acme"),
    ):
        with pytest.raises(PermissionDenied):
            await refused
    weak = Actor(ActorKind.USER, "alice", user_id=alice.user_id, scope=Scope.WRITE)
    with pytest.raises(PermissionDenied):
        await core.organisations.set_member(weak, "acme", "carol", Role.READ)


async def test_only_users_belong_to_organisations(core: Core) -> None:
    alice = await core.user("alice")
    await core.accounts.create_organisation(alice, "acme")
    await core.accounts.create_organisation(alice, "other")
    for organisation, user in (("acme", "other"), ("alice", "alice"), ("acme", "nobody"), ("none", "alice")):
        with pytest.raises(AccountNotFound):
            await core.organisations.set_member(alice, organisation, user, Role.READ)
    with pytest.raises(AccountNotFound):
        await core.organisations.members("alice")
    with pytest.raises(AccountNotFound):
        await core.organisations.organisations_of("acme")
