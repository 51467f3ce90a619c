"""Corrections of patients and studies: what a person or the hospital's system says against the instances.

Files stay as they were received; the catalogue answers what is corrected, and so it does of instances that arrive
later. Each call belongs to one transaction, in which no instance arrives.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum
from typing import Any

from sqlalchemy import Connection, Row, func, insert, select, text, update

from pacs_cbir.errors import MergeRefused, UnknownPatient, UnknownStudy
from pacs_cbir.store import conflicts
from pacs_cbir.store.patients import (
    Attributes,
    Identifier,
    Patient,
    corrected,
    find,
    find_or_add,
    hold_for_correction,
    own_row,
)
from pacs_cbir.store.tables import corrections, patients, studies, study_patients

DEMOGRAPHICS = ("PatientName", "PatientBirthDate", "PatientSex")
STUDY_KEYWORDS = ("AccessionNumber", "StudyDescription")

Values = Mapping[str, str]
"""Keyword → value as text (a name as `alphabetic=ideographic=phonetic`); an empty one: nothing is known."""


class Kind(StrEnum):
    """What was corrected."""

    PATIENT_UPDATE = "patient update"
    PATIENT_MERGE = "patient merge"
    STUDY = "study"
    REJECTION = "rejection note"


@dataclass(frozen=True)
class Correction:
    """A correction that was made. Patients are numbers here.

    Attributes:
        door: which way it came.
        patient: the row of the patient, of a merge of the one who survived.
        study_instance_uid: None where it is of all studies of the patient.
        keywords: the attributes that were corrected.
        made_at: by the database's clock.
    """

    kind: str
    door: str
    patient: int
    study_instance_uid: str | None
    keywords: tuple[str, ...]
    made_at: datetime


def update_patient(connection: Connection, identifier: Identifier, values: Values, door: str) -> int:
    """Correct what is said of a patient, in all studies that are here and those that come.

    To change an identifier, merge the old one into the new one.

    Args:
        values: of `DEMOGRAPHICS`; those that are not named stay as they are.

    Returns:
        how many studies they have.

    Raises:
        UnknownPatient: no study here is theirs, and nothing is kept.
    """
    hold_for_correction(connection)
    patient = find(connection, identifier)
    of_patient = [] if patient is None else _studies_of(connection, patient.id)
    if patient is None or not of_patient:
        raise UnknownPatient("no study here is of a patient with that identifier")
    _describe(connection, patient, _lists(values), _named(of_patient, patient))
    conflicts.resolve_merged(connection, [study.id for study in of_patient], values)
    note(connection, Kind.PATIENT_UPDATE, door, patient.id, values)
    return len(of_patient)


def merge_patients(connection: Connection, prior: Identifier, surviving: Identifier, values: Values, door: str) -> int:
    """Make two patients one: all that is here of the prior one, or comes, is the surviving one's.

    What is said of the surviving one, by corrections or else by the last of their studies, is said of both from then
    on. That the prior one's studies say another birth date or sex, which `values` does not tell, is a conflict. Where
    no study is here of either, their identifiers are kept, for what may come, and nothing else.

    Args:
        values: of `DEMOGRAPHICS`, of the surviving patient.

    Returns:
        how many studies were the prior patient's.

    Raises:
        MergeRefused: the surviving one was merged into the prior one, or the prior one into somebody else.
        InvalidIdentifier: an identifier is too long to be kept.
    """
    hold_for_correction(connection)
    former, patient = find_or_add(connection, prior), find_or_add(connection, surviving)
    prior_id = own_row(connection, prior)
    if prior == surviving or prior_id == patient.id:
        raise MergeRefused("the surviving patient is the prior one, or was merged into them before")
    if former.id not in {prior_id, patient.id}:
        raise MergeRefused("the prior patient was merged into another one before")
    moved = [] if former.id == patient.id else _studies_of(connection, former.id)
    named = _named(moved, former)
    said = _said_of(_named(_studies_of(connection, patient.id), patient))
    known = {**former.demographics, **said, **patient.demographics}
    connection.execute(MERGE, {"former_id": prior_id, "patient_id": patient.id})
    for statement in GIVE if moved else ():
        connection.execute(statement, {"former_id": former.id, "patient_id": patient.id})
    _rewrite(connection, {study.id: corrected(study.attributes, patient, named=True) for study in named})
    if of_patient := _studies_of(connection, patient.id):
        _describe(connection, patient, {**known, **_lists(values)}, _named(of_patient, patient))
        conflicts.resolve_merged(connection, [study.id for study in of_patient], values)
    _record_differences(connection, named, {key: said for key, said in known.items() if key not in values})
    conflicts.resolve_several_patients(connection, [study.id for study in moved])
    note(connection, Kind.PATIENT_MERGE, door, patient.id, values)
    return len(moved)


def correct_study(
    connection: Connection,
    study_instance_uid: str,
    patient: Identifier | None,
    values: Values,
    door: str,
    *,
    notes_looked_at: bool = False,
) -> None:
    """Say whose a study is and what it is, for the instances that are here and those that come.

    Whatever was a conflict in it is resolved by this, also where nothing else is corrected, but for rejection notes
    that cannot be read.

    Args:
        patient: whose it is; None: as it is.
        values: of `STUDY_KEYWORDS`; and of `DEMOGRAPHICS`, which hold for this study alone.
        notes_looked_at: whether somebody has looked at those, too.

    Raises:
        UnknownStudy: it is not here.
        MergeRefused: the patient was merged into another one.
        InvalidIdentifier: the identifier is too long to be kept.
    """
    hold_for_correction(connection)
    # Its key alone is left to others: a worker may write the stacks of its series.
    query = select(studies).where(studies.c.study_instance_uid == study_instance_uid).with_for_update(key_share=True)
    study = connection.execute(query).one_or_none()
    if study is None:
        raise UnknownStudy("there is no such study here")
    attributes, corrections_of_it = study.attributes, dict(study.corrections or {})
    if patient is not None:
        owner = find_or_add(connection, patient)
        if owner.id != own_row(connection, patient):
            raise MergeRefused("that patient was merged into another one: name the surviving one; no merge is undone")
        attributes, known = _reassign(connection, study, owner)
        corrections_of_it |= known
    corrections_of_it |= _lists(values)
    connection.execute(update(studies).where(studies.c.id == study.id).values(corrections=corrections_of_it or None))
    _rewrite(connection, {study.id: attributes | corrections_of_it})
    conflicts.resolve(connection, study.id, notes_looked_at=notes_looked_at)
    owners = select(study_patients.c.patient_id).where(study_patients.c.study_id == study.id)
    keywords = [*values, *(() if patient is None else ("PatientID",))]
    for owner in connection.scalars(owners.order_by(study_patients.c.patient_id)).all():
        note(connection, Kind.STUDY, door, owner, keywords, study=study_instance_uid)


def history(connection: Connection, limit: int) -> list[Correction]:
    """The last corrections, the newest first."""
    rows = connection.execute(select(corrections).order_by(corrections.c.id.desc()).limit(limit))
    return [
        Correction(row.kind, row.door, row.patient_id, row.study_instance_uid, tuple(row.keywords), row.made_at)
        for row in rows
    ]


def counted(connection: Connection) -> dict[str, tuple[int, datetime]]:
    """Door → how many corrections came by it of patients who are here, and when the last one did."""
    rows = connection.execute(
        select(corrections.c.door, func.count(), func.max(corrections.c.made_at))
        .group_by(corrections.c.door)
        .order_by(corrections.c.door)
    )
    return {door: (count, last) for door, count, last in rows}


FORMER_PATIENTS = text("DELETE FROM study_patients WHERE study_id = :study_id RETURNING patient_id")

OWN_INSTANCES = text("""
    UPDATE instances SET patient_id = :patient_id
    WHERE series_id IN (SELECT id FROM series WHERE study_id = :study_id) AND patient_id <> :patient_id
