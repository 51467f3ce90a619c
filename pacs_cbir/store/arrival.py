"""The rows of an arriving instance: its own, and those above it, which say what it says, corrected."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import Connection, func, insert, select, text, update
from sqlalchemy.dialects.postgresql import insert as upsert

from pacs_cbir.dicom.instance import Instance
from pacs_cbir.dicom.keywords import PATIENT_KEYWORDS
from pacs_cbir.settings import Settings
from pacs_cbir.store import conflicts, patients, rejections
from pacs_cbir.store.conflicts import Kind
from pacs_cbir.store.patients import Identifier
from pacs_cbir.store.tables import instances, series, studies


@dataclass(frozen=True)
class Rows:
    """The rows above an instance."""

    patient_id: int
    study_id: int
    series_id: int


_WHOSE = ("PatientID", "IssuerOfPatientID")

_OUTNUMBERED = text("""
    SELECT count(*) FILTER (WHERE patient_id = :patient_id) + 1 < count(*) FILTER (WHERE patient_id <> :patient_id)
    FROM instances JOIN series ON series.id = series_id
    WHERE study_id = :study_id AND sop_instance_uid <> :sop_instance_uid AND rejected IS NULL
""")


def upsert_study(connection: Connection, instance: Instance, calling_ae_title: str, settings: Settings) -> Rows:
    """The rows of an instance's patient, series and study, which says what the instance says, corrected.

    What the instance leaves empty stays as earlier ones said it: rejection notes and reports know little of a study. A
    stray instance of another patient, which is flagged, says nothing of the study.
    """
    row = connection.execute(
        select(
            studies.c.id,
            studies.c.attributes,
            studies.c.patient_id,
            studies.c.former_patient_ids,
            studies.c.corrections,
        )
        .where(studies.c.study_instance_uid == instance.study_instance_uid)
        .with_for_update(read=True, key_share=True)
    ).one_or_none()
    issuer = instance.issuer_of_patient_id or settings.default_issuers.get(calling_ae_title, "")
    said = Identifier(instance.patient_id, issuer)
    whose = patients.whose(connection, said, instance.study_instance_uid, row)
    attributes = whose.corrected(instance.study_attributes, None if row is None else row.corrections)
    if row is None:
        values = {"study_instance_uid": instance.study_instance_uid, "attributes": attributes}
        study_id = int(connection.execute(insert(studies).values(values).returning(studies.c.id)).scalar_one())
    else:
        study_id = row.id
        if all(row.attributes.get(keyword) == attributes.get(keyword) for keyword in _WHOSE):
            attributes = row.attributes | attributes
        elif _is_outnumbered(connection, study_id, whose.patient.id, instance.sop_instance_uid):
            attributes = row.attributes
        else:
            of_study = {key: values for key, values in row.attributes.items() if key not in PATIENT_KEYWORDS}
            attributes = of_study | attributes
        if row.attributes != attributes:
            connection.execute(
                update(studies)
                .where(studies.c.id == study_id)
                .values(attributes=attributes, updated_at=func.clock_timestamp())
            )
    conflicts.join_study(connection, study_id, whose.patient.id, instance.sop_instance_uid)
    if row is None:
        conflicts.record_differing(connection, study_id, whose.patient.id, instance.sop_instance_uid)
    if not whose.expected:
        conflicts.record(connection, [study_id], Kind.UNEXPECTED_PATIENT, instance.sop_instance_uid)
    return Rows(whose.patient.id, study_id, _upsert_series(connection, instance, study_id))


def _is_outnumbered(connection: Connection, study_id: int, patient_id: int, sop_instance_uid: str) -> bool:
    """Whether more of a study's other instances are of other patients than of an instance's own."""
    given = {"study_id": study_id, "patient_id": patient_id, "sop_instance_uid": sop_instance_uid}
    return bool(connection.execute(_OUTNUMBERED, given).scalar_one())


def _upsert_series(connection: Connection, instance: Instance, study_id: int) -> int:
    row = connection.execute(
        select(series.c.id)
        .where(series.c.study_id == study_id, series.c.series_instance_uid == instance.series_instance_uid)
        .with_for_update(read=True, key_share=True)  # or a worker could drop it as empty meanwhile
    ).one_or_none()
    if row is not None:
        return int(row.id)
    values = {
        "study_id": study_id,
        "series_instance_uid": instance.series_instance_uid,
        "attributes": instance.series_attributes,
    }
    return int(connection.execute(insert(series).values(values).returning(series.c.id)).scalar_one())


def upsert_instance(
    connection: Connection, instance: Instance, rows: Rows, *, file: str, calling_ae_title: str
) -> None:
    """Write an instance's own row, or write it anew; it does not count where a note that came before rejects it."""
    values = {
        "series_id": rows.series_id,
        "patient_id": rows.patient_id,
        "sop_class_uid": instance.sop_class_uid,
        "transfer_syntax_uid": instance.transfer_syntax_uid,
        "attributes": instance.instance_attributes,
        "file": file,
        "file_size": instance.file_size,
        "file_sha256": instance.file_sha256,
        "pixel_sha256": instance.pixel_sha256,
        "calling_ae_title": calling_ae_title,
        "rejected": rejections.reason_of(instance.sop_instance_uid),
        "committed_at": None,  # what was committed are other bytes
        "received_at": func.clock_timestamp(),
    }
    connection.execute(
        upsert(instances)
        .values(values | {"sop_instance_uid": instance.sop_instance_uid})
        .on_conflict_do_update(index_elements=["sop_instance_uid"], set_=values)
    )
