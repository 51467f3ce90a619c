"""An example in the database: the rows it names, its embeddings, and what keeps it from having any."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from itertools import groupby
from operator import attrgetter
from typing import Any

from sqlalchemy import Connection, Float, Integer, Select, case, cast, func, select, text

from pacs_cbir.errors import ExampleNotEmbedded, ExampleNotReindexed
from pacs_cbir.store.embeddings import WHOLE_STACK
from pacs_cbir.store.matching import counts
from pacs_cbir.store.tables import embeddings, instances, series, stacks, studies


@dataclass(frozen=True)
class Example:
    """What to look for: a study, or a series, instance or frame of it."""

    study_instance_uid: str
    series_instance_uid: str | None = None
    sop_instance_uid: str | None = None
    frame_number: int | None = None


# Of the row of `series` around it.
_DUE = text("""
    SELECT min(CASE status WHEN 'waiting' THEN greatest(0, extract(epoch FROM not_before - clock_timestamp()))
                           ELSE 0 END)
    FROM jobs WHERE jobs.series_id = series.id AND status <> 'parked'
    AND (jobs.encoder_id IS NULL OR jobs.encoder_id = :encoder_id) AND NOT EXISTS (
        SELECT FROM stacks WHERE stacks.series_id = jobs.series_id AND encoder_id = :encoder_id)
""").columns(due=Float)

# Made once: SQLAlchemy takes as long to make a statement as Postgres to answer it.
_SERIES = (
    select(series.c.study_id, series.c.id.label("series_id"), _DUE.scalar_subquery().label("due"))
    .join(studies, studies.c.id == series.c.study_id)
    .where(counts())
)
_EMBEDDED = (
    select(
        stacks.c.id,
        stacks.c.plane,
        stacks.c.sequence,
        stacks.c.body_part,
        stacks.c.sop_instance_uids,
        series.c.series_instance_uid,
        embeddings.c.slice,
        embeddings.c.sop_instance_uid,
        embeddings.c.frame_number,
        embeddings.c.vector,
    )
    .join(series, series.c.id == stacks.c.series_id)
    .join(embeddings, embeddings.c.stack_id == stacks.c.id)
    .order_by(stacks.c.id, embeddings.c.slice)
)


@dataclass(frozen=True)
class NamedSeries:
    """The series that an example names, or that hold the instance or frame.

    Attributes:
        due: seconds until the first of them that was never looked at is due; None where all were.
    """

    study_id: int
    series_ids: frozenset[int]
    due: float | None


def named_series(connection: Connection, example: Example, encoder_id: int | None) -> NamedSeries | None:
    """What an example names; None where it is not here."""
    rows = connection.execute(_series_of(example), {"encoder_id": encoder_id}).all()
    if not rows:
        return None
    dues = [float(row.due) for row in rows if row.due is not None]
    return NamedSeries(rows[0].study_id, frozenset(row.series_id for row in rows), min(dues, default=None))


def _series_of(example: Example) -> Select[tuple[int, int, float | None]]:
    query = _SERIES.where(studies.c.study_instance_uid == example.study_instance_uid)
    if example.series_instance_uid is not None:
        query = query.where(series.c.series_instance_uid == example.series_instance_uid)
    if example.sop_instance_uid is not None:
        query = query.join(instances, instances.c.series_id == series.c.id).where(
            instances.c.sop_instance_uid == example.sop_instance_uid, instances.c.rejected.is_(None)
        )
    if example.frame_number is not None:
        frames = instances.c.attributes["NumberOfFrames"][0].astext
        # A header may say anything, and CASE alone keeps the cast from what is no number.
        number = case((frames.regexp_match("^[0-9]{1,9}$"), cast(frames, Integer)), else_=1)
        query = query.where(number >= example.frame_number)
    return query


def embedded_rows(
    connection: Connection, example: Example, series_ids: Collection[int], encoder_id: int | None
) -> Iterator[list[Any]]:
    """The example's embeddings by one encoder, stack by stack, the whole stack's row first.

    Slices come along where the example is an instance or frame.
    """
    of_series = stacks.c.series_id == func.any(list(series_ids))
    query = _EMBEDDED.where(of_series, stacks.c.encoder_id == encoder_id)
    if example.sop_instance_uid is None:
        query = query.where(embeddings.c.slice == WHOLE_STACK)
    else:
        query = query.where(stacks.c.sop_instance_uids.any_() == example.sop_instance_uid)
    for _, rows in groupby(connection.execute(query), key=attrgetter("id")):
        yield list(rows)


WHY_NOT = text("""
    SELECT (SELECT max(error) FROM jobs WHERE status = 'parked' AND series_id = ANY(:series_ids)
               AND (encoder_id IS NULL OR encoder_id = :encoder_id)) AS parked,
           (SELECT string_agg(DISTINCT not_embedded, '; ') FROM stacks WHERE series_id = ANY(:series_ids)
               AND encoder_id = :encoder_id) AS reasons,
           (SELECT name FROM encoders WHERE id = :encoder_id AND NOT EXISTS (
               SELECT FROM stacks WHERE series_id = ANY(:series_ids) AND encoder_id = :encoder_id)) AS lacking
""")

NOT_EMBEDDED = "the example has no embeddings"


def why_not_embedded(connection: Connection, series_ids: Collection[int], encoder_id: int | None) -> ExampleNotEmbedded:
    """Why an example has no embeddings by an encoder, as the error to be raised.

    It says with which error a series' job was parked, why nothing of it was embedded, or, as `ExampleNotReindexed`,
    that the encoder has not looked at it: it was added later, and `pacs-cbir reindex` has not come to it.
    """
    row = connection.execute(WHY_NOT, {"series_ids": list(series_ids), "encoder_id": encoder_id}).one()
    if row.lacking is not None and row.parked is None:
        command = f"`pacs-cbir reindex --encoder {row.lacking}`"
        return ExampleNotReindexed(f"{NOT_EMBEDDED}: {row.lacking} has not looked at it; {command} embeds it")
    return ExampleNotEmbedded(f"{NOT_EMBEDDED}: {row.parked or row.reasons or 'no part of it could be embedded'}")


OF_STUDIES = text("SELECT id FROM series WHERE study_id = ANY(:study_ids)")

# Studies of no patient have series too.
OF_SAME_PATIENTS = text("""
    SELECT id FROM series WHERE study_id = ANY(array(
        SELECT theirs.study_id FROM study_patients own JOIN study_patients theirs USING (patient_id)
        WHERE own.study_id = ANY(:study_ids)
        UNION SELECT unnest(CAST(:study_ids AS bigint[]))))
""")


def series_of_studies(connection: Connection, study_ids: Collection[int]) -> frozenset[int]:
    """The series of some studies."""
    return frozenset(connection.scalars(OF_STUDIES, {"study_ids": list(study_ids)}))


def series_of_same_patients(connection: Connection, study_ids: Collection[int]) -> frozenset[int]:
    """The series of some studies and of all others of their patients."""
    return frozenset(connection.scalars(OF_SAME_PATIENTS, {"study_ids": list(study_ids)}))
