"""The main job: patients to instances, jobs, encoders, stacks, embeddings, and the role of the services."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

# One row a stack that came or went, and one notification a statement. Cascades fire it as well, so a deleted
# patient leaves the indexes without any code that remembers to say so.
TRIGGERS = """
CREATE FUNCTION record_stack_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO stack_changes (stack_id) VALUES (coalesce(NEW.id, OLD.id));
    RETURN NULL;
END $$;
CREATE FUNCTION notify_stack_changes() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_notify('pacs_cbir_stacks', '');
    RETURN NULL;
END $$;
CREATE TRIGGER stacks_change AFTER INSERT OR DELETE ON stacks
    FOR EACH ROW EXECUTE FUNCTION record_stack_change();
CREATE TRIGGER stacks_notify AFTER INSERT OR DELETE ON stacks
    FOR EACH STATEMENT EXECUTE FUNCTION notify_stack_changes();
"""

# A role belongs to the whole server and may serve other databases of it: made when missing, never dropped.
ROLE = """
DO $$ BEGIN
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'pacs_cbir_service') THEN
        CREATE ROLE pacs_cbir_service NOLOGIN;
    END IF;
END $$;
GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO pacs_cbir_service;
REVOKE ALL ON alembic_version FROM pacs_cbir_service;
GRANT SELECT ON alembic_version TO pacs_cbir_service;
"""


def upgrade() -> None:
    op.create_table(
        "installation",
        sa.Column("id", sa.UUID(), server_default=sa.text("gen_random_uuid()"), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_installation")),
        comment="one row: which instances directory belongs to this database",
    )
    op.execute("INSERT INTO installation DEFAULT VALUES")
    op.create_table(
        "encoders",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("identity", sa.Text(), nullable=False, comment="sha256 of weights, preprocessing and precision"),
        sa.Column("card", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("active", sa.Boolean(), nullable=False),
        sa.Column(
            "created_at", sa.DateTime(timezone=True), server_default=sa.text("clock_timestamp()"), nullable=False
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_encoders")),
        sa.UniqueConstraint("identity", name=op.f("uq_encoders_identity")),
    )
    op.create_index("uq_encoders_active", "encoders", ["active"], unique=True, postgresql_where=sa.text("active"))
    op.create_table(
        "patients",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("issuer_of_patient_id", sa.Text(), nullable=False),
        sa.Column(
            "patient_id", sa.Text(), nullable=False, comment="trimmed; empty: a patient of the one study named below"
        ),
        sa.Column("study_instance_uid", sa.Text(), nullable=True, comment="only where patient_id is empty"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_patients")),
    )
    op.create_index(
        "uq_patients_identity",
        "patients",
        ["issuer_of_patient_id", "patient_id"],
        unique=True,
        postgresql_where=sa.text("patient_id <> ''"),
    )
    op.create_index(
        "uq_patients_nameless",
        "patients",
        ["study_instance_uid"],
        unique=True,
        postgresql_where=sa.text("patient_id = ''"),
    )
    op.create_table(
        "stack_changes",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column(
            "transaction_id",
            sa.BigInteger(),
            server_default=sa.text("pg_current_xact_id()::text::bigint"),
            nullable=False,
        ),
        sa.Column("stack_id", sa.UUID(), nullable=False),
        sa.Column(
            "changed_at", sa.DateTime(timezone=True), server_default=sa.text("clock_timestamp()"), nullable=False
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_stack_changes")),
        comment="what the API processes' indexes follow; written by a trigger",
    )
    op.create_index(op.f("ix_stack_changes_transaction_id"), "stack_changes", ["transaction_id"], unique=False)
    op.create_table(
        "studies",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("study_instance_uid", sa.Text(), nullable=False),
        sa.Column(
            "attributes",
            postgresql.JSONB(astext_type=sa.Text()),
            nullable=False,
            comment="keyword → values, Patient and Study level",
        ),
        sa.Column(
            "created_at", sa.DateTime(timezone=True), server_default=sa.text("clock_timestamp()"), nullable=False
        ),
        sa.Column(
            "updated_at", sa.DateTime(timezone=True), server_default=sa.text("clock_timestamp()"), nullable=False
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_studies")),
        sa.UniqueConstraint("study_instance_uid", name=op.f("uq_studies_study_instance_uid")),
    )
    op.create_table(
        "series",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("study_id", sa.BigInteger(), nullable=False),
        sa.Column("series_instance_uid", sa.Text(), nullable=False),
        sa.Column(
            "attributes",
            postgresql.JSONB(astext_type=sa.Text()),
            nullable=False,
            comment="keyword → values, Series level",
        ),
        sa.Column(
            "created_at", sa.DateTime(timezone=True), server_default=sa.text("clock_timestamp()"), nullable=False
        ),
        sa.Column(
            "updated_at", sa.DateTime(timezone=True), server_default=sa.text("clock_timestamp()"), nullable=False
        ),
        sa.ForeignKeyConstraint(
            ["study_id"], ["studies.id"], name=op.f("fk_series_study_id_studies"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_series")),
        sa.UniqueConstraint("study_id", "series_instance_uid", name=op.f("uq_series_study_id_series_instance_uid")),
    )
    op.create_index(op.f("ix_series_series_instance_uid"), "series", ["series_instance_uid"], unique=False)
    op.create_index(op.f("ix_series_study_id"), "series", ["study_id"], unique=False)
    op.create_table(
        "study_patients",
        sa.Column("study_id", sa.BigInteger(), nullable=False),
        sa.Column("patient_id", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["patient_id"], ["patients.id"], name=op.f("fk_study_patients_patient_id_patients")),
        sa.ForeignKeyConstraint(
            ["study_id"], ["studies.id"], name=op.f("fk_study_patients_study_id_studies"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("study_id", "patient_id", name=op.f("pk_study_patients")),
        comment="the patients of a study's instances; more than one is a conflict to be looked at",
    )
    op.create_index(op.f("ix_study_patients_patient_id"), "study_patients", ["patient_id"], unique=False)
    op.create_table(
        "instances",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("series_id", sa.BigInteger(), nullable=False),
        sa.Column("patient_id", sa.BigInteger(), nullable=False),
        sa.Column("sop_instance_uid", sa.Text(), nullable=False),
        sa.Column("sop_class_uid", sa.Text(), nullable=False),
        sa.Column("transfer_syntax_uid", sa.Text(), nullable=False),
        sa.Column(
            "attributes",
            postgresql.JSONB(astext_type=sa.Text()),
            nullable=False,
            comment="keyword → values, Instance level",
        ),
        sa.Column("file", sa.Text(), nullable=False, comment="path below the instances directory"),
        sa.Column("file_size", sa.BigInteger(), nullable=False),
        sa.Column("file_sha256", sa.LargeBinary(), nullable=False),
        sa.Column("pixel_sha256", sa.LargeBinary(), nullable=False, comment="of the encoded pixel data"),
        sa.Column("calling_ae_title", sa.Text(), nullable=False),
        sa.Column(
            "received_at", sa.DateTime(timezone=True), server_default=sa.text("clock_timestamp()"), nullable=False
        ),
        sa.ForeignKeyConstraint(
            ["series_id"], ["series.id"], name=op.f("fk_instances_series_id_series"), ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(["patient_id"], ["patients.id"], name=op.f("fk_instances_patient_id_patients")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_instances")),
        sa.UniqueConstraint("file", name=op.f("uq_instances_file")),
        sa.UniqueConstraint("sop_instance_uid", name=op.f("uq_instances_sop_instance_uid")),
    )
    op.create_index(op.f("ix_instances_series_id"), "instances", ["series_id"], unique=False)
    op.create_index(op.f("ix_instances_patient_id"), "instances", ["patient_id"], unique=False)
    op.create_table(
        "jobs",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("series_id", sa.BigInteger(), nullable=False),
        sa.Column(
            "status",
            sa.Enum("waiting", "running", "parked", name="job_status"),
            server_default="waiting",
            nullable=False,
        ),
        sa.Column(
            "re_embed",
            sa.Boolean(),
            server_default=sa.text("false"),
            nullable=False,
            comment="made by `reindex --re-embed`",
        ),
        sa.Column("not_before", sa.DateTime(timezone=True), nullable=False),
        sa.Column("attempts", sa.SmallInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("lease_until", sa.DateTime(timezone=True), nullable=True),
        sa.Column("worker", sa.Text(), nullable=True),
        sa.Column("error", sa.Text(), nullable=True),
        sa.Column(
            "created_at", sa.DateTime(timezone=True), server_default=sa.text("clock_timestamp()"), nullable=False
        ),
        sa.ForeignKeyConstraint(
            ["series_id"], ["series.id"], name=op.f("fk_jobs_series_id_series"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_jobs")),
    )
    op.create_index("ix_jobs_due", "jobs", ["not_before"], unique=False, postgresql_where=sa.text("status = 'waiting'"))
    op.create_index(op.f("ix_jobs_series_id"), "jobs", ["series_id"], unique=False)
    op.create_index(
        "uq_jobs_running", "jobs", ["series_id"], unique=True, postgresql_where=sa.text("status = 'running'")
    )
    op.create_index(
        "uq_jobs_waiting", "jobs", ["series_id"], unique=True, postgresql_where=sa.text("status = 'waiting'")
    )
    op.create_table(
        "stacks",
        sa.Column("id", sa.UUID(), server_default=sa.text("gen_random_uuid()"), nullable=False),
        sa.Column("series_id", sa.BigInteger(), nullable=False),
        sa.Column("encoder_id", sa.BigInteger(), nullable=False),
        sa.Column("sequence", sa.Text(), nullable=False),
        sa.Column("plane", sa.Text(), nullable=True, comment="null where nothing was embedded"),
        sa.Column("body_part", sa.Text(), nullable=False),
        sa.Column("in_domain", sa.Boolean(), nullable=False),
        sa.Column("not_embedded", sa.Text(), nullable=True, comment="why there are no embeddings"),
        sa.Column(
            "separated_by",
            postgresql.JSONB(astext_type=sa.Text()),
            nullable=False,
            comment="what tells this stack from the series' others",
        ),
        sa.Column(
            "evidence",
            postgresql.JSONB(astext_type=sa.Text()),
            nullable=False,
            comment="the header values that named the sequence",
        ),
        sa.Column("sop_instance_uids", postgresql.ARRAY(sa.Text()), nullable=False),
        sa.Column(
            "created_at", sa.DateTime(timezone=True), server_default=sa.text("clock_timestamp()"), nullable=False
        ),
        sa.ForeignKeyConstraint(["encoder_id"], ["encoders.id"], name=op.f("fk_stacks_encoder_id_encoders")),
        sa.ForeignKeyConstraint(
            ["series_id"], ["series.id"], name=op.f("fk_stacks_series_id_series"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_stacks")),
    )
    op.create_index(op.f("ix_stacks_encoder_id"), "stacks", ["encoder_id"], unique=False)
    op.create_index(op.f("ix_stacks_series_id"), "stacks", ["series_id"], unique=False)
    op.create_table(
        "embeddings",
        sa.Column("stack_id", sa.UUID(), nullable=False),
        sa.Column("slice", sa.SmallInteger(), nullable=False, comment="0 is the whole stack, slices count from 1"),
        sa.Column("sop_instance_uid", sa.Text(), nullable=False, comment="empty for the whole stack"),
        sa.Column("frame_number", sa.Integer(), nullable=False),
        sa.Column("position_mm", sa.Float(), nullable=False),
        sa.Column("vector", sa.LargeBinary(), nullable=False, comment="float32, little endian, unit length"),
        sa.ForeignKeyConstraint(
            ["stack_id"], ["stacks.id"], name=op.f("fk_embeddings_stack_id_stacks"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("stack_id", "slice", name=op.f("pk_embeddings")),
    )

    op.execute(TRIGGERS)
    op.execute(ROLE)


def downgrade() -> None:
    op.drop_table("embeddings")
    op.drop_index(op.f("ix_stacks_series_id"), table_name="stacks")
    op.drop_index(op.f("ix_stacks_encoder_id"), table_name="stacks")
    op.drop_table("stacks")
    op.drop_index("uq_jobs_waiting", table_name="jobs", postgresql_where=sa.text("status = 'waiting'"))
    op.drop_index("uq_jobs_running", table_name="jobs", postgresql_where=sa.text("status = 'running'"))
    op.drop_index(op.f("ix_jobs_series_id"), table_name="jobs")
    op.drop_index("ix_jobs_due", table_name="jobs", postgresql_where=sa.text("status = 'waiting'"))
    op.drop_table("jobs")
    op.drop_index(op.f("ix_instances_patient_id"), table_name="instances")
    op.drop_index(op.f("ix_instances_series_id"), table_name="instances")
    op.drop_table("instances")
    op.drop_index(op.f("ix_study_patients_patient_id"), table_name="study_patients")
    op.drop_table("study_patients")
    op.drop_index(op.f("ix_series_study_id"), table_name="series")
    op.drop_index(op.f("ix_series_series_instance_uid"), table_name="series")
    op.drop_table("series")
    op.drop_table("studies")
    op.drop_index(op.f("ix_stack_changes_transaction_id"), table_name="stack_changes")
    op.drop_table("stack_changes")
    op.drop_index("uq_patients_nameless", table_name="patients", postgresql_where=sa.text("patient_id = ''"))
    op.drop_index("uq_patients_identity", table_name="patients", postgresql_where=sa.text("patient_id <> ''"))
    op.drop_table("patients")
    op.drop_index("uq_encoders_active", table_name="encoders", postgresql_where=sa.text("active"))
    op.drop_table("encoders")
    op.drop_table("installation")
    op.execute("DROP FUNCTION record_stack_change")
    op.execute("DROP FUNCTION notify_stack_changes")
    op.execute("DROP TYPE job_status")
