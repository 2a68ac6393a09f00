"""Tokens, keys and passwords: who may manage whose."""

import pytest
from sqlalchemy import select

from core.access import ANONYMOUS, SYSTEM, Actor, ActorKind
from core.errors import (
    AccountNotFound,
    AlreadyExists,
    AuthenticationRequired,
    NotFound,
    PermissionDenied,
    RepositoryNotFound,
    Unprocessable,
)
from core.models import AccessToken, Account, Scope
from core.names import parse_address
from core.ssh_keys import InvalidKey
from tests.support.core_services import PASSWORD, Core
from tests.support.ssh_public_keys import public_key_text


async def test_a_token_is_shown_once_and_stored_hashed(core: Core) -> None:
    alice = await core.user("alice")
    repository = await core.repository("datasets/alice/x")
    secret, info = await core.keyring.mint_token(
        alice, "alice", " ci ", Scope.WRITE, repository=repository.address, expires_in_days=30
    )
    assert (info.user, info.name, info.scope, info.repository) == (
        "alice",
        "ci",
        Scope.WRITE,
        "datasets/alice/x",
    )
    assert info.expires_at is not None
    assert (info.expires_at - info.created_at).days in {29, 30}
    assert await core.keyring.tokens(alice, "alice") == [info]
    async with core.database.read() as session:
        row = (await session.scalars(select(AccessToken))).one()
    assert secret not in repr(vars(row))


async def test_a_token_follows_its_repository(core: Core) -> None:
    alice = await core.user("alice")
    repository = await core.repository("alice/x")
    await core.keyring.mint_token(alice, "alice", "ci", Scope.READ, repository=repository.address)
    await core.repositories.move(alice, repository.address, parse_address("alice/y"))
    assert [token.repository for token in await core.keyring.tokens(alice, "alice")] == ["alice/y"]


async def test_a_token_is_not_limited_to_what_its_user_does_not_see(core: Core) -> None:
    await core.user("alice")
    bob = await core.user("bob")
    repository = await core.repository("alice/x")
    for address in (repository.address, parse_address("alice/none")):
        with pytest.raises(RepositoryNotFound):
            await core.keyring.mint_token(bob, "bob", "ci", Scope.READ, repository=address)


@pytest.mark.parametrize("days", [0, -1, 3651])
async def test_terms_that_cannot_be(core: Core, days: int) -> None:
    alice = await core.user("alice")
    with pytest.raises(Unprocessable):
        await core.keyring.mint_token(alice, "alice", "ci", Scope.READ, expires_in_days=days)


async def test_titles_that_cannot_be(core: Core) -> None:
    alice = await core.user("alice")
    for title in ("", "  ", "x" * 101, "a\nb"):
        with pytest.raises(Unprocessable):
            await core.keyring.mint_token(alice, "alice", title, Scope.READ)
    for title in ("x" * 101, "a\x1bb"):
        with pytest.raises(Unprocessable):
            await core.keyring.add_key(alice, "alice", public_key_text(), title)


async def test_a_key(core: Core) -> None:
    alice = await core.user("alice")
    text = public_key_text("alice@laptop")
    added = await core.keyring.add_key(alice, "alice", text + "\n")
    assert added.title == "alice@laptop"
    assert added.public_key == text.rpartition(" ")[0]
    named = await core.keyring.add_key(alice, "alice", public_key_text(""), "Desk")
    assert named.title == "Desk"
    assert await core.keyring.keys(alice, "alice") == [added, named]
    with pytest.raises(InvalidKey):
        await core.keyring.add_key(alice, "alice", "ssh-ed25519 nonsense")


async def test_a_key_proves_one_identity(core: Core) -> None:
    alice, bob = await core.user("alice"), await core.user("bob")
    repository = await core.repository("alice/x")
    text = public_key_text()
    added = await core.keyring.add_key(alice, "alice", text)
    for again in (
        core.keyring.add_key(bob, "bob", text),
        core.keyring.add_key(alice, "alice", text + " more"),
        core.collaboration.add_deploy_key(alice, repository.address, text),
    ):
        with pytest.raises(AlreadyExists) as taken:
            await again
        assert taken.value.fields == {"fingerprint": added.fingerprint}
    await core.keyring.remove_key(alice, "alice", added.id)
    await core.collaboration.add_deploy_key(alice, repository.address, text)


async def test_ids_of_others_are_not_found(core: Core) -> None:
    alice, bob = await core.user("alice"), await core.user("bob")
    _, token = await core.keyring.mint_token(alice, "alice", "ci", Scope.READ)
    key = await core.keyring.add_key(alice, "alice", public_key_text())
    with pytest.raises(NotFound):
        await core.keyring.revoke_token(bob, "bob", token.id)
    with pytest.raises(NotFound):
        await core.keyring.remove_key(bob, "bob", key.id)
    repository = await core.repository("bob/x")
    with pytest.raises(NotFound):
        await core.collaboration.remove_deploy_key(bob, repository.address, key.id)
    assert await core.keyring.tokens(alice, "alice") == [token]
    assert await core.keyring.keys(alice, "alice") == [key]


async def test_who_manages_whose_credentials(core: Core) -> None:
    alice, bob, root = (
        await core.user("alice"),
        await core.user("bob"),
        await core.user("ruth", is_admin=True),
    )
    await core.accounts.create_organisation(alice, "acme")
    weak = Actor(ActorKind.USER, "alice", user_id=alice.user_id, scope=Scope.WRITE)
    for actor, error in (
        (bob, PermissionDenied),
        (weak, PermissionDenied),
        (ANONYMOUS, AuthenticationRequired),
    ):
        for refused in (
            core.keyring.mint_token(actor, "alice", "ci", Scope.READ),
            core.keyring.tokens(actor, "alice"),
            core.keyring.revoke_token(actor, "alice", 1),
            core.keyring.add_key(actor, "alice", public_key_text()),
            core.keyring.keys(actor, "alice"),
            core.keyring.remove_key(actor, "alice", 1),
            core.keyring.set_password(actor, "alice", PASSWORD),
        ):
            with pytest.raises(error):
                await refused
    for actor in (alice, root, SYSTEM):
        await core.keyring.mint_token(actor, "alice", "ci", Scope.READ)
    assert len(await core.keyring.tokens(root, "alice")) == 3
    with pytest.raises(AccountNotFound):
        await core.keyring.mint_token(alice, "acme", "ci", Scope.READ)


async def test_a_token_does_not_become_a_password(core: Core) -> None:
    alice, root = await core.user("alice"), await core.user("ruth", is_admin=True)
    secret, _ = await core.keyring.mint_token(alice, "alice", "all", Scope.ADMIN)
    by_token = await core.credentials.authenticate_token(secret, "")
    with pytest.raises(PermissionDenied, match="old password"):
        await core.keyring.set_password(by_token, "alice", PASSWORD)
    await core.keyring.set_password(root, "alice", PASSWORD)
    by_password = await core.credentials.authenticate_basic("alice", PASSWORD, "")
    await core.keyring.set_password(by_password, "alice", "another good one")
    async with core.database.read() as session:
        stored = await session.scalar(select(Account.password_hash).where(Account.name == "alice"))
    assert stored is not None
    assert stored.startswith("$argon2id$v=19$m=19456,t=2,p=1$")
