"""Encoders that this installation has: which one answers, which are built beside it, which one answered before.

    add ──▶ beside ──activate──▶ active ──activate another──▶ former ──rollback──▶ active
               │                                                │
               └────────────────── retire ──▶ retired ◀─────────┘

At most one is active and one is the former (partial unique indexes). All but the retired are kept up: what arrives is
embedded by each of them, so that a switch, and the way back, answers with the newest studies too.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from sqlalchemy import Connection, Row, Select, func, insert, select, text, update

from pacs_cbir.errors import EncoderRefused
from pacs_cbir.store.tables import encoders

RETIRED_BATCH = 500
"""Stacks that one transaction deletes: followers take them out as they go."""


class State(StrEnum):
    """What an encoder is for."""

    BESIDE = "beside"
    ACTIVE = "active"
    FORMER = "former"
    RETIRED = "retired"


@dataclass(frozen=True)
class NewEncoder:
    """An encoder that is to be added.

    Attributes:
        identity: sha256 over weights, preprocessing and precision; embeddings of two identities never compare.
        precision: the arithmetic that the identity covers, `float32` or `bfloat16`.
        checkpoint_sha256: of the weights' file.
        card: the checkpoint's.
    """

    name: str
    identity: str
    precision: str
    checkpoint_sha256: str
    card: dict[str, Any]


@dataclass(frozen=True)
class EncoderRow(NewEncoder):
    """An encoder of this installation.

    Attributes:
        id: its row.
        hours: in which its reindexing may run, as `Hours.parse` reads it; None: always.
        workers: that may reindex with it at once; None: all.
        from_pacs: whether its reindexing fetches pixel data that is no longer here.
    """

    id: int
    state: State
    hours: str | None
    workers: int | None
    from_pacs: bool


@dataclass(frozen=True)
class Progress:
    """How far an encoder is.

    Attributes:
        series: that it has looked at, and embedded where there was something to embed.
        all_series: that are here.
        waiting, running, parked: its own jobs, which `reindex` made; arrivals' are not among them.
    """

    series: int
    all_series: int
    waiting: int
    running: int
    parked: int


@dataclass(frozen=True)
class Lacking:
    """What an encoder lacks to take the active one's place.

    Attributes:
        series: that the active encoder has embedded and it has not.
        parked: those of them that were given up.
    """

    series: int
    parked: int


_ROWS = select(
    encoders.c.id,
    encoders.c.name,
    encoders.c.identity,
    encoders.c.precision,
    encoders.c.checkpoint_sha256,
    encoders.c.card,
    encoders.c.state,
    encoders.c.hours,
    encoders.c.workers,
    encoders.c.from_pacs,
).order_by(encoders.c.id)

LOCK = text("LOCK TABLE encoders IN SHARE ROW EXCLUSIVE MODE")

PROGRESS = text("""
    SELECT (SELECT count(*) FROM series
             WHERE EXISTS (SELECT FROM stacks WHERE series_id = series.id AND encoder_id = :id)) AS series,
           (SELECT count(*) FROM series) AS all_series,
           count(*) FILTER (WHERE status = 'waiting') AS waiting,
           count(*) FILTER (WHERE status = 'running') AS running,
           count(*) FILTER (WHERE status = 'parked') AS parked
    FROM jobs WHERE encoder_id = :id
""")

# Two lists and not a look for each series: a query that names an encoder waits for it.
LACKING = text("""
    WITH lacking AS (
        SELECT series_id FROM stacks WHERE encoder_id = (SELECT id FROM encoders WHERE state = 'active')
        EXCEPT SELECT series_id FROM stacks WHERE encoder_id = :id
    )
    SELECT count(*) AS series, count(*) FILTER (WHERE series_id IN (
               SELECT series_id FROM jobs
               WHERE status = 'parked' AND (encoder_id = :id OR encoder_id IS NULL))) AS parked
    FROM lacking
