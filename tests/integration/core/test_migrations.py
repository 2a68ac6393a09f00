"""The schema: what the migrations make is what the models say, and upgrades keep the data."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from alembic import command
from alembic.script import ScriptDirectory
from sqlalchemy import inspect, text
from sqlalchemy.engine import Connection

from core.access import Permission
from core.database import Database
from core.errors import Conflict
from core.migrate import migrations_config
from core.models import Base, Role
from core.names import parse_address
from core.schema import UnknownRevision, current_revision, head_revision, is_current, upgrade
from tests.support.core_services import PASSWORD, Core

FIRST = "0001"

# Never changed: what a database of the first release may hold, one row of each table at least.
FIRST_DATA = """
INSERT INTO account (id, kind, name, full_name, email, password_hash, is_admin, created_at) VALUES
  (1, 'user', 'alice', 'Alice', 'alice@example.org', NULL, TRUE, '2026-01-01 00:00:00'),
  (2, 'organisation', 'acme', '', '', NULL, FALSE, '2026-01-02 00:00:00'),
  (3, 'user', 'bob', '', '', NULL, FALSE, '2026-01-03 00:00:00');
INSERT INTO account_redirect (name, account_id) VALUES ('al', 1);
INSERT INTO membership (organisation_id, user_id, role, created_at) VALUES
  (2, 1, 'admin', '2026-01-02 00:00:00');
INSERT INTO repository (id, owner_id, type, name, visibility, description, default_branch, object_format,
    refs_version, state, prune_epoch, created_at, updated_at) VALUES
  ('00000000000000000000000000000001', 2, 'model', 'net', 'private', 'A net', 'main', 'sha1',
    3, '0000000000000000000000000000000a', 1, '2026-01-04 00:00:00', '2026-01-05 00:00:00');
INSERT INTO repository_redirect (owner_id, type, name, repository_id) VALUES
  (1, 'model', 'old-net', '00000000000000000000000000000001');
INSERT INTO collaborator (repository_id, user_id, role, created_at) VALUES
  ('00000000000000000000000000000001', 3, 'write', '2026-01-05 00:00:00');
INSERT INTO branch_rule (id, repository_id, pattern, allow_force, allow_delete, pushers, created_at) VALUES
  (1, '00000000000000000000000000000001', 'main', FALSE, FALSE, '["alice"]', '2026-01-05 00:00:00');
INSERT INTO ref (repository_id, name, oid) VALUES
  ('00000000000000000000000000000001', 'refs/heads/main', 'e69de29bb2d1d6434b8b29ae775ad8c2e48c5391');
INSERT INTO pack (id, repository_id, key, name, kind, suffixes, objects, bytes, created_at) VALUES
  (1, '00000000000000000000000000000001', '0000000000000000000000000000000b', 'pack-1', 'push',
    '["pack", "idx"]', 5, 500, '2026-01-05 00:00:00');
INSERT INTO push (id, repository_id, actor, actor_id, transport, updates, options, created_at) VALUES
  (1, '00000000000000000000000000000001', 'alice', 1, 'http', '[]', '[]', '2026-01-05 00:00:00');
INSERT INTO outbox_event (id, name, repository_id, payload, created_at) VALUES
  (1, 'push', '00000000000000000000000000000001', '{}', '2026-01-05 00:00:00');
INSERT INTO audit_entry (id, at, actor, action, target, details) VALUES
  (1, '2026-01-01 00:00:00', 'system', 'user:create', 'alice', '{}');
INSERT INTO maintenance_task (repository_id, "full", due_at, attempts) VALUES
  ('00000000000000000000000000000001', FALSE, '2026-01-05 00:00:00', 0);
INSERT INTO deleted_repository (repository_id, address, deleted_at) VALUES
  ('00000000000000000000000000000002', 'alice/gone', '2026-01-05 00:00:00');
INSERT INTO access_token (id, user_id, name, digest, scope, created_at) VALUES
  (1, 1, 'ci', 'd', 'read', '2026-01-05 00:00:00');
INSERT INTO ssh_key (id, user_id, read_only, title, fingerprint, public_key, created_at) VALUES
  (1, 1, FALSE, 'laptop', 'SHA256:x', 'ssh-ed25519 x', '2026-01-05 00:00:00');
