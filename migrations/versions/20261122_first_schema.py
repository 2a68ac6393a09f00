"""The first schema."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

identity = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
bytewise = sa.String().with_variant(sa.String(collation="C"), "postgresql")
moment = sa.DateTime(timezone=True)


def upgrade() -> None:
    op.create_table(
        "account",
        sa.Column("id", identity, nullable=False),
        sa.Column("kind", sa.String(length=16), nullable=False),
        sa.Column("name", bytewise, nullable=False),
        sa.Column("full_name", sa.String(length=200), nullable=False),
        sa.Column("email", sa.String(length=254), nullable=False),
        sa.Column("password_hash", sa.String(length=200), nullable=True),
        sa.Column("is_admin", sa.Boolean(), nullable=False),
        sa.Column("suspended_at", moment, nullable=True),
        sa.Column("created_at", moment, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_account"),
        sa.UniqueConstraint("name", name="uq_account_name"),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "audit_entry",
        sa.Column("id", identity, nullable=False),
        sa.Column("at", moment, nullable=False),
        sa.Column("actor", sa.String(length=120), nullable=False),
        sa.Column("action", sa.String(length=64), nullable=False),
        sa.Column("target", sa.Text(), nullable=False),
        sa.Column("details", sa.JSON(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_audit_entry"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_audit_entry_action", "audit_entry", ["action"])
    op.create_index("ix_audit_entry_at", "audit_entry", ["at"])

    op.create_table(
        "deleted_repository",
        sa.Column("repository_id", sa.String(length=32), nullable=False),
        sa.Column("address", sa.Text(), nullable=False),
        sa.Column("deleted_at", moment, nullable=False),
        sa.PrimaryKeyConstraint("repository_id", name="pk_deleted_repository"),
    )
    op.create_table(
        "login_failure",
        sa.Column("subject", bytewise, nullable=False),
        sa.Column("failures", sa.Integer(), nullable=False),
        sa.Column("blocked_until", moment, nullable=False),
        sa.PrimaryKeyConstraint("subject", name="pk_login_failure"),
    )
    op.create_table(
        "account_redirect",
        sa.Column("name", bytewise, nullable=False),
        sa.Column("account_id", identity, nullable=False),
        sa.ForeignKeyConstraint(
            ["account_id"], ["account.id"], name="fk_account_redirect_account_id_account", ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("name", name="pk_account_redirect"),
    )
    op.create_index("ix_account_redirect_account_id", "account_redirect", ["account_id"])

    op.create_table(
        "membership",
        sa.Column("organisation_id", identity, nullable=False),
        sa.Column("user_id", identity, nullable=False),
        sa.Column("role", sa.String(length=16), nullable=False),
        sa.Column("created_at", moment, nullable=False),
        sa.ForeignKeyConstraint(
            ["organisation_id"],
            ["account.id"],
            name="fk_membership_organisation_id_account",
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["user_id"], ["account.id"], name="fk_membership_user_id_account", ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("organisation_id", "user_id", name="pk_membership"),
    )
    op.create_index("ix_membership_user_id", "membership", ["user_id"])

    op.create_table(
        "repository",
        sa.Column("id", sa.String(length=32), nullable=False),
        sa.Column("owner_id", identity, nullable=False),
        sa.Column("type", sa.String(length=16), nullable=False),
        sa.Column("name", bytewise, nullable=False),
        sa.Column("visibility", sa.String(length=16), nullable=False),
        sa.Column("description", sa.String(length=1000), nullable=False),
        sa.Column("default_branch", bytewise, nullable=False),
        sa.Column("object_format", sa.String(length=16), nullable=False),
        sa.Column("refs_version", sa.BigInteger(), nullable=False),
        sa.Column("state", sa.String(length=32), nullable=False),
        sa.Column("prune_epoch", sa.BigInteger(), nullable=False),
        sa.Column("full_repack_at", moment, nullable=True),
        sa.Column("created_at", moment, nullable=False),
        sa.Column("updated_at", moment, nullable=False),
        sa.ForeignKeyConstraint(["owner_id"], ["account.id"], name="fk_repository_owner_id_account"),
        sa.PrimaryKeyConstraint("id", name="pk_repository"),
        sa.UniqueConstraint("owner_id", "type", "name", name="uq_repository_owner_id_type_name"),
    )
    op.create_table(
        "access_token",
        sa.Column("id", identity, nullable=False),
        sa.Column("user_id", identity, nullable=False),
        sa.Column("name", sa.String(length=100), nullable=False),
        sa.Column("digest", sa.String(length=64), nullable=False),
        sa.Column("scope", sa.String(length=16), nullable=False),
        sa.Column("repository_id", sa.String(length=32), nullable=True),
        sa.Column("expires_at", moment, nullable=True),
        sa.Column("last_used_at", moment, nullable=True),
        sa.Column("created_at", moment, nullable=False),
        sa.ForeignKeyConstraint(
            ["repository_id"],
            ["repository.id"],
            name="fk_access_token_repository_id_repository",
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["user_id"], ["account.id"], name="fk_access_token_user_id_account", ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name="pk_access_token"),
        sa.UniqueConstraint("digest", name="uq_access_token_digest"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_access_token_repository_id", "access_token", ["repository_id"])
    op.create_index("ix_access_token_user_id", "access_token", ["user_id"])

    op.create_table(
        "branch_rule",
        sa.Column("id", identity, nullable=False),
        sa.Column("repository_id", sa.String(length=32), nullable=False),
        sa.Column("pattern", bytewise, nullable=False),
        sa.Column("allow_force", sa.Boolean(), nullable=False),
        sa.Column("allow_delete", sa.Boolean(), nullable=False),
        sa.Column("pushers", sa.JSON(), nullable=True),
        sa.Column("created_at", moment, nullable=False),
        sa.ForeignKeyConstraint(
            ["repository_id"],
            ["repository.id"],
            name="fk_branch_rule_repository_id_repository",
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("id", name="pk_branch_rule"),
        sa.UniqueConstraint("repository_id", "pattern", name="uq_branch_rule_repository_id_pattern"),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "collaborator",
        sa.Column("repository_id", sa.String(length=32), nullable=False),
        sa.Column("user_id", identity, nullable=False),
        sa.Column("role", sa.String(length=16), nullable=False),
        sa.Column("created_at", moment, nullable=False),
        sa.ForeignKeyConstraint(
            ["repository_id"],
            ["repository.id"],
            name="fk_collaborator_repository_id_repository",
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["user_id"], ["account.id"], name="fk_collaborator_user_id_account", ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("repository_id", "user_id", name="pk_collaborator"),
    )
    op.create_index("ix_collaborator_user_id", "collaborator", ["user_id"])

    op.create_table(
        "maintenance_task",
        sa.Column("repository_id", sa.String(length=32), nullable=False),
        sa.Column("full", sa.Boolean(), nullable=False),
        sa.Column("due_at", moment, nullable=False),
        sa.Column("leased_until", moment, nullable=True),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(
            ["repository_id"],
            ["repository.id"],
            name="fk_maintenance_task_repository_id_repository",
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("repository_id", name="pk_maintenance_task"),
    )
    op.create_index("ix_maintenance_task_due_at", "maintenance_task", ["due_at"])

    op.create_table(
        "outbox_event",
        sa.Column("id", identity, nullable=False),
        sa.Column("name", sa.String(length=64), nullable=False),
        sa.Column("repository_id", sa.String(length=32), nullable=True),
        sa.Column("payload", sa.JSON(), nullable=False),
        sa.Column("created_at", moment, nullable=False),
        sa.Column("handled_at", moment, nullable=True),
        sa.ForeignKeyConstraint(
            ["repository_id"],
            ["repository.id"],
            name="fk_outbox_event_repository_id_repository",
            ondelete="SET NULL",
        ),
        sa.PrimaryKeyConstraint("id", name="pk_outbox_event"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_outbox_event_handled_at", "outbox_event", ["handled_at"])
    op.create_index("ix_outbox_event_repository_id", "outbox_event", ["repository_id"])

    op.create_table(
        "pack",
        sa.Column("id", identity, nullable=False),
        sa.Column("repository_id", sa.String(length=32), nullable=False),
        sa.Column("key", sa.String(length=32), nullable=False),
        sa.Column("name", sa.String(length=80), nullable=False),
        sa.Column("kind", sa.String(length=16), nullable=False),
        sa.Column("suffixes", sa.JSON(), nullable=False),
        sa.Column("objects", sa.BigInteger(), nullable=False),
        sa.Column("bytes", sa.BigInteger(), nullable=False),
        sa.Column("created_at", moment, nullable=False),
        sa.Column("superseded_at", moment, nullable=True),
        sa.ForeignKeyConstraint(
            ["repository_id"], ["repository.id"], name="fk_pack_repository_id_repository", ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name="pk_pack"),
        sa.UniqueConstraint("key", name="uq_pack_key"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_pack_live", "pack", ["repository_id", "superseded_at"])

    op.create_table(
        "push",
        sa.Column("id", identity, nullable=False),
        sa.Column("repository_id", sa.String(length=32), nullable=False),
        sa.Column("actor", sa.String(length=120), nullable=False),
        sa.Column("actor_id", identity, nullable=True),
        sa.Column("transport", sa.String(length=16), nullable=False),
        sa.Column("updates", sa.JSON(), nullable=False),
        sa.Column("options", sa.JSON(), nullable=False),
        sa.Column("created_at", moment, nullable=False),
        sa.ForeignKeyConstraint(
            ["actor_id"], ["account.id"], name="fk_push_actor_id_account", ondelete="SET NULL"
        ),
        sa.ForeignKeyConstraint(
            ["repository_id"], ["repository.id"], name="fk_push_repository_id_repository", ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name="pk_push"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_push_repository_created", "push", ["repository_id", "id"])

    op.create_table(
        "ref",
        sa.Column("repository_id", sa.String(length=32), nullable=False),
        sa.Column("name", bytewise, nullable=False),
        sa.Column("oid", sa.String(length=64), nullable=False),
        sa.Column("peeled", sa.String(length=64), nullable=True),
        sa.ForeignKeyConstraint(
            ["repository_id"], ["repository.id"], name="fk_ref_repository_id_repository", ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("repository_id", "name", name="pk_ref"),
    )
    op.create_table(
        "repository_redirect",
        sa.Column("owner_id", identity, nullable=False),
        sa.Column("type", sa.String(length=16), nullable=False),
        sa.Column("name", bytewise, nullable=False),
        sa.Column("repository_id", sa.String(length=32), nullable=False),
        sa.ForeignKeyConstraint(
            ["owner_id"], ["account.id"], name="fk_repository_redirect_owner_id_account", ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(
            ["repository_id"],
            ["repository.id"],
            name="fk_repository_redirect_repository_id_repository",
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("owner_id", "type", "name", name="pk_repository_redirect"),
    )
    op.create_index("ix_repository_redirect_repository_id", "repository_redirect", ["repository_id"])

    op.create_table(
        "ssh_key",
        sa.Column("id", identity, nullable=False),
        sa.Column("user_id", identity, nullable=True),
        sa.Column("repository_id", sa.String(length=32), nullable=True),
        sa.Column("read_only", sa.Boolean(), nullable=False),
        sa.Column("title", sa.String(length=100), nullable=False),
        sa.Column("fingerprint", bytewise, nullable=False),
        sa.Column("public_key", sa.Text(), nullable=False),
        sa.Column("last_used_at", moment, nullable=True),
        sa.Column("created_at", moment, nullable=False),
        sa.CheckConstraint("(user_id IS NULL) <> (repository_id IS NULL)", name="ck_ssh_key_one_subject"),
        sa.ForeignKeyConstraint(
            ["repository_id"],
            ["repository.id"],
            name="fk_ssh_key_repository_id_repository",
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["user_id"], ["account.id"], name="fk_ssh_key_user_id_account", ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name="pk_ssh_key"),
        sa.UniqueConstraint("fingerprint", name="uq_ssh_key_fingerprint"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_ssh_key_repository_id", "ssh_key", ["repository_id"])
    op.create_index("ix_ssh_key_user_id", "ssh_key", ["user_id"])


def downgrade() -> None:
    raise NotImplementedError("there are no downgrades: restore the backup from before the upgrade")
