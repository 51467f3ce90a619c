"""Studies as a list shows them: which sequences they have, and how far the embedding of each series is."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import Enum

from sqlalchemy import Connection, select, text

from pacs_cbir.store.catalogue import Attributes
from pacs_cbir.store.tables import studies


class State(Enum):
    """How far a series' embedding is."""

    EMBEDDED = "embedded"
    WAITING = "waiting"
    PARKED = "parked"
    NOT_EMBEDDED = "not embedded"


@dataclass(frozen=True)
class ListedSeries:
    """A series.

    Attributes:
        instances: how many.
        sequence: the MR sequence of its first embedded stack, else of its largest; None before it was looked at.
        in_domain: whether the encoder was trained for that stack; None likewise.
        reason: why it has no embeddings; None where it has some, or may still get them.
        picture: SOP Instance UID of the stack's middle instance.
    """

    series_instance_uid: str
    attributes: Attributes
    instances: int
    sequence: str | None
    in_domain: bool | None
    state: State
    reason: str | None
    picture: str


SERIES = text("""
    SELECT study_instance_uid, series.series_instance_uid, series.attributes, came.uids,
           stack.sequence, stack.in_domain, stack.not_embedded, stack.sop_instance_uids, job.under_way, job.error
    FROM studies JOIN series ON series.study_id = studies.id
    CROSS JOIN LATERAL (
        SELECT array_agg(sop_instance_uid ORDER BY id) AS uids FROM instances
        WHERE series_id = series.id AND rejected IS NULL) AS came
    LEFT JOIN LATERAL (
        SELECT sequence, in_domain, not_embedded, sop_instance_uids FROM stacks
        WHERE series_id = series.id AND encoder_id = :encoder_id
        ORDER BY not_embedded IS NOT NULL, cardinality(sop_instance_uids) DESC, id LIMIT 1) AS stack ON true
    LEFT JOIN LATERAL (
        SELECT bool_or(status <> 'parked') AS under_way, max(error) FILTER (WHERE status = 'parked') AS error
        FROM jobs WHERE series_id = series.id AND (encoder_id IS NULL OR encoder_id = :encoder_id)) AS job ON true
    WHERE study_instance_uid = ANY(:uids) AND came.uids IS NOT NULL
    ORDER BY series.id
""")


def series_of(
    connection: Connection, study_instance_uids: Collection[str], encoder_id: int | None
) -> dict[str, list[ListedSeries]]:
    """The series of some studies, in the order in which they first came, by Study Instance UID.

    Args:
        encoder_id: the active encoder, whose embeddings are looked at; None before there is one.
    """
    found: dict[str, list[ListedSeries]] = {uid: [] for uid in study_instance_uids}
    for row in connection.execute(SERIES, {"uids": list(found), "encoder_id": encoder_id}):
        state, reason = _state(row.sequence is not None, row.not_embedded, row.under_way, row.error)
        found[row.study_instance_uid].append(
            ListedSeries(
                series_instance_uid=row.series_instance_uid,
                attributes=row.attributes,
                instances=len(row.uids),
                sequence=row.sequence,
                in_domain=row.in_domain,
                state=state,
                reason=reason,
                picture=_middle(row.sop_instance_uids or row.uids),
            )
        )
    return found


def received(connection: Connection, study_instance_uids: Collection[str]) -> dict[str, datetime]:
    """When the first instance of some studies came, by Study Instance UID."""
    asked = select(studies.c.study_instance_uid, studies.c.created_at).where(
        studies.c.study_instance_uid.in_(study_instance_uids)
    )
    return {row.study_instance_uid: row.created_at for row in connection.execute(asked)}


def _state(
    looked_at: bool, not_embedded: str | None, under_way: bool | None, error: str | None
) -> tuple[State, str | None]:
    if looked_at and not_embedded is None:
        return State.EMBEDDED, None
    if under_way:
        return State.WAITING, None
    if looked_at:
        return State.NOT_EMBEDDED, not_embedded
    if error is not None:
        return State.PARKED, error
    return State.NOT_EMBEDDED, "the active encoder has not looked at it"


def _middle(uids: Sequence[str]) -> str:
    return uids[len(uids) // 2]
