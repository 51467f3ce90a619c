"""Files of a deleted patient: those whose rows are gone, and those that never got any."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path

from pydicom import dcmread
from pydicom.dataset import Dataset
from sqlalchemy import select, text

from pacs_cbir.settings import Settings
from pacs_cbir.store import files
from pacs_cbir.store.deletion import Deletion, Kind, digest, items_of
from pacs_cbir.store.patients import Identifier
from pacs_cbir.store.session import Database
from pacs_cbir.store.tables import instances
from pacs_cbir.store.uploads import purge_uploads

# No transfer that is under way is silent for so long: what arrives now is new data.
SILENT_SECONDS = 600.0
BATCH = 1000
_KEYWORDS = ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "PatientID", "IssuerOfPatientID")


def erase_files(settings: Settings, database: Database, deletion: Deletion) -> int:
    """Remove the patient's files, also those without rows, and make that durable; safe to call again. Pictures that
    came with a question to a process that died are removed too, whosever they are.

    Returns:
        how many files without rows were removed.

    Raises:
        DiskUnavailable, DatabaseUnavailable: some are left.
    """
    with database.transaction() as connection:
        named = sorted(items_of(connection, deletion, Kind.FILE))
    for file in named:
        files.discard(settings.instances_dir / file)
    strays = list(_strays(settings, database, deletion))
    purge_uploads(settings)
    for path, locks in strays:
        # Whoever stores an instance holds these locks until its row tells of the file.
        with database.transaction() as connection:
            for uid in locks:
                connection.execute(text("SELECT pg_advisory_xact_lock(hashtextextended(:uid, 0))"), {"uid": uid})
            known = select(instances.c.id).where(instances.c.file == _below(path, settings))
            if connection.execute(known).first() is None:
                files.discard(path)
    removed = [*(settings.instances_dir / file for file in named), *(path for path, _ in strays)]
    files.sync_folders({path.parent for path in removed})
    return len(strays)


def files_left(settings: Settings, database: Database, deletion: Deletion) -> int:
    """How many of the patient's files are still there, with rows or without."""
    with database.transaction() as connection:
        named = items_of(connection, deletion, Kind.FILE)
    return sum((settings.instances_dir / file).exists() for file in named) + len(
        list(_strays(settings, database, deletion))
    )


def _strays(settings: Settings, database: Database, deletion: Deletion) -> Iterator[tuple[Path, tuple[str, ...]]]:
    """Files without rows that are the patient's, with the UIDs that whoever stores them locks."""
    with database.transaction() as connection:
        uids = {kind: items_of(connection, deletion, kind) for kind in (Kind.STUDY, Kind.INSTANCE)}
        digests = items_of(connection, deletion, Kind.IDENTITY)
    for path in _without_rows(settings, database):
        header = _header(path)
        study, sop = str(header.get("StudyInstanceUID", "")), str(header.get("SOPInstanceUID", ""))
        told = {digest(deletion.salt, identifier) for identifier in _identifiers(header, settings)}
        # A transfer that ended before it says whose it is may be the patient's, and its sender was told of no success.
        nobodys = not study and path.parent == settings.incoming_dir
        if nobodys or study in uids[Kind.STUDY] or sop in uids[Kind.INSTANCE] or told & digests:
            yield path, (study, sop)


def _without_rows(settings: Settings, database: Database) -> Iterator[Path]:
    """Orphans, transfers that ended in the middle, and files whose rows were not committed."""
    before = time.time() - SILENT_SECONDS
    with files.disk_errors():
        yield from (path for path in settings.orphans_dir.iterdir() if path.is_file())
        for path in settings.incoming_dir.iterdir():
            with contextlib.suppress(FileNotFoundError):
                if path.stat().st_mtime < before:
                    yield path
        for name in files.FOLDERS:
            yield from _unknown(sorted((settings.instances_dir / name).iterdir()), settings, database)


def _unknown(found: list[Path], settings: Settings, database: Database) -> Iterator[Path]:
    for start in range(0, len(found), BATCH):
        batch = {_below(path, settings): path for path in found[start : start + BATCH]}
        with database.transaction() as connection:
            known = set(connection.scalars(select(instances.c.file).where(instances.c.file.in_(batch))))
        yield from (path for name, path in batch.items() if name not in known)


def _below(path: Path, settings: Settings) -> str:
    return f"{path.parent.name}/{path.name}" if path.is_relative_to(settings.instances_dir) else ""


def _header(path: Path) -> Dataset:
    """What a file says of its patient, as far as it goes: a transfer may have ended anywhere."""
    try:
        return dcmread(path, force=True, stop_before_pixels=True, specific_tags=list(_KEYWORDS))
    except Exception:
        # Whatever a damaged file leads pydicom to; a file that is gone by now is nobody's.
        return Dataset()


def _identifiers(header: Dataset, settings: Settings) -> Iterator[Identifier]:
    """Whom a file may be of: where it names no issuer, its sender's is meant, and nobody knows any more who sent it."""
    issuer = str(header.get("IssuerOfPatientID", "") or "").strip()
    patient_id = str(header.get("PatientID", "") or "").strip()
    for possible in {issuer} if issuer else {"", *settings.default_issuers.values()}:
        yield Identifier(patient_id, possible)
