"""Jobs are rows: "embed this series once it has settled", or "embed it with that encoder too".

    waiting ──claim──▶ running ──finish──▶ (row deleted)
       ▲                  │ fail, or its lease runs out
       └──── retry ◀──────┴──── after the last attempt ──▶ parked (with its error)

An arrival's job names no encoder: it embeds with every one that is kept up. `reindex` makes jobs that name one. A
series has at most one waiting job of its arrivals and one of each encoder, and one running job (partial unique
indexes). An instance that arrives while a job runs makes a new waiting row, which is claimed only after the running
one ended. All times are the database's.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, text

from pacs_cbir.errors import JobLost
from pacs_cbir.hours import Hours
from pacs_cbir.settings import Settings
from pacs_cbir.store.encoders import EncoderRow


@dataclass(frozen=True)
class Job:
    """A claimed job.

    Attributes:
        id: its row.
        series_id: the series to embed.
        encoder_id: to embed it with; None: with all that are kept up.
        attempt: which attempt this is, counted from 1; with the id it fences off a worker that lost its lease.
    """

    id: int
    series_id: int
    encoder_id: int | None
    attempt: int


# The series is locked before the row is made, as `fail` locks it: in another order the two could deadlock.
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

# Jobs whose workers died at their last attempt. The DELETE sees the rows as they were: those parked earlier.
PARK_EXPIRED = text("""
    WITH expired AS (
        UPDATE jobs SET status = 'parked', lease_until = NULL,
               error = 'the worker died or hung ' || attempts || ' times while it embedded this series'
        WHERE status = 'running' AND lease_until < clock_timestamp() AND attempts >= :job_attempts
        RETURNING series_id, encoder_id
    )
    DELETE FROM jobs USING expired WHERE status = 'parked' AND jobs.series_id = expired.series_id
       AND jobs.encoder_id IS NOT DISTINCT FROM expired.encoder_id
""")

EXPIRED = text("""
    SELECT id, series_id FROM jobs
    WHERE status = 'running' AND lease_until < clock_timestamp() AND attempts < :job_attempts
      AND (encoder_id IS NULL OR encoder_id = ANY(:open))
    ORDER BY lease_until LIMIT 1 FOR NO KEY UPDATE SKIP LOCKED
""")

# The series is locked too: of its several waiting jobs no two are started at once. Ingest's locks let this one in.
ARRIVED = text("""
    SELECT due.id, due.series_id FROM jobs AS due JOIN series ON series.id = due.series_id
    WHERE status = 'waiting' AND encoder_id IS NULL AND not_before <= clock_timestamp() AND NOT EXISTS (
        SELECT FROM jobs AS other WHERE other.series_id = due.series_id AND other.status = 'running')
    ORDER BY not_before LIMIT 1 FOR NO KEY UPDATE SKIP LOCKED
""")

# Whoever counts an encoder's workers keeps others from it until its own claim is committed.
LOCK_LIMITED = text("""
    SELECT id FROM encoders WHERE id = ANY(:open) AND workers IS NOT NULL ORDER BY id FOR NO KEY UPDATE
""")

# Asked by itself: whoever looked through an encoder's jobs for it would read all of them, each time, to find none.
FULL = text("""
    SELECT encoders.id FROM encoders JOIN jobs AS held ON held.encoder_id = encoders.id
    WHERE encoders.id = ANY(:limited) AND held.status = 'running' AND held.lease_until > clock_timestamp()
      AND held.worker <> :worker
    GROUP BY encoders.id HAVING count(DISTINCT held.worker) >= encoders.workers
""")

REINDEX = text("""
    SELECT due.id, due.series_id FROM jobs AS due JOIN series ON series.id = due.series_id
    WHERE status = 'waiting' AND encoder_id = ANY(:open) AND not_before <= clock_timestamp() AND NOT EXISTS (
              SELECT FROM jobs AS other WHERE other.series_id = due.series_id AND other.status = 'running')
    ORDER BY not_before, due.id LIMIT 1 FOR NO KEY UPDATE OF due, series SKIP LOCKED
""")

# A statement of its own: what another worker committed before this one had its locks is visible to it alone.
START = text("""
    UPDATE jobs SET status = 'running', worker = :worker, attempts = attempts + 1,
           lease_until = clock_timestamp() + make_interval(secs => :lease_seconds)
    WHERE id = :id AND NOT EXISTS (
        SELECT FROM jobs AS other WHERE other.series_id = jobs.series_id AND other.status = 'running'
           AND other.id <> jobs.id)
    RETURNING id, series_id, encoder_id, attempts AS attempt
""")

EXTEND = text("""
    UPDATE jobs SET lease_until = clock_timestamp() + make_interval(secs => :lease_seconds)
    WHERE id = :id AND status = 'running' AND attempts = :attempt
""")

# Parked jobs of what was embedded are history, and waiting ones of these encoders have nothing left to do.
FINISH = text("""
    WITH finished AS (
        DELETE FROM jobs WHERE id = :id AND status = 'running' AND attempts = :attempt RETURNING series_id, encoder_id
    ), done AS (
        DELETE FROM jobs USING finished WHERE jobs.series_id = finished.series_id AND jobs.status <> 'running'
           AND (jobs.encoder_id = ANY(:encoder_ids)
                OR jobs.status = 'parked' AND jobs.encoder_id IS NOT DISTINCT FROM finished.encoder_id)
    )
    SELECT count(*) FROM finished
