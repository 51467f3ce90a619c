"""What an export does with received files; runs in the decoder's child process, where a codec that crashes ends."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from pydicom import dcmread

from pacs_cbir.dicom.deidentify import Disguise, deidentify
from pacs_cbir.dicom.disclosing import disclosing, read_series, visible_parts
from pacs_cbir.embed.whole_file import whole_file
from pacs_cbir.store.pseudonyms import Pseudonyms


@dataclass(frozen=True)
class Belonging:
    """Whose a file is, as the database says: it may be older than a correction."""

    issuer_of_patient_id: str
    patient_id: str
    study_instance_uid: str
    series_instance_uid: str


def why_not(paths: Sequence[Path], clean_pixel: bool) -> str | None:
    """Why a series must not leave the site; None where it may.

    Raises:
        DecodingError: a header cannot be read.
    """
    return disclosing(read_series(paths), clean_pixel=clean_pixel)


def write_deidentified(
    source: Path, folder: Path, owner: Belonging, pseudonyms: Pseudonyms, retain_longitudinal: bool
) -> Path:
    """De-identify one file into a folder, there whole or not at all, under the name of its new SOP Instance UID.

    Raises:
        DecodingError: its pixel data cannot be decoded.
        DiskUnavailable: the folder cannot be written.
    """
    ds = dcmread(source)
    who = (owner.issuer_of_patient_id, owner.patient_id, owner.study_instance_uid)
    disguise = Disguise(
        patient=pseudonyms.patient(*who),
        uid=pseudonyms.uid,
        days_back=pseudonyms.days_back(*who) if retain_longitudinal else None,
    )
    # Such a picture has passed `why_not` only where it is to be cleaned.
    if visible := visible_parts(ds):
        disguise = replace(disguise, visible=visible)
    made = deidentify(ds, disguise)
    made.StudyInstanceUID = pseudonyms.uid(owner.study_instance_uid)
    made.SeriesInstanceUID = pseudonyms.uid(owner.series_instance_uid)
    target = folder / f"{made.SOPInstanceUID}.dcm"
    with whole_file(target) as file:
        made.save_as(file, enforce_file_format=True)
    return target
