"""Backfills are rows, and so are their studies: a backfill that is killed goes on where it was.

waiting ──done──▶ done ◀── found again with no more instances than are here
   ▲  │ fail: after the last attempt
   │  └──────────▶ parked (with its error)
   └── found again, by the same command after it had come to its end

What is parked and has come whole since is told as done.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime

from sqlalchemy import Connection, and_, case, func, select, text, update
from sqlalchemy.dialects.postgresql import insert as upsert

from pacs_cbir.store.holdings import known_of
from pacs_cbir.store.tables import backfill_studies, backfills

# What was given up may have come since: by another backfill, or sent by the PACS.
_STATE = case(
    (
        and_(
            backfill_studies.c.state == "parked",
            known_of(backfill_studies.c.study_instance_uid) >= backfill_studies.c.instances_at_pacs,
        ),
        "done",
    ),
    else_=backfill_studies.c.state,
)


@dataclass(frozen=True)
class Filter:
    """What a backfill asks for; the same filter is the same backfill.

    Attributes:
        peer: its name in the settings.
        study_date: a range as it was typed; an open end is today, whenever the backfill runs. Empty for all studies.
        modality, body_part: empty for any.
    """

    peer: str
    study_date: str
    modality: str
    body_part: str


@dataclass(frozen=True)
class Pending:
    """A study to fetch."""

    id: int
    study_instance_uid: str
    instances_at_pacs: int | None
    attempts: int


@dataclass(frozen=True)
class Summary:
    """A backfill and how far it is.

    Attributes:
        searched_to: the last day of which all studies are known; None at the start.
        finished_at: when it came to its end; None while it has not.
        incomplete: of what studies may be missing, and why.
        counts: state → studies.
        parked: StudyInstanceUID → error.
    """

    filter: Filter
    searched_to: date | None
    finished_at: datetime | None
    incomplete: Sequence[str]
    counts: Mapping[str, int]
    parked: Mapping[str, str]


def begin(connection: Connection, wanted: Filter) -> tuple[int, date | None]:
    """The filter's backfill, made or gone on with; one that had come to its end searches again from its first day.

    Returns:
        its row, and the last day that it has searched.
    """
    connection.execute(upsert(backfills).values(vars(wanted)).on_conflict_do_nothing())
    found = connection.execute(
        select(backfills.c.id, backfills.c.searched_to, backfills.c.finished_at).filter_by(**vars(wanted))
    ).one()
    if found.finished_at is None:
        return found.id, found.searched_to
    connection.execute(
        update(backfills).where(backfills.c.id == found.id).values(searched_to=None, finished_at=None, incomplete=[])
    )
    return found.id, None


# Found again: what was parked is tried again, and what was done is compared with what the PACS has now.
FOUND = text("""
    INSERT INTO backfill_studies (backfill_id, study_instance_uid, instances_at_pacs)
    VALUES (:backfill_id, :study_instance_uid, :instances_at_pacs)
    ON CONFLICT (backfill_id, study_instance_uid) DO UPDATE
    SET instances_at_pacs = excluded.instances_at_pacs, state = 'waiting', attempts = 0, error = NULL
""")


def add_found(
    connection: Connection,
    backfill_id: int,
    found: Mapping[str, int | None],
    missing: Iterable[str],
    searched_to: date,
) -> None:
    """Note studies and the day up to which all are known.

    Args:
        found: StudyInstanceUID → instances at the PACS, None where it does not say.
        missing: of what some may be missing, and why.
    """
    rows = [
        {"backfill_id": backfill_id, "study_instance_uid": uid, "instances_at_pacs": count}
        for uid, count in found.items()
    ]
    if rows:
        connection.execute(FOUND, rows)
    # A day that was searched before is named once.
    named = list(dict.fromkeys([*incomplete(connection, backfill_id), *missing]))
    connection.execute(
        update(backfills).where(backfills.c.id == backfill_id).values(searched_to=searched_to, incomplete=named)
    )


def next_study(connection: Connection, backfill_id: int) -> Pending | None:
    """The next study to fetch: those that failed come after those that were not tried yet."""
    table = backfill_studies.c
    row = connection.execute(
        select(table.id, table.study_instance_uid, table.instances_at_pacs, table.attempts)
        .where(table.backfill_id == backfill_id, table.state == "waiting")
        .order_by(table.attempts, table.id)
        .limit(1)
    ).one_or_none()
    return None if row is None else Pending(*row)


def done(connection: Connection, study: Pending) -> None:
    """All that the PACS has of the study is here."""
    _set(connection, study, state="done", error=None)


def counted(connection: Connection, study: Pending, instances: int) -> None:
    """The PACS has so many instances of a study, which it did not say when it named the study."""
    connection.execute(
        update(backfill_studies).where(backfill_studies.c.id == study.id).values(instances_at_pacs=instances)
    )


def failed(connection: Connection, study: Pending, error: str, attempts: int) -> bool:
    """An attempt came to nothing.

    Args:
        attempts: after so many it is parked.

    Returns:
        whether it is.
    """
    parked = study.attempts + 1 >= attempts
    _set(connection, study, state="parked" if parked else "waiting", attempts=study.attempts + 1, error=error)
    return parked


def _set(connection: Connection, study: Pending, **values: object) -> None:
    connection.execute(
        update(backfill_studies)
        .where(backfill_studies.c.id == study.id)
        .values(ended_at=func.clock_timestamp(), **values)
    )


def finish(connection: Connection, backfill_id: int) -> None:
    """Every study that was found is done or parked."""
    connection.execute(
        update(backfills).where(backfills.c.id == backfill_id).values(finished_at=func.clock_timestamp())
    )


def count(connection: Connection, backfill_id: int) -> dict[str, int]:
    """State → studies; every state is there. What was parked and is whole here by now is `done`."""
    table = backfill_studies.c
    rows = connection.execute(
        select(_STATE.label("state"), func.count().label("studies"))
        .where(table.backfill_id == backfill_id)
        .group_by(_STATE)
    )
    return {"waiting": 0, "done": 0, "parked": 0} | {row.state: row.studies for row in rows}


def parked(connection: Connection, backfill_id: int) -> dict[str, str]:
    """StudyInstanceUID → error of what was given up and is not whole here."""
    table = backfill_studies.c
    rows = connection.execute(
        select(table.study_instance_uid, table.error)
        .where(table.backfill_id == backfill_id, _STATE == "parked")
        .order_by(table.id)
    )
    return {row.study_instance_uid: row.error or "" for row in rows}


def incomplete(connection: Connection, backfill_id: int) -> list[str]:
    """Of what studies may be missing, and why."""
    found = connection.execute(select(backfills.c.incomplete).where(backfills.c.id == backfill_id))
    return list(found.scalar_one())


def summaries(connection: Connection) -> list[Summary]:
    """Every backfill of this installation, the first first."""
    table = backfills.c
    return [
        Summary(
            Filter(row.peer, row.study_date, row.modality, row.body_part),
            row.searched_to,
            row.finished_at,
            row.incomplete,
            count(connection, row.id),
            parked(connection, row.id),
        )
        for row in connection.execute(select(backfills).order_by(table.id)).all()
    ]
