"""Collaborators, deploy keys and branch rules of a repository."""

import pytest

from core.access import ANONYMOUS, Permission
from core.errors import (
    AccountNotFound,
    AlreadyExists,
    AuthenticationRequired,
    NotFound,
    PermissionDenied,
    RepositoryNotFound,
    Unprocessable,
)
from core.models import Role, Visibility
from core.names import parse_address
from tests.support.core_services import Core
from tests.support.ssh_public_keys import public_key_text


async def test_collaborators(core: Core) -> None:
    alice, bob = await core.user("alice"), await core.user("bob")
    address = (await core.repository("alice/x")).address
    added = await core.collaboration.set_collaborator(alice, address, "Bob", Role.READ)
    changed = await core.collaboration.set_collaborator(alice, address, "bob", Role.WRITE)
    assert (changed.user, changed.role, changed.since) == ("bob", Role.WRITE, added.since)
    assert await core.collaboration.collaborators(alice, address) == [changed]
    await core.repositories.open(bob, address, Permission.WRITE)
    await core.collaboration.remove_collaborator(alice, address, "bob")
    with pytest.raises(RepositoryNotFound):
        await core.repositories.open(bob, address, Permission.READ)
    with pytest.raises(NotFound):
        await core.collaboration.remove_collaborator(alice, address, "bob")


async def test_who_cannot_be_a_collaborator(core: Core) -> None:
    alice = await core.user("alice")
    await core.accounts.create_organisation(alice, "acme")
    address = (await core.repository("alice/x")).address
    with pytest.raises(Unprocessable):
        await core.collaboration.set_collaborator(alice, address, "alice", Role.READ)
    for name in ("acme", "nobody"):
        with pytest.raises(AccountNotFound):
            await core.collaboration.set_collaborator(alice, address, name, Role.READ)


async def test_deploy_keys(core: Core) -> None:
    alice = await core.user("alice")
    address = (await core.repository("alice/x")).address
    reading = await core.collaboration.add_deploy_key(alice, address, public_key_text(), "Mirror")
    writing = await core.collaboration.add_deploy_key(alice, address, public_key_text("ci"), read_only=False)
    assert (reading.title, reading.read_only) == ("Mirror", True)
    assert (writing.title, writing.read_only) == ("ci", False)
    assert await core.collaboration.deploy_keys(alice, address) == [reading, writing]
    await core.collaboration.remove_deploy_key(alice, address, reading.id)
    assert await core.collaboration.deploy_keys(alice, address) == [writing]
    assert await core.keyring.keys(alice, "alice") == []


async def test_branch_rules(core: Core) -> None:
    alice = await core.user("alice")
    await core.user("bob")
    address = (await core.repository("alice/x")).address
    rule = await core.collaboration.add_branch_rule(
        alice, address, "release/*", pushers=["BOB", "alice", "bob"]
    )
    assert (rule.pattern, rule.allow_force, rule.allow_delete) == ("release/*", False, False)
    assert rule.pushers == ("alice", "bob")
    changed = await core.collaboration.update_branch_rule(
        alice, address, rule.id, allow_force=True, allow_delete=False, pushers=None
    )
    assert (changed.id, changed.pattern, changed.allow_force, changed.pushers) == (
        rule.id,
        "release/*",
        True,
        None,
    )
    nobody = await core.collaboration.add_branch_rule(alice, address, "frozen", pushers=[])
    assert nobody.pushers == ()
    assert await core.collaboration.branch_rules(alice, address) == [changed, nobody]
    with pytest.raises(AlreadyExists) as taken:
        await core.collaboration.add_branch_rule(alice, address, "frozen")
    assert taken.value.fields == {"pattern": "frozen"}
    with pytest.raises(AccountNotFound):
        await core.collaboration.add_branch_rule(alice, address, "other", pushers=["nobody"])
    await core.collaboration.remove_branch_rule(alice, address, rule.id)
    with pytest.raises(NotFound):
        await core.collaboration.remove_branch_rule(alice, address, rule.id)


@pytest.mark.parametrize("pattern", ["", " ", "refs/heads/main", "a b", "a\\b", "a^", "x" * 201, "a\0"])
async def test_patterns_that_cannot_be(core: Core, pattern: str) -> None:
    alice = await core.user("alice")
    address = (await core.repository("alice/x")).address
    with pytest.raises(Unprocessable):
        await core.collaboration.add_branch_rule(alice, address, pattern)


async def test_rules_of_other_repositories_are_not_found(core: Core) -> None:
    alice = await core.user("alice")
    first, second = (await core.repository("alice/x")).address, (await core.repository("alice/y")).address
    rule = await core.collaboration.add_branch_rule(alice, first, "main")
    with pytest.raises(NotFound):
        await core.collaboration.remove_branch_rule(alice, second, rule.id)
    with pytest.raises(NotFound):
        await core.collaboration.update_branch_rule(
            alice, second, rule.id, allow_force=True, allow_delete=True, pushers=None
        )
    assert await core.collaboration.branch_rules(alice, first) == [rule]


async def test_everything_here_needs_admin(core: Core) -> None:
    alice, bob, eve = await core.user("alice"), await core.user("bob"), await core.user("eve")
    address = (await core.repository("alice/x")).address
    public = (await core.repository("alice/open", visibility=Visibility.PUBLIC)).address
    await core.collaboration.set_collaborator(alice, address, "bob", Role.WRITE)
    for actor, place, error in (
        (bob, address, PermissionDenied),
        (eve, address, RepositoryNotFound),
        (eve, public, PermissionDenied),
        (ANONYMOUS, public, AuthenticationRequired),
        (eve, parse_address("alice/none"), RepositoryNotFound),
    ):
        for refused in (
            core.collaboration.collaborators(actor, place),
            core.collaboration.set_collaborator(actor, place, "eve", Role.ADMIN),
            core.collaboration.remove_collaborator(actor, place, "bob"),
            core.collaboration.deploy_keys(actor, place),
            core.collaboration.add_deploy_key(actor, place, public_key_text()),
            core.collaboration.remove_deploy_key(actor, place, 1),
            core.collaboration.branch_rules(actor, place),
            core.collaboration.add_branch_rule(actor, place, "main"),
            core.collaboration.update_branch_rule(
                actor, place, 1, allow_force=True, allow_delete=True, pushers=None
            ),
            core.collaboration.remove_branch_rule(actor, place, 1),
        ):
            with pytest.raises(error):
                await refused


async def test_rules_have_a_limit(core: Core) -> None:
    """Each push tries each rule on each ref, so a rule is not free."""
    alice = await core.user("alice")
    address = (await core.repository("alice/x")).address
    for number in range(100):
        await core.collaboration.add_branch_rule(alice, address, f"b{number}")
    with pytest.raises(Unprocessable):
        await core.collaboration.add_branch_rule(alice, address, "one-more")
