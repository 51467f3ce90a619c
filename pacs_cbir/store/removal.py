"""A patient's rows are removed in one transaction, which notes what else is to be gone."""

from __future__ import annotations

import secrets
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, Row, delete, insert, select, text, update

from pacs_cbir.errors import UnknownPatient
from pacs_cbir.store import conflicts, deletion, jobs, patients, rejections
from pacs_cbir.store.deletion import Deletion, Kind
from pacs_cbir.store.patients import Identifier, Patient, corrected
from pacs_cbir.store.tables import deletion_items, deletions, instances, metadata, stacks, studies
from pacs_cbir.store.tables import patients as patient_rows

COUNTED = {
    Kind.STUDY: "studies",
    Kind.SERIES: "series",
    Kind.INSTANCE: "instances",
    Kind.STACK: "stacks",
    Kind.FILE: "files",
}


def owner(connection: Connection, study_instance_uid: str) -> int:
    """The row of a study's patient.

    Raises:
        UnknownPatient: it is not here, or is several patients'.
    """
    rows = connection.scalars(OWNERS, {"uid": study_instance_uid}).all()
    if len(rows) != 1:
        raise UnknownPatient("there is no such study here" if not rows else "the study is several patients'")
    return int(rows[0])


def named(connection: Connection, identifier: Identifier) -> int:
    """The row of the patient whom an identifier names.

    Raises:
        UnknownPatient: nobody is known by it.
    """
    found = patients.find(connection, identifier)
    if found is None:
        raise UnknownPatient("nobody is known here by that identifier")
    return found.id


OWNERS = text("""
    SELECT study_patients.patient_id FROM studies JOIN study_patients ON study_id = studies.id
    WHERE studies.study_instance_uid = :uid
""")

# Whoever was merged into them.
SELVES = text("""
    SELECT id, issuer_of_patient_id, patient_id FROM patients WHERE id = :id OR merged_into = :id
""")

# A series of several patients stays for the others, and is embedded anew.
COLLECT = {
    Kind.INSTANCE: "SELECT sop_instance_uid FROM instances WHERE patient_id = ANY(:ids)",
    Kind.FILE: "SELECT file FROM instances WHERE patient_id = ANY(:ids) AND file IS NOT NULL",
    Kind.STACK: """
        SELECT stacks.id::text FROM stacks WHERE series_id = ANY(:touched) AND (
            EXISTS (SELECT FROM instances WHERE instances.series_id = stacks.series_id AND patient_id = ANY(:ids)
                       AND sop_instance_uid = ANY(stacks.sop_instance_uids))
            OR NOT EXISTS (SELECT FROM instances WHERE instances.series_id = stacks.series_id
                              AND patient_id <> ALL(:ids)))
    """,
    Kind.SERIES: """
        SELECT series_instance_uid FROM series WHERE id = ANY(:touched) AND NOT EXISTS (
            SELECT FROM instances WHERE series_id = series.id AND patient_id <> ALL(:ids))
    """,
    Kind.STUDY: """
        SELECT study_instance_uid FROM studies WHERE id = ANY(:study_ids) AND NOT EXISTS (
            SELECT FROM instances JOIN series ON series.id = series_id
            WHERE study_id = studies.id AND instances.patient_id <> ALL(:ids))
    """,
}

TOUCHED = text("SELECT DISTINCT series_id FROM instances WHERE patient_id = ANY(:ids)")
STUDIES = text("""
    SELECT study_id FROM study_patients WHERE patient_id = ANY(:ids)
    UNION SELECT id FROM studies WHERE patient_id = ANY(:ids)
""")
# A worker that drops an empty series has locked its study before it.
LOCK_STUDIES = text("SELECT id FROM studies WHERE id = ANY(:study_ids) ORDER BY id FOR NO KEY UPDATE")
EMPTY_SERIES = text("""
    DELETE FROM series WHERE id = ANY(:touched) AND NOT EXISTS (SELECT FROM instances WHERE series_id = series.id)
""")
EMPTY_STUDIES = text("""
    DELETE FROM studies WHERE id = ANY(:study_ids) AND NOT EXISTS (SELECT FROM series WHERE study_id = studies.id)
    RETURNING former_patient_ids
""")
LEAVE = text("DELETE FROM study_patients WHERE patient_id = ANY(:ids)")
# Identifiers of nobody whose study is here: of studies that were given to the patient, and had been somebody else's.
FORMER = text("""
    DELETE FROM patients WHERE id = ANY(:former) AND merged_into IS NULL
       AND NOT EXISTS (SELECT FROM study_patients WHERE patient_id = patients.id)
       AND NOT EXISTS (SELECT FROM instances WHERE patient_id = patients.id)
       AND NOT EXISTS (SELECT FROM studies WHERE patient_id = patients.id OR patients.id = ANY(former_patient_ids))
       AND NOT EXISTS (SELECT FROM patients AS other WHERE other.merged_into = patients.id)
""")


