"""Corrections of patients and studies, their history, and conflicts."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column(
        "patients",
        sa.Column(
            "merged_into",
            sa.BigInteger(),
            nullable=True,
            comment="the patient who survived, never one that was merged itself; null: nobody else",
        ),
    )
    op.add_column(
        "patients",
        sa.Column(
            "demographics",
            postgresql.JSONB(),
            nullable=True,
            comment="keyword → values that correct what instances say of the patient",
        ),
    )
    op.create_foreign_key(
        op.f("fk_patients_merged_into_patients"), "patients", "patients", ["merged_into"], ["id"], ondelete="CASCADE"
    )
    op.create_index(op.f("ix_patients_merged_into"), "patients", ["merged_into"], unique=False)
    op.alter_column("studies", "attributes", comment="keyword → values, Patient and Study level, corrected")
    op.add_column(
        "studies",
        sa.Column(
            "patient_id",
            sa.BigInteger(),
            nullable=True,
            comment="whose it is, whatever its instances say; null: they say it",
        ),
    )
    op.add_column(
        "studies",
        sa.Column(
            "corrections",
            postgresql.JSONB(),
            nullable=True,
            comment="keyword → values that correct what instances say of the study",
        ),
    )
    op.add_column(
        "studies",
        sa.Column(
            "former_patient_ids",
            postgresql.ARRAY(sa.BigInteger()),
            server_default="{}",
            nullable=False,
            comment="before patient_id was set",
        ),
    )
    op.create_foreign_key(op.f("fk_studies_patient_id_patients"), "studies", "patients", ["patient_id"], ["id"])
    op.create_index(op.f("ix_studies_patient_id"), "studies", ["patient_id"], unique=False)
    op.create_table(
        "conflicts",
        sa.Column("study_id", sa.BigInteger(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False, comment="see conflicts.Kind"),
        sa.Column("sop_instance_uid", sa.Text(), nullable=False, comment="of the instance that told it"),
        sa.Column("seen_at", sa.DateTime(timezone=True), server_default=sa.text("clock_timestamp()"), nullable=False),
        sa.Column("resolved_at", sa.DateTime(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(
            ["study_id"], ["studies.id"], name=op.f("fk_conflicts_study_id_studies"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("study_id", "kind", "sop_instance_uid", name=op.f("pk_conflicts")),
        comment="what instances say of patients and studies that cannot all be true",
    )
    op.create_table(
        "corrections",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False, comment="see corrections.Kind"),
        sa.Column("door", sa.Text(), nullable=False, comment="which way it came"),
        sa.Column("patient_id", sa.BigInteger(), nullable=False),
        sa.Column("study_instance_uid", sa.Text(), nullable=True, comment="null: all of the patient's"),
        sa.Column(
            "keywords",
            postgresql.ARRAY(sa.Text()),
            nullable=False,
            comment="the attributes that were corrected, without their values",
        ),
        sa.Column("made_at", sa.DateTime(timezone=True), server_default=sa.text("clock_timestamp()"), nullable=False),
        sa.ForeignKeyConstraint(
            ["patient_id"], ["patients.id"], name=op.f("fk_corrections_patient_id_patients"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_corrections")),
        comment="history: what was corrected and when; goes with the patient",
    )
    op.create_index(op.f("ix_corrections_patient_id"), "corrections", ["patient_id"], unique=False)
    op.execute("GRANT SELECT, INSERT, UPDATE, DELETE ON conflicts, corrections TO pacs_cbir_service")


def downgrade() -> None:
    op.drop_table("corrections")
    op.drop_table("conflicts")
    op.drop_index(op.f("ix_studies_patient_id"), table_name="studies")
    op.drop_column("studies", "former_patient_ids")
    op.drop_column("studies", "corrections")
    op.drop_column("studies", "patient_id")
    op.alter_column("studies", "attributes", comment="keyword → values, Patient and Study level")
    op.drop_index(op.f("ix_patients_merged_into"), table_name="patients")
    op.drop_column("patients", "demographics")
    op.drop_column("patients", "merged_into")
