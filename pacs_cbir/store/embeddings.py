"""Stacks and their embeddings: written by a worker in the transaction that ends its job, read by the index.

A stack's row never changes: embedding a series anew deletes its stacks and inserts others. So an index that knows
which stacks it holds knows what to drop and what to load.
"""

from __future__ import annotations

import uuid
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from sqlalchemy import Connection, delete, insert, select, text

from pacs_cbir.errors import PixelDataGone
from pacs_cbir.store import encoders, thumbnails
from pacs_cbir.store.moment import SNAPSHOT, Moment
from pacs_cbir.store.prepared import Prepared
from pacs_cbir.store.tables import embeddings, instances, series, stack_changes, stacks
from pacs_cbir.store.thumbnails import Thumbnail

CHANNEL = "pacs_cbir_stacks"
WHOLE_STACK = 0
VECTOR_TYPE = np.dtype("<f4")


@dataclass(frozen=True)
class SliceEmbedding:
    """One embedded slice, or the whole stack where `slice` is 0.

    Attributes:
        slice: number within the stack, from 1.
        sop_instance_uid, frame_number: the source picture (frame counted from 1); empty and 0 for the whole stack.
        position_mm: along the plane's normal, in the patient's axes.
        vector: float32, shape (dimension,), unit length.
    """

    slice: int
    sop_instance_uid: str
    frame_number: int
    position_mm: float
    vector: npt.NDArray[np.float32]


@dataclass(frozen=True)
class Source:
    """A picture as the archive knows it; frames count from 1.

    Attributes:
        with_gaps: whether of its stack slices are missing between others.
    """

    sop_instance_uid: str
    frame_number: int
    with_gaps: bool = False


@dataclass(frozen=True)
class NewStack:
    """What a worker found a stack to be; `embeddings` is empty where `not_embedded` says why."""

    sequence: str
    plane: str | None
    body_part: str
    in_domain: bool
    not_embedded: str | None
    separated_by: dict[str, Any]
    evidence: dict[str, str]
    sop_instance_uids: tuple[str, ...]
    embeddings: tuple[SliceEmbedding, ...]
    thumbnails: tuple[Thumbnail, ...] = ()
    missing_slices: int = 0


@dataclass(frozen=True)
class StoredStack:
    """An embedded stack as the index needs it.

    Attributes:
        vectors: float32, shape (1 + slices, dimension); row 0 is the whole stack.
        slices: the slice number of each row.
    """

    id: uuid.UUID
    series_id: int
    study_id: int
    sequence: str
    plane: str
    body_part: str
    in_domain: bool
    vectors: npt.NDArray[np.float32]
    slices: npt.NDArray[np.int16]


# Two statements: the first waits for arriving instances, whose foreign keys lock the series; one that was committed
# meanwhile is visible to the second alone.
LOCK_STUDY = text("SELECT id FROM studies WHERE id = (SELECT study_id FROM series WHERE id = :series_id) FOR UPDATE")
LOCK_SERIES = text("SELECT id FROM series WHERE id = :series_id FOR UPDATE")
DROP_EMPTY_SERIES = text("""
    DELETE FROM series WHERE id = :series_id
       AND NOT EXISTS (SELECT FROM instances WHERE instances.series_id = :series_id)
""")

DROP_EMPTY_STUDY = text("""
    DELETE FROM studies WHERE id = :study_id AND NOT EXISTS (SELECT FROM series WHERE study_id = :study_id)
""")


def series_files(connection: Connection, series_id: int) -> dict[str, tuple[str, str]]:
    """A series' instances that count: SOP Instance UID → (SOP Class UID, file below the instances directory).

    Raises:
        PixelDataGone: of one of them the pixel data is no longer here: what is left is not the series.
    """
    rows = connection.execute(
        select(instances.c.sop_instance_uid, instances.c.sop_class_uid, instances.c.file, instances.c.calling_ae_title)
        .where(instances.c.series_id == series_id, instances.c.rejected.is_(None))
        .order_by(instances.c.id)
    ).all()
    for row in rows:
        if row.file is None:
            raise PixelDataGone(row.calling_ae_title)
    return {row.sop_instance_uid: (row.sop_class_uid, row.file) for row in rows}


NAMES = text("""
    SELECT study_instance_uid, series_instance_uid FROM series JOIN studies ON studies.id = study_id
    WHERE series.id = :series_id
""")


