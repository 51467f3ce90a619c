"""Whose a study is, and what is said of its patient: as its instances say, unless somebody corrected it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Row, RowMapping, select, text
from sqlalchemy.dialects.postgresql import insert as upsert

from pacs_cbir.dicom.keywords import PATIENT_KEYWORDS
from pacs_cbir.errors import InvalidIdentifier
from pacs_cbir.store.tables import patients

# An LO has 64 characters (PS3.5 6.2); some devices write more, and an index entry of Postgres ends at 2704 bytes.
LONGEST_IDENTIFIER = 256
CORRECTING = 0x70616374

Attributes = dict[str, list[str]]
"""DICOM keyword → values as text."""


@dataclass(frozen=True)
class Identifier:
    """What tells a patient from others (PS3.3 C.7.1.1): trimmed; an empty `patient_id` tells nobody from anybody."""

    patient_id: str
    issuer_of_patient_id: str = ""

    def key(self, study_instance_uid: str) -> dict[str, str]:
        """The columns of their row. Two patients without an ID are not one patient: each such study has its own.

        Raises:
            InvalidIdentifier: it is too long to be kept.
        """
        if max(len(self.patient_id), len(self.issuer_of_patient_id)) > LONGEST_IDENTIFIER:
            raise InvalidIdentifier(f"PatientID or IssuerOfPatientID is longer than {LONGEST_IDENTIFIER} characters")
        if self.patient_id:
            return {"issuer_of_patient_id": self.issuer_of_patient_id, "patient_id": self.patient_id}
        return {"issuer_of_patient_id": "", "patient_id": "", "study_instance_uid": study_instance_uid}


@dataclass(frozen=True)
class Patient:
    """A patient who was merged into nobody.

    Attributes:
        id: their row.
        demographics: keyword → values that correct what instances say; an empty list: nothing is known.
    """

    id: int
    identifier: Identifier
    demographics: Mapping[str, list[str]]

    @classmethod
    def of_row(cls, row: Row[*tuple[Any, ...]] | RowMapping) -> Patient:
        """From columns `id`, `issuer_of_patient_id`, `patient_id` and `demographics`."""
        found = row._mapping if isinstance(row, Row) else row
        identifier = Identifier(found["patient_id"], found["issuer_of_patient_id"])
        return cls(found["id"], identifier, found["demographics"] or {})


@dataclass(frozen=True)
class Whose:
    """Whose an arriving instance is.

    Attributes:
        merged: its own identifier is of somebody who was merged into the patient.
        reassigned: its study was given to the patient, whatever its instances say.
        expected: it names the patient, or one whose the study was before it was given to them.
    """

    patient: Patient
    merged: bool
    reassigned: bool
    expected: bool

    def corrected(self, said: Attributes, corrections: Mapping[str, list[str]] | None) -> Attributes:
        """The attributes of an instance's patient and study as they are answered.

        Args:
            corrections: of the study.
        """
        found = corrected(said, self.patient, named=self.merged or self.reassigned, another=self.reassigned)
        return {keyword: values for keyword, values in (found | dict(corrections or {})).items() if values}


def corrected(said: Attributes, patient: Patient, *, named: bool, another: bool = False) -> Attributes:
    """What is said of a patient, corrected.

    Args:
        named: the patient's identifier takes the place of the one that is there.
        another: it is said of somebody else, so that nothing of it is true of the patient.
    """
    found = {key: values for key, values in said.items() if not (another and key in PATIENT_KEYWORDS)}
    if named:
        identifier = patient.identifier
        found["PatientID"] = [identifier.patient_id] if identifier.patient_id else []
        found["IssuerOfPatientID"] = [identifier.issuer_of_patient_id] if identifier.issuer_of_patient_id else []
    found |= patient.demographics
    if another or found.get("PatientBirthDate", []) != said.get("PatientBirthDate", []):
        # It was reckoned from the birth date that was wrong.
        found.pop("PatientAge", None)
    return {keyword: values for keyword, values in found.items() if values}


def hold_for_arrival(connection: Connection) -> None:
    """Until the transaction ends no correction is made; other instances may arrive meanwhile."""
    connection.execute(text("SELECT pg_advisory_xact_lock_shared(:lock)"), {"lock": CORRECTING})


def hold_for_correction(connection: Connection) -> None:
    """Until the transaction ends no instance arrives and nobody else corrects: neither sees half of the other."""
    connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": CORRECTING})


_SURVIVING = text("""
    SELECT own.id <> patient.id AS merged,
           patient.id, patient.issuer_of_patient_id, patient.patient_id, patient.demographics
    FROM patients AS own JOIN patients AS patient ON patient.id = coalesce(own.merged_into, own.id)
    WHERE own.issuer_of_patient_id = :issuer_of_patient_id AND own.patient_id = :patient_id
      AND (own.patient_id <> '' OR own.study_instance_uid = :study_instance_uid)
""")

_GIVEN_TO = text("""
    SELECT patient.id, patient.issuer_of_patient_id, patient.patient_id, patient.demographics,
           coalesce(own.merged_into = patient.id, false) AS merged,
           coalesce(patient.id IN (own.id, own.merged_into), false) AS same,
           coalesce(own.id = ANY(:former), false) OR coalesce(own.merged_into = ANY(:former), false) AS was
    FROM patients AS patient
    LEFT JOIN patients AS own ON own.issuer_of_patient_id = :issuer_of_patient_id AND own.patient_id = :patient_id
         AND (own.patient_id <> '' OR own.study_instance_uid = :study_instance_uid)
    WHERE patient.id = :id
""")


def whose(
    connection: Connection, said: Identifier, study_instance_uid: str, study: Row[*tuple[Any, ...]] | None
) -> Whose:
    """Whose an arriving instance is; a patient who is new gets a row.

    Args:
        said: what the instance says.
        study: columns `patient_id` and `former_patient_ids` of its study's row; None where there is none yet.

    Raises:
        InvalidIdentifier: it is too long to be kept.
    """
    key = said.key(study_instance_uid)
    named = key | {"study_instance_uid": study_instance_uid}
    if study is not None and study.patient_id is not None:
        given = {"id": study.patient_id, "former": study.former_patient_ids}
        row = connection.execute(_GIVEN_TO, named | given).one()
        return Whose(Patient.of_row(row), merged=row.merged, reassigned=not row.same, expected=row.same or row.was)
    connection.execute(upsert(patients).values(key).on_conflict_do_nothing())
    row = connection.execute(_SURVIVING, named).one()
    return Whose(Patient.of_row(row), merged=row.merged, reassigned=False, expected=True)


def find(connection: Connection, identifier: Identifier) -> Patient | None:
    """The patient whom an identifier names, or who survived a merge with them; None where nobody is known by it."""
    named = identifier.key("") | {"study_instance_uid": ""}
    row = connection.execute(_SURVIVING, named).one_or_none()
    return None if row is None else Patient.of_row(row)


def find_or_add(connection: Connection, identifier: Identifier) -> Patient:
    """As `find`, of somebody who gets a row where there is none."""
    connection.execute(upsert(patients).values(identifier.key("")).on_conflict_do_nothing())
    found = find(connection, identifier)
    assert found is not None  # noqa: S101 - they have a row
    return found


def own_row(connection: Connection, identifier: Identifier) -> int:
    """The row of an identifier that has one, whoever survived."""
    return int(connection.execute(select(patients.c.id).filter_by(**identifier.key(""))).scalar_one())
