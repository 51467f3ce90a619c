"""What simulate writes is valid DICOM, the patient that was simulated, and the truth about it."""

import json
from collections import defaultdict
from pathlib import Path

import highdicom as hd
import nibabel as nib
import numpy as np
import pytest
from pydicom import Dataset, dcmread
from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage

from pacs_cbir.dicom.disclosing import disclosing, read_series
from pacs_cbir.errors import DiskUnavailable, SettingsError
from pacs_cbir.learn import simulate
from pacs_cbir.learn.phantom import SEQUENCES, simulate_patient
from pacs_cbir.learn.simulate import SimulatedStudy, simulate_cohort

SEED = 11

FLIP = np.diag([-1.0, -1.0, 1.0, 1.0])

TYPE_1 = """
SOPClassUID SOPInstanceUID StudyInstanceUID SeriesInstanceUID FrameOfReferenceUID Modality ImageType ScanningSequence
SequenceVariant SamplesPerPixel PhotometricInterpretation Rows Columns BitsAllocated BitsStored HighBit
PixelRepresentation PixelSpacing ImageOrientationPatient ImagePositionPatient PixelData
"""
"""Attributes that an MR image must have with a value (PS3.3 A.4.3: the mandatory modules)."""

TYPE_2 = """
PatientName PatientID PatientBirthDate PatientSex StudyDate StudyTime ReferringPhysicianName StudyID AccessionNumber
SeriesNumber InstanceNumber PatientPosition PositionReferenceIndicator Manufacturer ScanOptions MRAcquisitionType
EchoTime EchoTrainLength RepetitionTime SliceThickness
"""
"""Attributes that must be there, the value may be missing."""


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> list[SimulatedStudy]:
    return list(simulate_cohort(tmp_path_factory.mktemp("cohort"), patients=2, seed=SEED))


@pytest.fixture(scope="module")
def instances(cohort: list[SimulatedStudy]) -> dict[tuple[str, str], list[Dataset]]:
    """The data sets of each patient and sequence, in the order of their file names."""
    series = defaultdict(list)
    for study in cohort:
        for path in sorted(study.folder.rglob("*.dcm")):
            series[study.patient_id, path.parent.name].append(dcmread(path))
    return series


def test_layout(cohort: list[SimulatedStudy], instances: dict[tuple[str, str], list[Dataset]]) -> None:
    assert [study.patient_id for study in cohort] == ["SIM-00001", "SIM-00002"]
    assert set(instances) == {(study.patient_id, sequence) for study in cohort for sequence in SEQUENCES}
    for study in cohort:
        found = [ds for (patient, _), series in instances.items() if patient == study.patient_id for ds in series]
        assert len(found) == study.instances
        assert {ds.StudyInstanceUID for ds in found} == {study.study_instance_uid}
        assert {path.name for path in study.folder.iterdir()} == {*SEQUENCES, "truth.json", "mask.nii.gz"}


def test_headers_are_complete(instances: dict[tuple[str, str], list[Dataset]]) -> None:
    for (patient, sequence), series in instances.items():
        for ds in series:
            assert all(ds.get(keyword) not in (None, "", []) for keyword in TYPE_1.split())
            assert all(keyword in ds for keyword in TYPE_2.split())
            assert ds.SOPClassUID == ds.file_meta.MediaStorageSOPClassUID == MRImageStorage
            assert ds.SOPInstanceUID == ds.file_meta.MediaStorageSOPInstanceUID
            assert ds.file_meta.TransferSyntaxUID == ExplicitVRLittleEndian
            assert ds.PatientID == patient
            assert ds.PatientName == f"Simulated^{patient[4:]}"
            assert "RescaleSlope" not in ds
            assert ("InversionTime" in ds) == (sequence == "FLAIR")
            assert ("ContrastBolusAgent" in ds) == (sequence == "T1CE")
            assert int(ds.PatientAge[:3]) == (int(ds.StudyDate) - int(ds.PatientBirthDate)) // 10000
            assert ds.SeriesTime >= ds.StudyTime


def test_header_tells_the_sequence(instances: dict[tuple[str, str], list[Dataset]]) -> None:
    for (_, sequence), (ds, *_) in instances.items():
        assert (ds.EchoTime < 20 and ds.RepetitionTime < 800) == (sequence in {"T1", "T1CE"})
        assert (ds.ScanningSequence == ["SE", "IR"]) == (sequence == "FLAIR")
        assert ("T2" in ds.SeriesDescription.upper() or "FLAIR" in ds.SeriesDescription) == (
            sequence in {"T2", "FLAIR"}
        )


def test_uids(instances: dict[tuple[str, str], list[Dataset]]) -> None:
    everything = [ds for series in instances.values() for ds in series]
    assert len({ds.SOPInstanceUID for ds in everything}) == len(everything)
    assert len({ds.SeriesInstanceUID for ds in everything}) == len(instances)
    assert len({ds.StudyInstanceUID for ds in everything}) == len({ds.FrameOfReferenceUID for ds in everything}) == 2
    for ds in everything:
        for keyword in ("SOPInstanceUID", "SeriesInstanceUID", "StudyInstanceUID", "FrameOfReferenceUID"):
            assert ds[keyword].value.is_valid
            assert ds[keyword].value.startswith("2.25.")
    for series in instances.values():
        assert len({ds.SeriesInstanceUID for ds in series}) == 1
        assert [ds.InstanceNumber for ds in series] == list(range(1, len(series) + 1))


