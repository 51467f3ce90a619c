"""The tables, as `migrations/` makes them. Column names are DICOM keywords in snake_case where DICOM has one."""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Date,
    DateTime,
    Enum,
    Float,
    ForeignKey,
    Identity,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    SmallInteger,
    Table,
    Text,
    UniqueConstraint,
    func,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSONB, UUID

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s_%(referred_table_name)s",
        "pk": "pk_%(table_name)s",
    }
)


def _id() -> Column[int]:
    return Column("id", BigInteger, Identity(always=True), primary_key=True)


def _now(name: str, comment: str | None = None) -> Column[object]:
    return Column(name, DateTime(timezone=True), nullable=False, server_default=func.clock_timestamp(), comment=comment)


def _reference(name: str, target: str, *, cascade: bool = True) -> Column[int]:
    return Column(
        name, BigInteger, ForeignKey(target, ondelete="CASCADE" if cascade else None), nullable=False, index=True
    )


installation = Table(
    "installation",
    metadata,
    Column("id", UUID(as_uuid=True), primary_key=True, server_default=func.gen_random_uuid()),
    comment="one row: which instances directory belongs to this database",
)

patients = Table(
    "patients",
    metadata,
    _id(),
    Column("issuer_of_patient_id", Text, nullable=False),
    Column("patient_id", Text, nullable=False, comment="trimmed; empty: a patient of the one study named below"),
    Column("study_instance_uid", Text, comment="only where patient_id is empty"),
    Column(
        "merged_into",
        BigInteger,
        ForeignKey("patients.id", ondelete="CASCADE"),
        index=True,
        comment="the patient who survived, never one that was merged itself; null: nobody else",
    ),
    Column("demographics", JSONB, comment="keyword → values that correct what instances say of the patient"),
    Index(
        "uq_patients_identity",
        "issuer_of_patient_id",
        "patient_id",
        unique=True,
        postgresql_where=text("patient_id <> ''"),
    ),
    Index("uq_patients_nameless", "study_instance_uid", unique=True, postgresql_where=text("patient_id = ''")),
)

# Written as Postgres writes it back, so that Alembic finds no difference.
STUDY_MOMENT = (
    "COALESCE(translate(attributes #>> '{StudyDate,0}', '.', '') || "
    "COALESCE(translate(attributes #>> '{StudyTime,0}', ':', ''), ''), '')"
)
"""When a study was made, as digits; empty where it does not say. Points and colons are of old versions (PS3.5 6.2)."""

studies = Table(
    "studies",
    metadata,
    _id(),
    Column("study_instance_uid", Text, nullable=False, unique=True),
    Column("attributes", JSONB, nullable=False, comment="keyword → values, Patient and Study level, corrected"),
    Column(
        "patient_id",
        BigInteger,
        ForeignKey("patients.id"),
        index=True,
        comment="whose it is, whatever its instances say; null: they say it",
    ),
    Column("corrections", JSONB, comment="keyword → values that correct what instances say of the study"),
    Column(
        "former_patient_ids",
        ARRAY(BigInteger),
        nullable=False,
        server_default="{}",
        comment="before patient_id was set",
    ),
    _now("created_at"),
    _now("updated_at"),
    # The order of the list: one page is read without sorting all studies.
    Index("ix_studies_moment", text(f"({STUDY_MOMENT})"), "id"),
    # See matching.INDEXED.
    Index("ix_studies_patient_ids", text("(attributes['PatientID'::text])"), postgresql_using="gin"),
    Index("ix_studies_accession_numbers", text("(attributes['AccessionNumber'::text])"), postgresql_using="gin"),
)

study_patients = Table(
    "study_patients",
    metadata,
    Column("study_id", BigInteger, ForeignKey("studies.id", ondelete="CASCADE"), primary_key=True),
    Column("patient_id", BigInteger, ForeignKey("patients.id"), primary_key=True, index=True),
    comment="the patients of a study's instances; more than one is a conflict to be looked at",
)

