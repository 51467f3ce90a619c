"""Writes a simulated cohort: DICOM studies of simulated patients, and the truth beside them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any, SupportsFloat

import nibabel as nib
import numpy as np
import numpy.typing as npt
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage

from pacs_cbir.errors import DiskUnavailable, SettingsError
from pacs_cbir.learn.anatomy import Floats
from pacs_cbir.learn.phantom import CORE, ENHANCING, OEDEMA, SEQUENCES, SimulatedPatient, simulate_patient


@dataclass(frozen=True)
class SimulatedStudy:
    """One patient's study as it was written.

    Attributes:
        patient_id: PatientID, also the name of the folder.
        study_instance_uid: of its one study.
        folder: holds one folder of instances for each sequence, truth.json and mask.nii.gz.
        instances: number of instances written.
    """

    patient_id: str
    study_instance_uid: str
    folder: Path
    instances: int


@dataclass(frozen=True)
class _Scanner:
    manufacturer: str
    model: str
    institution: str
    series_descriptions: dict[str, str]


_SCANNERS = (
    _Scanner(
        "SIEMENS",
        "Avanto",
        "Simulated Hospital North",
        {"T1": "t1_se_tra", "T1CE": "t1_se_tra_KM", "T2": "t2_tse_tra", "FLAIR": "t2_tirm_tra_dark-fluid"},
    ),
    _Scanner(
        "GE MEDICAL SYSTEMS",
        "DISCOVERY MR750",
        "Simulated Hospital South",
        {"T1": "Ax T1", "T1CE": "Ax T1 +C", "T2": "Ax T2 FSE", "FLAIR": "Ax T2 FLAIR"},
    ),
    _Scanner(
        "Philips Medical Systems",
        "Ingenia",
        "Simulated Hospital West",
        {"T1": "T1W_SE", "T1CE": "T1W_SE +GD", "T2": "T2W_TSE", "FLAIR": "FLAIR_longTR"},
    ),
)
_CONTRAST_AGENTS = ("Gadovist", "Dotarem", "Magnevist")
_FIRST_DAY = date(2015, 1, 5)


def simulate_cohort(out: Path, *, patients: int, seed: int, skull_stripped: bool = False) -> Iterator[SimulatedStudy]:
    """Write `patients` studies below `out`, one each time the iterator is advanced.

    The layout is OUT/PatientID/sequence/NNNN.dcm, with OUT/PatientID/truth.json and OUT/PatientID/mask.nii.gz (BraTS's
    labels, on the slices' grid) beside it. The same seed gives the same bytes, whatever the number of patients.

    Args:
        out: a folder that is empty or does not exist yet.
        patients: at least 1.
        seed: of the cohort, 0 or more.
        skull_stripped: leave out everything but the brain.

    Raises:
        SettingsError: at once, not when iterated, for a number that is out of range or a folder that is not empty.
        DiskUnavailable: when a file cannot be written.
    """
    check_cohort(out, patients, seed)
    return (_write_patient(out, seed, number, skull_stripped) for number in range(1, patients + 1))


def check_cohort(out: Path, patients: int, seed: int) -> None:
    """Raise the SettingsError of `simulate_cohort`."""
    if patients < 1:
        raise SettingsError(f"--patients {patients}: a cohort needs at least one patient")
    if seed < 0:
        raise SettingsError(f"--seed {seed}: a seed is 0 or more")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise SettingsError(f"{out} is not an empty folder: name one that is empty or does not exist yet")


def _write_patient(out: Path, seed: int, number: int, skull_stripped: bool) -> SimulatedStudy:
    patient = simulate_patient(seed, number, skull_stripped=skull_stripped)
    rng = np.random.default_rng((seed, number, 1))
    name = f"{seed}/{number}/{'brain' if skull_stripped else 'head'}"
    study = _study_header(rng, patient, name, number)
    folder = out / study.PatientID
    try:
        instances = 0
        for series_number, sequence in enumerate(_acquisition_order(rng), start=2):
            header = _series_header(study, patient, sequence, series_number, name)
            order = _slice_order(rng, len(patient.mask))
            _write_series(folder / sequence, header, patient.volumes[sequence], patient.affine, order)
            instances += len(order)
        _write_truth(folder, study, patient, seed, number)
    except OSError as error:
        raise DiskUnavailable(f"cannot write below {out}: {error.strerror or error}") from error
    return SimulatedStudy(study.PatientID, study.StudyInstanceUID, folder, instances)


def _acquisition_order(rng: np.random.Generator) -> list[str]:
    """Contrast comes last; what comes before it depends on the department."""
    before = [sequence for sequence in SEQUENCES if sequence != "T1CE"]
    return [before[i] for i in rng.permutation(len(before))] + ["T1CE"]


def _uid(*names: object) -> str:
    """A UID below 2.25 (PS3.5 B.2) that depends on `names` alone."""
    digest = hashlib.sha256("/".join(str(name) for name in ("pacs-cbir simulate", *names)).encode()).digest()
    return f"2.25.{int.from_bytes(digest[:16], 'big')}"


def _study_header(rng: np.random.Generator, patient: SimulatedPatient, name: str, number: int) -> Dataset:
    head, scan = patient.parameters.head, patient.parameters.scan
    scanner = _SCANNERS[int(rng.integers(len(_SCANNERS)))]
    day = _FIRST_DAY + timedelta(days=int(rng.integers(3500)))
    born = day - timedelta(days=int(head.age * 365.25) + int(rng.integers(1, 364)))
    ds = Dataset()
    ds.SpecificCharacterSet = "ISO_IR 100"
    ds.PatientID = f"SIM-{number:05d}"
    ds.PatientName = f"Simulated^{number:05d}"
    ds.PatientBirthDate = born.strftime("%Y%m%d")
    ds.PatientSex = head.sex
    ds.PatientAge = f"{head.age:03d}Y"
    ds.PatientWeight = f"{rng.normal(80 if head.sex == 'M' else 67, 11):.0f}"
    ds.StudyInstanceUID = _uid(name, "study")
    ds.StudyID = str(number)
    ds.StudyDate = day.strftime("%Y%m%d")
    ds.StudyTime = f"{rng.integers(7, 19):02d}{rng.integers(60):02d}{rng.integers(60):02d}"
    ds.AccessionNumber = f"A{int(_uid(name, 'accession')[5:]) % 10**9:09d}"
    ds.StudyDescription = str(rng.choice(["MRI HEAD W WO CONTRAST", "MR Brain with contrast", "MRT Schaedel mit KM"]))
    ds.ReferringPhysicianName = ""
    ds.Modality = "MR"
    ds.Manufacturer = scanner.manufacturer
    ds.ManufacturerModelName = scanner.model
    ds.InstitutionName = scanner.institution
    ds.MagneticFieldStrength = f"{scan.field_strength:g}"
    ds.ImagingFrequency = f"{42.577 * scan.field_strength:.4f}"
    ds.BodyPartExamined = str(rng.choice(["HEAD", "BRAIN"]))
    ds.PatientPosition = "HFS"
    # Nobody has this face, so that a simulated study may leave in a research set as a defaced one may.
    ds.RecognizableVisualFeatures = "NO"
    ds.FrameOfReferenceUID = _uid(name, "frame of reference")
    ds.PositionReferenceIndicator = ""
    ds.ContrastBolusAgent = str(rng.choice(_CONTRAST_AGENTS))
    return ds


def _series_header(study: Dataset, patient: SimulatedPatient, sequence: str, number: int, name: str) -> Dataset:
    scan = patient.parameters.scan
    timing = scan.timings[sequence]
    scanner = next(s for s in _SCANNERS if s.manufacturer == study.Manufacturer)
    begun = datetime.strptime(study.StudyDate + study.StudyTime, "%Y%m%d%H%M%S") + timedelta(minutes=5 * (number - 1))
    ds = Dataset()
    ds.update(study)
    if sequence != "T1CE":
        del ds.ContrastBolusAgent
    ds.SeriesInstanceUID = _uid(name, sequence)
    ds.SeriesNumber = number
    ds.AcquisitionNumber = 1
    ds.SeriesDescription = ds.ProtocolName = scanner.series_descriptions[sequence]
    ds.SeriesDate = ds.AcquisitionDate = ds.ContentDate = begun.strftime("%Y%m%d")
    ds.SeriesTime = ds.AcquisitionTime = ds.ContentTime = begun.strftime("%H%M%S")
    ds.ScanningSequence = ["SE", "IR"] if timing.inversion is not None else "SE"
    ds.SequenceVariant = "SK" if sequence in {"T2", "FLAIR"} else "NONE"
    ds.ScanOptions = ""
    ds.MRAcquisitionType = "2D"
    ds.RepetitionTime = f"{timing.repetition:g}"
    ds.EchoTime = f"{timing.echo:g}"
    if timing.inversion is not None:
        ds.InversionTime = f"{timing.inversion:g}"
    ds.EchoTrainLength = {"T2": 13, "FLAIR": 19}.get(sequence, 1)
    ds.FlipAngle = "90"
    ds.NumberOfAverages = "1"
    ds.SliceThickness = _decimal(scan.slice_spacing / 1.1)
    ds.SpacingBetweenSlices = _decimal(scan.slice_spacing)
    return ds


def _decimal(value: SupportsFloat) -> str:
    """A decimal string of at most 16 characters (PS3.5 6.2, DS)."""
    return f"{float(value) + 0.0:.6f}"


def _write_series(
    folder: Path, header: Dataset, volume: Floats, affine: npt.NDArray[np.float64], order: list[int]
) -> None:
    """Write one instance for each slice of `volume`, numbered in `order`."""
    folder.mkdir(parents=True)
    pixels = volume.astype(np.uint16)
    window = _window(pixels)
    for number, position in enumerate(order, start=1):
        ds = _instance(header, pixels[position], affine, position, window)
        ds.InstanceNumber = number
        ds.SOPInstanceUID = _uid(ds.SeriesInstanceUID, position)
        ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID
        ds.save_as(folder / f"{number:04d}.dcm", enforce_file_format=True)


def _slice_order(rng: np.random.Generator, slices: int) -> list[int]:
    """Positions in the order of InstanceNumber: feet first, head first or interleaved, as scanners differ."""
    feet_first = list(range(slices))
    return [feet_first, feet_first[::-1], feet_first[::2] + feet_first[1::2]][int(rng.choice(3, p=[0.6, 0.25, 0.15]))]


def _window(volume: npt.NDArray[np.uint16]) -> tuple[int, int]:
    """Centre and width that show the head from black to white."""
    head = volume[volume > volume.max() * 0.05]
    low, high = np.quantile(head, (0.02, 0.98))
    return int((low + high) / 2), max(int(high - low), 1)


def _instance(
    header: Dataset,
    pixels: npt.NDArray[np.uint16],
    affine: npt.NDArray[np.float64],
    position: int,
    window: tuple[int, int],
) -> FileDataset:
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = MRImageStorage
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
    ds.update(header)
    ds.SOPClassUID = MRImageStorage
    ds.ImageType = ["ORIGINAL", "PRIMARY", "M", "NORM"]
    down, right = affine[:3, 1], affine[:3, 2]
    spacing = [np.linalg.norm(down), np.linalg.norm(right)]
    origin = affine[:3, 3] + position * affine[:3, 0]
    ds.ImageOrientationPatient = [_decimal(v) for v in (*right / spacing[1], *down / spacing[0])]
    ds.ImagePositionPatient = [_decimal(v) for v in origin]
    ds.SliceLocation = _decimal(float(origin @ np.cross(right, down) / (spacing[0] * spacing[1])))
    ds.PixelSpacing = [_decimal(v) for v in spacing]
    ds.Rows, ds.Columns = pixels.shape
    ds.SamplesPerPixel = 1
    ds.PhotometricInterpretation = "MONOCHROME2"
    ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 16, 12, 11, 0
    ds.SmallestImagePixelValue, ds.LargestImagePixelValue = int(pixels.min()), int(pixels.max())
    ds.WindowCenter, ds.WindowWidth = (str(value) for value in window)
    ds.PixelData = pixels.astype("<u2").tobytes()
    return ds


def _write_truth(folder: Path, study: Dataset, patient: SimulatedPatient, seed: int, number: int) -> None:
    voxel_ml = float(abs(np.linalg.det(patient.affine[:3, :3]))) / 1000
    labels = {"core": CORE, "oedema": OEDEMA, "enhancing": ENHANCING}
    tumour = np.argwhere((patient.mask == CORE) | (patient.mask == ENHANCING))
    truth: dict[str, Any] = {
        "seed": seed,
        "number": number,
        "PatientID": study.PatientID,
        "StudyInstanceUID": study.StudyInstanceUID,
        "labels": labels,
        "volume_ml": {part: voxel_ml * int((patient.mask == label).sum()) for part, label in labels.items()},
        "centroid_lps_mm": (patient.affine @ [*tumour.mean(0), 1.0])[:3].tolist(),
        "parameters": asdict(patient.parameters),
    }
    (folder / "truth.json").write_text(json.dumps(truth, indent=2) + "\n", encoding="utf-8")
    save_nifti(folder / "mask.nii.gz", patient.mask, patient.affine)


def save_nifti(path: Path, array: npt.NDArray[np.generic], affine: npt.NDArray[np.float64]) -> None:
    """Write an array (slices, rows, columns) with its affine to LPS mm.

    Raises:
        OSError: it cannot be written.
    """
    # NIfTI counts columns first and in RAS+; the same voxels, other words.
    affine_ras = np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine[:, [2, 1, 0, 3]]
    # nibabel has types, and its images' constructors have none.
    image = nib.nifti1.Nifti1Image(array.transpose(2, 1, 0), affine_ras)  # type: ignore[no-untyped-call]
    nib.loadsave.save(image, path)