def test_volume_is_the_patient(instances: dict[tuple[str, str], list[Dataset]]) -> None:
    patient = simulate_patient(SEED, 2)
    for sequence in SEQUENCES:
        series = instances["SIM-00002", sequence]
        volume = hd.image.get_volume_from_series(series).to_patient_orientation("HPL")
        np.testing.assert_array_equal(volume.array, patient.volumes[sequence])
        np.testing.assert_allclose(volume.affine, patient.affine, atol=2e-3)
        assert volume.spacing[0] == pytest.approx(float(series[0].SpacingBetweenSlices), abs=1e-3)


def test_instance_number_is_not_always_the_position() -> None:
    rng = np.random.default_rng(0)
    orders = [simulate._slice_order(rng, 7) for _ in range(50)]
    assert all(sorted(order) == list(range(7)) for order in orders)
    assert {tuple(order) for order in orders} == {
        (0, 1, 2, 3, 4, 5, 6),
        (6, 5, 4, 3, 2, 1, 0),
        (0, 2, 4, 6, 1, 3, 5),
    }


def test_truth_is_where_the_slices_are(
    cohort: list[SimulatedStudy], instances: dict[tuple[str, str], list[Dataset]]
) -> None:
    for study in cohort:
        truth = json.loads((study.folder / "truth.json").read_text())
        mask = nib.load(study.folder / "mask.nii.gz")
        labels = np.asarray(mask.dataobj)
        tumour = np.argwhere((labels == truth["labels"]["core"]) | (labels == truth["labels"]["enhancing"]))
        centroid = (FLIP @ mask.affine @ [*tumour.mean(0), 1])[:3]
        np.testing.assert_allclose(centroid, truth["centroid_lps_mm"], atol=1e-3)
        glioma = truth["parameters"]["glioma"]
        assert np.linalg.norm(centroid - glioma["centre"]) < 0.5 * glioma["radius"] + 2
        corner = min(instances[study.patient_id, "T2"], key=lambda ds: ds.ImagePositionPatient[2])
        np.testing.assert_allclose((FLIP @ mask.affine)[:3, 3], corner.ImagePositionPatient, atol=1e-3)
        assert truth["StudyInstanceUID"] == study.study_instance_uid
        voxel_ml = abs(np.linalg.det(mask.affine[:3, :3])) / 1000
        for part, label in truth["labels"].items():
            assert truth["volume_ml"][part] == pytest.approx(voxel_ml * (labels == label).sum(), rel=1e-4)


def test_the_same_seed_gives_the_same_bytes(cohort: list[SimulatedStudy], tmp_path: Path) -> None:
    (again,) = simulate_cohort(tmp_path, patients=1, seed=SEED)
    files = sorted(path.relative_to(again.folder) for path in again.folder.rglob("*") if path.is_file())
    assert files == sorted(path.relative_to(cohort[0].folder) for path in cohort[0].folder.rglob("*") if path.is_file())
    for name in files:
        assert (again.folder / name).read_bytes() == (cohort[0].folder / name).read_bytes(), name


def test_skull_stripped(cohort: list[SimulatedStudy], tmp_path: Path) -> None:
    (study,) = simulate_cohort(tmp_path, patients=1, seed=SEED, skull_stripped=True)
    assert study.study_instance_uid != cohort[0].study_instance_uid
    patient = simulate_patient(SEED, 1)
    for sequence in SEQUENCES:
        series = [dcmread(path) for path in (study.folder / sequence).iterdir()]
        volume = hd.image.get_volume_from_series(series).to_patient_orientation("HPL")
        assert (volume.array[~patient.brain] == 0).all()
        np.testing.assert_array_equal(volume.array[patient.brain], patient.volumes[sequence][patient.brain])


def test_refusals_come_before_work(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="at least one patient"):
        simulate_cohort(tmp_path, patients=0, seed=1)
    with pytest.raises(SettingsError, match="0 or more"):
        simulate_cohort(tmp_path, patients=1, seed=-1)
    (tmp_path / "mine.txt").write_text("keep me")
    with pytest.raises(SettingsError, match="not an empty folder"):
        simulate_cohort(tmp_path, patients=1, seed=1)
    with pytest.raises(SettingsError, match="not an empty folder"):
        simulate_cohort(tmp_path / "mine.txt", patients=1, seed=1)


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(DiskUnavailable, match="cannot write below"):
        next(simulate_cohort(tmp_path / "file" / "out", patients=1, seed=1))


def test_simulated_studies_may_leave_in_a_research_set(cohort: list[SimulatedStudy]) -> None:
    folder = cohort[0].folder / "T1"
    assert disclosing(read_series(sorted(folder.glob("*.dcm"))), clean_pixel=False) is None