def counted(connection: Connection, patient_id: int) -> dict[str, int]:
    """How many studies, series and instances a deletion would remove, by what arrived until now."""
    of_patient = _rows_of(connection, patient_id)[1]
    return {
        COUNTED[kind]: len(connection.scalars(text(COLLECT[kind]), of_patient).all())
        for kind in (Kind.STUDY, Kind.SERIES, Kind.INSTANCE)
    }


def _rows_of(connection: Connection, patient_id: int) -> tuple[Sequence[Row[*tuple[Any, ...]]], dict[str, list[int]]]:
    """The rows of a patient and of who was merged into them; and theirs, of series, and of studies, by number."""
    selves = connection.execute(SELVES, {"id": patient_id}).all()
    of_patient: dict[str, list[int]] = {"ids": [row.id for row in selves]}
    of_patient["touched"] = sorted(connection.scalars(TOUCHED, of_patient))
    of_patient["study_ids"] = sorted(connection.scalars(STUDIES, of_patient))
    return selves, of_patient


def begin(connection: Connection, patient_id: int, door: str, settle_seconds: float) -> Deletion:
    """Delete all rows of a patient, and note what else is to be gone.

    A job of the patient's series that is under way is lost. Stays pending until `prove`.

    Args:
        patient_id: their row; of a merge the surviving one's.
    """
    patients.hold_for_correction(connection)
    selves, of_patient = _rows_of(connection, patient_id)
    if not selves:
        raise UnknownPatient("the patient was deleted meanwhile")
    connection.execute(LOCK_STUDIES, of_patient)
    connection.execute(rejections.LOCK_SERIES, {"series_ids": of_patient["touched"]})
    connection.execute(rejections.END_JOBS, {"series_ids": of_patient["touched"]})
    items = {kind: list(connection.scalars(text(query), of_patient)) for kind, query in COLLECT.items()}
    salt = secrets.token_bytes(16)
    identifiers = (Identifier(row.patient_id, row.issuer_of_patient_id) for row in selves)
    items[Kind.PATIENT] = [str(row.id) for row in selves]
    items[Kind.IDENTITY] = [deletion.digest(salt, identifier) for identifier in identifiers if identifier.patient_id]
    _delete_rows(connection, of_patient, items, settle_seconds)
    removed = {name: len(items[kind]) for kind, name in COUNTED.items()}
    values = {"door": door, "salt": salt, "removed": removed}
    row = connection.execute(insert(deletions).values(values).returning(*deletions.c)).one()
    listed = [
        {"deletion_id": row.id, "kind": kind, "value": one} for kind, found in items.items() for one in set(found)
    ]
    connection.execute(insert(deletion_items), listed)
    return deletion.of_row(row)


def _delete_rows(
    connection: Connection, of_patient: Mapping[str, list[int]], items: Mapping[Kind, list[str]], settle_seconds: float
) -> None:
    connection.execute(delete(stacks).where(stacks.c.id.in_(items[Kind.STACK])))
    connection.execute(delete(instances).where(instances.c.patient_id.in_(of_patient["ids"])))
    connection.execute(EMPTY_SERIES, of_patient)
    connection.execute(LEAVE, of_patient)
    former = {one for found in connection.scalars(EMPTY_STUDIES, of_patient) for one in found}
    for table_name, column, kind in deletion.naming_columns():
        if kind in {Kind.STUDY, Kind.INSTANCE} and table_name not in {"studies", "patients", "instances", "stacks"}:
            table = metadata.tables[table_name]
            connection.execute(delete(table).where(deletion.names(table.c[column], items[kind])))
    for study in connection.execute(select(studies).where(studies.c.id.in_(of_patient["study_ids"]))).all():
        _leave_to_others(connection, study, of_patient["ids"])
    conflicts.resolve_several_patients(connection, of_patient["study_ids"])
    connection.execute(delete(patient_rows).where(patient_rows.c.id.in_(of_patient["ids"])))
    connection.execute(FORMER, {"former": sorted(former)})
    jobs.enqueue_all(connection, of_patient["touched"], settle_seconds)


def _leave_to_others(connection: Connection, study: Row[*tuple[object, ...]], ids: Collection[int]) -> None:
    """A study that is others' too says nothing of the patient any more."""
    other = connection.execute(
        text("""
            SELECT id, issuer_of_patient_id, patient_id, demographics FROM patients
            WHERE id = (SELECT min(patient_id) FROM study_patients WHERE study_id = :study_id)
        """),
        {"study_id": study.id},
    ).one()
    attributes = corrected(study.attributes, Patient.of_row(other), named=True, another=True)
    attributes.pop("AccessionNumber", None)
    values: dict[str, object] = {"attributes": attributes, "corrections": None, "former_patient_ids": []}
    if study.patient_id in ids:
        values["patient_id"] = None
    connection.execute(update(studies).where(studies.c.id == study.id).values(values))
