"""Small instances that are valid, quick to make, and told apart by name: the same arguments give the same bytes."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import numpy as np
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.uid import UID, EnhancedMRImageStorage, ExplicitVRLittleEndian, MRImageStorage, generate_uid
from pynetdicom.dsutils import encode

SPACING_MM = 4.0


def uid(*names: object) -> UID:
    """A UID that depends on the names alone."""
    return generate_uid(entropy_srcs=[repr(name) for name in names])


def mr_instance(
    patient: str = "P1",
    study: str = "study",
    series: str = "series",
    number: int = 1,
    *,
    size: int = 16,
    **attributes: object,
) -> FileDataset:
    """One axial slice of a round head, 4 mm above the one before it.

    Args:
        patient: PatientID; study and series are named, and have their UIDs from their names.
        number: InstanceNumber; another number is another picture.
        size: rows and columns.
        attributes: keyword → value, set at the end; None takes the element out.
    """
    ds = FileDataset("", {}, file_meta=FileMetaDataset(), preamble=b"\0" * 128)
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds.SpecificCharacterSet = "ISO_IR 100"
    ds.SOPClassUID = MRImageStorage
    ds.SOPInstanceUID = uid(study, series, number)
    ds.StudyInstanceUID = uid(study)
    ds.SeriesInstanceUID = uid(study, series)
    ds.FrameOfReferenceUID = uid(study, "frame of reference")
    ds.PatientID = patient
    ds.PatientName = f"Test^{patient}"
    ds.PatientBirthDate = "19600101"
    ds.PatientSex = "O"
    ds.StudyDate = "20240102"
    ds.StudyTime = "101112"
    ds.AccessionNumber = ds.ReferringPhysicianName = ""
    ds.StudyID = "1"
    ds.Modality = "MR"
    ds.Manufacturer = "Test"
    ds.BodyPartExamined = "BRAIN"
    ds.SeriesDescription = ds.ProtocolName = "t2_tse_tra"
    ds.SeriesNumber = 1
    ds.AcquisitionNumber = 1
    ds.ImageType = ["ORIGINAL", "PRIMARY", "M", "NORM"]
    ds.ScanningSequence = "SE"
    ds.SequenceVariant = "SK"
    ds.ScanOptions = ""
    ds.MRAcquisitionType = "2D"
    ds.RepetitionTime = "4000"
    ds.EchoTime = "100"
    ds.EchoTrainLength = 13
    ds.MagneticFieldStrength = "1.5"
    ds.SliceThickness = ds.SpacingBetweenSlices = str(SPACING_MM)
    ds.PatientPosition = "HFS"
    ds.InstanceNumber = number
    ds.ImageOrientationPatient = ["1", "0", "0", "0", "1", "0"]
    ds.ImagePositionPatient = ["-120", "-120", f"{number * SPACING_MM:g}"]
    ds.PixelSpacing = [f"{240 / size:g}"] * 2
    ds.Rows = ds.Columns = size
    ds.SamplesPerPixel = 1
    ds.PhotometricInterpretation = "MONOCHROME2"
    ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 16, 12, 11, 0
    ds.PixelData = _head(ds.SOPInstanceUID, size)
    for keyword, value in attributes.items():
        if value is not None:
            setattr(ds, keyword, value)
        elif keyword in ds:
            delattr(ds, keyword)
    ds.file_meta.MediaStorageSOPClassUID = ds.get("SOPClassUID", MRImageStorage)
    ds.file_meta.MediaStorageSOPInstanceUID = ds.get("SOPInstanceUID", uid("nothing"))
    return ds


def multi_frame(slices: Sequence[FileDataset], patient: str, study: str) -> FileDataset:
    """The slices of one classic series as the frames of one Enhanced MR instance (PS3.3 A.36.2), of another patient.

    Args:
        slices: in the order that the frames are to have.
        patient: PatientID.
        study: named, and has its UID from its name.
    """
    ds = copy.deepcopy(slices[0])
    moved = {
        "PixelMeasuresSequence": ("PixelSpacing", "SliceThickness"),
        "PlaneOrientationSequence": ("ImageOrientationPatient",),
    }
    shared = Dataset()
    for group, keywords in moved.items():
        item = Dataset()
        for keyword in keywords:
            setattr(item, keyword, ds[keyword].value)
            delattr(ds, keyword)
        setattr(shared, group, [item])
    transformation = Dataset()
    transformation.RescaleIntercept, transformation.RescaleSlope, transformation.RescaleType = "0", "1", "US"
    shared.PixelValueTransformationSequence = [transformation]
    frames = []
    for number, one in enumerate(slices, start=1):
        position, content, frame = Dataset(), Dataset(), Dataset()
        position.ImagePositionPatient = one.ImagePositionPatient
        content.StackID, content.InStackPositionNumber, content.DimensionIndexValues = "1", number, [number]
        frame.PlanePositionSequence, frame.FrameContentSequence = [position], [content]
        frames.append(frame)
    del ds.ImagePositionPatient
    ds.SharedFunctionalGroupsSequence, ds.PerFrameFunctionalGroupsSequence = [shared], frames
    ds.NumberOfFrames = len(frames)
    ds.PixelData = b"".join(one.PixelData for one in slices)
    ds.PatientID, ds.PatientName = patient, f"Test^{patient}"
    ds.StudyInstanceUID, ds.SeriesInstanceUID = uid(study), uid(study, "multi-frame")
    ds.FrameOfReferenceUID = uid(study, "frame of reference")
    ds.SOPClassUID, ds.SOPInstanceUID = EnhancedMRImageStorage, uid(study, "multi-frame", 1)
    ds.file_meta.MediaStorageSOPClassUID, ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPClassUID, ds.SOPInstanceUID
    return ds


def _head(seed: str, size: int) -> bytes:
    rows, columns = np.mgrid[-1 : 1 : size * 1j, -1 : 1 : size * 1j]
    inside = rows**2 + columns**2 < 0.6
    noise = np.random.default_rng(int(seed.rpartition(".")[2]) % 2**32).integers(0, 100, (size, size))
    return (np.where(inside, 1000, 20) + noise).astype("<u2").tobytes()


def composite(sop_class: str, modality: str, **attributes: object) -> FileDataset:
    """An object that is no picture: patient, study, series and what `attributes` add."""
    ds = FileDataset("", {}, file_meta=FileMetaDataset(), preamble=b"\0" * 128)
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds.SOPClassUID = UID(sop_class)
    ds.SOPInstanceUID = uid(sop_class, modality)
    ds.StudyInstanceUID = uid("study")
    ds.SeriesInstanceUID = uid("study", modality)
    ds.PatientID, ds.PatientName = "P1", "Test^P1"
    ds.Modality = modality
    for keyword, value in attributes.items():
        setattr(ds, keyword, value)
    ds.file_meta.MediaStorageSOPClassUID, ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPClassUID, ds.SOPInstanceUID
    return ds


def encoded(ds: Dataset, transfer_syntax: str = ExplicitVRLittleEndian) -> bytes:
    """The data set's bytes, without preamble and file meta information."""
    syntax = UID(transfer_syntax)
    data = encode(ds, syntax.is_implicit_VR, syntax.is_little_endian, syntax.is_deflated)
    assert data is not None
    return data
