"""PS3.15 Table E.1-1 as it is read: rows looked up by hand, and the alternatives decided by each IOD's types."""

from __future__ import annotations

import pytest
from pydicom.tag import Tag
from pydicom.uid import EnhancedMRImageStorage, MRImageStorage

from pacs_cbir.dicom.confidentiality import Action, action_of

PER_FRAME = "PerFrameFunctionalGroupsSequence"


def basic(name: str | int, *path: str, sop_class: str = MRImageStorage, shift: bool = False) -> Action:
    return action_of(Tag(name), path, sop_class, shift_dates=shift)


@pytest.mark.parametrize(
    ("keyword", "action"),
    [
        ("PatientName", Action.EMPTY),
        ("PatientBirthDate", Action.EMPTY),
        ("PatientSex", Action.EMPTY),
        ("PatientAge", Action.REMOVE),
        ("OtherPatientIDsSequence", Action.REMOVE),
        ("AccessionNumber", Action.EMPTY),
        ("StudyID", Action.EMPTY),
        ("StudyDescription", Action.REMOVE),
        ("SeriesDescription", Action.REMOVE),
        ("RequestAttributesSequence", Action.REMOVE),
        ("IconImageSequence", Action.REMOVE),
        ("StudyInstanceUID", Action.UIDS),
        ("FrameOfReferenceUID", Action.UIDS),
        ("StudyDate", Action.EMPTY),
        ("Manufacturer", Action.KEEP),
        ("EchoTime", Action.KEEP),
        ("ImageType", Action.KEEP),
        # Of no row, and free text, bulk data or a date.
        ("PositionReferenceIndicator", Action.EMPTY),
        ("ICCProfile", Action.REMOVE),
        ("DateOfGainCalibration", Action.REMOVE),
        ("EncryptedContent", Action.REMOVE),
        # A UID of no row is someone's all the same.
        ("TargetUID", Action.UIDS),
    ],
)
def test_rows_and_what_is_none(keyword: str, action: Action) -> None:
    assert basic(keyword) is action


@pytest.mark.parametrize("tag", [0x00091001, 0x00090010, 0x60003000, 0x60000010, 0x50003000, 0xFFFCFFFC, 0x00080000])
def test_private_groups_overlays_curves_padding_and_group_lengths_go(tag: int) -> None:
    assert basic(tag) is Action.REMOVE


def test_alternatives_follow_the_type_in_the_iod() -> None:
    # Type 3 in the classic General Equipment module, 1 in the Enhanced one (PS3.3 C.7.5.2).
    assert basic("DeviceSerialNumber") is Action.REMOVE
    assert basic("DeviceSerialNumber", sop_class=EnhancedMRImageStorage) is Action.DUMMY
    # Type 2C in General Image, 1 in the Multi-frame Functional Groups module.
    assert basic("ContentDate") is Action.EMPTY
    assert basic("ContentDate", sop_class=EnhancedMRImageStorage) is Action.DUMMY
    # X/Z/U*: references go, but where a macro has them as type 2.
    assert basic("SourceImageSequence") is Action.REMOVE
    inside = basic("SourceImageSequence", PER_FRAME, "DerivationImageSequence", sop_class=EnhancedMRImageStorage)
    assert inside is Action.UIDS


def test_modified_dates_are_those_of_examinations() -> None:
    for keyword in ("StudyDate", "AcquisitionDate", "ContentTime", "AcquisitionDateTime", "DateOfGainCalibration"):
        assert basic(keyword, shift=True) is Action.SHIFT
    assert basic("PatientBirthDate", shift=True) is Action.EMPTY
    assert basic("PatientBirthTime", shift=True) is Action.REMOVE
    assert basic("TimezoneOffsetFromUTC", shift=True) is Action.REMOVE