conflicts = Table(
    "conflicts",
    metadata,
    Column("study_id", BigInteger, ForeignKey("studies.id", ondelete="CASCADE"), primary_key=True),
    Column("kind", Text, primary_key=True, comment="see conflicts.Kind"),
    Column("sop_instance_uid", Text, primary_key=True, comment="of the instance that told it"),
    _now("seen_at"),
    Column("resolved_at", DateTime(timezone=True)),
    comment="what instances say of patients and studies that cannot all be true",
)

corrections = Table(
    "corrections",
    metadata,
    _id(),
    Column("kind", Text, nullable=False, comment="see corrections.Kind"),
    Column("door", Text, nullable=False, comment="which way it came"),
    _reference("patient_id", "patients.id"),
    Column("study_instance_uid", Text, comment="null: all of the patient's"),
    Column("keywords", ARRAY(Text), nullable=False, comment="the attributes that were corrected, without their values"),
    _now("made_at"),
    comment="history: what was corrected and when; goes with the patient",
)

study_labels = Table(
    "study_labels",
    metadata,
    Column("study_id", BigInteger, ForeignKey("studies.id", ondelete="CASCADE"), primary_key=True),
    Column("label", Text, primary_key=True, index=True),
    _now("set_at"),
    comment="what a person says a study shows",
)

series = Table(
    "series",
    metadata,
    _id(),
    _reference("study_id", "studies.id"),
    Column("series_instance_uid", Text, nullable=False, index=True),
    Column("attributes", JSONB, nullable=False, comment="keyword → values, Series level"),
    _now("created_at"),
    _now("updated_at"),
    Column(
        "used_at",
        DateTime(timezone=True),
        server_default=func.clock_timestamp(),
        comment="when its pixel data arrived or was read last, to within ten minutes; null: it has left",
    ),
    UniqueConstraint("study_id", "series_instance_uid"),
    # The least recently used are found among millions whose pixel data has left.
    Index("ix_series_used_at", "used_at", "id", postgresql_where=text("used_at IS NOT NULL")),
)

instances = Table(
    "instances",
    metadata,
    _id(),
    _reference("series_id", "series.id"),
    _reference("patient_id", "patients.id", cascade=False),
    Column("sop_instance_uid", Text, nullable=False, unique=True),
    Column("sop_class_uid", Text, nullable=False),
    Column("transfer_syntax_uid", Text, nullable=False),
    Column("attributes", JSONB, nullable=False, comment="keyword → values, Instance level"),
    Column(
        "file",
        Text,
        unique=True,
        comment="path below the instances directory; null: the pixel data is no longer here",
    ),
    Column("file_size", BigInteger, nullable=False),
    Column("file_sha256", LargeBinary, nullable=False),
    Column("pixel_sha256", LargeBinary, nullable=False, comment="of the encoded pixel data"),
    Column("calling_ae_title", Text, nullable=False),
    Column("rejected", Text, comment="code of PS3.16 CID 7011: why it is in no answer; null: it counts"),
    _now("received_at"),
    Column(
        "committed_at",
        DateTime(timezone=True),
        comment="when this service committed itself to keep it (PS3.4 Annex J)",
    ),
    Index(
        "ix_instances_kept", "series_id", postgresql_where=text("file IS NOT NULL"), postgresql_include=["file_size"]
    ),
    Index("ix_instances_committed", "series_id", postgresql_where=text("committed_at IS NOT NULL")),
)

thumbnails = Table(
    "thumbnails",
    metadata,
    Column("instance_id", BigInteger, ForeignKey("instances.id", ondelete="CASCADE"), primary_key=True),
    Column("frame_number", Integer, primary_key=True),
    Column("picture", LargeBinary, nullable=False, comment="JPEG"),
    comment="small pictures of what was embedded, for when the pixel data has left",
)

