"""What of a series would tell who it is of, however its attributes are cleaned: text in the picture, faces.

How often software told whose face it was: Schwarz et al., NEJM 2019;381:1684 (3D: 83 % of 84 participants) and
NeuroImage 2023;276:120199 (3D T1, T2 and FLAIR: 96-98 %, axial 2D FLAIR: 32-45 %, echo planar: 0-2 % of 182).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from pydicom import Dataset
from pydicom.uid import (
    UID,
    UltrasoundImageStorage,
    UltrasoundMultiFrameImageStorage,
)

from pacs_cbir.dicom.frames import MR_IMAGE_SOP_CLASSES, Frame, first_number, read_frames, value_of
from pacs_cbir.dicom.mosaic import is_mosaic
from pacs_cbir.dicom.plain_pixels import Box
from pacs_cbir.dicom.stack import POSITION_TOLERANCE, Stack, along_normal, split_stacks

FACE_SPACING_MM = 6.0
"""Axial slices of a head are refused below this spacing: nobody has shown what is told from thicker ones."""
AXIAL_COSINE = 0.9
"""Of the angle between an axial slice's normal and the body's axis: nearer to the others, slices show the profile."""

# As `body_part` writes them; whatever else a header says, or where it says nothing, there may be a face.
_FACELESS = frozenset(
    {
        "ABDOMEN", "ABDOMENPELVIS", "ANKLE", "ARM", "BILEDUCT", "BLADDER", "BREAST", "CALF", "CHEST", "COCCYX", "ELBOW",
        "EXTREMITY", "FEMUR", "FINGER", "FOOT", "FOREARM", "GALLBLADDER", "HAND", "HEART", "HEEL", "HIP", "HUMERUS",
        "KIDNEY", "KNEE", "LEG", "LIVER", "LSPINE", "LSSPINE", "OVARY", "PANCREAS", "PELVIS", "PROSTATE", "RECTUM",
        "SACRUM", "SHOULDER", "SIJOINT", "SPLEEN", "SSPINE", "TESTIS", "THIGH", "TIBIA", "TOE", "TSPINE", "UTERUS",
        "WRIST",
    }
)  # fmt: skip
_SCREENS = frozenset(
    {"SCREEN SAVE", "SCREEN", "CSA REPORT", "FUSED", "OTHER_FUSED", "CAPTURE", "REPORT", "PRESENTATION"}
)
_ULTRASOUND = frozenset({UltrasoundImageStorage, UltrasoundMultiFrameImageStorage})
# PS3.3 C.8.5.5.1.1: 2D, M-mode and spectral; the others are waveforms and graphics, beside which text stands.
_PICTURED_REGIONS = frozenset({1, 2, 3})
_OPTIONS = {
    "1.2.840.10008.5.1.4.1.1.11": "Clean Graphics",
    "1.2.840.10008.5.1.4.1.1.88": "Clean Structured Content",
    "1.2.840.10008.5.1.4.1.1.104": "Clean Structured Content",
    "1.2.840.10008.5.1.4.1.1.7": "Clean Pixel Data",
}
_MISSING = "is not offered here"
_FACE = (
    f"a face could be told from it (Clean Recognizable Visual Features {_MISSING}): take the face out, as with "
    "mri_reface or pydeface, store the result with Recognizable Visual Features (0028,0302) NO, and export that"
)


def read_series(paths: Sequence[Path]) -> list[Frame]:
    """The headers of a series' frames.

    Raises:
        DecodingError: one cannot be read.
    """
    return [frame for path in paths for frame in read_frames(path)]


def disclosing(frames: Sequence[Frame], *, clean_pixel: bool) -> str | None:
    """Why a series must not leave the site by the Basic Profile; None where it may.

    Args:
        frames: of the whole series.
        clean_pixel: whether the Clean Pixel Data option is used: pictures whose header says where in them the picture
            is may then leave, and all else in them is black.
    """
    headers = {id(frame.instance): frame.instance for frame in frames}.values()
    reasons = (_in_the_picture(header, clean_pixel) for header in headers)
    return next((reason for reason in reasons if reason is not None), None) or _recognisable(frames)


def visible_parts(ds: Dataset) -> tuple[Box, ...]:
    """Where an ultrasound picture is in the frame, and not what is written round it (PS3.3 C.8.5.5); none elsewhere."""
    if value_of(ds, "SOPClassUID") not in _ULTRASOUND:
        return ()
    boxes = []
    for item in value_of(ds, "SequenceOfUltrasoundRegions") or ():
        names = ("MinY0", "MinX0", "MaxY1", "MaxX1")
        edges = [first_number(value_of(item, f"RegionLocation{name}")) for name in names]
        if value_of(item, "RegionSpatialFormat") in _PICTURED_REGIONS and None not in edges:
            top, left, bottom, right = (int(edge or 0) for edge in edges)
            boxes.append(Box(top, left, bottom + 1, right + 1))
    return tuple(box for box in boxes if box.top < box.bottom and box.left < box.right)


def _in_the_picture(ds: Dataset, clean_pixel: bool) -> str | None:
    sop_class = UID(str(value_of(ds, "SOPClassUID") or ""))
    if sop_class in _ULTRASOUND:
        if not clean_pixel:
            return "ultrasound has text beside the picture: use --clean-pixel"
        return None if visible_parts(ds) else "text in the picture, and no ultrasound region says where the picture is"
    if sop_class in MR_IMAGE_SOP_CLASSES:
        return _in_an_mr_image(ds)
    option = next((name for root, name in _OPTIONS.items() if sop_class.startswith(root)), None)
    why = f"{option} {_MISSING}" if option else "only MR images and ultrasound are exported"
    return f"{sop_class.name or 'no SOP class'}: {why}"


def _in_an_mr_image(ds: Dataset) -> str | None:
    if str(value_of(ds, "BurnedInAnnotation") or "").upper() == "YES":
        return "text is burned in, and nothing says where: Clean Pixel Data cannot be done"
    types = {str(kind).strip().upper() for kind in _several(value_of(ds, "ImageType"))}
    if types & _SCREENS or value_of(ds, "ConversionType") or value_of(ds, "SamplesPerPixel") not in {None, 1}:
        return f"a picture of a screen or in colours may show text: Clean Pixel Data {_MISSING} for these"
    if is_mosaic(Frame(Path(), 1, ds)):
        return "a mosaic: only private attributes, which are removed, say where its slices lie"
    return None


def _recognisable(frames: Sequence[Frame]) -> str | None:
    if all(str(frame.get("RecognizableVisualFeatures") or "").upper() == "NO" for frame in frames):
        return None
    stacks = [stack for stack in split_stacks(frames) if stack.frames[0].sop_class_uid in MR_IMAGE_SOP_CLASSES]
    if any(_may_show_a_face(stack) for stack in stacks):
        return _FACE
    return None


def _may_show_a_face(stack: Stack) -> bool:
    if stack.body_part in _FACELESS or _is_echo_planar(stack.frames[0]):
        return False
    orientation = stack.frames[0].numbers_of("ImageOrientationPatient", 6)
    distances = along_normal(stack.frames)
    if orientation is None or distances is None:
        return True
    normal = np.cross(orientation[:3], orientation[3:])
    if abs(normal[2]) < AXIAL_COSINE:
        return True
    gaps = np.diff(np.sort(distances))
    return bool((gaps[gaps > POSITION_TOLERANCE] < FACE_SPACING_MM - POSITION_TOLERANCE).any())


def _is_echo_planar(frame: Frame) -> bool:
    played = {str(name).strip() for name in _several(frame.get("ScanningSequence"))}
    return "EP" in played or str(frame.get("EchoPlanarPulseSequence") or "") == "YES"


def _several(value: object) -> Sequence[object]:
    if isinstance(value, Iterable) and not isinstance(value, str):
        return list(value)
    return () if value is None else [value]