""")

# Those who had been merged into the former patient as well: one step leads to who survived.
MERGE = text("""
    UPDATE patients SET merged_into = :patient_id, demographics = NULL
    WHERE (id = :former_id OR merged_into = :former_id) AND id <> :patient_id
""")

# Everything of one patient becomes another's.
GIVE = (
    text("UPDATE instances SET patient_id = :patient_id WHERE patient_id = :former_id"),
    text("UPDATE studies SET patient_id = :patient_id WHERE patient_id = :former_id"),
    text("UPDATE corrections SET patient_id = :patient_id WHERE patient_id = :former_id"),
    text("""
        INSERT INTO study_patients (study_id, patient_id)
        SELECT study_id, :patient_id FROM study_patients WHERE patient_id = :former_id ON CONFLICT DO NOTHING
    """),
    text("DELETE FROM study_patients WHERE patient_id = :former_id"),
)


def _reassign(connection: Connection, study: Row[*tuple[Any, ...]], patient: Patient) -> tuple[Attributes, Attributes]:
    """Give a study to a patient.

    Returns:
        its attributes, and what is known of the patient from elsewhere, which nothing in its instances tells.
    """
    known: Attributes = {}
    others = [row for row in _named(_studies_of(connection, patient.id), patient) if row.id != study.id]
    former = list(connection.scalars(FORMER_PATIENTS, {"study_id": study.id}))
    connection.execute(insert(study_patients).values(study_id=study.id, patient_id=patient.id))
    connection.execute(OWN_INSTANCES, {"study_id": study.id, "patient_id": patient.id})
    said_of_them = study.attributes.get("PatientID", []) == [patient.identifier.patient_id]
    another = former != [patient.id] and not (patient.id in former and said_of_them)
    if another and others and not patient.demographics:
        known = {keyword: others[-1].attributes.get(keyword, []) for keyword in DEMOGRAPHICS}
    connection.execute(
        update(studies)
        .where(studies.c.id == study.id)
        .values(
            patient_id=patient.id,
            former_patient_ids=sorted({*study.former_patient_ids, *former} - {patient.id}),
        )
    )
    return corrected(study.attributes, patient, named=another, another=another), known


def _record_differences(connection: Connection, moved: list[Row[tuple[int, Attributes]]], known: Attributes) -> None:
    """Which studies of a prior patient say otherwise than what is known of the surviving one."""
    for keyword in conflicts.OF_KEYWORD:
        told = known.get(keyword)
        differing = [study.id for study in moved if told and study.attributes.get(keyword, told) != told]
        conflicts.record_merged(connection, differing, keyword)


def _named(theirs: list[Row[tuple[int, Attributes]]], patient: Patient) -> list[Row[tuple[int, Attributes]]]:
    """Of a patient's studies those that name them: one that has a stray instance of theirs is said to be another's."""
    return [study for study in theirs if study.attributes.get("PatientID") == [patient.identifier.patient_id]]


def _said_of(theirs: list[Row[tuple[int, Attributes]]]) -> Attributes:
    """What the last of a patient's studies says of them; what it leaves empty is not named."""
    said = theirs[-1].attributes if theirs else {}
    return {keyword: said[keyword] for keyword in DEMOGRAPHICS if said.get(keyword)}


