"""Storage commitment: requests whose senders are still to be told."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None

NOW = sa.text("clock_timestamp()")


def upgrade() -> None:
    op.create_table(
        "commitments",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("ae_title", sa.Text(), nullable=False, comment="who asked, and is told"),
        sa.Column("transaction_uid", sa.Text(), nullable=False),
        sa.Column("sop_class_uids", postgresql.ARRAY(sa.Text()), nullable=False),
        sa.Column("sop_instance_uids", postgresql.ARRAY(sa.Text()), nullable=False),
        sa.Column(
            "outcomes",
            postgresql.ARRAY(sa.Text()),
            nullable=True,
            comment="of each instance: empty where committed, else why not; null before they were checked",
        ),
        sa.Column("requested_at", sa.DateTime(timezone=True), server_default=NOW, nullable=False),
        sa.Column("not_before", sa.DateTime(timezone=True), server_default=NOW, nullable=False),
        sa.Column("attempts", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("error", sa.Text(), server_default="", nullable=False),
        sa.Column("given_up", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_commitments")),
        sa.UniqueConstraint("ae_title", "transaction_uid", name=op.f("uq_commitments_ae_title_transaction_uid")),
        comment="storage commitment requests (PS3.4 Annex J) whose senders are still to be told",
    )
    op.execute("GRANT SELECT, INSERT, UPDATE, DELETE ON commitments TO pacs_cbir_service")


def downgrade() -> None:
    op.drop_table("commitments")
