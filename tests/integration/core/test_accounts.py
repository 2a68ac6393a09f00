"""Users and organisations: names, rights over accounts, suspension and deletion."""

import pytest
from sqlalchemy import func, select

from core.access import ANONYMOUS, SYSTEM, Actor, ActorKind
from core.accounts import AccountInfo
from core.errors import (
    AccountNotFound,
    AlreadyExists,
    AuthenticationRequired,
    Conflict,
    InvalidCredentials,
    InvalidName,
    PermissionDenied,
    Unprocessable,
)
from core.models import AccessToken, AccountKind, AccountRedirect, Membership, Role, Scope, SshKey
from core.names import parse_address
from tests.support.core_services import PASSWORD, Core
from tests.support.ssh_public_keys import public_key_text


async def test_a_new_user(core: Core) -> None:
    created = await core.accounts.create_user(
        SYSTEM, "alice", full_name="Alice Ö", email="alice@example.org", password=PASSWORD
    )
    assert created.kind is AccountKind.USER
    assert (created.full_name, created.email, created.is_admin) == ("Alice Ö", "alice@example.org", False)
    assert created.suspended_at is None
    assert await core.accounts.get("ALICE") == created
    assert await core.accounts.count() == 1
    with pytest.raises(AlreadyExists) as taken:
        await core.user("alice")
    assert taken.value.fields == {"name": "alice"}


@pytest.mark.parametrize(
    "name", ["Alice", "a_b", "-a", "a-", "a--b", "", "a" * 40, "api", "datasets", "login", "a/b", "å", "a\0"]
)
async def test_names_that_cannot_be(core: Core, name: str) -> None:
    with pytest.raises(InvalidName):
        await core.accounts.create_user(SYSTEM, name)
    alice = await core.user("alice")
    with pytest.raises(InvalidName):
        await core.accounts.rename(alice, "alice", name)
    with pytest.raises(InvalidName):
        await core.accounts.create_organisation(alice, name)


@pytest.mark.parametrize(
    "name", ["nobody", "", "a\0b", "\ud800", "ALI\u212aE", "x" * 5000, "'; drop table account"]
)
async def test_names_that_nobody_has(core: Core, name: str) -> None:
    await core.user("alike")
    with pytest.raises(AccountNotFound):
        await core.accounts.get(name)


async def test_bad_details(core: Core) -> None:
    for email in ("no-at", "a@b@c", "@b", "a@", "a b@c", "<a@b>", "a\0@b", "x" * 251 + "@b.c"):
        with pytest.raises(Unprocessable):
            await core.accounts.create_user(SYSTEM, "alice", email=email)
    for password in ("short", "x" * 1025, "myd_" + "x" * 20):
        with pytest.raises(Unprocessable):
            await core.accounts.create_user(SYSTEM, "alice", password=password)
    assert await core.accounts.count() == 0


async def test_only_administrators_create_users(core: Core) -> None:
    alice, root = await core.user("alice"), await core.user("ruth", is_admin=True)
    with pytest.raises(PermissionDenied):
        await core.accounts.create_user(alice, "bob")
    with pytest.raises(AuthenticationRequired):
        await core.accounts.create_user(ANONYMOUS, "bob")
    await core.accounts.create_user(root, "bob")


async def test_who_may_found_an_organisation(core: Core) -> None:
    alice, bob, root = (
        await core.user("alice"),
        await core.user("bob"),
        await core.user("ruth", is_admin=True),
    )
    await core.accounts.create_organisation(alice, "acme")
    assert [(m.user, m.role) for m in await core.organisations.members("acme")] == [("alice", Role.ADMIN)]
    with pytest.raises(PermissionDenied):
        await core.accounts.create_organisation(alice, "bobs", owner="bob")
    with pytest.raises(AuthenticationRequired):
        await core.accounts.create_organisation(ANONYMOUS, "bobs", owner="bob")
    await core.accounts.create_organisation(root, "bobs", owner="bob")
    await core.accounts.create_organisation(SYSTEM, "more", owner="bob")
    with pytest.raises(PermissionDenied):
        await core.accounts.create_organisation(SYSTEM, "nobodys")
    with pytest.raises(AccountNotFound):
        await core.accounts.create_organisation(SYSTEM, "nobodys", owner="acme")
    assert [m.organisation for m in await core.organisations.organisations_of("bob")] == ["bobs", "more"]
    assert [m.organisation for m in await core.organisations.organisations_of(bob.name)] == ["bobs", "more"]