""")

# Whoever came back meanwhile keeps what was made for it since.
DELETE_STACKS = text("""
    DELETE FROM stacks WHERE id IN (
        SELECT stacks.id FROM stacks JOIN encoders ON encoders.id = encoder_id
        WHERE encoder_id = :id AND state = 'retired' LIMIT :batch)
""")

LEFT_BEHIND = text("SELECT EXISTS (SELECT FROM stacks WHERE encoder_id = :id)")


def lock(connection: Connection) -> None:
    """Keep other commands from changing encoders until the transaction ends; reads and saves go on."""
    connection.execute(LOCK)


def active(connection: Connection) -> EncoderRow | None:
    """The encoder whose embeddings are searched; None before the first worker ran."""
    return next(_read(connection, _ROWS.where(encoders.c.state == State.ACTIVE)), None)


def listed(connection: Connection) -> list[EncoderRow]:
    """All, in the order in which they were added."""
    return list(_read(connection, _ROWS))


def kept(connection: Connection) -> list[EncoderRow]:
    """Those that are kept up: all but the retired."""
    return list(_read(connection, _ROWS.where(encoders.c.state != State.RETIRED)))


def named(connection: Connection, name: str) -> EncoderRow:
    """The encoder of that name.

    Raises:
        EncoderRefused: there is none; says which there are.
    """
    there = listed(connection)
    found = next((row for row in there if row.name == name), None)
    if found is None:
        names = ", ".join(row.name for row in there) or "none"
        raise EncoderRefused(f"there is no encoder {name!r}; added were: {names}. `pacs-cbir encoder add` adds one")
    return found


def add(connection: Connection, new: NewEncoder) -> EncoderRow:
    """A row for an encoder, which is then built beside the active one; one that was retired comes back.

    Raises:
        EncoderRefused: it is here already, or its name is another's, or it is being retired: the embeddings that it
            still has were not kept up.
    """
    lock(connection)
    there = listed(connection)
    same = next((row for row in there if row.identity == new.identity), None)
    if same is not None and same.state is not State.RETIRED:
        raise EncoderRefused(
            f"this encoder was added already, as {same.name}, and is {same.state}: other weights, another "
            f"preprocessing or another precision than {same.precision} (with or without a GPU) would make another"
        )
    if any(row.name == new.name and row is not same for row in there):
        raise EncoderRefused(f"another encoder has the name {new.name}: give this one another with --name")
    if same is not None and connection.execute(LEFT_BEHIND, {"id": same.id}).scalar_one():
        raise EncoderRefused(f"{same.name} is being retired: `pacs-cbir encoder retire {same.name}` ends that first")
    values: dict[str, Any] = {"name": new.name, "card": new.card, "checkpoint_sha256": new.checkpoint_sha256}
    if same is None:
        values |= {"identity": new.identity, "precision": new.precision}
        connection.execute(insert(encoders).values(values | {"state": State.BESIDE}))
    else:
        values |= {"hours": None, "workers": None, "from_pacs": False}
        connection.execute(update(encoders).where(encoders.c.id == same.id).values(values | {"state": State.BESIDE}))
    return named(connection, new.name)


def lacking(connection: Connection, encoder: EncoderRow) -> Lacking:
    """What it lacks to take the active one's place; nothing where there is no active one."""
    row = connection.execute(LACKING, {"id": encoder.id}).one()
    return Lacking(row.series, row.parked)


