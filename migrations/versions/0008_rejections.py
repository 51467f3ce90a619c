"""Instances that rejection notes took out of use."""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "rejections",
        sa.Column("sop_instance_uid", sa.Text(), nullable=False, comment="of an instance that is here or may come"),
        sa.Column("note_sop_instance_uid", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False, comment="code of PS3.16 CID 7011"),
        sa.Column(
            "rejected_at", sa.DateTime(timezone=True), server_default=sa.text("clock_timestamp()"), nullable=False
        ),
        sa.PrimaryKeyConstraint("sop_instance_uid", "note_sop_instance_uid", name=op.f("pk_rejections")),
        comment="what rejection notes say",
    )
    op.create_index(op.f("ix_rejections_note_sop_instance_uid"), "rejections", ["note_sop_instance_uid"], unique=False)
    op.add_column(
        "instances",
        sa.Column(
            "rejected",
            sa.Text(),
            nullable=True,
            comment="code of PS3.16 CID 7011: why it is in no answer; null: it counts",
        ),
    )
    op.execute("GRANT SELECT, INSERT, UPDATE, DELETE ON rejections TO pacs_cbir_service")


def downgrade() -> None:
    op.drop_column("instances", "rejected")
    op.drop_table("rejections")