async def test_users_and_organisations_share_names(core: Core) -> None:
    alice = await core.user("alice")
    await core.accounts.create_organisation(alice, "acme")
    with pytest.raises(AlreadyExists):
        await core.user("acme")
    with pytest.raises(AlreadyExists):
        await core.accounts.create_organisation(alice, "alice")
    with pytest.raises(AlreadyExists):
        await core.accounts.rename(alice, "acme", "alice")


async def test_changing_details(core: Core) -> None:
    alice, bob, root = (
        await core.user("alice"),
        await core.user("bob"),
        await core.user("ruth", is_admin=True),
    )
    changed = await core.accounts.update_user(alice, "alice", full_name="A", email="a@example.org")
    assert (changed.full_name, changed.email) == ("A", "a@example.org")
    with pytest.raises(PermissionDenied):
        await core.accounts.update_user(bob, "alice", full_name="B")
    with pytest.raises(PermissionDenied):
        await core.accounts.update_user(alice, "alice", is_admin=True)
    assert (await core.accounts.update_user(root, "alice", is_admin=True)).is_admin
    weak = Actor(ActorKind.USER, "bob", user_id=bob.user_id, scope=Scope.WRITE)
    with pytest.raises(PermissionDenied):
        await core.accounts.update_user(weak, "bob", full_name="B")


async def test_the_list_of_accounts(core: Core) -> None:
    alice = await core.user("alice")
    await core.user("bob")
    await core.accounts.create_organisation(alice, "acme", full_name="Bobbins & Co")
    names = [info.name for info in await core.accounts.list()]
    assert names == ["acme", "alice", "bob"]
    assert [info.name for info in await core.accounts.list(limit=1, after="acme")] == ["alice"]
    assert [info.name for info in await core.accounts.list(kind=AccountKind.USER)] == ["alice", "bob"]
    assert [info.name for info in await core.accounts.list(search="BOB")] == ["acme", "bob"]
    assert await core.accounts.list(search="%") == []


async def test_renaming_leaves_a_redirect_until_the_name_is_taken(core: Core) -> None:
    alice = await core.user("alice")
    renamed = await core.accounts.rename(alice, "alice", "alicia")
    assert await core.accounts.get("alice") == renamed
    again = await core.accounts.rename(alice, "alice", "ally")
    assert await core.accounts.get("alice") == await core.accounts.get("alicia") == again
    other = await core.accounts.create_user(SYSTEM, "alice")
    assert await core.accounts.get("alice") == other
    back = await core.accounts.rename(alice, "ally", "alicia")
    assert (back.id, back.name) == (again.id, "alicia")
    async with core.database.read() as session:
        assert set(await session.scalars(select(AccountRedirect.name))) == {"ally"}


async def test_only_those_who_manage_an_account_rename_it(core: Core) -> None:
    alice, bob = await core.user("alice"), await core.user("bob")
    await core.accounts.create_organisation(alice, "acme")
    await core.organisations.set_member(alice, "acme", "bob", Role.WRITE)
    for name in ("alice", "acme"):
        with pytest.raises(PermissionDenied):
            await core.accounts.rename(bob, name, "taken")
    assert (await core.accounts.rename(alice, "acme", "emca")).name == "emca"


async def test_rules_follow_a_renamed_pusher_and_forget_a_deleted_one(core: Core) -> None:
    alice, bob = await core.user("alice"), await core.user("bob")
    address = (await core.repository("alice/x")).address
    await core.collaboration.add_branch_rule(alice, address, "main", pushers=["alice", "bob"])
    await core.collaboration.add_branch_rule(alice, address, "free")
    await core.accounts.rename(bob, "bob", "bobby")

    async def pushers() -> list[tuple[str, ...] | None]:
        return [rule.pushers for rule in await core.collaboration.branch_rules(alice, address)]

    assert await pushers() == [("alice", "bobby"), None]
    await core.accounts.delete(SYSTEM, "bobby")
    assert await pushers() == [("alice",), None]


