"""What is here: studies, series and instances with their attributes, and the state of the service."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, Select, Table, TextClause, func, select, text

from pacs_cbir.store import conflicts, deletion, encoders, rejections
from pacs_cbir.store.conflicts import Conflict
from pacs_cbir.store.matching import Level, conditions, counts, some_instance, some_series, study_counts
from pacs_cbir.store.order import Order, ordered
from pacs_cbir.store.tables import encoders as encoder_rows
from pacs_cbir.store.tables import instances, jobs, patients, series, stacks, studies, study_patients

_TABLES: dict[Level, Table] = {Level.STUDY: studies, Level.SERIES: series, Level.INSTANCE: instances}

Attributes = dict[str, list[str]]
"""DICOM keyword → values as text."""

MAX_LISTED = 1000
"""Rows of each list in a status; the counts are of all."""

_PIXEL_DATA = text("""
    SELECT count(file) AS files, coalesce(sum(file_size) FILTER (WHERE file IS NOT NULL), 0) AS bytes,
           count(committed_at) AS committed FROM instances
""")

_COUNTS: dict[Level, tuple[TextClause, ...]] = {
    Level.STUDY: (
        text("""
            SELECT series.study_id AS id, count(DISTINCT series.id) AS "NumberOfStudyRelatedSeries",
                   array_remove(array_agg(DISTINCT modality), NULL) AS "ModalitiesInStudy"
            FROM series LEFT JOIN jsonb_array_elements_text(series.attributes -> 'Modality') AS modality ON true
            WHERE series.study_id = ANY(:ids)
              AND EXISTS (SELECT FROM instances WHERE series_id = series.id AND rejected IS NULL)
            GROUP BY series.study_id
        """),
        text("""
            SELECT series.study_id AS id, count(*) AS "NumberOfStudyRelatedInstances",
                   CASE WHEN bool_and(file IS NOT NULL) THEN 'ONLINE' ELSE 'UNAVAILABLE' END AS "InstanceAvailability",
                   array_agg(DISTINCT instances.sop_class_uid) AS "SOPClassesInStudy"
            FROM series JOIN instances ON instances.series_id = series.id
            WHERE series.study_id = ANY(:ids) AND rejected IS NULL GROUP BY series.study_id
        """),
    ),
    Level.SERIES: (
        text("""
            SELECT series_id AS id, count(*) AS "NumberOfSeriesRelatedInstances",
                   CASE WHEN bool_and(file IS NOT NULL) THEN 'ONLINE' ELSE 'UNAVAILABLE' END AS "InstanceAvailability"
            FROM instances WHERE series_id = ANY(:ids) AND rejected IS NULL GROUP BY series_id
        """),
    ),
    Level.INSTANCE: (),
}


@dataclass(frozen=True)
class StoredFile:
    """Where an instance is.

    Attributes:
        file: path below the instances directory; None where the pixel data is no longer here.
        number_of_frames: at least 1.
        calling_ae_title: who sent it.
        id, series_id: its row, and that of its series.
    """

    file: str | None
    number_of_frames: int
    calling_ae_title: str
    id: int
    series_id: int


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
    jobs: dict[str, int]
    parked: tuple[ParkedJob, ...]
    conflicts: tuple[Conflict, ...]
    pending_deletions: tuple[int, ...]
    studies_without_patient_id: tuple[str, ...]
    encoder: str | None
    encoder_identity: str | None


def find(
    connection: Connection,
    level: Level,
    keys: Mapping[str, str],
    *,
    limit: int,
    offset: int,
    fuzzy: bool = False,
    labels: Collection[str] = (),
    order: Order | None = None,
    after: str | None = None,
) -> list[Attributes]:
    """Studies, series or instances that meet all matching keys, in the order in which they first came.

    Studies may come in another `order`, and from the one behind `after` on, a Study Instance UID.

    Each has its own attributes, those of the levels above, and what is counted at its own level: ModalitiesInStudy,
    SOPClassesInStudy, NumberOfStudyRelatedSeries, NumberOfStudyRelatedInstances of a study,
    NumberOfSeriesRelatedInstances of a series, and InstanceAvailability: ONLINE where all pixel data is here,
    UNAVAILABLE where some has left (PS3.3 C.4.23.1.1).

    Raises:
        InvalidQuery: a key cannot be understood, or `after` is no UID or not here.
    """
    met = conditions(keys, fuzzy=fuzzy, labels=labels)
    query = _query(level).where(*met.study)
    if level is Level.STUDY:
        below = some_series(met)
    else:
        query = query.where(*met.series)
        below = some_instance(met)
    if level is Level.INSTANCE:
        query = query.where(*met.instance)
    elif below is not None:
        query = query.where(below)
    if order is not None:
        query = ordered(connection, query, order, after)
    return list(_complete(connection, level, query.limit(limit).offset(offset)).values())


def attributes(
    connection: Connection, level: Level, ids: Collection[int], *, counted: bool = True
) -> dict[int, Attributes]:
    """As `find`, by row id, with or without what is counted; ids that are gone are left out."""
    query = _query(level).where(_TABLES[level].c.id == func.any(list(ids)))
    return _complete(connection, level, query, counted=counted)


def header(connection: Connection, study_instance_uid: str) -> Attributes:
    """What a study's instances say of it, nothing counted; empty where it is not here."""
    found = connection.scalar(select(studies.c.attributes).where(studies.c.study_instance_uid == study_instance_uid))
    return found or {}


