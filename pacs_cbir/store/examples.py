"""An example in the database: the rows it names, its embeddings, and what keeps it from having any."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import astuple, dataclass
from functools import cache
from itertools import groupby
from operator import attrgetter
from typing import Any

from sqlalchemy import Connection, Row, text

from pacs_cbir.errors import ExampleNotEmbedded, ExampleNotReindexed
from pacs_cbir.store.embeddings import WHOLE_STACK
from pacs_cbir.store.prepared import Prepared


@dataclass(frozen=True)
class Example:
    """What to look for: a study, or a series, instance or frame of it."""

    study_instance_uid: str
    series_instance_uid: str | None = None
    sop_instance_uid: str | None = None
    frame_number: int | None = None


# A header may say anything, and CASE alone keeps the cast from what is no number.
_FRAMES = """
    CASE WHEN instances.attributes -> 'NumberOfFrames' ->> 0 ~ '^[0-9]{1,9}$'
         THEN CAST(instances.attributes -> 'NumberOfFrames' ->> 0 AS integer) ELSE 1 END
"""


@cache
def _named(depth: int) -> Prepared:
    """For examples that name so many of study, series, instance and frame; one statement, for one round trip."""
    series, instance, frame = depth > 1, depth > 2, depth > 3
    sql = f"""
        WITH named AS MATERIALIZED (
            SELECT studies.id AS study_id, series.id AS series_id, series_instance_uid, (
                SELECT min(CASE status
                    WHEN 'waiting' THEN greatest(0, extract(epoch FROM not_before - clock_timestamp())) ELSE 0 END)
                FROM jobs WHERE jobs.series_id = series.id AND status <> 'parked'
                AND (jobs.encoder_id IS NULL OR jobs.encoder_id = $5) AND NOT EXISTS (
                    SELECT FROM stacks WHERE stacks.series_id = jobs.series_id AND encoder_id = $5)) AS due
            FROM studies JOIN series ON series.study_id = studies.id
            WHERE study_instance_uid = $1 {"AND series_instance_uid = $2" * series} AND EXISTS (
                SELECT FROM instances WHERE instances.series_id = series.id AND rejected IS NULL
                {"AND sop_instance_uid = $3" * instance} {f"AND {_FRAMES} >= $4" * frame}))
        SELECT named.*, array(
            -- Studies of no patient have series too.
            SELECT id FROM series WHERE study_id = ANY(array(
                SELECT theirs.study_id FROM named JOIN study_patients own USING (study_id)
                    JOIN study_patients theirs USING (patient_id)
                UNION SELECT study_id FROM named))) AS same_patients,
            stacks.id, plane, sequence, body_part, sop_instance_uids, slice, sop_instance_uid, frame_number, vector
        FROM named LEFT JOIN (stacks JOIN embeddings ON embeddings.stack_id = stacks.id)
          ON stacks.series_id = named.series_id AND encoder_id = $5
          AND {"$3 = ANY(sop_instance_uids)" if instance else f"slice = {WHOLE_STACK}"}
        ORDER BY stacks.id, slice
    """  # noqa: S608 - conditions of this module; what an example names is $1 to $5
    return Prepared(f"example_of_{depth}", sql, "text", "text", "text", "bigint", "bigint")


@dataclass(frozen=True)
class Named:
    """What an example names.

    Attributes:
        series_ids: the series that it names, or that hold the instance or frame.
        same_patients: all series of the study, and of all others of its patients.
        due: seconds until the first of the named series that was never looked at is due; None where all were.
        stacks: rows of the example's embeddings by one encoder, by stack, the whole stack's first; slices come along
            where the example is an instance or frame.
    """

    study_id: int
    series_ids: frozenset[int]
    same_patients: frozenset[int]
    due: float | None
    stacks: tuple[tuple[Row[Any], ...], ...]


def named_rows(connection: Connection, example: Example, encoder_id: int | None) -> Named | None:
    """What an example names; None where it is not here."""
    given = astuple(example)
    rows = _named(sum(one is not None for one in given)).rows(connection, *given, encoder_id)
    if not rows:
        return None
    embedded = groupby((row for row in rows if row.id is not None), key=attrgetter("id"))
    return Named(
        study_id=rows[0].study_id,
        series_ids=frozenset(row.series_id for row in rows),
        same_patients=frozenset(rows[0].same_patients),
        due=min((float(row.due) for row in rows if row.due is not None), default=None),
        stacks=tuple(tuple(of_stack) for _, of_stack in embedded),
    )


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


def series_of_studies(connection: Connection, study_ids: Collection[int]) -> frozenset[int]:
    """The series of some studies."""
    return frozenset(connection.scalars(OF_STUDIES, {"study_ids": list(study_ids)}))