deletions = Table(
    "deletions",
    metadata,
    _id(),
    Column("door", Text, nullable=False, comment="which way it came"),
    Column("removed", JSONB, nullable=False, comment="what → how many"),
    Column("salt", LargeBinary, nullable=False, comment="of the items that are digests"),
    Column("transaction_id", BigInteger, nullable=False, server_default=text("pg_current_xact_id()::text::bigint")),
    _now("requested_at"),
    Column("proved_at", DateTime(timezone=True), comment="when nothing was left; null: pending"),
    comment="patients who were deleted, without a trace of who they were",
)

deletion_items = Table(
    "deletion_items",
    metadata,
    Column("deletion_id", BigInteger, ForeignKey("deletions.id", ondelete="CASCADE"), primary_key=True),
    Column("kind", Text, primary_key=True),
    Column("value", Text, primary_key=True),
    comment="what a pending deletion looks for: UIDs, numbers, file names and salted digests",
)

commitments = Table(
    "commitments",
    metadata,
    _id(),
    Column("ae_title", Text, nullable=False, comment="who asked, and is told"),
    Column("transaction_uid", Text, nullable=False),
    Column("sop_class_uids", ARRAY(Text), nullable=False),
    Column("sop_instance_uids", ARRAY(Text), nullable=False),
    Column(
        "outcomes",
        ARRAY(Text),
        comment="of each instance: empty where committed, else why not; null before they were checked",
    ),
    _now("requested_at"),
    _now("not_before"),
    Column("attempts", Integer, nullable=False, server_default=text("0")),
    Column("error", Text, nullable=False, server_default=""),
    Column("given_up", Boolean, nullable=False, server_default=text("false")),
    UniqueConstraint("ae_title", "transaction_uid"),
    comment="storage commitment requests (PS3.4 Annex J) whose senders are still to be told",
)

rejections = Table(
    "rejections",
    metadata,
    Column("sop_instance_uid", Text, primary_key=True, comment="of an instance that is here or may come"),
    Column("note_sop_instance_uid", Text, primary_key=True, index=True),
    Column("reason", Text, nullable=False, comment="code of PS3.16 CID 7011"),
    _now("rejected_at"),
    comment="what rejection notes say",
)

encoder_state = Enum("beside", "active", "former", "retired", name="encoder_state", metadata=metadata)

encoders = Table(
    "encoders",
    metadata,
    _id(),
    Column("name", Text, nullable=False, unique=True),
    Column("identity", Text, nullable=False, unique=True, comment="sha256 of weights, preprocessing and precision"),
    Column("precision", Text, nullable=False),
    Column("checkpoint_sha256", Text, nullable=False, comment="names the weights' file below the data directory"),
    Column("card", JSONB, nullable=False),
    Column("state", encoder_state, nullable=False),
    Column("hours", Text, comment="of the week, in which it reindexes; null: always"),
    Column("workers", SmallInteger, comment="that reindex with it at once; null: all"),
    Column(
        "from_pacs",
        Boolean,
        nullable=False,
        server_default=text("false"),
        comment="whether its reindexing fetches what is no longer here",
    ),
    _now("created_at"),
    Index("uq_encoders_active", "state", unique=True, postgresql_where=text("state = 'active'")),
    Index("uq_encoders_former", "state", unique=True, postgresql_where=text("state = 'former'")),
)

job_status = Enum("waiting", "running", "parked", name="job_status", metadata=metadata)

jobs = Table(
    "jobs",
    metadata,
    _id(),
    _reference("series_id", "series.id"),
    Column(
        "encoder_id",
        BigInteger,
        ForeignKey("encoders.id", ondelete="CASCADE"),
        index=True,
        comment="to embed with, made by `reindex`; null: with all that are kept up, made by an arrival",
    ),
    Column("status", job_status, nullable=False, server_default="waiting"),
    Column("not_before", DateTime(timezone=True), nullable=False),
    Column("attempts", SmallInteger, nullable=False, server_default=text("0")),
    Column("lease_until", DateTime(timezone=True)),
    Column("worker", Text),
    Column("error", Text),
    _now("created_at"),
    Index(
        "uq_jobs_waiting",
        "series_id",
        "encoder_id",
        unique=True,
        postgresql_where=text("status = 'waiting'"),
        postgresql_nulls_not_distinct=True,
    ),
    Index("uq_jobs_running", "series_id", unique=True, postgresql_where=text("status = 'running'")),
    Index("ix_jobs_arrived", "not_before", postgresql_where=text("status = 'waiting' AND encoder_id IS NULL")),
    Index("ix_jobs_reindex", "not_before", postgresql_where=text("status = 'waiting' AND encoder_id IS NOT NULL")),
)

