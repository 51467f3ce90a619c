"""Rejection notes (IHE RAD TF-2 4.66): Key Object Selections that take instances out of use."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from pydicom import Dataset
from pydicom.filereader import read_dataset
from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRBigEndian, ImplicitVRLittleEndian

from pacs_cbir.dicom.instance import MAX_INFLATED_HEADER, inflate, seek_data_set

KEY_OBJECT_SELECTION = "1.2.840.10008.5.1.4.1.1.88.59"
MAX_NOTE_BYTES = MAX_INFLATED_HEADER
"""A reference takes about 150 bytes: there is room for a hundred thousand."""


class Reason(StrEnum):
    """Why instances are rejected: the document titles of PS3.16 CID 7011 that IOCM gives a meaning."""

    QUALITY = "113001"
    PATIENT_SAFETY = "113037"
    WORKLIST = "113038"
    RETENTION = "113039"


@dataclass(frozen=True)
class Rejection:
    """What a note says.

    Attributes:
        reason: None where the note cannot be read.
        sop_instance_uids: of the instances that it rejects.
    """

    reason: Reason | None
    sop_instance_uids: tuple[str, ...] = ()


UNREADABLE = Rejection(None)
_UID = re.compile(r"[0-9.]{1,64}")
"""Lax: what no instance could be kept under is no instance's."""


def read_rejection(path: Path) -> Rejection | None:
    """Read a Key Object Selection; None where its title is no rejection's.

    Raises:
        OSError: the file cannot be read.
    """
    try:
        ds = _read(path)
        title = ds.ConceptNameCodeSequence[0]
        if title.CodingSchemeDesignator != "DCM" or title.CodeValue not in set(Reason):
            return None
        rejected = dict.fromkeys(_evidence(ds))
        rejected |= dict.fromkeys(_contained(ds))
        if not all(map(_UID.fullmatch, rejected)):
            return UNREADABLE
    except OSError:
        raise
    except Exception:
        # pydicom reads sequences when they are asked for, and raises whatever a malformed one leads to.
        return UNREADABLE
    return Rejection(Reason(title.CodeValue), tuple(rejected)) if rejected else UNREADABLE


def _read(path: Path) -> Dataset:
    with path.open("rb") as file:
        syntax = seek_data_set(file)
        if syntax == DeflatedExplicitVRLittleEndian:
            source, _, whole = inflate(file)
        else:
            data = file.read(MAX_NOTE_BYTES + 1)
            source, whole = io.BytesIO(data), len(data) <= MAX_NOTE_BYTES
        if not whole:
            raise ValueError("too long for a note")
        return read_dataset(source, syntax == ImplicitVRLittleEndian, syntax != ExplicitVRBigEndian)


def _evidence(ds: Dataset) -> Iterator[str]:
    """Of the Current Requested Procedure Evidence Sequence (PS3.3 C.17.6.2.1)."""
    for study in ds.get("CurrentRequestedProcedureEvidenceSequence") or ():
        for series in study.ReferencedSeriesSequence:
            for instance in series.ReferencedSOPSequence:
                yield str(instance.ReferencedSOPInstanceUID)


def _contained(ds: Dataset) -> Iterator[str]:
    """Of the content items (PS3.16 TID 2010), which have one level."""
    for item in ds.get("ContentSequence") or ():
        for instance in item.get("ReferencedSOPSequence") or ():
            yield str(instance.ReferencedSOPInstanceUID)