async def test_suspension_shuts_out_at_once_and_is_undone(core: Core) -> None:
    alice = await core.user("alice")
    await core.keyring.set_password(alice, "alice", PASSWORD)
    secret, _ = await core.keyring.mint_token(alice, "alice", "t", Scope.ADMIN)
    key = await core.keyring.add_key(alice, "alice", public_key_text())

    async def gets_in() -> list[bool]:
        ways = []
        for user, password in (("alice", PASSWORD), ("any", secret)):
            try:
                await core.credentials.authenticate_basic(user, password, "")
                ways.append(True)
            except InvalidCredentials:
                ways.append(False)
        return [*ways, await core.credentials.authenticate_key(key.fingerprint, "") is not None]

    assert await gets_in() == [True, True, True]
    suspended = await core.accounts.suspend(SYSTEM, "alice")
    assert suspended.suspended_at is not None
    assert await gets_in() == [False, False, False]
    with pytest.raises(InvalidCredentials):
        await core.repository("alice/x", actor=alice)
    with pytest.raises(InvalidCredentials):
        await core.keyring.tokens(alice, "alice")
    await core.accounts.unsuspend(SYSTEM, "alice")
    assert await gets_in() == [True, True, True]


async def test_deletion_takes_everything_along(core: Core) -> None:
    alice, bob = await core.user("alice"), await core.user("bob")
    await core.keyring.set_password(alice, "alice", PASSWORD)
    assert (await core.credentials.authenticate_basic("alice", PASSWORD, "")).name == "alice"
    secret, _ = await core.keyring.mint_token(alice, "alice", "t", Scope.ADMIN)
    key = await core.keyring.add_key(alice, "alice", public_key_text())
    await core.accounts.create_organisation(bob, "acme")
    await core.organisations.set_member(bob, "acme", "alice", Role.WRITE)
    await core.accounts.rename(alice, "alice", "alicia")
    await core.accounts.delete(alice, "alicia")
    with pytest.raises(AccountNotFound):
        await core.accounts.get("alice")
    with pytest.raises(InvalidCredentials):
        await core.credentials.authenticate_token(secret, "")
    with pytest.raises(InvalidCredentials):
        await core.credentials.authenticate_basic("alicia", PASSWORD, "")
    assert await core.credentials.authenticate_key(key.fingerprint, "") is None
    async with core.database.read() as session:
        for table, left in ((AccessToken, 0), (SshKey, 0), (AccountRedirect, 0), (Membership, 1)):
            assert await session.scalar(select(func.count()).select_from(table)) == left, table


async def test_what_keeps_an_account_from_being_deleted(core: Core) -> None:
    alice, bob = await core.user("alice"), await core.user("bob")
    await core.repository("alice/x")
    with pytest.raises(Conflict, match="repositories"):
        await core.accounts.delete(alice, "alice")
    await core.repositories.delete(alice, parse_address("alice/x"))
    await core.accounts.create_organisation(alice, "acme")
    with pytest.raises(Conflict, match="last owner of acme"):
        await core.accounts.delete(alice, "alice")
    await core.organisations.set_member(alice, "acme", "bob", Role.ADMIN)
    with pytest.raises(PermissionDenied):
        await core.accounts.delete(bob, "alice")
    await core.accounts.delete(alice, "alice")
    await core.accounts.delete(bob, "acme")
    assert [info.name for info in await core.accounts.list()] == ["bob"]


async def test_an_administrator_remains(core: Core) -> None:
    root, second = await core.user("ruth", is_admin=True), await core.user("sue", is_admin=True)

    async def admins() -> list[AccountInfo]:
        return [info for info in await core.accounts.list() if info.is_admin and info.suspended_at is None]

    await core.accounts.suspend(root, "sue")
    for refused in (
        core.accounts.suspend(root, "ruth"),
        core.accounts.delete(root, "ruth"),
        core.accounts.update_user(root, "ruth", is_admin=False),
        core.accounts.delete(SYSTEM, "ruth"),
    ):
        with pytest.raises(Conflict, match="last administrator"):
            await refused
    assert [info.name for info in await admins()] == ["ruth"]
    await core.accounts.unsuspend(root, "sue")
    await core.accounts.update_user(second, "ruth", is_admin=False)
    with pytest.raises(Conflict):
        await core.accounts.delete(second, "sue")
