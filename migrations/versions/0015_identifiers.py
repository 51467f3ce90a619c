"""Indexes for the identifiers that studies are asked for by."""

from alembic import op

revision = "0015"
down_revision = "0014"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("CREATE INDEX ix_studies_patient_ids ON studies USING gin ((attributes['PatientID']))")
    op.execute("CREATE INDEX ix_studies_accession_numbers ON studies USING gin ((attributes['AccessionNumber']))")


def downgrade() -> None:
    op.drop_index("ix_studies_accession_numbers", table_name="studies")
    op.drop_index("ix_studies_patient_ids", table_name="studies")