def activate(connection: Connection, name: str, *, incomplete: bool = False) -> EncoderRow:
    """Let an encoder answer from now on; the one that answered until now becomes the former.

    Args:
        incomplete: though series that are in the answers now would be missing.

    Raises:
        EncoderRefused: there is none of that name, it is retired, or it lacks series.
    """
    lock(connection)
    encoder = named(connection, name)
    if encoder.state is State.RETIRED:
        raise EncoderRefused(f"{name} is retired: `pacs-cbir encoder add` and `pacs-cbir reindex` bring it back first")
    # Saves under way hold their encoders' rows; what they write is counted below.
    connection.execute(select(encoders.c.id).order_by(encoders.c.id).with_for_update(key_share=True))
    lacks = lacking(connection, encoder)
    if lacks.series and not incomplete:
        raise EncoderRefused(
            f"{lacks.series} series that are in the answers now have no embeddings of {name} yet, {lacks.parked} of "
            f"them were parked: `pacs-cbir reindex --encoder {name}` makes them, `pacs-cbir status` says why series "
            "were parked; --incomplete switches all the same, and leaves them out of the answers"
        )
    if encoder.state is not State.ACTIVE:
        _set_state(connection, State.FORMER, State.BESIDE)
        _set_state(connection, State.ACTIVE, State.FORMER)
        connection.execute(update(encoders).where(encoders.c.id == encoder.id).values(state=State.ACTIVE))
    return named(connection, name)


def rollback(connection: Connection) -> tuple[EncoderRow, Lacking]:
    """Let the former encoder answer again, whatever it lacks; the one that answered until now becomes the former.

    Returns:
        the encoder that answers now, and what leaves the answers.

    Raises:
        EncoderRefused: there is no former one.
    """
    lock(connection)
    former = next(_read(connection, _ROWS.where(encoders.c.state == State.FORMER)), None)
    if former is None:
        raise EncoderRefused("there is no former encoder to go back to: none answered before, or it is retired")
    lacks = lacking(connection, former)
    return activate(connection, former.name, incomplete=True), lacks


def retire(connection: Connection, name: str) -> EncoderRow:
    """Give an encoder up: nothing is embedded by it any more. `delete_some` deletes what it made.

    Raises:
        EncoderRefused: there is none of that name, or it is the active one.
    """
    lock(connection)
    encoder = named(connection, name)
    if encoder.state is State.ACTIVE:
        raise EncoderRefused(f"{name} is the active encoder: activate another one first")
    connection.execute(update(encoders).where(encoders.c.id == encoder.id).values(state=State.RETIRED))
    return named(connection, name)


def delete_some(connection: Connection, encoder_id: int) -> int:
    """Delete some of a retired encoder's stacks; returns how many, 0 once none is left."""
    return connection.execute(DELETE_STACKS, {"id": encoder_id, "batch": RETIRED_BATCH}).rowcount


def checkpoint_is_used(connection: Connection, checkpoint_sha256: str) -> bool:
    """Whether an encoder that is kept up has this weights' file."""
    return any(row.checkpoint_sha256 == checkpoint_sha256 for row in kept(connection))


def set_reindex(
    connection: Connection, encoder_id: int, *, hours: str | None, workers: int | None, from_pacs: bool
) -> None:
    """Say how an encoder's reindexing is to go from now on; what is None or False stays as it was."""
    given = {"hours": hours, "workers": workers, "from_pacs": from_pacs}
    if values := {name: value for name, value in given.items() if value}:
        connection.execute(update(encoders).where(encoders.c.id == encoder_id).values(values))


def progress(connection: Connection, encoder_id: int) -> Progress:
    """How far an encoder is."""
    return Progress(**connection.execute(PROGRESS, {"id": encoder_id}).one()._mapping)


def hold(connection: Connection, encoder_ids: list[int], *, alone: bool = False) -> set[int]:
    """Those of some encoders that are kept up, and stay as they are until the transaction ends.

    Args:
        alone: nobody else holds them so long: no worker saves.
    """
    rows = (
        select(encoders.c.id)
        .where(encoders.c.id == func.any(encoder_ids), encoders.c.state != State.RETIRED)
        .order_by(encoders.c.id)
        .with_for_update(read=not alone, key_share=alone)
    )
    return set(connection.scalars(rows))


def _set_state(connection: Connection, before: State, after: State) -> None:
    connection.execute(update(encoders).where(encoders.c.state == before).values(state=after))


def _read(connection: Connection, rows: Select[Any]) -> Iterator[EncoderRow]:
    return map(_row, connection.execute(rows))


def _row(row: Row[Any]) -> EncoderRow:
    return EncoderRow(**{**row._mapping, "state": State(row.state)})
