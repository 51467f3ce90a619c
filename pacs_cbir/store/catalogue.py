"""What is here: studies, series and instances with their attributes."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from sqlalchemy import Connection, Row, Select, Table, func, literal_column, select

from pacs_cbir.store.matching import COUNTED, Level, conditions, counts, some_instance, some_series, study_counts
from pacs_cbir.store.order import Order, ordered
from pacs_cbir.store.prepared import Prepared
from pacs_cbir.store.tables import instances, series, studies

_TABLES: dict[Level, Table] = {Level.STUDY: studies, Level.SERIES: series, Level.INSTANCE: instances}

Attributes = dict[str, list[str]]
"""DICOM keyword → values as text."""

# Of the ids that are asked for, at once: a count for each row may read all instances each time.
_COUNTS: dict[Level, tuple[str, ...]] = {
    Level.STUDY: (
        """
            SELECT series.study_id AS id, count(DISTINCT series.id) AS "NumberOfStudyRelatedSeries",
                   array_remove(array_agg(DISTINCT modality), NULL) AS "ModalitiesInStudy"
            FROM series LEFT JOIN jsonb_array_elements_text(series.attributes -> 'Modality') AS modality ON true
            WHERE series.study_id = ANY($1)
              AND EXISTS (SELECT FROM instances WHERE series_id = series.id AND rejected IS NULL)
            GROUP BY series.study_id
        """,
        """
            SELECT series.study_id AS id, count(*) AS "NumberOfStudyRelatedInstances",
                   CASE WHEN bool_and(file IS NOT NULL) THEN 'ONLINE' ELSE 'UNAVAILABLE' END AS "InstanceAvailability",
                   array_agg(DISTINCT instances.sop_class_uid) AS "SOPClassesInStudy"
            FROM series JOIN instances ON instances.series_id = series.id
            WHERE series.study_id = ANY($1) AND rejected IS NULL GROUP BY series.study_id
        """,
    ),
    Level.SERIES: (
        """
            SELECT series_id AS id, count(*) AS "NumberOfSeriesRelatedInstances",
                   CASE WHEN bool_and(file IS NOT NULL) THEN 'ONLINE' ELSE 'UNAVAILABLE' END AS "InstanceAvailability"
            FROM instances WHERE series_id = ANY($1) AND rejected IS NULL GROUP BY series_id
        """,
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
    page = query.with_only_columns(_TABLES[level].c.id, maintain_column_froms=True).limit(limit).offset(offset)
    ids = connection.scalars(page).all()
    found = attributes(connection, level, ids)
    return [found[id_] for id_ in ids if id_ in found]


def attributes(
    connection: Connection, level: Level, ids: Collection[int], *, counted: bool = True
) -> dict[int, Attributes]:
    """As `find`, by row id, with or without what is counted; ids that are gone are left out."""
    rows = _by_id(level, counted).rows(connection, list(ids))
    return {row.id: _attributes(level, row) | _counts(row) for row in rows}


HEADER = Prepared("header", "SELECT attributes FROM studies WHERE study_instance_uid = $1", "text")


def header(connection: Connection, study_instance_uid: str) -> Attributes:
    """What a study's instances say of it, nothing counted; empty where it is not here."""
    found: Attributes = next((row.attributes for row in HEADER.rows(connection, study_instance_uid)), {})
    return found


NAMES = Prepared("series_uids", "SELECT id, series_instance_uid FROM series WHERE id = ANY($1)", "bigint[]")


def series_uids(connection: Connection, ids: Collection[int]) -> dict[int, str]:
    """Row id → Series Instance UID; ids that are gone are left out."""
    return {row.id: row.series_instance_uid for row in NAMES.rows(connection, list(ids))}


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


@cache
def _by_id(level: Level, counted: bool) -> Prepared:
    found = _query(level).where(_TABLES[level].c.id == func.any(literal_column("$1"))).order_by(None)
    statements = _COUNTS[level] if counted else ()
    joined = "".join(f" LEFT JOIN ({sql}) AS counts_{number} USING (id)" for number, sql in enumerate(statements))
    name = f"{level.value}_by_id" + "_counted" * counted
    sql = f"SELECT * FROM ({found}) AS found{joined}"  # noqa: S608 - statements of this module; what is asked for is $1
    return Prepared(name, sql, "bigint[]")


def _counts(row: Row[Any]) -> Attributes:
    given = {key: value for key, value in row._mapping.items() if key in COUNTED and value is not None}
    return {key: value if isinstance(value, list) else [str(value)] for key, value in given.items()}


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