def series_uids(connection: Connection, ids: Collection[int]) -> dict[int, str]:
    """Row id → Series Instance UID; ids that are gone are left out."""
    named = text("SELECT id, series_instance_uid FROM series WHERE id = ANY(:ids)")
    return {row.id: row.series_instance_uid for row in connection.execute(named, {"ids": list(ids)})}


def stored_file(
    connection: Connection, study_instance_uid: str, series_instance_uid: str, sop_instance_uid: str
) -> StoredFile | None:
    """Where an instance is; None where it is not here."""
    row = connection.execute(
        select(
            instances.c.id,
            instances.c.file,
            instances.c.calling_ae_title,
            instances.c.series_id,
            instances.c.attributes["NumberOfFrames"][0].astext.label("frames"),
        )
        .join(series, series.c.id == instances.c.series_id)
        .join(studies, studies.c.id == series.c.study_id)
        .where(
            studies.c.study_instance_uid == study_instance_uid,
            series.c.series_instance_uid == series_instance_uid,
            instances.c.sop_instance_uid == sop_instance_uid,
            instances.c.rejected.is_(None),
        )
    ).one_or_none()
    if row is None:
        return None
    frames = row.frames or ""
    number = int(frames) if frames.isdecimal() and int(frames) else 1
    return StoredFile(row.file, number, row.calling_ae_title, row.id, row.series_id)


def status(connection: Connection) -> Status:
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
        jobs=count_jobs(connection),
        parked=_parked(connection),
        conflicts=conflicts.flagged(connection, MAX_LISTED),
        pending_deletions=tuple(one.id for one in deletion.pending(connection)),
        studies_without_patient_id=_studies_without_patient_id(connection),
        encoder=None if encoder is None else encoder.name,
        encoder_identity=None if encoder is None else encoder.identity,
    )


def count_jobs(connection: Connection) -> dict[str, int]:
    """How many jobs are `waiting`, `running` and `parked`."""
    rows = connection.execute(select(jobs.c.status, func.count()).group_by(jobs.c.status))
    return {"waiting": 0, "running": 0, "parked": 0} | {row[0]: row[1] for row in rows}


@cache
def _query(level: Level) -> Select[Any]:
    of_study = (studies.c.study_instance_uid, studies.c.attributes.label("study_attributes"))
    if level is Level.STUDY:
        return select(studies.c.id, *of_study).where(study_counts()).order_by(studies.c.id)
    of_series = (series.c.series_instance_uid, series.c.attributes.label("series_attributes"))
    if level is Level.SERIES:
        joined = select(series.c.id, *of_study, *of_series).join(studies, studies.c.id == series.c.study_id)
        return joined.where(counts()).order_by(series.c.id)
    of_instance = (
        instances.c.sop_instance_uid,
        instances.c.sop_class_uid,
        instances.c.transfer_syntax_uid,
        instances.c.attributes.label("instance_attributes"),
        instances.c.file.is_not(None).label("online"),
    )
    return (
        select(instances.c.id, *of_study, *of_series, *of_instance)
        .join(series, series.c.id == instances.c.series_id)
        .join(studies, studies.c.id == series.c.study_id)
        .where(instances.c.rejected.is_(None))
        .order_by(instances.c.id)
    )


def _complete(
    connection: Connection, level: Level, query: Select[Any], *, counted: bool = True
) -> dict[int, Attributes]:
    """A query's rows, row id → attributes with what is counted; in the query's order."""
    found = {row.id: _attributes(level, row) for row in connection.execute(query)}
    # Counted for the rows of one page at once: a count for each row may read all instances each time.
    for statement in _COUNTS[level] if counted else ():
        for row in connection.execute(statement, {"ids": list(found)}):
            counts = {keyword: value for keyword, value in row._mapping.items() if keyword != "id"}
            found[row.id] |= {key: value if isinstance(value, list) else [str(value)] for key, value in counts.items()}
    return found


def _attributes(level: Level, row: Row[Any]) -> Attributes:
    found = {**row.study_attributes, "StudyInstanceUID": [row.study_instance_uid]}
    if level is Level.STUDY:
        return found
    found |= {**row.series_attributes, "SeriesInstanceUID": [row.series_instance_uid]}
    if level is Level.SERIES:
        return found
    return found | {
        **row.instance_attributes,
        "SOPInstanceUID": [row.sop_instance_uid],
        "SOPClassUID": [row.sop_class_uid],
        "AvailableTransferSyntaxUID": [row.transfer_syntax_uid],
        "InstanceAvailability": ["ONLINE" if row.online else "UNAVAILABLE"],
    }


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
    return _study_uids(connection, studies.c.id.in_(nameless))


def _study_uids(connection: Connection, condition: ColumnElement[bool]) -> tuple[str, ...]:
    query = select(studies.c.study_instance_uid).where(condition).order_by(studies.c.id).limit(MAX_LISTED)
    return tuple(connection.scalars(query))
