"""Jobs are rows: "embed this series once it has settled".

    waiting ──claim──▶ running ──finish──▶ (row deleted)
       ▲                  │ fail, or its lease runs out
       └──── retry ◀──────┴──── after the last attempt ──▶ parked (with its error)

At most one waiting and one running job a series (partial unique indexes). An instance that arrives while the job
runs makes a new waiting row, which is claimed only after the running one ended. All times are the database's.
"""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import Connection, text

from pacs_cbir.errors import JobLost
from pacs_cbir.settings import Settings


@dataclass(frozen=True)
class Job:
    """A claimed job.

    Attributes:
        id: its row.
        series_id: the series to embed.
        attempt: which attempt this is, counted from 1; with the id it fences off a worker that lost its lease.
    """

    id: int
    series_id: int
    attempt: int


# The series is locked before the row is made, as `fail` locks it: in another order the two could deadlock.
ENQUEUE = text("""
    INSERT INTO jobs (series_id, not_before)
    SELECT id, clock_timestamp() + make_interval(secs => :settle_seconds)
    FROM series WHERE id = :series_id FOR KEY SHARE
    ON CONFLICT (series_id) WHERE status = 'waiting'
    DO UPDATE SET not_before = excluded.not_before
""")

# A running job is not asked: whoever runs it may have sent for the instances that arrive.
ENQUEUE_UNFINISHED = text("""
    INSERT INTO jobs (series_id, not_before)
    SELECT id, clock_timestamp() + make_interval(secs => :settle_seconds)
    FROM series WHERE id = :series_id
     AND EXISTS (SELECT FROM jobs WHERE series_id = :series_id AND status IN ('waiting', 'parked'))
    FOR KEY SHARE
    ON CONFLICT (series_id) WHERE status = 'waiting'
    DO UPDATE SET not_before = excluded.not_before
""")

# Jobs whose workers died at their last attempt. The DELETE sees the rows as they were: those parked earlier.
PARK_EXPIRED = text("""
    WITH expired AS (
        UPDATE jobs SET status = 'parked', lease_until = NULL,
               error = 'the worker died or hung ' || attempts || ' times while it embedded this series'
        WHERE status = 'running' AND lease_until < clock_timestamp() AND attempts >= :job_attempts
        RETURNING series_id
    )
    DELETE FROM jobs WHERE status = 'parked' AND series_id IN (SELECT series_id FROM expired)
""")

CLAIM = text("""
    UPDATE jobs SET status = 'running', worker = :worker, attempts = attempts + 1,
           lease_until = clock_timestamp() + make_interval(secs => :lease_seconds)
    WHERE id = (
        SELECT id FROM jobs AS due
        WHERE (status = 'running' AND lease_until < clock_timestamp() AND attempts < :job_attempts)
           OR (status = 'waiting' AND not_before <= clock_timestamp() AND NOT EXISTS (
                  SELECT FROM jobs AS other WHERE other.series_id = due.series_id AND other.status = 'running'))
        ORDER BY not_before
        LIMIT 1
        FOR UPDATE SKIP LOCKED
    )
    RETURNING id, series_id, attempts AS attempt
""")

EXTEND = text("""
    UPDATE jobs SET lease_until = clock_timestamp() + make_interval(secs => :lease_seconds)
    WHERE id = :id AND status = 'running' AND attempts = :attempt
""")

# Parked jobs of the series are history once a later one succeeded.
FINISH = text("""
    WITH finished AS (
        DELETE FROM jobs WHERE id = :id AND status = 'running' AND attempts = :attempt RETURNING series_id
    ), parked AS (
        DELETE FROM jobs WHERE status = 'parked' AND series_id IN (SELECT series_id FROM finished)
    )
    SELECT count(*) FROM finished
""")

# A waiting job of the same series takes this one's place.
SUPERSEDED = text("""
    DELETE FROM jobs AS failed WHERE id = :id AND status = 'running' AND attempts = :attempt
       AND EXISTS (SELECT FROM jobs AS next WHERE next.series_id = failed.series_id AND next.status = 'waiting')
""")

RETRY = text("""
    UPDATE jobs SET status = 'waiting', lease_until = NULL, error = :error,
           not_before = clock_timestamp() + make_interval(secs => :retry_seconds * power(2, attempts - 1))
    WHERE id = :id AND status = 'running' AND attempts = :attempt
""")

