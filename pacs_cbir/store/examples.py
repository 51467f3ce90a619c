"""An example in the database: the rows it names, its embeddings, and what keeps it from having any."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from itertools import groupby
from operator import attrgetter
from typing import Any

from sqlalchemy import Connection, Integer, Select, case, cast, or_, select, text

from pacs_cbir.store.embeddings import WHOLE_STACK
from pacs_cbir.store.tables import embeddings, instances, series, stacks, studies, study_patients


@dataclass(frozen=True)
class Example:
    """What to look for: a study, or a series, instance or frame of it."""

    study_instance_uid: str
    series_instance_uid: str | None = None
    sop_instance_uid: str | None = None
    frame_number: int | None = None


def named_series(connection: Connection, example: Example) -> tuple[int, frozenset[int]] | None:
    """The study and series that an example names, or that hold the instance or frame; None where it is not here."""
    rows = connection.execute(_series_of(example)).all()
    return (rows[0].study_id, frozenset(row.series_id for row in rows)) if rows else None


def _series_of(example: Example) -> Select[tuple[int, int]]:
    query = (
        select(series.c.study_id, series.c.id.label("series_id"))
        .join(studies, studies.c.id == series.c.study_id)
        .where(studies.c.study_instance_uid == example.study_instance_uid)
    )
    if example.series_instance_uid is not None:
        query = query.where(series.c.series_instance_uid == example.series_instance_uid)
    if example.sop_instance_uid is not None:
        query = query.join(instances, instances.c.series_id == series.c.id).where(
            instances.c.sop_instance_uid == example.sop_instance_uid
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
    query = (
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
        .where(stacks.c.series_id.in_(series_ids), stacks.c.encoder_id == encoder_id)
        .order_by(stacks.c.id, embeddings.c.slice)
    )
    if example.sop_instance_uid is None:
        query = query.where(embeddings.c.slice == WHOLE_STACK)
    else:
        query = query.where(stacks.c.sop_instance_uids.any_() == example.sop_instance_uid)
    for _, rows in groupby(connection.execute(query), key=attrgetter("id")):
        yield list(rows)


WHY_NOT = text("""
    SELECT (SELECT max(error) FROM jobs WHERE status = 'parked' AND series_id = ANY(:series_ids)) AS parked,
           (SELECT string_agg(DISTINCT not_embedded, '; ') FROM stacks WHERE series_id = ANY(:series_ids)) AS reasons
""")

PENDING = text("""
    SELECT min(CASE status WHEN 'waiting' THEN greatest(0, extract(epoch FROM not_before - clock_timestamp()))
                           ELSE 0 END)
    FROM jobs WHERE series_id = ANY(:series_ids) AND status <> 'parked' AND NOT EXISTS (
        SELECT FROM stacks WHERE stacks.series_id = jobs.series_id AND encoder_id = :encoder_id)
""")


def pending(connection: Connection, series_ids: Collection[int], encoder_id: int | None) -> float | None:
    """Seconds until the first of these series that was never looked at is due; None where all were."""
    due = connection.execute(PENDING, {"series_ids": list(series_ids), "encoder_id": encoder_id}).scalar()
    return None if due is None else float(due)


def why_not_embedded(connection: Connection, series_ids: Collection[int]) -> str:
    """The error with which a series' job was parked, or why nothing of it is embedded."""
    row = connection.execute(WHY_NOT, {"series_ids": list(series_ids)}).one()
    return str(row.parked or row.reasons or "no part of it could be embedded")


def series_of_studies(connection: Connection, study_ids: Collection[int]) -> frozenset[int]:
    """The series of some studies."""
    return frozenset(connection.scalars(select(series.c.id).where(series.c.study_id.in_(study_ids))))


def series_of_same_patients(connection: Connection, study_ids: Collection[int]) -> frozenset[int]:
    """The series of some studies and of all others of their patients."""
    own = select(study_patients.c.patient_id).where(study_patients.c.study_id.in_(study_ids))
    theirs = select(study_patients.c.study_id).where(study_patients.c.patient_id.in_(own))
    return frozenset(
        connection.scalars(
            select(series.c.id).where(or_(series.c.study_id.in_(study_ids), series.c.study_id.in_(theirs)))
        )
    )
