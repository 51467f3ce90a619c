"""A deletion is seen through: files, the indexes of all API processes, their snapshots, and then what could be left."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import structlog

from pacs_cbir.errors import StoreError
from pacs_cbir.search.follow import INDEX_NAME
from pacs_cbir.search.snapshot import read_snapshot, write_snapshot
from pacs_cbir.settings import Settings
from pacs_cbir.store import deletion, erasure
from pacs_cbir.store.deletion import Deletion, Kind
from pacs_cbir.store.files import disk_errors
from pacs_cbir.store.session import Database

LOOK_SECONDS = 0.2
RESUME_SECONDS = 10.0
# No process takes so long to write a snapshot; one that was killed leaves a part of one.
ABANDONED_SECONDS = 60.0

log = structlog.get_logger()


@dataclass(frozen=True)
class Report:
    """What became of a deletion; no patient's identity.

    Attributes:
        id: its number.
        removed: what → how many rows and files.
        left: where → how much is still there.
        indexes_behind: API processes that have not said yet that their index is past the deletion.
        proved: that nothing was found anywhere.
    """

    id: int
    removed: Mapping[str, int]
    left: Mapping[str, int]
    indexes_behind: int
    proved: bool


def see_through(settings: Settings, database: Database, pending: Deletion, seconds: float) -> Report:
    """Remove what rows left behind, wait for the indexes, and look for what is left; safe to call again.

    Args:
        seconds: to wait for the indexes at most.

    Raises:
        DiskUnavailable, DatabaseUnavailable: it stays pending.
    """
    erasure.erase_files(settings, database, pending)
    deadline = time.monotonic() + seconds
    while (behind := _behind(database, pending)) and time.monotonic() < deadline:
        time.sleep(LOOK_SECONDS)
    left: dict[str, int] = {}
    if not behind:
        rewrite_snapshots(settings, database, pending)
        left = _left(settings, database, pending)
    proved = not behind and not left
    if proved:
        with database.transaction() as connection:
            deletion.prove(connection, pending)
    log.info("patient deleted", deletion=pending.id, proved=proved, indexes_behind=behind, left=left)
    return Report(pending.id, pending.removed, left, behind, proved)


def report(database: Database, deletion_id: int) -> Report | None:
    """How far a deletion is; None where there is none of that number."""
    with database.transaction() as connection:
        found = deletion.get(connection, deletion_id)
        if found is None:
            return None
        proved = found.proved_at is not None
        behind = 0 if proved else deletion.indexes_behind(connection, found, INDEX_NAME)
    return Report(found.id, found.removed, {}, behind, proved)


def resume(settings: Settings, database: Database, stop: threading.Event) -> None:
    """Go on with what was interrupted, until `stop` is set; several processes may, as every step may be done twice."""
    while not stop.is_set():
        with _tried_again():
            with database.transaction() as connection:
                pending = deletion.pending(connection)
            # One that waits for its disk keeps no other waiting.
            for one in pending:
                with _tried_again():
                    see_through(settings, database, one, 0)
        stop.wait(RESUME_SECONDS)


@contextmanager
def _tried_again() -> Iterator[None]:
    try:
        yield
    except StoreError as error:
        log.warning("a deletion waits", error=str(error))
    except Exception:
        # The thread must not die: deletions would stay pending in silence.
        log.exception("a deletion broke")


def rewrite_snapshots(settings: Settings, database: Database, pending: Deletion) -> None:
    """Take the patient's vectors out of the snapshots on disk.

    Once all indexes are past the deletion: whoever writes a snapshot afterwards writes none of them.

    Raises:
        DiskUnavailable: one cannot be written.
    """
    with database.transaction() as connection:
        gone = deletion.items_of(connection, pending, Kind.STACK)
    with disk_errors():
        for path in _parts(settings):
            if path.stat().st_mtime < time.time() - ABANDONED_SECONDS:
                path.unlink(missing_ok=True)
        for path in settings.index_dir.glob("*.safetensors"):
            kept = read_snapshot(path)
            if any(str(stack.id) in gone for stack in kept):
                write_snapshot(path, (stack for stack in kept if str(stack.id) not in gone))


def _left(settings: Settings, database: Database, pending: Deletion) -> dict[str, int]:
    with database.transaction() as connection:
        found = deletion.rows_left(connection, pending)
        gone = deletion.items_of(connection, pending, Kind.STACK)
    found["files"] = erasure.files_left(settings, database, pending)
    snapshots = settings.index_dir.glob("*.safetensors")
    found["snapshots"] = sum(str(stack.id) in gone for path in snapshots for stack in read_snapshot(path))
    # One that is being written is whole in a moment, and is looked at then.
    found["parts of snapshots"] = len(list(_parts(settings)))
    return {where: count for where, count in found.items() if count}


def _parts(settings: Settings) -> Iterator[Path]:
    return settings.index_dir.glob("*.part")


def _behind(database: Database, pending: Deletion) -> int:
    with database.transaction() as connection:
        return deletion.indexes_behind(connection, pending, INDEX_NAME)
