"""Backfills and their studies."""

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "backfills",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("peer", sa.Text(), nullable=False),
        sa.Column("study_date", sa.Text(), nullable=False, comment="a range as it was typed"),
        sa.Column("modality", sa.Text(), nullable=False, comment="empty: any"),
        sa.Column("body_part", sa.Text(), nullable=False, comment="empty: any"),
        sa.Column("searched_to", sa.Date(), nullable=True, comment="the last day of which all studies are known"),
        sa.Column("finished_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column(
            "created_at", sa.DateTime(timezone=True), server_default=sa.text("clock_timestamp()"), nullable=False
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_backfills")),
        sa.UniqueConstraint(
            "peer",
            "study_date",
            "modality",
            "body_part",
            name=op.f("uq_backfills_peer_study_date_modality_body_part"),
        ),
    )
    op.create_table(
        "backfill_studies",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("backfill_id", sa.BigInteger(), nullable=False),
        sa.Column("study_instance_uid", sa.Text(), nullable=False),
        sa.Column(
            "state",
            sa.Enum("waiting", "done", "parked", name="backfill_state"),
            server_default="waiting",
            nullable=False,
        ),
        sa.Column("instances_at_pacs", sa.Integer(), nullable=True, comment="null: the PACS does not say"),
        sa.Column("attempts", sa.SmallInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("error", sa.Text(), nullable=True),
        sa.Column("ended_at", sa.DateTime(timezone=True), nullable=True, comment="of the last attempt"),
        sa.ForeignKeyConstraint(
            ["backfill_id"],
            ["backfills.id"],
            name=op.f("fk_backfill_studies_backfill_id_backfills"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_backfill_studies")),
        sa.UniqueConstraint(
            "backfill_id", "study_instance_uid", name=op.f("uq_backfill_studies_backfill_id_study_instance_uid")
        ),
    )
    op.create_index(op.f("ix_backfill_studies_backfill_id"), "backfill_studies", ["backfill_id"], unique=False)
    op.execute("GRANT SELECT, INSERT, UPDATE, DELETE ON backfills, backfill_studies TO pacs_cbir_service")


def downgrade() -> None:
    op.drop_index(op.f("ix_backfill_studies_backfill_id"), table_name="backfill_studies")
    op.drop_table("backfill_studies")
    op.drop_table("backfills")
    op.execute("DROP TYPE backfill_state")
