"""The state of the service: how much is here, how far it is, and what needs a person's look."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import ColumnElement, Connection, Table, func, select, text

from pacs_cbir.store import conflicts, deletion, encoders, rejections
from pacs_cbir.store.conflicts import Conflict
from pacs_cbir.store.tables import encoders as encoder_rows
from pacs_cbir.store.tables import instances, jobs, patients, series, stacks, studies, study_patients

MAX_LISTED = 1000
"""Rows of each list in a status; the counts are of all."""

_PIXEL_DATA = text("""
    SELECT count(file) AS files, coalesce(sum(file_size) FILTER (WHERE file IS NOT NULL), 0) AS bytes,
           count(committed_at) AS committed FROM instances
""")


@dataclass(frozen=True)
class ParkedJob:
    """A series whose embedding was given up.

    Attributes:
        since: when the job was made, by the database's clock.
        encoder: name of the one that it was reindexed with; None: it was not embedded when it arrived.
    """

    study_instance_uid: str
    series_instance_uid: str
    error: str
    since: datetime
    encoder: str | None


@dataclass(frozen=True)
class Status:
    """The state of the service. UIDs and counts, no patient's identity.

    Attributes:
        with_pixel_data: instances whose pixel data is here; of the others it has left.
        pixel_data_bytes: their files together.
        committed: instances that this service has committed itself to keep.
        stacks, embedded, embedded_series, not_embedded: of the encoder whose embeddings are searched.
        embedded: stacks that have embeddings.
        embedded_series: series with at least one such stack.
        with_gaps: (Study Instance UID, Series Instance UID, how many) of embedded stacks with slices missing between
            others; the first `MAX_LISTED`.
        rejected: reason → instances that rejection notes took out of use; `instances` counts the others.
        not_embedded: reason → stacks.
        jobs: `waiting`, `running` and `parked` → how many.
        parked: the oldest `MAX_LISTED`.
        conflicts: what instances say of patients and studies that cannot all be true, and nobody has resolved.
        pending_deletions: numbers of deletions of patients of which it is not proven yet that nothing is left.
        studies_without_patient_id: Study Instance UIDs, each a patient of its own for want of a PatientID.
        encoder: name of the encoder whose embeddings are searched; None before the first worker ran.
        encoder_identity: sha256 over its weights, preprocessing and precision.
    """

    patients: int
    studies: int
    series: int
    instances: int
    rejected: dict[str, int]
    with_pixel_data: int
    pixel_data_bytes: int
    committed: int
    stacks: int
    embedded: int
    embedded_series: int
    not_embedded: dict[str, int]
    with_gaps: tuple[tuple[str, str, int], ...]
    jobs: dict[str, int]
    parked: tuple[ParkedJob, ...]
    conflicts: tuple[Conflict, ...]
    pending_deletions: tuple[int, ...]
    studies_without_patient_id: tuple[str, ...]
    encoder: str | None
    encoder_identity: str | None


def service_status(connection: Connection) -> Status:
    """Count everything, and list what needs a person's look."""
    encoder = encoders.active(connection)
    searched = stacks.c.encoder_id == (None if encoder is None else encoder.id)
    reasons = connection.execute(
        select(stacks.c.not_embedded, func.count())
        .where(searched)
        .group_by(stacks.c.not_embedded)
        .order_by(stacks.c.not_embedded)
    ).all()
    not_embedded = {reason: count for reason, count in reasons if reason is not None}
    embedded = sum(count for reason, count in reasons if reason is None)
    pixel_data = connection.execute(_PIXEL_DATA).one()
    return Status(
        patients=connection.execute(select(func.count(study_patients.c.patient_id.distinct()))).scalar_one(),
        studies=_count(connection, studies),
        series=_count(connection, series),
        instances=connection.execute(select(func.count()).where(instances.c.rejected.is_(None))).scalar_one(),
        rejected=rejections.counts(connection),
        with_pixel_data=pixel_data.files,
        pixel_data_bytes=int(pixel_data.bytes),
        committed=pixel_data.committed,
        stacks=embedded + sum(not_embedded.values()),
        embedded=embedded,
        embedded_series=connection.execute(
            select(func.count(stacks.c.series_id.distinct())).where(searched, stacks.c.not_embedded.is_(None))
        ).scalar_one(),
        not_embedded=not_embedded,
        with_gaps=_with_gaps(connection, searched),
        jobs=count_jobs(connection),
        parked=_parked(connection),
        conflicts=conflicts.flagged(connection, MAX_LISTED),
        pending_deletions=tuple(one.id for one in deletion.pending(connection)),
        studies_without_patient_id=_studies_without_patient_id(connection),
        encoder=None if encoder is None else encoder.name,
        encoder_identity=None if encoder is None else encoder.identity,
    )


def _with_gaps(connection: Connection, searched: ColumnElement[bool]) -> tuple[tuple[str, str, int], ...]:
    rows = connection.execute(
        select(studies.c.study_instance_uid, series.c.series_instance_uid, stacks.c.missing_slices)
        .select_from(stacks.join(series, series.c.id == stacks.c.series_id).join(studies))
        .where(searched, stacks.c.not_embedded.is_(None), stacks.c.missing_slices > 0)
        .order_by(series.c.id, stacks.c.id)
        .limit(MAX_LISTED)
    )
    return tuple((study, one, missing) for study, one, missing in rows)


def count_jobs(connection: Connection) -> dict[str, int]:
    """How many jobs are `waiting`, `running` and `parked`."""
    rows = connection.execute(select(jobs.c.status, func.count()).group_by(jobs.c.status))
    return {"waiting": 0, "running": 0, "parked": 0} | {row[0]: row[1] for row in rows}


_QUEUE_SECONDS = text("""
    SELECT coalesce(greatest(extract(epoch FROM clock_timestamp() - min(not_before)), 0), 0)
    FROM jobs WHERE status = 'waiting' AND encoder_id IS NULL
""")


def queue_seconds(connection: Connection) -> float:
    """How long the arrival that is due longest has been waiting for a worker, in seconds; 0 where none is due."""
    return float(connection.execute(_QUEUE_SECONDS).scalar_one())


def _count(connection: Connection, table: Table) -> int:
    return connection.execute(select(func.count()).select_from(table)).scalar_one()


def _parked(connection: Connection) -> tuple[ParkedJob, ...]:
    rows = connection.execute(
        select(
            studies.c.study_instance_uid,
            series.c.series_instance_uid,
            jobs.c.error,
            jobs.c.created_at,
            encoder_rows.c.name,
        )
        .select_from(jobs)
        .outerjoin(encoder_rows, encoder_rows.c.id == jobs.c.encoder_id)
        .join(series, series.c.id == jobs.c.series_id)
        .join(studies, studies.c.id == series.c.study_id)
        .where(jobs.c.status == "parked")
        .order_by(jobs.c.created_at, jobs.c.id)
        .limit(MAX_LISTED)
    )
    return tuple(
        ParkedJob(row.study_instance_uid, row.series_instance_uid, row.error or "", row.created_at, row.name)
        for row in rows
    )


def _studies_without_patient_id(connection: Connection) -> tuple[str, ...]:
    nameless = (
        select(study_patients.c.study_id)
        .join(patients, patients.c.id == study_patients.c.patient_id)
        .where(patients.c.patient_id == "")
    )
    uids = select(studies.c.study_instance_uid).where(studies.c.id.in_(nameless)).order_by(studies.c.id)
    return tuple(connection.scalars(uids.limit(MAX_LISTED)))
