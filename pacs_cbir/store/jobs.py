"""Jobs are rows: "embed this series once it has settled", or "embed it with that encoder too".

    waiting ──claim──▶ running ──finish──▶ (row deleted)
       ▲                  │ fail, or its lease runs out
       └──── retry ◀──────┴──── after the last attempt ──▶ parked (with its error)

An arrival's job names no encoder: it embeds with every one that is kept up. `reindex` makes jobs that name one. A
series has at most one waiting job of its arrivals and one of each encoder, and one running job (partial unique
indexes). An instance that arrives while a job runs makes a new waiting row, which is claimed only after the running
one ended. All times are the database's.

Here they are made, and an encoder's are counted and dropped; `claims` has what a worker does with them.
"""

from __future__ import annotations

from collections.abc import Collection

from sqlalchemy import Connection, text

# The series is locked before the row is made, as `claims.fail` locks it: in another order the two could deadlock.
ENQUEUE = text("""
    INSERT INTO jobs (series_id, not_before)
    SELECT id, clock_timestamp() + make_interval(secs => :settle_seconds)
    FROM series WHERE id = ANY(:series_ids) ORDER BY id FOR KEY SHARE
    ON CONFLICT (series_id, encoder_id) WHERE status = 'waiting'
    DO UPDATE SET not_before = excluded.not_before
""")

# A running job is not asked: whoever runs it may have sent for the instances that arrive.
ENQUEUE_UNFINISHED = text("""
    INSERT INTO jobs (series_id, not_before)
    SELECT id, clock_timestamp() + make_interval(secs => :settle_seconds)
    FROM series WHERE id = :series_id
     AND EXISTS (SELECT FROM jobs WHERE series_id = :series_id
                     AND (status = 'parked' OR status = 'waiting' AND encoder_id IS NULL))
    FOR KEY SHARE
    ON CONFLICT (series_id, encoder_id) WHERE status = 'waiting'
    DO UPDATE SET not_before = excluded.not_before
""")

ENQUEUE_WITH = text("""
    INSERT INTO jobs (series_id, encoder_id, not_before)
    SELECT series.id, encoders.id, clock_timestamp()
    FROM series JOIN encoders ON encoders.id = ANY(:encoder_ids)
    WHERE series.id = :series_id FOR KEY SHARE OF series
    ON CONFLICT (series_id, encoder_id) WHERE status = 'waiting' DO NOTHING
""")

# What has an embedding by this encoder, or will have one by a job that waits, is left out.
ENQUEUE_BATCH = text("""
    WITH batch AS (
        SELECT id FROM series WHERE id > :after ORDER BY id LIMIT :batch FOR KEY SHARE
    ), made AS (
        INSERT INTO jobs (series_id, encoder_id, not_before)
        SELECT id, :encoder_id, clock_timestamp() FROM batch
        WHERE NOT EXISTS (SELECT FROM stacks WHERE stacks.series_id = batch.id AND stacks.encoder_id = :encoder_id)
          AND NOT EXISTS (SELECT FROM jobs WHERE jobs.series_id = batch.id
                             AND (encoder_id = :encoder_id AND status <> 'parked'
                                  OR encoder_id IS NULL AND status = 'waiting'))
        ON CONFLICT (series_id, encoder_id) WHERE status = 'waiting' DO NOTHING
    )
    SELECT max(id) FROM batch
""")

UNPARK = text("""
    WITH parked AS (
        DELETE FROM jobs WHERE status = 'parked' AND (encoder_id = :encoder_id OR encoder_id IS NULL)
        RETURNING series_id, encoder_id
    )
    INSERT INTO jobs (series_id, encoder_id, not_before) SELECT series_id, encoder_id, clock_timestamp() FROM parked
    ON CONFLICT (series_id, encoder_id) WHERE status = 'waiting' DO NOTHING
""")

COUNT_LEFT = text("SELECT count(*) FROM jobs WHERE encoder_id = :encoder_id AND status <> 'parked'")

# One that came back meanwhile keeps its new jobs.
FORGET = text("""
    DELETE FROM jobs USING encoders
    WHERE encoder_id = :encoder_id AND encoders.id = encoder_id AND state = 'retired'
""")

BATCH = 1000
"""Series that one transaction of `reindex` looks at: what arrives meanwhile waits for no more than that."""


def enqueue(connection: Connection, series_id: int, settle_seconds: float) -> None:
    """Make or move the series' one waiting job: due once nothing has arrived for the settle time (seconds)."""
    enqueue_all(connection, [series_id], settle_seconds)


def enqueue_all(connection: Connection, series_ids: Collection[int], settle_seconds: float) -> None:
    """`enqueue`, of many series at once; those that are gone have none."""
    connection.execute(ENQUEUE, {"series_ids": list(series_ids), "settle_seconds": settle_seconds})


def enqueue_unfinished(connection: Connection, series_id: int, settle_seconds: float) -> None:
    """`enqueue`, where a job of the series waits or was parked; nothing where all was done."""
    connection.execute(ENQUEUE_UNFINISHED, {"series_id": series_id, "settle_seconds": settle_seconds})


def enqueue_with(connection: Connection, series_id: int, encoder_ids: Collection[int]) -> None:
    """Jobs to embed a series with some encoders, where none waits already."""
    connection.execute(ENQUEUE_WITH, {"series_id": series_id, "encoder_ids": list(encoder_ids)})


def unpark(connection: Connection, encoder_id: int) -> None:
    """Try again what was parked: an encoder's jobs, and arrivals' jobs, which embed with it too."""
    connection.execute(UNPARK, {"encoder_id": encoder_id})


def enqueue_batch(connection: Connection, encoder_id: int, after: int) -> int | None:
    """Jobs for some series that an encoder lacks, those with the lowest ids above `after`.

    Returns:
        the `after` of the next call; None where there is no series above.
    """
    batch = {"encoder_id": encoder_id, "after": after, "batch": BATCH}
    last: int | None = connection.execute(ENQUEUE_BATCH, batch).scalar()
    return last


def count_left(connection: Connection, encoder_id: int) -> int:
    """How many of an encoder's jobs are not finished and not parked."""
    return int(connection.execute(COUNT_LEFT, {"encoder_id": encoder_id}).scalar_one())


def forget(connection: Connection, encoder_id: int) -> None:
    """Drop the jobs of an encoder that is retired."""
    connection.execute(FORGET, {"encoder_id": encoder_id})
