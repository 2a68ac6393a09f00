"""Logging in: passwords, tokens and keys, and the back-off on failures."""

import asyncio
from datetime import timedelta

import pytest
from sqlalchemy import select, update
from structlog.testing import capture_logs

from core import tokens
from core.access import SYSTEM, Actor, ActorKind
from core.database import Database
from core.errors import InvalidCredentials, ModelyardError, TooManyRequests
from core.models import AccessToken, LoginFailure, Scope, SshKey, now
from core.settings import AuthSettings, DatabaseSettings
from tests.support.core_services import PASSWORD, Core
from tests.support.database import Databases
from tests.support.ssh_public_keys import public_key_text

HOME, AWAY = "192.0.2.1", "192.0.2.2"


async def with_password(core: Core, name: str = "alice") -> None:
    await core.accounts.create_user(SYSTEM, name, password=PASSWORD)


async def fail(core: Core, user: str = "alice", address: str = HOME) -> None:
    with pytest.raises(InvalidCredentials):
        await core.credentials.authenticate_basic(user, "wrong password", address)


async def blocked_for(core: Core, user: str = "alice", address: str = HOME) -> int:
    with pytest.raises(TooManyRequests) as refused:
        await core.credentials.authenticate_basic(user, PASSWORD, address)
    return refused.value.retry_after


async def pass_time(database: Database, seconds: float) -> None:
    """As if the failures on record had happened so much earlier."""
    async with database.transaction() as session:
        for row in await session.scalars(select(LoginFailure)):
            row.blocked_until -= timedelta(seconds=seconds)


async def failures(database: Database) -> dict[str, int]:
    async with database.read() as session:
        return {row.subject: row.failures for row in await session.scalars(select(LoginFailure))}


async def test_a_password(core: Core) -> None:
    await with_password(core)
    info = await core.accounts.get("alice")
    actor = await core.credentials.authenticate_basic("Alice", PASSWORD, HOME)
    assert actor == Actor(ActorKind.USER, "alice", user_id=info.id, credential="password", address=HOME)
    again = await core.credentials.authenticate_basic("alice", PASSWORD, AWAY)
    assert again.address == AWAY


@pytest.mark.parametrize("user", ["bob", "acme", "nobody", "", "a\0b", "\ud800", "x" * 9000])
@pytest.mark.parametrize("secret", [PASSWORD, "", "\0", "\udcff", "x" * 100_000])
async def test_wrong_logins_all_look_alike(core: Core, user: str, secret: str) -> None:
    await with_password(core)
    await core.user("bob")  # has no password
    await core.accounts.create_organisation(SYSTEM, "acme", owner="alice")
    with pytest.raises(InvalidCredentials) as refused:
        await core.credentials.authenticate_basic(user, secret, HOME)
    with pytest.raises(InvalidCredentials) as wrong:
        await core.credentials.authenticate_basic("alice", "wrong password", HOME)
    assert (str(refused.value), refused.value.fields) == (str(wrong.value), wrong.value.fields)


async def test_a_changed_password_works_at_once_and_the_old_one_no_more(core: Core) -> None:
    await with_password(core)
    alice = await core.credentials.authenticate_basic("alice", PASSWORD, HOME)  # and is remembered
    await core.keyring.set_password(alice, "alice", "another good one")
    with pytest.raises(InvalidCredentials):
        await core.credentials.authenticate_basic("alice", PASSWORD, HOME)
    assert (await core.credentials.authenticate_basic("alice", "another good one", HOME)).name == "alice"
    await core.keyring.set_password(SYSTEM, "alice", None)
    with pytest.raises(InvalidCredentials):
        await core.credentials.authenticate_basic("alice", "another good one", HOME)


async def test_a_former_name_still_logs_in(core: Core) -> None:
    await with_password(core)
    await core.accounts.rename(SYSTEM, "alice", "alicia")
    assert (await core.credentials.authenticate_basic("alice", PASSWORD, HOME)).name == "alicia"


@pytest.mark.parametrize("scope", list(Scope))
async def test_a_token_with_any_user_name(core: Core, scope: Scope) -> None:
    alice = await core.user("alice", is_admin=True)
    repository = await core.repository("alice/x")
    secret, info = await core.keyring.mint_token(
        alice, "alice", "ci", scope, repository=repository.address, expires_in_days=1
    )
    expected = Actor(
        ActorKind.USER,
        "alice",
        user_id=alice.user_id,
        is_admin=True,
        scope=scope,
        repository_id=repository.id,
        credential=f"token:{info.id}",
        address=HOME,
    )
    assert await core.credentials.authenticate_token(secret, HOME) == expected
    for user in ("alice", "oauth2", "", "nobody"):
        assert await core.credentials.authenticate_basic(user, secret, HOME) == expected


