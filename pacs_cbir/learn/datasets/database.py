"""The site's own studies, as the service has stored and embedded them: no masks, and the labels that people set."""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import json
import os
import secrets
from collections import defaultdict

from pacs_cbir.errors import DiskUnavailable, ManifestError
from pacs_cbir.learn.manifest import Row
from pacs_cbir.settings import Settings
from pacs_cbir.store import catalogue
from pacs_cbir.store.session import Database
from pacs_cbir.store.stack_files import StackFile, stack_files

KEY_FILE = "pseudonym.key"
"""In the data directory: the key of the pseudonyms, so that one patient keeps one over the years."""
KEY_BYTES = 32
PSEUDONYM_CHARACTERS = 24
"""Of the HMAC in hexadecimal: 96 bits, so that no two of a billion patients meet."""


def database_rows(settings: Settings, database: Database) -> tuple[list[Row], list[str]]:
    """All embedded stacks of the service. The rows hold no name, identifier or date: patient, study and series are
    HMAC-SHA256 (RFC 2104) of their identifiers under a random key that stays in the data directory. The label is the
    study's one curated label; a study that has several has none here, since no one can tell which is meant.

    A series of which some pixel data is no longer here is left out as a whole: a part of a stack is another stack.

    A study without PatientID is a patient of its own; one that holds several patients is left out, since no one can
    tell whose it is.

    Returns:
        a row an instance and sequence, and what was left out and why.

    Raises:
        ManifestError: nothing is embedded yet.
        DatabaseUnavailable, DiskUnavailable.
    """
    with database.transaction() as connection:
        found, status = stack_files(connection), catalogue.status(connection)
    key = _pseudonym_key(settings)
    owners: dict[str, set[tuple[str, str]]] = defaultdict(set)
    for file in found:
        owners[file.study_instance_uid].add((file.issuer_of_patient_id, file.patient_id))
    gone = {(file.study_instance_uid, file.series_instance_uid) for file in found if file.file is None}
    found = [file for file in found if (file.study_instance_uid, file.series_instance_uid) not in gone]
    conflicts = {study for study, patients in owners.items() if len(patients) > 1}
    several = {file.study_instance_uid for file in found if len(file.labels) > 1} - conflicts
    rows = [_row(file, key, settings) for file in found if file.study_instance_uid not in conflicts]
    notes = [f"left out: {count} x stack: {reason}" for reason, count in status.not_embedded.items()]
    if waiting := sum(status.jobs.values()):
        notes.append(f"{waiting} series wait for a worker, or were given up: see pacs-cbir status")
    if gone:
        notes.append(
            f"left out: {len(gone)} series whose pixel data is no longer here: let the archive send them again"
        )
    if conflicts:
        notes.append(f"left out: {len(conflicts)} studies that hold several patients: see pacs-cbir status")
    if several:
        notes.append(f"without label: {len(several)} studies that have several")
    if not rows:
        raise ManifestError("the database", ["nothing is embedded: run pacs-cbir worker first", *notes])
    return rows, notes


def _row(file: StackFile, key: bytes, settings: Settings) -> Row:
    assert file.file is not None  # noqa: S101 - the caller's choice
    patient = _pseudonym(key, "patient", file.issuer_of_patient_id, file.patient_id) if file.patient_id else ""
    return Row(
        path=settings.instances_dir / file.file,
        patient=patient,
        study=_pseudonym(key, "study", file.study_instance_uid),
        series=_pseudonym(key, "series", file.study_instance_uid, file.series_instance_uid),
        sequence=file.sequence,
        label=file.labels[0] if len(file.labels) == 1 else None,
    )


def _pseudonym(key: bytes, *identifiers: str) -> str:
    return hmac.new(key, json.dumps(identifiers).encode(), hashlib.sha256).hexdigest()[:PSEUDONYM_CHARACTERS]


def _pseudonym_key(settings: Settings) -> bytes:
    path = settings.data_dir / KEY_FILE
    try:
        with contextlib.suppress(FileExistsError):
            descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
            with os.fdopen(descriptor, "wb") as file:
                file.write(secrets.token_bytes(KEY_BYTES))
                file.flush()
                os.fsync(descriptor)
        key = path.read_bytes()
    except OSError as error:
        raise DiskUnavailable(f"{path} cannot be used: {os.strerror(error.errno or 0)}") from error
    if len(key) != KEY_BYTES:
        raise DiskUnavailable(f"{path} is damaged: restore it, or remove it and accept other pseudonyms")
    return key
