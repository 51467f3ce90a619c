"""The attributes that an answer holds without being asked (PS3.18 Tables 10.6.3-3, -4 and -5)."""

from __future__ import annotations

from pacs_cbir.store.catalogue import Attributes
from pacs_cbir.store.matching import Level

STUDY_KEYS = (
    "StudyInstanceUID",
    "StudyDate",
    "StudyTime",
    "AccessionNumber",
    "InstanceAvailability",
    "ModalitiesInStudy",
    "ReferringPhysicianName",
    "RetrieveURL",
    "PatientName",
    "PatientID",
    "PatientBirthDate",
    "PatientSex",
    "StudyID",
    "NumberOfStudyRelatedSeries",
    "NumberOfStudyRelatedInstances",
)
SERIES_KEYS = (
    "SeriesInstanceUID",
    "Modality",
    "SeriesDescription",
    "RetrieveURL",
    "SeriesNumber",
    "NumberOfSeriesRelatedInstances",
    "PerformedProcedureStepStartDate",
    "PerformedProcedureStepStartTime",
)
INSTANCE_KEYS = (
    "SOPClassUID",
    "SOPInstanceUID",
    "InstanceAvailability",
    "RetrieveURL",
    "InstanceNumber",
    "Rows",
    "Columns",
    "BitsAllocated",
    "NumberOfFrames",
)


def with_url(attributes: Attributes, level: Level, base_url: str) -> Attributes:
    """The attributes with the URL under which this is here.

    Args:
        base_url: of the service, ending in a slash.
    """
    path = f"{base_url}dicom-web/studies/{attributes['StudyInstanceUID'][0]}"
    if level is not Level.STUDY:
        path += f"/series/{attributes['SeriesInstanceUID'][0]}"
    if level is Level.INSTANCE:
        path += f"/instances/{attributes['SOPInstanceUID'][0]}"
    return attributes | {"RetrieveURL": [path]}