async def test_a_token_for_runs(core: Core) -> None:
    alice = await core.user("alice")
    for for_runs in (True, False):
        secret, info = await core.keyring.mint_token(alice, "alice", "x", Scope.WRITE, for_runs=for_runs)
        assert info.for_runs is for_runs
        assert (await core.credentials.authenticate_token(secret, HOME)).for_runs is for_runs
        assert (await core.credentials.authenticate_basic("alice", secret, HOME)).for_runs is for_runs


async def test_tokens_that_are_none(core: Core) -> None:
    alice = await core.user("alice")
    secret, info = await core.keyring.mint_token(alice, "alice", "ci", Scope.READ)
    unknown = tokens.new_secret()
    for wrong in (unknown, secret[:-1], secret + "0", secret.swapcase(), "myd_", "myd_\0", "", "\ud800"):
        with pytest.raises(InvalidCredentials):
            await core.credentials.authenticate_token(wrong, HOME)
    assert await failures(core.database) == {}
    await core.keyring.revoke_token(alice, "alice", info.id)
    with pytest.raises(InvalidCredentials):
        await core.credentials.authenticate_token(secret, HOME)


async def test_a_malformed_token_is_refused_without_asking_the_database(tmp_path: object) -> None:
    unreachable = Database("postgresql+psycopg://nobody@127.0.0.1:1/none")
    try:
        with pytest.raises(InvalidCredentials):
            await Core.on(unreachable).credentials.authenticate_basic("any", "myd_nonsense", HOME)
    finally:
        await unreachable.close()


async def test_an_expired_token(core: Core) -> None:
    alice = await core.user("alice")
    secret, info = await core.keyring.mint_token(alice, "alice", "ci", Scope.READ, expires_in_days=1)
    async with core.database.transaction() as session:
        await session.execute(
            update(AccessToken)
            .where(AccessToken.id == info.id)
            .values(expires_at=now() - timedelta(seconds=1))
        )
    with pytest.raises(InvalidCredentials, match="expired"):
        await core.credentials.authenticate_token(secret, HOME)


async def test_the_last_use_is_noted_once_a_minute(core: Core) -> None:
    alice = await core.user("alice")
    secret, _ = await core.keyring.mint_token(alice, "alice", "ci", Scope.READ)
    key = await core.keyring.add_key(alice, "alice", public_key_text())

    async def last_uses() -> list[object]:
        return [
            (await core.keyring.tokens(alice, "alice"))[0].last_used_at,
            (await core.keyring.keys(alice, "alice"))[0].last_used_at,
        ]

    async def use() -> None:
        await core.credentials.authenticate_token(secret, HOME)
        assert await core.credentials.authenticate_key(key.fingerprint, HOME) is not None

    assert await last_uses() == [None, None]
    await use()
    first = await last_uses()
    assert None not in first
    await use()
    assert await last_uses() == first
    async with core.database.transaction() as session:
        for table in (AccessToken, SshKey):
            await session.execute(update(table).values(last_used_at=now() - timedelta(minutes=2)))
    before = await last_uses()
    await use()
    assert all(old != new for old, new in zip(before, await last_uses(), strict=True))


async def test_keys(core: Core) -> None:
    alice = await core.user("alice")
    repository = await core.repository("alice/x")
    own = await core.keyring.add_key(alice, "alice", public_key_text())
    deploy = await core.collaboration.add_deploy_key(alice, repository.address, public_key_text())
    assert await core.credentials.authenticate_key(own.fingerprint, HOME) == Actor(
        ActorKind.USER, "alice", user_id=alice.user_id, credential=f"key:{own.id}", address=HOME
    )
    assert await core.credentials.authenticate_key(deploy.fingerprint, HOME) == Actor(
        ActorKind.DEPLOY_KEY,
        f"deploy-key:{deploy.id}",
        repository_id=repository.id,
        read_only=True,
        credential=f"key:{deploy.id}",
        address=HOME,
    )
    assert await core.credentials.authenticate_key("SHA256:unknown", HOME) is None
    await core.keyring.remove_key(alice, "alice", own.id)
    await core.collaboration.remove_deploy_key(alice, repository.address, deploy.id)
    for gone in (own, deploy):
        assert await core.credentials.authenticate_key(gone.fingerprint, HOME) is None


async def test_failures_of_an_account_are_answered_by_longer_and_longer_pauses(database: Database) -> None:
    core = Core.on(database, auth=AuthSettings(failures_before_backoff=3, backoff_max_seconds=8))
    await with_password(core)
    for _ in range(3):
        await fail(core)
    pauses = [await blocked_for(core)]
    assert await blocked_for(core, address=AWAY) == pauses[0]
    for _ in range(4):
        await pass_time(database, pauses[-1])
        await fail(core)
        pauses.append(await blocked_for(core))
    assert pauses == [1, 2, 4, 8, 8]


