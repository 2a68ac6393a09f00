"""What pushes mean: parsed files, model versions, tensor digests, rules and their requests; and webhooks."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

identity = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
bytewise = sa.String().with_variant(sa.String(collation="C"), "postgresql")
moment = sa.DateTime(timezone=True)


def upgrade() -> None:
    op.create_table(
        "parsed_file",
        sa.Column("digest", sa.String(length=80), nullable=False),
        sa.Column("parser", sa.String(length=32), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("metadata", sa.JSON(), nullable=True),
        sa.Column("findings", sa.JSON(), nullable=False),
        sa.Column("parsed_at", moment, nullable=False),
        sa.PrimaryKeyConstraint("digest", "parser", name="pk_parsed_file"),
    )
    op.create_table(
        "tensor_digests",
        sa.Column("digest", sa.String(length=80), nullable=False),
        sa.Column("data", sa.LargeBinary(), nullable=False),
        sa.Column("computed_at", moment, nullable=False),
        sa.PrimaryKeyConstraint("digest", name="pk_tensor_digests"),
    )
    op.create_table(
        "model_version",
        sa.Column("repository_id", sa.String(length=32), nullable=False),
        sa.Column("commit", sa.String(length=64), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("files", sa.JSON(), nullable=False),
        sa.Column("summary", sa.JSON(), nullable=False),
        sa.Column("findings", sa.JSON(), nullable=False),
        sa.Column("announced", sa.Boolean(), nullable=False),
        sa.Column("created_at", moment, nullable=False),
        sa.ForeignKeyConstraint(
            ["repository_id"],
            ["repository.id"],
            name="fk_model_version_repository_id_repository",
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("repository_id", "commit", name="pk_model_version"),
    )
    op.create_table(
        "repository_facet",
        sa.Column("repository_id", sa.String(length=32), nullable=False),
        sa.Column("kind", sa.String(length=32), nullable=False),
        sa.Column("value", bytewise, nullable=False),
        sa.ForeignKeyConstraint(
            ["repository_id"],
            ["repository.id"],
            name="fk_repository_facet_repository_id_repository",
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("repository_id", "kind", "value", name="pk_repository_facet"),
    )
    op.create_index("ix_repository_facet_value", "repository_facet", ["kind", "value"])
    op.create_table(
        "repository_head",
        sa.Column("repository_id", sa.String(length=32), nullable=False),
        sa.Column("commit", sa.String(length=64), nullable=False),
        sa.Column("parameters", sa.BigInteger(), nullable=True),
        sa.Column("updated_at", moment, nullable=False),
        sa.ForeignKeyConstraint(
            ["repository_id"],
            ["repository.id"],
            name="fk_repository_head_repository_id_repository",
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("repository_id", name="pk_repository_head"),
    )
    op.create_index("ix_repository_head_parameters", "repository_head", ["parameters"])
    op.create_table(
        "tensor_digest_task",
        sa.Column("digest", sa.String(length=80), nullable=False),
        sa.Column("repository_id", sa.String(length=32), nullable=False),
        sa.Column("path", sa.Text(), nullable=False),
        sa.Column("parser", sa.String(length=32), nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("due_at", moment, nullable=False),
        sa.Column("leased_until", moment, nullable=True),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(
            ["repository_id"],
            ["repository.id"],
            name="fk_tensor_digest_task_repository_id_repository",
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("digest", name="pk_tensor_digest_task"),
    )
    op.create_index("ix_tensor_digest_task_due_at", "tensor_digest_task", ["due_at"])
    op.create_index("ix_tensor_digest_task_repository_id", "tensor_digest_task", ["repository_id"])
    op.create_table(
        "trigger_rule",
        sa.Column("id", identity, nullable=False),
        sa.Column("repository_id", sa.String(length=32), nullable=False),
        sa.Column("name", bytewise, nullable=False),
        sa.Column("spec", sa.JSON(), nullable=False),
        sa.Column("enabled", sa.Boolean(), nullable=False),
        sa.Column("created_by", sa.String(length=120), nullable=False),
        sa.Column("created_at", moment, nullable=False),
        sa.Column("updated_at", moment, nullable=False),
        sa.ForeignKeyConstraint(
            ["repository_id"],
            ["repository.id"],
            name="fk_trigger_rule_repository_id_repository",
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("id", name="pk_trigger_rule"),
        sa.UniqueConstraint("repository_id", "name", name="uq_trigger_rule_repository_id_name"),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "webhook",
        sa.Column("id", identity, nullable=False),
        sa.Column("repository_id", sa.String(length=32), nullable=True),
        sa.Column("owner_id", identity, nullable=True),
        sa.Column("name", sa.String(length=200), nullable=False),
        sa.Column("url", sa.Text(), nullable=False),
        sa.Column("receiver", sa.String(length=270), nullable=False),
        sa.Column("events", sa.JSON(), nullable=False),
        sa.Column("secrets", sa.LargeBinary(), nullable=False),
        sa.Column("active", sa.Boolean(), nullable=False),
        sa.Column("paused_reason", sa.Text(), nullable=True),
        sa.Column("failing_since", moment, nullable=True),
        sa.Column("failures", sa.Integer(), nullable=False),
        sa.Column("created_by", sa.String(length=120), nullable=False),
        sa.Column("created_at", moment, nullable=False),
        sa.Column("updated_at", moment, nullable=False),
        sa.CheckConstraint("repository_id IS NULL OR owner_id IS NULL", name="ck_webhook_scope"),
        sa.ForeignKeyConstraint(
            ["owner_id"], ["account.id"], name="fk_webhook_owner_id_account", ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(
            ["repository_id"],
            ["repository.id"],
            name="fk_webhook_repository_id_repository",
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("id", name="pk_webhook"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_webhook_owner_id", "webhook", ["owner_id"])
    op.create_index("ix_webhook_repository_id", "webhook", ["repository_id"])
    op.create_table(
        "post_receive_task",
        sa.Column("push_id", identity, autoincrement=False, nullable=False),
        sa.Column("repository_id", sa.String(length=32), nullable=False),
        sa.Column("done", sa.JSON(), nullable=False),
        sa.Column("due_at", moment, nullable=False),
        sa.Column("leased_until", moment, nullable=True),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(
            ["push_id"], ["push.id"], name="fk_post_receive_task_push_id_push", ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(
            ["repository_id"],
            ["repository.id"],
            name="fk_post_receive_task_repository_id_repository",
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("push_id", name="pk_post_receive_task"),
    )
    op.create_index("ix_post_receive_task_repository", "post_receive_task", ["repository_id", "push_id"])
    op.create_table(
        "trigger_request",
        sa.Column("id", sa.String(length=40), nullable=False),
        sa.Column("repository_id", sa.String(length=32), nullable=False),
        sa.Column("push_id", identity, nullable=False),
        sa.Column("rule", bytewise, nullable=False),
        sa.Column("kind", sa.String(length=16), nullable=False),
        sa.Column("ref", bytewise, nullable=False),
        sa.Column("commit", sa.String(length=64), nullable=False),
        sa.Column("parameters", sa.JSON(), nullable=False),
        sa.Column("chain", sa.JSON(), nullable=False),
        sa.Column("parent", sa.String(length=40), nullable=True),
        sa.Column("payload", sa.Text(), nullable=False),
        sa.Column("created_at", moment, nullable=False),
        sa.ForeignKeyConstraint(
            ["push_id"], ["push.id"], name="fk_trigger_request_push_id_push", ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(
            ["repository_id"],
            ["repository.id"],
            name="fk_trigger_request_repository_id_repository",
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("id", name="pk_trigger_request"),
        sa.UniqueConstraint("push_id", "rule", "ref", name="uq_trigger_request_push_id_rule_ref"),
    )
    op.create_index("ix_trigger_request_listed", "trigger_request", ["repository_id", "created_at"])
    op.create_index("ix_trigger_request_parent", "trigger_request", ["parent", "rule"])
    # Nobody could subscribe before, so there is nobody to tell.
    op.execute("UPDATE outbox_event SET handled_at = created_at WHERE handled_at IS NULL")
    # Before the deliveries: PostgreSQL cascades in this order, and whoever delivers locks streams first.
    op.create_table(
        "webhook_stream",
        sa.Column("webhook_id", identity, autoincrement=False, nullable=False),
        sa.Column("repository_id", sa.String(length=32), nullable=False),
        sa.Column("due_at", moment, nullable=True),
        sa.Column("leased_until", moment, nullable=True),
        sa.ForeignKeyConstraint(
            ["webhook_id"], ["webhook.id"], name="fk_webhook_stream_webhook_id_webhook", ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("webhook_id", "repository_id", name="pk_webhook_stream"),
    )
    op.create_index(
        "ix_webhook_stream_due_at",
        "webhook_stream",
        ["due_at"],
        sqlite_where=sa.text("due_at IS NOT NULL"),
        postgresql_where=sa.text("due_at IS NOT NULL"),
    )
    op.create_table(
        "webhook_delivery",
        sa.Column("id", sa.String(length=40), nullable=False),
        sa.Column("position", sa.BigInteger(), nullable=False),
        sa.Column("webhook_id", identity, nullable=False),
        sa.Column("repository_id", sa.String(length=32), nullable=False),
        sa.Column("event", sa.String(length=64), nullable=False),
        sa.Column("body", sa.Text(), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("failures", sa.Integer(), nullable=False),
        sa.Column("failing_since", moment, nullable=True),
        sa.Column("created_at", moment, nullable=False),
        sa.Column("finished_at", moment, nullable=True),
        sa.ForeignKeyConstraint(
            ["webhook_id"], ["webhook.id"], name="fk_webhook_delivery_webhook_id_webhook", ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name="pk_webhook_delivery"),
    )
    op.create_index("ix_webhook_delivery_finished_at", "webhook_delivery", ["finished_at"])
    op.create_index("ix_webhook_delivery_listed", "webhook_delivery", ["webhook_id", "position"])
    op.create_index(
        "ix_webhook_delivery_unfinished",
        "webhook_delivery",
        ["webhook_id", "repository_id", "position"],
        sqlite_where=sa.text("finished_at IS NULL"),
        postgresql_where=sa.text("finished_at IS NULL"),
    )
    op.create_table(
        "webhook_attempt",
        sa.Column("id", identity, nullable=False),
        sa.Column("delivery_id", sa.String(length=40), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("started_at", moment, nullable=False),
        sa.Column("milliseconds", sa.Integer(), nullable=True),
        sa.Column("outcome", sa.String(length=32), nullable=True),
        sa.Column("status", sa.Integer(), nullable=True),
        sa.Column("address", sa.String(length=64), nullable=True),
        sa.Column("error", sa.Text(), nullable=True),
        sa.Column("response_headers", sa.JSON(), nullable=True),
        sa.Column("response", sa.Text(), nullable=True),
        sa.ForeignKeyConstraint(
            ["delivery_id"],
            ["webhook_delivery.id"],
            name="fk_webhook_attempt_delivery_id_webhook_delivery",
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("id", name="pk_webhook_attempt"),
    )
    op.create_index("ix_webhook_attempt_delivery", "webhook_attempt", ["delivery_id", "number"], unique=True)
    op.add_column(
        "access_token", sa.Column("for_runs", sa.Boolean(), server_default=sa.false(), nullable=False)
    )
    op.add_column("push", sa.Column("by_run", sa.Boolean(), server_default=sa.false(), nullable=False))


def downgrade() -> None:
    raise NotImplementedError("there are no downgrades: restore the backup from before the upgrade")
