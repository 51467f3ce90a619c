"""How long pixel data stays. Attributes, embeddings and thumbnails stay; files leave, a series as a whole.

    all     every file stays.
    cache   so many gigabytes of files stay; the series that were used least recently leave first.
    none    a series' files leave once it is embedded and was left alone for `QUIET_SECONDS`.

A series may leave once the active encoder has looked at it and it has no job: one that waits, runs or was parked
needs its files, and `reindex` makes one for each series that another encoder lacks. It never leaves once one of its
instances was committed to (PS3.4 Annex J): the sender may have deleted its copy.

The rows say first that the files are gone, then the files are removed. A process that dies in between leaves files that
no row names; `files.sweep` knows them by the row that they had, and removes them.
"""

from __future__ import annotations

import structlog
from sqlalchemy import Connection, text

from pacs_cbir.errors import SettingsError
from pacs_cbir.settings import Settings
from pacs_cbir.store import files
from pacs_cbir.store.session import Database

QUIET_SECONDS = 3600.0
"""Without a cache: a series of which nothing has arrived for so long is complete, however slowly it was sent."""
USED_AGAIN_SECONDS = 600.0
"""Uses are written down no more often: whoever scrolls reads pictures many times a second."""
BATCH = 100
"""Series that leave in one transaction."""
GIBIBYTE = 1 << 30

log = structlog.get_logger()

_MAY_LEAVE = """
    NOT EXISTS (SELECT FROM jobs WHERE jobs.series_id = series.id)
    AND NOT EXISTS (SELECT FROM instances AS one WHERE one.series_id = series.id AND one.committed_at IS NOT NULL)
    AND EXISTS (SELECT FROM stacks JOIN encoders ON encoders.id = stacks.encoder_id
                WHERE stacks.series_id = series.id AND state = 'active')
"""

KEPT_BYTES = text("SELECT coalesce(sum(file_size), 0) FROM instances WHERE file IS NOT NULL")

# One process at a time: two would make room for the same excess twice.
ALONE = text("SELECT pg_try_advisory_xact_lock(hashtextextended('retention', 0))")

# The locks keep instances and jobs of these series from arriving until the rows say that the files are gone.
LEAST_RECENTLY_USED = text(f"""
    SELECT series.id,
           (SELECT sum(file_size) FROM instances WHERE series_id = series.id AND file IS NOT NULL) AS bytes
      FROM series
     WHERE used_at IS NOT NULL
       AND EXISTS (SELECT FROM instances WHERE series_id = series.id AND file IS NOT NULL)
       AND used_at <= clock_timestamp() - make_interval(secs => :quiet_seconds)
       AND {_MAY_LEAVE}
     ORDER BY used_at, series.id
     LIMIT :batch
       FOR UPDATE SKIP LOCKED
""")  # noqa: S608 - a constant

# A statement of its own: it sees the job that came before the lock, which the one above may not. An instance that is
# locked comes again at present, and waits for its series: that one stays as a whole.
LET_GO = text(f"""
    WITH leaving AS (
        SELECT instances.id, instances.file, series.id AS series_id
          FROM instances JOIN series ON series.id = instances.series_id
         WHERE series.id = ANY(:series_ids) AND file IS NOT NULL AND committed_at IS NULL AND {_MAY_LEAVE}
           FOR UPDATE OF instances SKIP LOCKED
    ), whole AS (
        SELECT series_id FROM leaving GROUP BY series_id
        HAVING count(*) = (SELECT count(*) FROM instances AS one
                            WHERE one.series_id = leaving.series_id AND one.file IS NOT NULL)
    )
    UPDATE instances SET file = NULL FROM leaving JOIN whole USING (series_id) WHERE instances.id = leaving.id
    RETURNING leaving.file, instances.series_id
""")  # noqa: S608 - a constant

HAS_LEFT = text("UPDATE series SET used_at = NULL WHERE id = ANY(:series_ids)")

# The thumbnails of what has left are read too: that uses no pixel data.
RECORD_USE = text("""
    UPDATE series SET used_at = clock_timestamp()
    WHERE id = :series_id AND (used_at < clock_timestamp() - make_interval(secs => :seconds)
       OR used_at IS NULL AND EXISTS (SELECT FROM instances WHERE series_id = series.id AND file IS NOT NULL))
""")


def record_use(connection: Connection, series_id: int) -> None:
    """Write down that pixel data of a series, of which some is here, arrived or was read; no more often than needed."""
    connection.execute(RECORD_USE, {"series_id": series_id, "seconds": USED_AGAIN_SECONDS})


def require_allowed(settings: Settings, database: Database) -> None:
    """Refuse settings under which committed instances could leave.

    Raises:
        SettingsError: instances were committed to, and the retention is another than all.
        DatabaseUnavailable.
    """
    if settings.retention == "all":
        return
    with database.transaction() as connection:
        committed = connection.execute(text("SELECT EXISTS (SELECT FROM instances WHERE committed_at IS NOT NULL)"))
        if committed.scalar_one():
            raise SettingsError(
                f"PACS_CBIR_RETENTION is {settings.retention}, and this service has committed itself to keep instances "
                "whose senders may have deleted theirs: set it to all"
            )


def let_go(settings: Settings, database: Database) -> int:
    """Let pixel data leave as the settings say; what another process lets go at the same time is left to it.

    Returns:
        how many files were removed.

    Raises:
        DiskUnavailable: a file cannot be removed; no row names it any more, and the sweep removes it.
        DatabaseUnavailable.
    """
    removed = 0
    while leaving := _rows_let_go(settings, database):
        for file in leaving:
            files.discard(settings.instances_dir / file)
        removed += len(leaving)
    return removed


def _rows_let_go(settings: Settings, database: Database) -> list[str]:
    """Some files that leave now, which no row names any more."""
    if settings.retention == "all":
        return []
    quiet_seconds, room = (QUIET_SECONDS, 0.0) if settings.retention == "none" else (0.0, settings.cache_gigabytes)
    with database.transaction() as connection:
        if not connection.execute(ALONE).scalar_one():
            return []
        excess = int(connection.execute(KEPT_BYTES).scalar_one()) - int(room * GIBIBYTE)
        if excess <= 0:
            return []
        chosen = []
        for row in connection.execute(LEAST_RECENTLY_USED, {"quiet_seconds": quiet_seconds, "batch": BATCH}).all():
            if excess > 0:
                chosen.append(row.id)
                excess -= int(row.bytes)
        left = connection.execute(LET_GO, {"series_ids": chosen}).all() if chosen else []
        connection.execute(HAS_LEFT, {"series_ids": sorted({row.series_id for row in left})})
        return [row.file for row in left]
