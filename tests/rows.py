"""Rows as an ingest writes them, for tests that need attributes and no files."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Table, insert, select
from sqlalchemy.dialects.postgresql import insert as upsert

from pacs_cbir.store.tables import instances, patients, series, studies, study_patients

MR_IMAGE = "1.2.840.10008.5.1.4.1.1.4"
EXPLICIT_LITTLE = "1.2.840.10008.1.2.1"

Given = Mapping[str, str | Sequence[str]]


@dataclass(frozen=True)
class Added:
    """The rows of one series."""

    study_id: int
    series_id: int


def add_series(
    connection: Connection,
    study_uid: str,
    series_uid: str,
    *,
    study: Given | None = None,
    attributes: Given | None = None,
    instance: Given | None = None,
    instance_uids: Sequence[str] = (),
    sop_class: str = MR_IMAGE,
) -> Added:
    """A series and its instances, in a study that is there already or is made; PatientID names the patient."""
    study_id = connection.scalar(select(studies.c.id).where(studies.c.study_instance_uid == study_uid))
    if study_id is None:
        study_id = _insert(connection, studies, study_instance_uid=study_uid, attributes=_lists(study))
        add_patient(connection, study_id, study_uid, str((study or {}).get("PatientID", "")))
    patient = select(study_patients.c.patient_id).where(study_patients.c.study_id == study_id).limit(1)
    patient_id = connection.execute(patient).scalar_one()
    series_id = _insert(
        connection, series, study_id=study_id, series_instance_uid=series_uid, attributes=_lists(attributes)
    )
    for uid in instance_uids or [f"{series_uid}.1"]:
        _insert(
            connection,
            instances,
            series_id=series_id,
            patient_id=patient_id,
            sop_instance_uid=uid,
            sop_class_uid=sop_class,
            transfer_syntax_uid=EXPLICIT_LITTLE,
            attributes=_lists(instance),
            file=f"00/{uid}.dcm",
            file_size=0,
            file_sha256=hashlib.sha256(uid.encode()).digest(),
            pixel_sha256=hashlib.sha256(uid.encode()).digest(),
            calling_ae_title="TEST",
        )
    return Added(study_id, series_id)


def add_patient(connection: Connection, study_id: int, study_uid: str, patient_id: str) -> None:
    """Make a study a patient's; without an ID it is a patient of its own."""
    key = {"issuer_of_patient_id": "", "patient_id": patient_id}
    if not patient_id:
        key["study_instance_uid"] = study_uid
    connection.execute(upsert(patients).values(key).on_conflict_do_nothing())
    found = connection.execute(select(patients.c.id).filter_by(**key)).scalar_one()
    connection.execute(insert(study_patients).values(study_id=study_id, patient_id=found))


def _insert(connection: Connection, table: Table, **values: Any) -> int:
    return int(connection.execute(insert(table).values(values).returning(table.c.id)).scalar_one())


def _lists(given: Given | None) -> dict[str, list[str]]:
    return {keyword: [value] if isinstance(value, str) else list(value) for keyword, value in (given or {}).items()}