def series_names(connection: Connection, series_id: int) -> tuple[str, str]:
    """A series' Study and Series Instance UID, as a PACS knows them; empty where it is gone."""
    row = connection.execute(NAMES, {"series_id": series_id}).one_or_none()
    return ("", "") if row is None else (row.study_instance_uid, row.series_instance_uid)


# What is drawn for encoders of one preprocessing is the same.
DRAWN_ALIKE = text("""
    SELECT EXISTS (
        SELECT FROM stacks JOIN encoders AS other ON other.id = encoder_id JOIN encoders AS own ON own.id = :encoder_id
        WHERE series_id = :series_id AND other.id <> own.id AND other.card->'preprocessing' = own.card->'preprocessing')
""")


def drawn_alike(connection: Connection, series_id: int, encoder_id: int) -> bool:
    """Whether another encoder has embedded a series' pictures that are drawn as this one's are."""
    found: bool = connection.execute(DRAWN_ALIKE, {"series_id": series_id, "encoder_id": encoder_id}).scalar_one()
    return found


def save(connection: Connection, series_id: int, found: Mapping[int, Sequence[NewStack]]) -> None:
    """Replace a series' stacks of some encoders; one that was retired meanwhile is left out.

    Args:
        found: encoder's row → what it found.
    """
    held = encoders.hold(connection, list(found))
    connection.execute(delete(stacks).where(stacks.c.series_id == series_id, stacks.c.encoder_id.in_(found)))
    of_all = [one for of_one in found.values() for stack in of_one for one in stack.thumbnails]
    thumbnails.save(connection, series_id, {(one.sop_instance_uid, one.frame_number): one for one in of_all}.values())
    for encoder_id in sorted(held):
        for stack in found[encoder_id]:
            _insert(connection, series_id, encoder_id, stack)


def hold_to_drop(connection: Connection, series_id: int) -> int | None:
    """Keep a series and its study from others, before its job is: a deletion locks them in this order.

    Returns:
        the study's row; None where the series is gone.
    """
    study_id: int | None = connection.execute(LOCK_STUDY, {"series_id": series_id}).scalar()
    connection.execute(LOCK_SERIES, {"series_id": series_id})
    return study_id


def drop_empty(connection: Connection, series_id: int) -> None:
    """Drop a series that has lost its last instance, and an empty study."""
    study_id = hold_to_drop(connection, series_id)
    connection.execute(DROP_EMPTY_SERIES, {"series_id": series_id})
    connection.execute(DROP_EMPTY_STUDY, {"study_id": study_id})


def _insert(connection: Connection, series_id: int, encoder_id: int, stack: NewStack) -> None:
    stack_id = uuid.uuid4()
    connection.execute(
        insert(stacks).values(
            id=stack_id,
            series_id=series_id,
            encoder_id=encoder_id,
            sequence=stack.sequence,
            plane=stack.plane,
            body_part=stack.body_part,
            in_domain=stack.in_domain,
            not_embedded=stack.not_embedded,
            separated_by=stack.separated_by,
            evidence=stack.evidence,
            sop_instance_uids=list(stack.sop_instance_uids),
            missing_slices=stack.missing_slices,
        )
    )
    if stack.embeddings:
        connection.execute(insert(embeddings), [_row(stack_id, embedding) for embedding in stack.embeddings])


def _row(stack_id: uuid.UUID, embedding: SliceEmbedding) -> dict[str, Any]:
    return {
        "stack_id": stack_id,
        "slice": embedding.slice,
        "sop_instance_uid": embedding.sop_instance_uid,
        "frame_number": embedding.frame_number,
        "position_mm": embedding.position_mm,
        "vector": embedding.vector.astype(VECTOR_TYPE).tobytes(),
    }


@dataclass(frozen=True)
class Written:
    """The stacks that are there at a moment.

    Attributes:
        transactions: embedded stack → number of the transaction that wrote it.
    """

    transactions: dict[uuid.UUID, int]
    moment: Moment


# One statement, so that both come from one snapshot. A row's xmin is the lower half of its transaction's number, and a
# dump that is restored is written anew.
WRITTEN = text(f"""
    SELECT snapshot, id, xmax - ((xmax - stacks.xmin::text::bigint) & 4294967295) AS transaction_id
    FROM (SELECT {SNAPSHOT} AS snapshot, pg_snapshot_xmax(pg_current_snapshot())::text::bigint AS xmax) AS now
    LEFT JOIN stacks ON encoder_id = :encoder_id AND not_embedded IS NULL
          AND (CAST(:among AS uuid[]) IS NULL OR id = ANY(CAST(:among AS uuid[])))
""")  # noqa: S608 - a constant