def _describe(
    connection: Connection, patient: Patient, demographics: Attributes, of_patient: list[Row[*tuple[Any, ...]]]
) -> None:
    """Keep what is said of a patient, and say it in their studies; it overrules what was said in one of them."""
    described = replace(patient, demographics={**patient.demographics, **demographics})
    connection.execute(
        update(patients).where(patients.c.id == patient.id).values(demographics=dict(described.demographics) or None)
    )
    connection.execute(OVERRULE, {"study_ids": [s.id for s in of_patient], "keywords": list(demographics)})
    _rewrite(connection, {study.id: corrected(study.attributes, described, named=False) for study in of_patient})


OVERRULE = text("""
    UPDATE studies SET corrections = corrections - CAST(:keywords AS text[])
    WHERE id = ANY(:study_ids) AND corrections ?| CAST(:keywords AS text[])
""")


def _studies_of(connection: Connection, patient_id: int) -> list[Row[tuple[int, Attributes]]]:
    """Rows `id`, `attributes` of a patient's studies, in the order in which they came."""
    return list(
        connection.execute(
            select(studies.c.id, studies.c.attributes)
            .join(study_patients, study_patients.c.study_id == studies.c.id)
            .where(study_patients.c.patient_id == patient_id)
            .order_by(studies.c.id)
        )
    )


# A patient may have a thousand studies, and nothing arrives meanwhile.
REWRITE = text("""
    UPDATE studies SET attributes = written.attributes, updated_at = clock_timestamp()
      FROM unnest(CAST(:ids AS bigint[]), CAST(:attributes AS jsonb[])) AS written (id, attributes)
     WHERE studies.id = written.id AND studies.attributes <> written.attributes
""")


def _rewrite(connection: Connection, attributes: Mapping[int, Attributes]) -> None:
    """Let studies say something else, by row."""
    said = [json.dumps({keyword: values for keyword, values in one.items() if values}) for one in attributes.values()]
    connection.execute(REWRITE, {"ids": list(attributes), "attributes": said})


def note(
    connection: Connection,
    kind: Kind,
    door: str,
    patient_id: int,
    keywords: Collection[str],
    *,
    study: str | None = None,
) -> None:
    """Keep in the history that something was corrected."""
    row = {"kind": kind, "door": door, "patient_id": patient_id, "study_instance_uid": study}
    connection.execute(insert(corrections).values(row | {"keywords": sorted(keywords)}))


def _lists(values: Values) -> Attributes:
    return {keyword: [value] if value else [] for keyword, value in values.items()}
