"""A patient is deleted: rows in one transaction, then files, and then it is looked for what could be left.

While a deletion is pending its rows name what is to be gone by UIDs, numbers, file names and salted digests, so that it
can be gone on with after a kill; once it is proven that nothing is left, how much it was is all that is kept. What
arrives for the patient afterwards is new data.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

from sqlalchemy import (
    ARRAY,
    Column,
    ColumnElement,
    Connection,
    Row,
    Text,
    cast,
    delete,
    func,
    insert,
    select,
    text,
    update,
)

from pacs_cbir.errors import UnknownPatient
from pacs_cbir.store import conflicts, jobs, patients, rejections
from pacs_cbir.store.patients import Identifier, Patient, corrected
from pacs_cbir.store.tables import deletion_items, deletions, instances, metadata, series, stacks, studies
from pacs_cbir.store.tables import patients as patient_rows


class Kind(StrEnum):
    """What an item of a pending deletion names."""

    PATIENT = "patient"
    """A row of `patients`."""
    IDENTITY = "identity"
    """Salted SHA-256 of an issuer and a PatientID."""
    STUDY = "study"
    SERIES = "series"
    INSTANCE = "instance"
    STACK = "stack"
    FILE = "file"
    """Below the instances directory."""


COUNTED = {
    Kind.STUDY: "studies",
    Kind.SERIES: "series",
    Kind.INSTANCE: "instances",
    Kind.STACK: "stacks",
    Kind.FILE: "files",
}

# Which columns of any table name what is deleted, those of tables that a later version adds too.
COLUMNS = {
    "study_instance_uid": Kind.STUDY,
    "series_instance_uid": Kind.SERIES,
    "sop_instance_uid": Kind.INSTANCE,
    "note_sop_instance_uid": Kind.INSTANCE,
    "sop_instance_uids": Kind.INSTANCE,
    "stack_id": Kind.STACK,
    "file": Kind.FILE,
}
# A change of a stack is a random number that names nobody, and the indexes need it to follow.
_EXEMPT = frozenset({"stack_changes", "deletion_items", "deletions"})


@dataclass(frozen=True)
class Deletion:
    """A deletion; no patient's identity.

    Attributes:
        removed: what → how many rows or files.
        transaction_id: of the transaction that deleted the rows.
        proved_at: when nothing was found to be left, by the database's clock; None: pending.
    """

    id: int
    removed: Mapping[str, int]
    transaction_id: int
    salt: bytes
    requested_at: datetime
    proved_at: datetime | None


def digest(salt: bytes, identifier: Identifier) -> str:
    """An identifier as a pending deletion keeps it."""
    named = f"{identifier.issuer_of_patient_id}\0{identifier.patient_id}"
    return hashlib.sha256(salt + named.encode("utf-8", "replace")).hexdigest()


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
    connection.execute(rejections.LOCK_SERIES, {"series_ids": of_patient["touched"]})
    connection.execute(rejections.END_JOBS, {"series_ids": of_patient["touched"]})
    items = {kind: list(connection.scalars(text(query), of_patient)) for kind, query in COLLECT.items()}
    salt = secrets.token_bytes(16)
    identifiers = (Identifier(row.patient_id, row.issuer_of_patient_id) for row in selves)
    items[Kind.PATIENT] = [str(row.id) for row in selves]
    items[Kind.IDENTITY] = [digest(salt, identifier) for identifier in identifiers if identifier.patient_id]
    _delete_rows(connection, of_patient, items, settle_seconds)
    removed = {name: len(items[kind]) for kind, name in COUNTED.items()}
    values = {"door": door, "salt": salt, "removed": removed}
    row = connection.execute(insert(deletions).values(values).returning(*deletions.c)).one()
    listed = [
        {"deletion_id": row.id, "kind": kind, "value": one} for kind, found in items.items() for one in set(found)
    ]
    connection.execute(insert(deletion_items), listed)
    return _deletion(row)


def _delete_rows(
    connection: Connection, of_patient: Mapping[str, list[int]], items: Mapping[Kind, list[str]], settle_seconds: float
) -> None:
    connection.execute(delete(stacks).where(stacks.c.id.in_(items[Kind.STACK])))
    connection.execute(delete(instances).where(instances.c.patient_id.in_(of_patient["ids"])))
    connection.execute(EMPTY_SERIES, of_patient)
    connection.execute(LEAVE, of_patient)
    former = {one for found in connection.scalars(EMPTY_STUDIES, of_patient) for one in found}
    for table_name, column, kind in _naming_columns():
        if kind in {Kind.STUDY, Kind.INSTANCE} and table_name not in {"studies", "patients", "instances", "stacks"}:
            table = metadata.tables[table_name]
            connection.execute(delete(table).where(_names(table.c[column], items[kind])))
    for study in connection.execute(select(studies).where(studies.c.id.in_(of_patient["study_ids"]))).all():
        _leave_to_others(connection, study, of_patient["ids"])
    conflicts.resolve_several_patients(connection, of_patient["study_ids"])
    connection.execute(delete(patient_rows).where(patient_rows.c.id.in_(of_patient["ids"])))
    connection.execute(FORMER, {"former": sorted(former)})
    left = select(series.c.id).where(series.c.id.in_(of_patient["touched"]))
    for series_id in connection.scalars(left.order_by(series.c.id)).all():
        jobs.enqueue(connection, series_id, settle_seconds)


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


def pending(connection: Connection) -> list[Deletion]:
    """Deletions of which it is not proven yet that nothing is left."""
    rows = connection.execute(select(deletions).where(deletions.c.proved_at.is_(None)).order_by(deletions.c.id))
    return [_deletion(row) for row in rows]


def get(connection: Connection, deletion_id: int) -> Deletion | None:
    """One deletion; None where there is none of that number."""
    row = connection.execute(select(deletions).where(deletions.c.id == deletion_id)).one_or_none()
    return None if row is None else _deletion(row)


def items_of(connection: Connection, deletion: Deletion, kind: Kind) -> set[str]:
    """What a pending deletion names."""
    query = select(deletion_items.c.value).where(
        deletion_items.c.deletion_id == deletion.id, deletion_items.c.kind == kind
    )
    return set(connection.scalars(query))


def rows_left(connection: Connection, deletion: Deletion) -> dict[str, int]:
    """Table and column → rows that still name what was deleted, and had not arrived since.

    Instances, series and studies that came again with their UIDs are new data: what they name is not looked for.
    """
    found = {}
    again = _came_again(connection, deletion)
    for table_name, column, kind in _naming_columns():
        if table_name in {"studies", "series", "instances"} and column != "file":
            continue
        gone = sorted(items_of(connection, deletion, kind) - again)
        named_by = metadata.tables[table_name].c[column]
        count = connection.execute(select(func.count()).where(_names(named_by, gone))).scalar_one()
        if count:
            found[f"{table_name}.{column}"] = count
    ids = [int(one) for one in items_of(connection, deletion, Kind.PATIENT)]
    if count := connection.execute(select(func.count()).where(patient_rows.c.id.in_(ids))).scalar_one():
        found["patients"] = count
    return found


def _names(column: Column[Any], gone: list[str]) -> ColumnElement[bool]:
    """Whether a row names one of some things. A list is a storage commitment's request or a stack's instances: the row
    goes as a whole, and a sender that is told nothing keeps its copies."""
    names = cast(gone, ARRAY(Text))
    overlap: ColumnElement[bool] = column.op("&&", is_comparison=True)(names)
    return overlap if isinstance(column.type, ARRAY) else column == func.any(cast(names, ARRAY(column.type)))


def _came_again(connection: Connection, deletion: Deletion) -> set[str]:
    """UIDs that were deleted and have rows again."""
    found: set[str] = set()
    for kind, column in (
        (Kind.STUDY, studies.c.study_instance_uid),
        (Kind.SERIES, series.c.series_instance_uid),
        (Kind.INSTANCE, instances.c.sop_instance_uid),
    ):
        found |= set(connection.scalars(select(column).where(column.in_(items_of(connection, deletion, kind)))))
    return found


def prove(connection: Connection, deletion: Deletion) -> None:
    """Nothing is left: of the deletion how much it was is kept, and nothing that names anything."""
    connection.execute(delete(deletion_items).where(deletion_items.c.deletion_id == deletion.id))
    connection.execute(
        update(deletions).where(deletions.c.id == deletion.id).values(proved_at=func.clock_timestamp(), salt=b"")
    )


# What every API process tells of its index, see Follower; a process that died is gone from here by itself.
BEHIND = text("""
    SELECT count(*) FROM pg_stat_activity
    WHERE datname = current_database() AND application_name LIKE :prefix || '%'
      AND coalesce(nullif(substring(application_name FROM '[0-9]+$'), '')::bigint, 0) <= :transaction_id
""")


def indexes_behind(connection: Connection, deletion: Deletion, prefix: str) -> int:
    """How many API processes have not said yet that their index is past the deletion."""
    named_by = {"prefix": prefix, "transaction_id": deletion.transaction_id}
    return int(connection.execute(BEHIND, named_by).scalar_one())


def _naming_columns() -> list[tuple[str, str, Kind]]:
    # A stack's embeddings are looked for by the stack, which names their instances too and has an index: to read
    # millions of vectors takes longer than a statement may, and arrivals wait meanwhile.
    return [
        (table.name, column.name, COLUMNS[column.name])
        for table in metadata.sorted_tables
        if table.name not in _EXEMPT
        for column in table.columns
        if column.name in COLUMNS and (column.name == "stack_id" or "stack_id" not in table.columns)
    ]


def _deletion(row: Row[*tuple[object, ...]]) -> Deletion:
    return Deletion(row.id, row.removed, row.transaction_id, row.salt, row.requested_at, row.proved_at)
