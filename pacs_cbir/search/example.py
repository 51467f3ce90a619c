"""An example's name → the vectors to search with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from operator import attrgetter
from typing import Any

import numpy as np
from sqlalchemy import Connection, Integer, Select, case, cast, select, text

from pacs_cbir.errors import ExampleNotEmbedded, ExampleNotReady, UnknownExample
from pacs_cbir.search.faiss_index import Vectors
from pacs_cbir.search.query import Example
from pacs_cbir.search.stack_index import Kind
from pacs_cbir.store.embeddings import VECTOR_TYPE, WHOLE_STACK
from pacs_cbir.store.tables import embeddings, instances, series, stacks, studies

# Added to the time at which a waiting job is due: decoding and embedding one series.
EMBEDDING_SECONDS = 5.0


@dataclass(frozen=True)
class ExampleVector:
    """One stack of an example, or one slice of it.

    Attributes:
        whole: whether it stands for a whole stack and is compared with whole stacks, or for a slice, with slices.
        vector: float32, shape (dimension,), unit length.
    """

    kind: Kind
    series_instance_uid: str
    whole: bool
    vector: Vectors


@dataclass(frozen=True)
class ResolvedExample:
    """An example that is here and embedded.

    Attributes:
        study_id, series_ids: its rows; all series of a study that is the example.
    """

    study_id: int
    series_ids: frozenset[int]
    vectors: tuple[ExampleVector, ...]


def resolve(connection: Connection, example: Example, encoder_id: int | None) -> ResolvedExample:
    """Find an example and its vectors of one encoder.

    Raises:
        UnknownExample: it is not here.
        ExampleNotReady: it is here and will be embedded.
        ExampleNotEmbedded: it is here and has no embeddings; says why.
    """
    rows = connection.execute(_series_of(example)).all()
    if not rows:
        raise UnknownExample("the example is not here: no such study, series, instance or frame was received")
    series_ids = frozenset(row.series_id for row in rows)
    vectors = _vectors(connection, example, series_ids, encoder_id)
    if not vectors:
        raise _why_not(connection, series_ids)
    return ResolvedExample(rows[0].study_id, series_ids, vectors)


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


def _vectors(
    connection: Connection, example: Example, series_ids: frozenset[int], encoder_id: int | None
) -> tuple[ExampleVector, ...]:
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
    found = []
    for _, rows in groupby(connection.execute(query), key=attrgetter("id")):
        row = _chosen_row(list(rows), example)
        found.append(
            ExampleVector(
                kind=Kind(row.plane, row.sequence, row.body_part),
                series_instance_uid=row.series_instance_uid,
                whole=row.slice == WHOLE_STACK,
                vector=np.frombuffer(row.vector, VECTOR_TYPE),
            )
        )
    return tuple(found)


def _chosen_row(rows: Sequence[Any], example: Example) -> Any:
    """The row that stands for the example: the whole stack, or the slice nearest to the instance or frame.

    Args:
        rows: of one stack, the whole stack first.
    """
    whole, slices = rows[0], rows[1:]
    if example.sop_instance_uid is None:
        return whole
    sources = {(row.sop_instance_uid, row.frame_number) for row in slices}
    if len(slices) > 1 and len(sources) == 1:
        # Resliced: every slice crosses every picture of the stack, none is the example's own.
        return whole
    if example.frame_number is None and len({uid for uid, _ in sources}) == 1 and len(slices) > 1:
        # A multi-frame instance is the stack.
        return whole
    order = {uid: position for position, uid in enumerate(whole.sop_instance_uids)}
    wanted = order[example.sop_instance_uid]

    def distance(row: Any) -> tuple[int, int]:
        return abs(order[row.sop_instance_uid] - wanted), abs(row.frame_number - (example.frame_number or 1))

    return min(slices, key=distance)


WHY_NOT = text("""
    SELECT min(CASE status WHEN 'waiting' THEN greatest(0, extract(epoch FROM not_before - clock_timestamp()))
                           WHEN 'running' THEN 0 END) AS due,
           max(error) FILTER (WHERE status = 'parked') AS parked,
           (SELECT string_agg(DISTINCT not_embedded, '; ') FROM stacks WHERE series_id = ANY(:series_ids)) AS reasons
    FROM jobs WHERE series_id = ANY(:series_ids)
""")


def _why_not(connection: Connection, series_ids: frozenset[int]) -> ExampleNotReady | ExampleNotEmbedded:
    row = connection.execute(WHY_NOT, {"series_ids": list(series_ids)}).one()
    if row.due is not None:
        return ExampleNotReady(
            "the example was received and is not embedded yet; ask again later", float(row.due) + EMBEDDING_SECONDS
        )
    reason = row.parked or row.reasons or "no part of it could be embedded"
    return ExampleNotEmbedded(f"the example has no embeddings: {reason}")
