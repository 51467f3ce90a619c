"""What the Basic Profile cannot clean stays at the site, and says why."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydicom import Dataset
from pydicom.dataset import FileDataset
from pydicom.uid import (
    BasicTextSRStorage,
    CTImageStorage,
    EncapsulatedPDFStorage,
    GrayscaleSoftcopyPresentationStateStorage,
    KeyObjectSelectionDocumentStorage,
    SecondaryCaptureImageStorage,
    UltrasoundImageStorage,
)

from pacs_cbir.dicom.disclosing import FACE_SPACING_MM, disclosing, visible_parts
from pacs_cbir.dicom.frames import Frame
from pacs_cbir.dicom.plain_pixels import Box
from tests.dicom_factory import composite, mr_instance

SAGITTAL = ["0", "1", "0", "0", "0", "-1"]


def stack(spacing: float = FACE_SPACING_MM, slices: int = 3, **attributes: object) -> list[FileDataset]:
    positions = [["-120", "-120", f"{number * spacing:g}"] for number in range(slices)]
    return [
        mr_instance(number=number, **{"ImagePositionPatient": position} | attributes)
        for number, position in enumerate(positions, 1)
    ]


def why(*instances: Dataset, clean_pixel: bool = False) -> str | None:
    return disclosing([Frame(Path(), 1, ds) for ds in instances], clean_pixel=clean_pixel)


def test_thick_axial_slices_of_a_head_may_leave() -> None:
    assert why(*stack()) is None
    assert why(mr_instance()) is None


@pytest.mark.parametrize(
    ("spacing", "attributes"),
    [
        (FACE_SPACING_MM - 0.5, {}),
        (1.0, {"MRAcquisitionType": "3D"}),
        # Where it does not say what it shows, it may be a head.
        (3.0, {"BodyPartExamined": ""}),
        (3.0, {"BodyPartExamined": "NECK"}),
        (3.0, {"BodyPartExamined": "CSPINE"}),
        (3.0, {"RecognizableVisualFeatures": "YES", "BodyPartExamined": "HEAD"}),
        (FACE_SPACING_MM, {"ImageOrientationPatient": SAGITTAL}),
        (FACE_SPACING_MM, {"ImageOrientationPatient": None}),
        (FACE_SPACING_MM, {"ImagePositionPatient": None}),
    ],
)
def test_a_face_that_could_be_told_stays_and_says_what_to_do(spacing: float, attributes: dict[str, object]) -> None:
    reason = why(*stack(spacing, **attributes))
    assert reason is not None
    assert "mri_reface" in reason
    assert "(0028,0302) NO" in reason


@pytest.mark.parametrize(
    "attributes",
    [
        {"RecognizableVisualFeatures": "NO"},
        {"BodyPartExamined": "KNEE"},
        {"BodyPartExamined": "PELVIS"},
        {"BodyPartExamined": "OVARY", "ImageOrientationPatient": SAGITTAL},
        {"ScanningSequence": ["EP", "SE"]},
    ],
)
def test_no_face_is_in_these(attributes: dict[str, object]) -> None:
    assert why(*stack(1.0, **attributes)) is None


def test_one_instance_with_a_face_keeps_the_series() -> None:
    defaced = stack(1.0, RecognizableVisualFeatures="NO")
    assert why(*defaced, *stack(1.0, slices=4)[3:]) is not None


@pytest.mark.parametrize(
    ("attributes", "says"),
    [
        ({"BurnedInAnnotation": "YES"}, "burned in"),
        ({"ImageType": ["DERIVED", "SECONDARY", "SCREEN SAVE"]}, "picture of a screen"),
        ({"ConversionType": "WSD"}, "picture of a screen"),
        ({"SamplesPerPixel": 3, "PhotometricInterpretation": "RGB"}, "in colours"),
        ({"ImageType": ["ORIGINAL", "PRIMARY", "M", "MOSAIC"]}, "mosaic"),
    ],
)
@pytest.mark.parametrize("clean_pixel", [False, True])
def test_mr_images_with_text_or_without_geometry_stay(
    attributes: dict[str, object], says: str, clean_pixel: bool
) -> None:
    reason = why(*stack(slices=2), mr_instance(number=9, **attributes), clean_pixel=clean_pixel)
    assert reason is not None
    assert says in reason


@pytest.mark.parametrize(
    ("sop_class", "says"),
    [
        (SecondaryCaptureImageStorage, "Clean Pixel Data is not offered"),
        (BasicTextSRStorage, "Clean Structured Content is not offered"),
        (KeyObjectSelectionDocumentStorage, "Clean Structured Content is not offered"),
        (EncapsulatedPDFStorage, "Clean Structured Content is not offered"),
        (GrayscaleSoftcopyPresentationStateStorage, "Clean Graphics is not offered"),
        (CTImageStorage, "only MR images and ultrasound"),
        ("1.2.3.4", "only MR images and ultrasound"),
    ],
)
def test_other_objects_stay(sop_class: str, says: str) -> None:
    reason = why(composite(sop_class, "OT"), clean_pixel=True)
    assert reason is not None
    assert says in reason


def ultrasound(*formats: int) -> FileDataset:
    ds = composite(UltrasoundImageStorage, "US")
    ds.SequenceOfUltrasoundRegions = []
    for number, kind in enumerate(formats):
        region = Dataset()
        region.RegionSpatialFormat, region.RegionDataType = kind, 1
        region.RegionLocationMinX0, region.RegionLocationMinY0 = 10 + number, 20
        region.RegionLocationMaxX1, region.RegionLocationMaxY1 = 99, 79
        ds.SequenceOfUltrasoundRegions.append(region)
    return ds


def test_ultrasound_leaves_where_its_header_says_where_the_picture_is() -> None:
    reason = why(ultrasound(1))
    assert reason is not None
    assert "use --clean-pixel" in reason
    assert why(ultrasound(1, 5), clean_pixel=True) is None
    assert visible_parts(ultrasound(1, 5)) == (Box(20, 10, 80, 100),)
    for without in (ultrasound(), ultrasound(5)):
        reason = why(without, clean_pixel=True)
        assert reason is not None
        assert "no ultrasound region" in reason


def test_regions_of_what_is_no_ultrasound_mean_nothing() -> None:
    ds = mr_instance()
    ds.SequenceOfUltrasoundRegions = ultrasound(1).SequenceOfUltrasoundRegions
    assert visible_parts(ds) == ()