INSERT INTO login_failure (subject, failures, blocked_until) VALUES ('account:bob', 1, '2026-01-05 00:00:00')
"""


@pytest.fixture
async def empty(empty_database_url: str) -> AsyncIterator[Database]:
    database = Database(empty_database_url)
    yield database
    await database.close()


async def counts(database: Database) -> dict[str, int]:
    async with database.read() as session:
        connection = await session.connection()
        existing = await connection.run_sync(lambda sync: inspect(sync).get_table_names())
        return {
            name: (await session.execute(text(f'SELECT count(*) FROM "{name}"'))).scalar_one()
            for name in existing
            if name in Base.metadata.tables
        }


async def test_an_empty_database_is_brought_to_the_head(empty: Database) -> None:
    assert await current_revision(empty) is None
    assert not await is_current(empty)
    await upgrade(empty)
    assert await current_revision(empty) == head_revision()
    assert await is_current(empty)
    await upgrade(empty)


async def test_the_migrations_make_what_the_models_say(database: Database) -> None:
    def compare(connection: Connection) -> None:
        config = migrations_config()
        config.attributes["connection"] = connection
        command.check(config)  # raises if it would generate anything

    async with database.schema_change() as connection:
        await connection.run_sync(compare)


async def test_the_first_data_has_a_row_of_each_first_table(empty: Database) -> None:
    await upgrade(empty, FIRST)
    async with empty.engine.connect() as connection:
        tables = set(await connection.run_sync(lambda sync: inspect(sync).get_table_names()))
    assert {f"INSERT INTO {name} " in FIRST_DATA for name in tables - {"alembic_version"}} == {True}


async def test_data_of_the_first_release_survives_the_upgrade(empty: Database) -> None:
    await upgrade(empty, FIRST)
    async with empty.transaction() as session:
        for statement in FIRST_DATA.split(";"):
            await session.execute(text(statement))
        if empty.dialect == "postgresql":  # what explicit ids in an insert do not do
            await session.execute(text("SELECT setval('account_id_seq', 3)"))
            await session.execute(text("SELECT setval('audit_entry_id_seq', 1)"))
    before = await counts(empty)
    await upgrade(empty)
    after = await counts(empty)
    assert {name: after[name] for name in before} == before
    core = Core.on(empty)
    alice = await core.accounts.get("al")
    assert (alice.name, alice.is_admin, str(alice.created_at)) == ("alice", True, "2026-01-01 00:00:00+00:00")
    assert [m.role for m in await core.organisations.members("acme")] == [Role.ADMIN]
    actor = await core.user("carol", is_admin=True)
    moved = await core.repositories.open(actor, parse_address("alice/old-net"), Permission.ADMIN)
    assert (moved.path, moved.refs_version) == ("acme/net", 3)
    assert [rule.pushers for rule in await core.collaboration.branch_rules(actor, moved.address)] == [
        ("alice",)
    ]
    await core.keyring.set_password(actor, "bob", PASSWORD)


async def test_foreign_keys_are_enforced_after_an_upgrade(empty: Database) -> None:
    await upgrade(empty)
    with pytest.raises(Conflict, match="refers to"):
        async with empty.transaction() as session:
            await session.execute(
                text("INSERT INTO account_redirect (name, account_id) VALUES ('ghost', 4711)")
            )


async def test_many_processes_may_start_at_once(empty_database_url: str) -> None:
    databases = [Database(empty_database_url) for _ in range(4)]
    try:
        await asyncio.gather(*(upgrade(database) for database in databases))
        assert [await is_current(database) for database in databases] == [True] * 4
        if databases[0].dialect == "sqlite":
            async with databases[0].read() as session:
                assert (await session.execute(text("PRAGMA journal_mode"))).scalar_one() == "wal"
    finally:
        for database in databases:
            await database.close()


async def test_a_failed_upgrade_changes_nothing(empty: Database) -> None:
    async with empty.schema_change() as connection:
        await connection.execute(text("CREATE TABLE ssh_key (id INTEGER)"))  # in the way of the last table
    with pytest.raises(Exception, match=r"ssh_key|not available"):
        await upgrade(empty)
    assert await current_revision(empty) is None
    async with empty.engine.connect() as connection:
        tables = await connection.run_sync(lambda sync: inspect(sync).get_table_names())
    assert tables == ["ssh_key"]


async def test_a_database_of_a_newer_version_is_refused(database: Database) -> None:
    async with database.transaction() as session:
        await session.execute(text("UPDATE alembic_version SET version_num = 'from-the-future'"))
    with pytest.raises(UnknownRevision, match="from-the-future"):
        await upgrade(database)


def test_revisions_form_one_line() -> None:
    scripts = ScriptDirectory.from_config(migrations_config())
    assert scripts.get_current_head() == head_revision()
    assert scripts.get_bases() == [FIRST]
    assert len(scripts.get_heads()) == 1
