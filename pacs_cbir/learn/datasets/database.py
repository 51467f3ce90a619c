"""The site's own studies, as the service has stored and embedded them: no masks, and the labels that people set."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping
from pathlib import Path

from pacs_cbir.errors import ManifestError
from pacs_cbir.learn.manifest import Row
from pacs_cbir.settings import Settings
from pacs_cbir.store import labels
from pacs_cbir.store.pseudonyms import Pseudonyms, site_pseudonyms
from pacs_cbir.store.session import Database
from pacs_cbir.store.stack_files import StackFile, stack_files
from pacs_cbir.store.status import service_status


def database_rows(settings: Settings, database: Database) -> tuple[list[Row], list[str]]:
    """All embedded stacks of the service. The rows hold no name, identifier or date: patient, study and series are the
    site's pseudonyms, as in an export of the same studies.

    Returns:
        as `pseudonymous_rows`, with the stacks that were not embedded among what was left out.

    Raises:
        ManifestError: nothing is embedded yet.
        DatabaseUnavailable, DiskUnavailable.
    """
    with database.transaction() as connection:
        found, state = stack_files(connection), service_status(connection)
    paths = {file.file: settings.instances_dir / file.file for file in found if file.file is not None}
    rows, notes = pseudonymous_rows(found, site_pseudonyms(settings), paths)
    if waiting := sum(state.jobs.values()):
        notes.insert(0, f"{waiting} series wait for a worker, or were given up: see pacs-cbir status")
    notes = [f"left out: {count} x stack: {reason}" for reason, count in state.not_embedded.items()] + notes
    if not rows:
        why = (
            "nothing of what is embedded can be listed" if found else "nothing is embedded: run pacs-cbir worker first"
        )
        raise ManifestError("the database", [why, *notes])
    return rows, notes


def pseudonymous_rows(
    found: list[StackFile], pseudonyms: Pseudonyms, paths: Mapping[str, Path]
) -> tuple[list[Row], list[str]]:
    """Stored instances of embedded stacks as a manifest's rows. The label is the study's one curated label; a study
    that has several has none here, since no one can tell which is meant. Of the headers the rows have the sequence and
    the part of the body alone.

    A study that a label excludes is left out. So is a series of which some pixel data is no longer here, as a whole: a
    part of a stack is another stack. A study without PatientID is a patient of its own; one that holds several patients
    is left out, since no one can tell whose it is.

    Args:
        paths: file below the instances directory → where the rows say it is; others have no row.

    Returns:
        a row an instance and sequence, and what was left out and why.
    """
    owners: dict[str, set[tuple[str, str]]] = defaultdict(set)
    for file in found:
        owners[file.study_instance_uid].add((file.issuer_of_patient_id, file.patient_id))
    conflicts = {study for study, patients in owners.items() if len(patients) > 1}
    reasons = {file.study_instance_uid: labels.excluding(file.labels) for file in found}
    excluded = {study: reason for study, reason in reasons.items() if reason is not None and study not in conflicts}
    kept = [file for file in found if file.study_instance_uid not in conflicts | excluded.keys()]
    gone = {(file.study_instance_uid, file.series_instance_uid) for file in kept if file.file is None}
    kept = [file for file in kept if (file.study_instance_uid, file.series_instance_uid) not in gone]
    several = {file.study_instance_uid for file in kept if len(file.labels) > 1}
    notes = [
        f"left out: {count} studies labelled '{reason}'" for reason, count in sorted(Counter(excluded.values()).items())
    ]
    if gone:
        notes.append(
            f"left out: {len(gone)} series whose pixel data is no longer here: set PACS_CBIR_RETENTION so that it "
            "stays, and let the archive send them again"
        )
    if conflicts:
        notes.append(f"left out: {len(conflicts)} studies that hold several patients: see pacs-cbir status")
    if several:
        notes.append(f"without label: {len(several)} studies that have several")
    return [_row(file, pseudonyms, paths[file.file]) for file in kept if file.file and file.file in paths], notes


def _row(file: StackFile, pseudonyms: Pseudonyms, path: Path) -> Row:
    return Row(
        path=path,
        patient=pseudonyms.patient(file.issuer_of_patient_id, file.patient_id, file.study_instance_uid),
        study=pseudonyms.uid(file.study_instance_uid),
        series=pseudonyms.uid(file.series_instance_uid),
        sequence=file.sequence,
        body_part=file.body_part,
        label=file.labels[0] if len(file.labels) == 1 else None,
    )
