"""A cohort as rows: what an ingest and a worker would have written of it."""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Callable, Iterator
from typing import Any

from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage

from pacs_cbir.bench.cohort import SEQUENCES, SLICES, Cohort, Vectors, instance_uid, series_uid, study_uid
from pacs_cbir.embed.parts import pool
from pacs_cbir.store import bulk, encoders
from pacs_cbir.store.embeddings import VECTOR_TYPE
from pacs_cbir.store.encoders import NewEncoder
from pacs_cbir.store.session import Connection, Database

STUDIES_OF_A_PATIENT = 2
BATCH = 20 * STUDIES_OF_A_PATIENT
"""Studies in a transaction; patients are never parted."""

Row = dict[str, Any]


def fill(database: Database, cohort: Cohort, card: dict[str, Any], advance: Callable[[int], None]) -> None:
    """Write a cohort into an empty database.

    Args:
        card: of the encoder whose embeddings these are.
        advance: called with the studies that were written.
    """
    with database.transaction() as connection:
        new = NewEncoder(card["name"], "bench", "float32", card["weights_sha256"], card)
        encoder_id = encoders.activate(connection, encoders.add(connection, new).name).id
    for first in range(0, cohort.studies, BATCH):
        batch = range(first, min(first + BATCH, cohort.studies))
        with database.transaction() as connection:
            _write(connection, cohort, encoder_id, batch)
        advance(len(batch))


def _write(connection: Connection, cohort: Cohort, encoder_id: int, batch: range) -> None:
    tables: dict[str, list[Row]] = {}
    for study in batch:
        for table, row in _rows(cohort, encoder_id, study):
            tables.setdefault(table, []).append(row)
    for table, rows in tables.items():
        bulk.copy_rows(connection, table, rows)


def _rows(cohort: Cohort, encoder_id: int, study: int) -> Iterator[tuple[str, Row]]:
    """Table and row, each after those that it refers to."""
    patient, study_id = study // STUDIES_OF_A_PATIENT + 1, study + 1
    if study % STUDIES_OF_A_PATIENT == 0:
        yield "patients", {"id": patient, "issuer_of_patient_id": "bench", "patient_id": str(patient)}
    attributes = {
        "PatientID": [str(patient)],
        "PatientName": [f"Bench^{patient}"],
        "PatientSex": ["FM"[patient % 2]],
        "PatientBirthDate": [f"{1940 + patient % 60}0101"],
        "StudyDate": [f"{cohort.date_of(study):%Y%m%d}"],
        "StudyTime": ["120000"],
        "StudyDescription": ["MR of the head"],
        "AccessionNumber": [str(study_id)],
        "StudyID": [str(study_id)],
    }
    yield "studies", {"id": study_id, "study_instance_uid": study_uid(study), "attributes": attributes}
    yield "study_patients", {"study_id": study_id, "patient_id": patient}
    for sequence, slices in enumerate(cohort.embeddings(study)):
        yield from _series_rows(cohort, encoder_id, study, sequence, slices)


def _series_rows(
    cohort: Cohort, encoder_id: int, study: int, sequence: int, slices: Vectors
) -> Iterator[tuple[str, Row]]:
    series_id = study * len(SEQUENCES) + sequence + 1
    uids = [instance_uid(study, sequence, number) for number in range(1, SLICES + 1)]
    attributes = {
        "Modality": ["MR"],
        "SeriesNumber": [str(sequence + 1)],
        "SeriesDescription": [SEQUENCES[sequence]],
        "BodyPartExamined": ["BRAIN"],
        "SliceThickness": ["5"],
        "MagneticFieldStrength": ["3"],
    }
    uid = series_uid(study, sequence)
    yield "series", {"id": series_id, "study_id": study + 1, "series_instance_uid": uid, "attributes": attributes}
    patient_id = study // STUDIES_OF_A_PATIENT + 1
    for number, instance in enumerate(uids, 1):
        yield "instances", _instance(series_id, patient_id, number, instance)
    stack = {
        "id": uuid.uuid5(uuid.NAMESPACE_OID, uid),
        "series_id": series_id,
        "encoder_id": encoder_id,
        "sequence": SEQUENCES[sequence],
        "plane": "AXIAL",
        "body_part": "BRAIN",
        "in_domain": True,
        "separated_by": {},
        "evidence": {},
        "sop_instance_uids": uids,
    }
    yield "stacks", stack
    for number, vector in enumerate([pool(slices, cohort.architecture), *slices]):
        yield "embeddings", _embedding(stack, number, vector)


def _instance(series_id: int, patient_id: int, number: int, uid: str) -> Row:
    digest = hashlib.sha256(uid.encode()).digest()
    return {
        "id": (series_id - 1) * SLICES + number,
        "series_id": series_id,
        "patient_id": patient_id,
        "sop_instance_uid": uid,
        "sop_class_uid": MRImageStorage,
        "transfer_syntax_uid": ExplicitVRLittleEndian,
        "attributes": {"InstanceNumber": [str(number)], "Rows": ["256"], "Columns": ["256"]},
        "file": f"bench/{uid}.dcm",
        "file_size": 0,
        "file_sha256": digest,
        "pixel_sha256": digest,
        "calling_ae_title": "BENCH",
    }


def _embedding(stack: Row, number: int, vector: Vectors) -> Row:
    """Of slice `number`, counted from 1; 0: of the whole stack."""
    return {
        "stack_id": stack["id"],
        "slice": number,
        "sop_instance_uid": stack["sop_instance_uids"][number - 1] if number else "",
        "frame_number": min(number, 1),
        "position_mm": 5.0 * number,
        "vector": vector.astype(VECTOR_TYPE).tobytes(),
    }