""")

# A waiting job of the same series takes this one's place, if it embeds with the same encoder.
SUPERSEDED = text("""
    DELETE FROM jobs AS failed WHERE id = :id AND status = 'running' AND attempts = :attempt
       AND EXISTS (SELECT FROM jobs AS next WHERE next.series_id = failed.series_id AND next.status = 'waiting'
                      AND (next.encoder_id IS NULL OR next.encoder_id = failed.encoder_id))
""")

POSTPONE = text("""
    UPDATE jobs SET status = 'waiting', lease_until = NULL, error = :error, attempts = attempts - 1,
           not_before = clock_timestamp() + make_interval(secs => :seconds)
    WHERE id = :id AND status = 'running' AND attempts = :attempt
""")

RETRY = text("""
    UPDATE jobs SET status = 'waiting', lease_until = NULL, error = :error,
           not_before = clock_timestamp() + make_interval(secs => :retry_seconds * power(2, attempts - 1))
    WHERE id = :id AND status = 'running' AND attempts = :attempt
""")

PARK = text("""
    WITH failed AS (
        UPDATE jobs SET status = 'parked', lease_until = NULL, error = :error
        WHERE id = :id AND status = 'running' AND attempts = :attempt RETURNING series_id, encoder_id
    ), older AS (
        DELETE FROM jobs USING failed WHERE status = 'parked' AND jobs.series_id = failed.series_id
           AND jobs.encoder_id IS NOT DISTINCT FROM failed.encoder_id
    )
    SELECT count(*) FROM failed
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


def claim(connection: Connection, worker: str, settings: Settings, able: Sequence[EncoderRow]) -> Job | None:
    """Take a job whose lease ran out, else the arrival that is due longest, else a series to reindex.

    What is reindexed keeps to the encoder's hours, by the database's clock in this machine's time zone, and to its
    number of workers.

    Args:
        able: encoders that this worker can embed with; it is given no job of another.

    Returns:
        None where nothing is due.
    """
    connection.execute(PARK_EXPIRED, {"job_attempts": settings.job_attempts})
    now = connection.execute(text("SELECT clock_timestamp()")).scalar_one()
    open_ = [encoder.id for encoder in able if encoder.hours is None or Hours.parse(encoder.hours).allows(now)]
    given: dict[str, Any] = {"open": open_, "worker": worker, "job_attempts": settings.job_attempts}
    for candidates in (EXPIRED, ARRIVED, REINDEX):
        if candidates is REINDEX:
            given["open"] = _with_room(connection, open_, worker)
            if not given["open"]:
                continue
        # Another worker may start a job of the same series first; then the next candidate is another's.
        while (due := connection.execute(candidates, given).one_or_none()) is not None:
            started = {"id": due.id, "worker": worker, "lease_seconds": settings.lease_seconds}
            row = connection.execute(START, started).one_or_none()
            if row is not None:
                return Job(row.id, row.series_id, row.encoder_id, row.attempt)
    return None


def _with_room(connection: Connection, encoder_ids: list[int], worker: str) -> list[int]:
    """Those of some encoders that one worker more may reindex with, until the transaction ends."""
    limited = list(connection.scalars(LOCK_LIMITED, {"open": encoder_ids})) if encoder_ids else []
    full = set(connection.scalars(FULL, {"limited": limited, "worker": worker})) if limited else set()
    return [one for one in encoder_ids if one not in full]


def extend(connection: Connection, job: Job, lease_seconds: float) -> None:
    """Prolong the lease.

    Raises:
        JobLost: it is no longer ours.
    """
    _fenced(connection.execute(EXTEND, {"id": job.id, "attempt": job.attempt, "lease_seconds": lease_seconds}).rowcount)


def finish(connection: Connection, job: Job, encoder_ids: Collection[int]) -> None:
    """End the job, in the transaction that writes its results.

    Args:
        encoder_ids: that the series was embedded with.

    Raises:
        JobLost: it is no longer ours; the transaction must not be committed.
    """
    done = {"id": job.id, "attempt": job.attempt, "encoder_ids": list(encoder_ids)}
    _fenced(connection.execute(FINISH, done).scalar_one())


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
    if not _superseded(connection, job):
        _fenced(connection.execute(RETRY, ours | {"error": error, "retry_seconds": settings.retry_seconds}).rowcount)
    return False


def postpone(connection: Connection, job: Job, error: str, seconds: float) -> None:
    """Give the job back because what it needs is away for some time; the attempt is not counted.

    Raises:
        JobLost: it is no longer ours.
    """
    if not _superseded(connection, job):
        given = {"id": job.id, "attempt": job.attempt, "error": error, "seconds": seconds}
        _fenced(connection.execute(POSTPONE, given).rowcount)


def _superseded(connection: Connection, job: Job) -> bool:
    # Ingest makes waiting rows under this lock too: without it one could appear between the two statements.
    connection.execute(text("SELECT id FROM series WHERE id = :series_id FOR UPDATE"), {"series_id": job.series_id})
    return connection.execute(SUPERSEDED, {"id": job.id, "attempt": job.attempt}).rowcount == 1


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


def _fenced(rows: int) -> None:
    if rows != 1:
        raise JobLost("the job was given to another worker")
