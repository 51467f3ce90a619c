"""The one path from received bytes to file, rows and job, whoever brings them.

What comes again after its pixel data has left is stored again, whatever the retention: whoever sends it may do so
because this service asked for it, to embed it with another encoder. It leaves again by the same rule. Nothing is
embedded anew for it, unless a job of its series waits or was parked, which may have waited for this very instance.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

import structlog
from sqlalchemy import Connection, Row, func, select, text, update

from pacs_cbir.dicom.instance import Instance, read_instance
from pacs_cbir.dicom.rejection import KEY_OBJECT_SELECTION, Reason, Rejection, read_rejection
from pacs_cbir.errors import InstanceError, WrongIdentifier
from pacs_cbir.settings import Settings
from pacs_cbir.store import conflicts, corrections, files, jobs, patients, rejections, retention, thumbnails
from pacs_cbir.store.arrival import Rows, upsert_instance, upsert_study
from pacs_cbir.store.conflicts import Kind
from pacs_cbir.store.room import require_room
from pacs_cbir.store.session import Database
from pacs_cbir.store.tables import instances, series

Attributes = dict[str, list[str]]
Known = Row[*tuple[Any, ...]]

log = structlog.get_logger()


class Outcome(StrEnum):
    """What an instance's arrival changed."""

    STORED = "stored"
    UNCHANGED = "unchanged"
    RESTORED = "pixel data restored"
    HEADER_UPDATED = "header updated"
    REPLACED = "replaced"


@dataclass(frozen=True)
class Source:
    """Who brings the bytes, and what they said they bring.

    Attributes:
        calling_ae_title: the peer.
        sop_class_uid, sop_instance_uid: of a C-STORE request (PS3.7 9.1.1.1); None where the door has none.
        study_instance_uid: the study that is to be stored (PS3.18 10.5); None where the door does not say.
    """

    calling_ae_title: str
    sop_class_uid: str | None = None
    sop_instance_uid: str | None = None
    study_instance_uid: str | None = None


def ingest(received: Path, source: Source, database: Database, settings: Settings) -> Outcome:
    """Make one received instance durable: when this returns, its file is on disk and its rows are committed.

    Args:
        received: a DICOM Part 10 file in the incoming directory; it is gone afterwards, whatever happens.

    Raises:
        NotDicom, InvalidIdentifier, WrongIdentifier: the bytes cannot be kept as an instance.
        DiskFull, DiskUnavailable, DatabaseUnavailable: nothing was kept; the sender may try again.
    """
    try:
        require_room(settings)
        with files.disk_errors():
            instance = read_instance(received)
        _check_request(instance, source)
        return _store(instance, received, source, database, settings)
    finally:
        files.discard(received)


def _check_request(instance: Instance, source: Source) -> None:
    for keyword, claimed, found in (
        ("SOPClassUID", source.sop_class_uid, instance.sop_class_uid),
        ("SOPInstanceUID", source.sop_instance_uid, instance.sop_instance_uid),
        ("StudyInstanceUID", source.study_instance_uid, instance.study_instance_uid),
    ):
        if claimed is not None and claimed != found:
            raise WrongIdentifier(f"the data set's {keyword} is not the one that the request announced")


def _store(instance: Instance, received: Path, source: Source, database: Database, settings: Settings) -> Outcome:
    kept: str | None = None
    with files.disk_errors():
        rejection = read_rejection(received) if instance.sop_class_uid == KEY_OBJECT_SELECTION else None
    try:
        with database.transaction() as connection:
            _lock(connection, instance, corrects=rejection is not None)
            before = _known(connection, instance.sop_instance_uid)
            expired = rejection is None and before is not None and before.rejected == Reason.RETENTION
            if before is not None and not expired and _is_unchanged(instance, before, settings):
                if rejection is not None and rejection.reason is Reason.RETENTION:
                    # What came back since the note came is out again. The other reasons hold whatever comes.
                    _reject(connection, instance, rejection, before, source, settle_seconds=settings.settle_seconds)
                return Outcome.UNCHANGED
            rows = upsert_study(connection, instance, source.calling_ae_title, settings)
            outcome = _outcome(instance, before, rows.series_id, settings)
            kept = files.keep(received, settings.instances_dir)
            upsert_instance(connection, instance, rows, file=kept, calling_ae_title=source.calling_ae_title)
            retention.record_use(connection, rows.series_id)
            _enqueue(connection, outcome, rows.series_id, settings.settle_seconds)
            if before is not None:
                _leave_former(connection, instance, before, rows, settings)
            if before is not None and outcome is Outcome.REPLACED:
                thumbnails.forget(connection, before.id)
            if rejection is not None:
                _reject(connection, instance, rejection, rows, source, settle_seconds=settings.settle_seconds)
    except BaseException:
        # After a lost connection the commit may have happened all the same.
        if kept is not None and not _committed(database, kept):
            files.discard(settings.instances_dir / kept)
        raise
    if before is not None and before.file is not None:
        if before.committed_at is None:
            files.discard(settings.instances_dir / before.file)
        else:
            # Its sender was told that it is kept, and may have deleted its own.
            files.set_aside(before.file, settings)
            log.warning("a committed instance was sent with other bytes; those committed are in orphans/")
    return outcome


def _enqueue(connection: Connection, outcome: Outcome, series_id: int, settle_seconds: float) -> None:
    if outcome is Outcome.RESTORED:
        jobs.enqueue_unfinished(connection, series_id, settle_seconds)
    elif outcome is not Outcome.HEADER_UPDATED:
        jobs.enqueue(connection, series_id, settle_seconds)


