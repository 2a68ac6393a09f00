"""Large files: objects, links, uploads, locks, and a quota for each account."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

identity = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
bytewise = sa.String().with_variant(sa.String(collation="C"), "postgresql")
moment = sa.DateTime(timezone=True)


def upgrade() -> None:
    op.add_column("account", sa.Column("lfs_quota_bytes", sa.BigInteger(), nullable=True))
    op.create_table(
        "lfs_object",
        sa.Column("oid", sa.String(length=64), nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("store", sa.String(length=16), nullable=False),
        sa.Column("key", sa.String(length=120), nullable=False),
        sa.Column("verified_at", moment, nullable=False),
        sa.Column("damaged_at", moment, nullable=True),
        sa.Column("unlinked_at", moment, nullable=True),
        sa.PrimaryKeyConstraint("oid", name="pk_lfs_object"),
        sa.UniqueConstraint("key", name="uq_lfs_object_key"),
    )
    op.create_index("ix_lfs_object_unlinked_at", "lfs_object", ["unlinked_at"])
    op.create_table(
        "lfs_link",
        sa.Column("repository_id", sa.String(length=32), nullable=False),
        sa.Column("oid", sa.String(length=64), nullable=False),
        sa.Column("created_at", moment, nullable=False),
        sa.Column("touched_at", moment, nullable=False),
        sa.Column("trashed_at", moment, nullable=True),
        sa.ForeignKeyConstraint(["oid"], ["lfs_object.oid"], name="fk_lfs_link_oid_lfs_object"),
        sa.ForeignKeyConstraint(
            ["repository_id"],
            ["repository.id"],
            name="fk_lfs_link_repository_id_repository",
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("repository_id", "oid", name="pk_lfs_link"),
    )
    op.create_index("ix_lfs_link_oid", "lfs_link", ["oid"])
    op.create_index("ix_lfs_link_trashed", "lfs_link", ["trashed_at"])
    op.create_table(
        "lfs_upload",
        sa.Column("id", sa.String(length=32), nullable=False),
        sa.Column("repository_id", sa.String(length=32), nullable=False),
        sa.Column("oid", sa.String(length=64), nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("store", sa.String(length=16), nullable=False),
        sa.Column("key", sa.String(length=120), nullable=False),
        sa.Column("multipart_id", sa.Text(), nullable=False),
        sa.Column("part_bytes", sa.BigInteger(), nullable=False),
        sa.Column("created_at", moment, nullable=False),
        sa.Column("touched_at", moment, nullable=False),
        sa.ForeignKeyConstraint(
            ["repository_id"],
            ["repository.id"],
            name="fk_lfs_upload_repository_id_repository",
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("id", name="pk_lfs_upload"),
        sa.UniqueConstraint("repository_id", "oid", name="uq_lfs_upload_repository_id_oid"),
    )
    op.create_index("ix_lfs_upload_touched_at", "lfs_upload", ["touched_at"])
    op.create_table(
        "lfs_lock",
        sa.Column("id", sa.String(length=32), nullable=False),
        sa.Column("repository_id", sa.String(length=32), nullable=False),
        sa.Column("path", bytewise, nullable=False),
        sa.Column("ref", bytewise, nullable=True),
        sa.Column("owner_id", identity, nullable=False),
        sa.Column("locked_at", moment, nullable=False),
        sa.ForeignKeyConstraint(
            ["owner_id"], ["account.id"], name="fk_lfs_lock_owner_id_account", ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(
            ["repository_id"],
            ["repository.id"],
            name="fk_lfs_lock_repository_id_repository",
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("id", name="pk_lfs_lock"),
        sa.UniqueConstraint("repository_id", "path", name="uq_lfs_lock_repository_id_path"),
    )
    op.create_index("ix_lfs_lock_owner_id", "lfs_lock", ["owner_id"])


def downgrade() -> None:
    raise NotImplementedError("there are no downgrades: restore the backup from before the upgrade")
