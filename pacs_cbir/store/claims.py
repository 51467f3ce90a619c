"""What a worker does with a job: claims it, keeps it, and ends it or gives it back. `jobs` draws the states."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, TextClause, text

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
    ours: dict[str, object] = {"worker": worker, "lease_seconds": settings.lease_seconds}
    expired = {"open": open_, "job_attempts": settings.job_attempts}
    found = _start(connection, EXPIRED, expired, ours) or _start(connection, ARRIVED, {}, ours)
    if found is None and (with_room := _with_room(connection, open_, worker)):
        found = _start(connection, REINDEX, {"open": with_room}, ours)
    return found


def _start(
    connection: Connection, candidates: TextClause, given: Mapping[str, object], ours: Mapping[str, object]
) -> Job | None:
    """Start the first of some candidates that nobody else starts; None where there is none."""
    # Another worker may start a job of the same series first; then the next candidate is another's.
    while (due := connection.execute(candidates, given).one_or_none()) is not None:
        row = connection.execute(START, {**ours, "id": due.id}).one_or_none()
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


def _fenced(rows: int) -> None:
    if rows != 1:
        raise JobLost("the job was given to another worker")
