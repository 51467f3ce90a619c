"""Curated labels of studies."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "study_labels",
        sa.Column("study_id", sa.BigInteger(), nullable=False),
        sa.Column("label", sa.Text(), nullable=False),
        sa.Column("set_at", sa.DateTime(timezone=True), server_default=sa.text("clock_timestamp()"), nullable=False),
        sa.ForeignKeyConstraint(
            ["study_id"], ["studies.id"], name=op.f("fk_study_labels_study_id_studies"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("study_id", "label", name=op.f("pk_study_labels")),
        comment="what a person says a study shows",
    )
    op.create_index(op.f("ix_study_labels_label"), "study_labels", ["label"], unique=False)
    op.execute("GRANT SELECT, INSERT, UPDATE, DELETE ON study_labels TO pacs_cbir_service")


def downgrade() -> None:
    op.drop_index(op.f("ix_study_labels_label"), table_name="study_labels")
    op.drop_table("study_labels")