stacks = Table(
    "stacks",
    metadata,
    Column("id", UUID(as_uuid=True), primary_key=True, server_default=func.gen_random_uuid()),
    _reference("series_id", "series.id"),
    Column("encoder_id", BigInteger, ForeignKey("encoders.id"), nullable=False),
    Column("sequence", Text, nullable=False),
    Column("plane", Text, comment="null where nothing was embedded"),
    Column("body_part", Text, nullable=False),
    Column("in_domain", Boolean, nullable=False),
    Column("not_embedded", Text, comment="why there are no embeddings"),
    Column("separated_by", JSONB, nullable=False, comment="what tells this stack from the series' others"),
    Column("evidence", JSONB, nullable=False, comment="the header values that named the sequence"),
    Column("sop_instance_uids", ARRAY(Text), nullable=False),
    Column(
        "missing_slices",
        SmallInteger,
        nullable=False,
        server_default=text("0"),
        comment="between others: rejected, or never sent",
    ),
    _now("created_at"),
    # Which series an encoder lacks is told without reading the rows.
    Index("ix_stacks_encoder_id_series_id", "encoder_id", "series_id"),
)

embeddings = Table(
    "embeddings",
    metadata,
    Column("stack_id", UUID(as_uuid=True), ForeignKey("stacks.id", ondelete="CASCADE"), primary_key=True),
    Column("slice", SmallInteger, primary_key=True, comment="0 is the whole stack, slices count from 1"),
    Column("sop_instance_uid", Text, nullable=False, comment="empty for the whole stack"),
    Column("frame_number", Integer, nullable=False),
    Column("position_mm", Float, nullable=False),
    Column("vector", LargeBinary, nullable=False, comment="float32, little endian, unit length"),
)

stack_changes = Table(
    "stack_changes",
    metadata,
    _id(),
    Column(
        "transaction_id",
        BigInteger,
        nullable=False,
        server_default=text("pg_current_xact_id()::text::bigint"),
        index=True,
    ),
    Column("stack_id", UUID(as_uuid=True), nullable=False),
    _now("changed_at"),
    comment="what the API processes' indexes follow; written by a trigger",
)

backfills = Table(
    "backfills",
    metadata,
    _id(),
    Column("peer", Text, nullable=False),
    Column("study_date", Text, nullable=False, comment="a range as it was typed"),
    Column("modality", Text, nullable=False, comment="empty: any"),
    Column("body_part", Text, nullable=False, comment="empty: any"),
    Column("searched_to", Date, comment="the last day of which all studies are known"),
    Column(
        "incomplete",
        ARRAY(Text),
        nullable=False,
        server_default=text("'{}'"),
        comment="where studies may be missing, and why",
    ),
    Column("finished_at", DateTime(timezone=True)),
    _now("created_at"),
    UniqueConstraint("peer", "study_date", "modality", "body_part"),
)

backfill_state = Enum("waiting", "done", "parked", name="backfill_state", metadata=metadata)

backfill_studies = Table(
    "backfill_studies",
    metadata,
    _id(),
    _reference("backfill_id", "backfills.id"),
    Column("study_instance_uid", Text, nullable=False),
    Column("state", backfill_state, nullable=False, server_default="waiting"),
    Column("instances_at_pacs", Integer, comment="null: the PACS does not say"),
    Column("attempts", SmallInteger, nullable=False, server_default=text("0")),
    Column("error", Text),
    Column("ended_at", DateTime(timezone=True), comment="of the last attempt"),
    UniqueConstraint("backfill_id", "study_instance_uid"),
)
