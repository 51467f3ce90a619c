"""Deletions of patients, and what those that are pending look for."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "deletions",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("door", sa.Text(), nullable=False, comment="which way it came"),
        sa.Column("removed", postgresql.JSONB(), nullable=False, comment="what → how many"),
        sa.Column("salt", sa.LargeBinary(), nullable=False, comment="of the items that are digests"),
        sa.Column(
            "transaction_id",
            sa.BigInteger(),
            server_default=sa.text("pg_current_xact_id()::text::bigint"),
            nullable=False,
        ),
        sa.Column(
            "requested_at", sa.DateTime(timezone=True), server_default=sa.text("clock_timestamp()"), nullable=False
        ),
        sa.Column(
            "proved_at", sa.DateTime(timezone=True), nullable=True, comment="when nothing was left; null: pending"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_deletions")),
        comment="patients who were deleted, without a trace of who they were",
    )
    op.create_table(
        "deletion_items",
        sa.Column("deletion_id", sa.BigInteger(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("value", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(
            ["deletion_id"],
            ["deletions.id"],
            name=op.f("fk_deletion_items_deletion_id_deletions"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("deletion_id", "kind", "value", name=op.f("pk_deletion_items")),
        comment="what a pending deletion looks for: UIDs, numbers, file names and salted digests",
    )
    op.execute("GRANT SELECT, INSERT, UPDATE, DELETE ON deletions, deletion_items TO pacs_cbir_service")


def downgrade() -> None:
    op.drop_table("deletion_items")
    op.drop_table("deletions")