PARK = text("""
    WITH failed AS (
        UPDATE jobs SET status = 'parked', lease_until = NULL, error = :error
        WHERE id = :id AND status = 'running' AND attempts = :attempt RETURNING series_id
    ), older AS (
        DELETE FROM jobs WHERE status = 'parked' AND series_id IN (SELECT series_id FROM failed)
    )
    SELECT count(*) FROM failed
""")

# Where an earlier call's jobs are under way, they stay, and what that call did with another encoder is done again.
ENQUEUE_ALL = text("""
    INSERT INTO jobs (series_id, not_before, re_embed)
    SELECT id, clock_timestamp(), true FROM series
    WHERE NOT :under_way
       OR NOT EXISTS (SELECT FROM stacks WHERE stacks.series_id = series.id AND encoder_id = :encoder_id)
      AND NOT EXISTS (SELECT FROM jobs WHERE jobs.series_id = series.id AND re_embed AND status <> 'parked')
    ON CONFLICT (series_id) WHERE status = 'waiting' DO UPDATE SET re_embed = true
""")

COUNT_RE_EMBED = text("SELECT count(*) FROM jobs WHERE re_embed AND status <> 'parked'")


def enqueue(connection: Connection, series_id: int, settle_seconds: float) -> None:
    """Make or move the series' one waiting job: due once nothing has arrived for the settle time (seconds)."""
    connection.execute(ENQUEUE, {"series_id": series_id, "settle_seconds": settle_seconds})


def enqueue_unfinished(connection: Connection, series_id: int, settle_seconds: float) -> None:
    """`enqueue`, where a job of the series waits or was parked; nothing where all was done."""
    connection.execute(ENQUEUE_UNFINISHED, {"series_id": series_id, "settle_seconds": settle_seconds})


def claim(connection: Connection, worker: str, settings: Settings) -> Job | None:
    """Take the job that is due longest, or one whose lease ran out; None where nothing is due."""
    connection.execute(PARK_EXPIRED, {"job_attempts": settings.job_attempts})
    row = connection.execute(
        CLAIM, {"worker": worker, "lease_seconds": settings.lease_seconds, "job_attempts": settings.job_attempts}
    ).one_or_none()
    return None if row is None else Job(row.id, row.series_id, row.attempt)


def extend(connection: Connection, job: Job, lease_seconds: float) -> None:
    """Prolong the lease.

    Raises:
        JobLost: it is no longer ours.
    """
    _fenced(connection.execute(EXTEND, {"id": job.id, "attempt": job.attempt, "lease_seconds": lease_seconds}).rowcount)


def finish(connection: Connection, job: Job) -> None:
    """End the job, in the transaction that writes its results.

    Raises:
        JobLost: it is no longer ours; the transaction must not be committed.
    """
    _fenced(connection.execute(FINISH, {"id": job.id, "attempt": job.attempt}).scalar_one())


def fail(connection: Connection, job: Job, error: str, settings: Settings) -> bool:
    """Give the job back with its error: tried again later, or parked after the last attempt.

    Args:
        error: what happened; shown to the admin, so without a patient's identity.

    Returns:
        whether it is parked.

    Raises:
        JobLost: it is no longer ours.
    """
    ours = {"id": job.id, "attempt": job.attempt}
    if job.attempt >= settings.job_attempts:
        _fenced(connection.execute(PARK, ours | {"error": error}).scalar_one())
        return True
    # Ingest makes waiting rows under this lock too: without it one could appear between the two statements.
    connection.execute(text("SELECT id FROM series WHERE id = :series_id FOR UPDATE"), {"series_id": job.series_id})
    if connection.execute(SUPERSEDED, ours).rowcount == 0:
        _fenced(connection.execute(RETRY, ours | {"error": error, "retry_seconds": settings.retry_seconds}).rowcount)
    return False


def enqueue_all(connection: Connection, encoder_id: int) -> int:
    """Jobs to embed every series with an encoder; those that an interrupted call left are gone on with.

    Returns:
        how many are to be done.
    """
    under_way = count_re_embed(connection) > 0
    connection.execute(ENQUEUE_ALL, {"under_way": under_way, "encoder_id": encoder_id})
    return count_re_embed(connection)


def count_re_embed(connection: Connection) -> int:
    """How many of `enqueue_all`'s jobs are not finished and not parked."""
    return int(connection.execute(COUNT_RE_EMBED).scalar_one())


def _fenced(rows: int) -> None:
    if rows != 1:
        raise JobLost("the job was given to another worker")