def written(connection: Connection, encoder_id: int, among: Collection[uuid.UUID] | None = None) -> Written:
    """The embedded stacks of an encoder, all or those among some."""
    listed = None if among is None else [str(id_) for id_ in among]
    rows = connection.execute(WRITTEN, {"encoder_id": encoder_id, "among": listed}).all()
    transactions = {row.id: row.transaction_id for row in rows if row.id is not None}
    return Written(transactions, Moment.of_snapshot(rows[0].snapshot))


def load(connection: Connection, encoder_id: int, ids: Collection[uuid.UUID]) -> Iterator[StoredStack]:
    """The embedded stacks among `ids` that are there, with their vectors."""
    rows = connection.execute(
        select(
            stacks.c.id,
            stacks.c.series_id,
            series.c.study_id,
            stacks.c.sequence,
            stacks.c.plane,
            stacks.c.body_part,
            stacks.c.in_domain,
            embeddings.c.slice,
            embeddings.c.vector,
        )
        .join(series, series.c.id == stacks.c.series_id)
        .join(embeddings, embeddings.c.stack_id == stacks.c.id)
        .where(stacks.c.encoder_id == encoder_id, stacks.c.id.in_(ids))
        .order_by(stacks.c.id, embeddings.c.slice)
    ).all()
    start = 0
    for end in range(1, len(rows) + 1):
        if end < len(rows) and rows[end].id == rows[start].id:
            continue
        first = rows[start]
        yield StoredStack(
            id=first.id,
            series_id=first.series_id,
            study_id=first.study_id,
            sequence=first.sequence,
            plane=first.plane,
            body_part=first.body_part,
            in_domain=first.in_domain,
            vectors=np.frombuffer(b"".join(row.vector for row in rows[start:end]), VECTOR_TYPE).reshape(
                end - start, -1
            ),
            slices=np.array([row.slice for row in rows[start:end]], np.int16),
        )
        start = end


SOURCES = Prepared(
    "sources",
    """
    SELECT stack_id, slice, sop_instance_uid, frame_number, missing_slices > 0 AS with_gaps
    FROM embeddings JOIN unnest($1, $2) AS named (stack_id, slice) USING (stack_id, slice)
    JOIN stacks ON stacks.id = stack_id
    """,
    "uuid[]",
    "smallint[]",
)


def sources(connection: Connection, slices: Collection[tuple[uuid.UUID, int]]) -> dict[tuple[uuid.UUID, int], Source]:
    """(stack, slice) → the picture that it was drawn from; slices that are gone are left out."""
    stack_ids, numbers = zip(*slices, strict=True) if slices else ((), ())
    rows = SOURCES.rows(connection, list(stack_ids), list(numbers))
    return {
        (row.stack_id, row.slice): Source(row.sop_instance_uid, row.frame_number, with_gaps=row.with_gaps)
        for row in rows
    }


@dataclass(frozen=True)
class Changes:
    """What happened to stacks since a position.

    Attributes:
        stack_ids: stacks that came or went; some of them may have been given before.
        moment: when this was read; go on from its position.
    """

    stack_ids: frozenset[uuid.UUID]
    moment: Moment


def changes_since(connection: Connection, start: int) -> Changes:
    """All visible changes at or above a position; one statement, so that both parts come from one snapshot."""
    rows = connection.execute(
        text(f"""
            SELECT {SNAPSHOT} AS snapshot, array(
                SELECT DISTINCT stack_id FROM stack_changes WHERE transaction_id >= :start) AS stack_ids
        """),  # noqa: S608 - a constant
        {"start": start},
    ).one()
    return Changes(frozenset(rows.stack_ids), Moment.of_snapshot(rows.snapshot))


def forget_changes(connection: Connection, keep_seconds: float) -> None:
    """Drop what every follower has seen; one that slept for longer compares all stacks when it wakes."""
    connection.execute(
        delete(stack_changes).where(
            stack_changes.c.changed_at
            < text("clock_timestamp() - make_interval(secs => :keep)").bindparams(keep=keep_seconds)
        )
    )


def instance_paths(instances_dir: Path, files: Collection[str]) -> list[Path]:
    """Absolute paths of stored files."""
    return [instances_dir / file for file in files]
