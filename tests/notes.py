"""Rejection notes, as highdicom writes Key Object Selections."""

from __future__ import annotations

from collections.abc import Sequence

from dicom_factory import uid
from highdicom.ko import KeyObjectSelection, KeyObjectSelectionDocument
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.sr.codedict import Code
from pydicom.uid import ExplicitVRLittleEndian

QUALITY = Code("113001", "DCM", "Rejected for Quality Reasons")
PATIENT_SAFETY = Code("113037", "DCM", "Rejected for Patient Safety Reasons")
WORKLIST = Code("113038", "DCM", "Incorrect Modality Worklist Entry")
RETENTION = Code("113039", "DCM", "Data Retention Policy Expired")
OF_INTEREST = Code("113000", "DCM", "Of Interest")
REASONS = (QUALITY, PATIENT_SAFETY, WORKLIST, RETENTION)


def note(rejected: Sequence[Dataset], title: Code = PATIENT_SAFETY, name: str = "note") -> FileDataset:
    """A note about instances of one study, named for its UID."""
    document = KeyObjectSelectionDocument(
        evidence=list(rejected),
        content=KeyObjectSelection(document_title=title, referenced_objects=list(rejected)),
        series_instance_uid=uid(name, "series"),
        series_number=99,
        sop_instance_uid=uid(name),
        instance_number=1,
        manufacturer="Test",
    )
    made = FileDataset("", document, file_meta=FileMetaDataset(), preamble=b"\0" * 128)
    made.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    made.file_meta.MediaStorageSOPClassUID = made.SOPClassUID
    made.file_meta.MediaStorageSOPInstanceUID = made.SOPInstanceUID
    return made