def _committed(database: Database, kept: str) -> bool:
    try:
        with database.transaction() as connection:
            return connection.scalar(select(instances.c.id).where(instances.c.file == kept)) is not None
    except Exception as error:
        log.warning("the database does not tell whether a file has its rows; the sweep will", error=str(error))
        return True


# After a corrected identity: a patient leaves the studies of which no instance is theirs any more.
FORGET_FORMER_PATIENT = text("""
    DELETE FROM study_patients AS former WHERE patient_id = :patient_id AND NOT EXISTS (
        SELECT FROM instances JOIN series ON series.id = instances.series_id
        WHERE instances.patient_id = former.patient_id AND series.study_id = former.study_id)
""")


def _leave_former(connection: Connection, instance: Instance, before: Known, rows: Rows, settings: Settings) -> None:
    """What is left of an instance that was here: its series' attributes, and where it is not any more."""
    # A series' attributes are its first instance's, until one is corrected.
    connection.execute(
        update(series)
        .where(series.c.id == rows.series_id)
        .values(attributes=instance.series_attributes, updated_at=func.clock_timestamp())
    )
    if before.rejected == Reason.RETENTION:
        rejections.forget_expired(connection, instance.sop_instance_uid)
    if instance.sop_class_uid == KEY_OBJECT_SELECTION:
        both_series = {before.series_id, rows.series_id}
        conflicts.resolve_unreadable_note(connection, both_series, instance.sop_instance_uid)
    if (before.patient_id, before.series_id) == (rows.patient_id, rows.series_id):
        return
    connection.execute(FORGET_FORMER_PATIENT, {"patient_id": before.patient_id})
    both = [before.study_id, rows.study_id]
    if before.study_id != rows.study_id:
        conflicts.record(connection, both, Kind.SEVERAL_STUDIES, instance.sop_instance_uid)
    conflicts.resolve_several_patients(connection, both)
    if before.series_id != rows.series_id:
        jobs.enqueue(connection, before.series_id, settings.settle_seconds)


def _reject(
    connection: Connection,
    instance: Instance,
    rejection: Rejection,
    above: Rows | Known,
    source: Source,
    *,
    settle_seconds: float,
) -> None:
    """Do what a rejection note says, and say that it came, or that it cannot be read."""
    if rejection.reason is None:
        conflicts.record(connection, [above.study_id], Kind.UNREADABLE_NOTE, instance.sop_instance_uid)
        return
    kind, study = corrections.Kind.REJECTION, instance.study_instance_uid
    corrections.note(connection, kind, source.calling_ae_title, above.patient_id, (), study=study)
    rejections.apply(connection, instance.sop_instance_uid, rejection, settle_seconds)


def _lock(connection: Connection, instance: Instance, *, corrects: bool) -> None:
    (patients.hold_for_correction if corrects else patients.hold_for_arrival)(connection)
    # Associations that bring one study at once would otherwise race to make its rows, and deadlock on them. The second
    # lock is for one instance that comes under two studies; the order is the same for all.
    for uid in (instance.study_instance_uid, instance.sop_instance_uid):
        connection.execute(text("SELECT pg_advisory_xact_lock(hashtextextended(:uid, 0))"), {"uid": uid})


def _known(connection: Connection, sop_instance_uid: str) -> Known | None:
    columns = (
        instances.c.id,
        instances.c.series_id,
        series.c.study_id,
        instances.c.patient_id,
        instances.c.file,
        instances.c.file_sha256,
        instances.c.pixel_sha256,
        instances.c.attributes,
        instances.c.rejected,
        instances.c.committed_at,
        series.c.attributes.label("series_attributes"),
    )
    return connection.execute(
        select(*columns)
        .join(series, series.c.id == instances.c.series_id)
        .where(instances.c.sop_instance_uid == sop_instance_uid)
        .with_for_update(of=instances)
    ).one_or_none()


def _outcome(instance: Instance, before: Known | None, series_id: int, settings: Settings) -> Outcome:
    if before is None:
        return Outcome.STORED
    if before.rejected or before.series_id != series_id or before.pixel_sha256 != instance.pixel_sha256:
        return Outcome.REPLACED
    if before.file is None and before.file_sha256 == instance.file_sha256:
        return Outcome.RESTORED
    return Outcome.HEADER_UPDATED if _same_acquisition(_described(before, settings), instance) else Outcome.REPLACED


def _is_unchanged(instance: Instance, before: Known, settings: Settings) -> bool:
    return bool(before.file_sha256 == instance.file_sha256) and _file(before, settings) is not None


def _file(known: Known, settings: Settings) -> Path | None:
    """A known instance's file; None where it is not there."""
    file = None if known.file is None else settings.instances_dir / known.file
    return file if file is not None and file.is_file() else None


def _described(known: Known, settings: Settings) -> tuple[Attributes, Attributes] | None:
    """What a known instance says of its series and itself; None where its file is missing or damaged."""
    if known.file is None:
        return known.series_attributes, known.attributes
    file = _file(known, settings)
    try:
        with files.disk_errors():
            kept = None if file is None else read_instance(file)
    except InstanceError as error:
        log.warning("a stored file is damaged and is replaced", file=str(file), error=str(error))
        return None
    return None if kept is None else (kept.series_attributes, kept.instance_attributes)


def _same_acquisition(earlier: tuple[Attributes, Attributes] | None, later: Instance) -> bool:
    # Geometry and acquisition decide what is embedded. A multi-frame instance keeps them in sequences, which the
    # attributes leave out, so its header is never taken to be the same.
    return (later.number_of_frames or 1) == 1 and earlier == (later.series_attributes, later.instance_attributes)