async def test_a_success_forgets_the_failures_of_the_account(database: Database) -> None:
    core = Core.on(database, auth=AuthSettings(failures_before_backoff=3))
    await with_password(core)
    for _ in range(4):
        for _ in range(2):
            await fail(core, address="")
        assert (await core.credentials.authenticate_basic("alice", PASSWORD, "")).name == "alice"
    assert await failures(database) == {}


async def test_an_address_is_blocked_whatever_it_tries_and_others_are_not(database: Database) -> None:
    core = Core.on(database, auth=AuthSettings(failures_before_backoff=2))
    await with_password(core)
    for number in range(8):
        await fail(core, f"user-{number}")
    assert await blocked_for(core) > 0
    assert (await core.credentials.authenticate_basic("alice", PASSWORD, AWAY)).name == "alice"


async def test_a_blocked_account_still_gets_in_by_token_and_key(database: Database) -> None:
    core = Core.on(database, auth=AuthSettings(failures_before_backoff=1))
    await with_password(core)
    secret, _ = await core.keyring.mint_token(SYSTEM, "alice", "ci", Scope.READ)
    key = await core.keyring.add_key(SYSTEM, "alice", public_key_text())
    await fail(core)
    assert await blocked_for(core) > 0
    assert (await core.credentials.authenticate_basic("alice", secret, HOME)).name == "alice"
    assert await core.credentials.authenticate_key(key.fingerprint, HOME) is not None


async def test_a_remembered_password_is_no_way_around_the_pause(database: Database) -> None:
    core = Core.on(database, auth=AuthSettings(failures_before_backoff=1))
    await with_password(core)
    await core.credentials.authenticate_basic("alice", PASSWORD, HOME)
    await fail(core, address=AWAY)
    assert await blocked_for(core) > 0


async def test_old_failures_are_forgotten_and_swept(database: Database) -> None:
    core = Core.on(database, auth=AuthSettings(failures_before_backoff=2, backoff_max_seconds=60))
    await with_password(core)
    await fail(core)
    await pass_time(database, 61)
    await fail(core, "bob", AWAY)
    assert await failures(database) == {"account:bob": 1, f"address:{AWAY}": 1}
    await fail(core)
    assert (await core.credentials.authenticate_basic("alice", PASSWORD, HOME)).name == "alice"


async def test_addresses_are_counted_by_site(core: Core) -> None:
    for address in ("2001:db8::1", "2001:db8::ffff", "::ffff:192.0.2.1", HOME, "unix:", ""):
        await fail(core, "not a name", address)
    assert await failures(core.database) == {"address:2001:db8::/64": 2, f"address:{HOME}": 2}


async def test_many_guesses_at_once_meet_the_pause(database: Database) -> None:
    core = Core.on(database, auth=AuthSettings(failures_before_backoff=3))
    await with_password(core)

    async def guess(number: int) -> type[ModelyardError]:
        with pytest.raises((InvalidCredentials, TooManyRequests)) as refused:
            await core.credentials.authenticate_basic("alice", f"guess number {number}", HOME)
        return refused.type

    outcomes = await asyncio.gather(*(guess(number) for number in range(30)))
    tried = outcomes.count(InvalidCredentials)
    assert 3 <= tried <= 5, "at most one more per thread than the settings allow"
    assert await failures(database) == {"account:alice": tried, f"address:{HOME}": tried}


async def test_many_right_logins_at_once_all_get_in(core: Core) -> None:
    await with_password(core)
    logins = (core.credentials.authenticate_basic("alice", PASSWORD, HOME) for _ in range(20))
    assert {actor.name for actor in await asyncio.gather(*logins)} == {"alice"}


async def test_a_writer_that_goes_on_is_waited_for_once(databases: Databases) -> None:
    async with databases.fresh("sqlite") as url:
        database = Database(url, DatabaseSettings(busy_seconds=1))
        try:
            core = Core.on(database)
            alice = await core.user("alice")
            secret, _ = await core.keyring.mint_token(alice, "alice", "ci", Scope.READ)
            async with database.transaction() as session:
                await session.execute(update(AccessToken).values(name="held"))
                with capture_logs() as seen:
                    for _ in range(3):
                        assert (await core.credentials.authenticate_token(secret, HOME)).name == "alice"
            assert [line["event"] for line in seen] == ["database.unavailable", "last_use_not_noted"]
        finally:
            await database.close()
