from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from pacs_cbir.dicom.volume import Plane
from pacs_cbir.errors import DiskUnavailable, SettingsError
from pacs_cbir.learn.datasets.brats import brats_rows
from pacs_cbir.learn.phantom import simulate_patient
from pacs_cbir.learn.pictures import read_nifti
from pacs_cbir.learn.simulated_cases import simulate_cases


@pytest.mark.slow
def test_cases_hold_the_patients_voxels_in_the_layout_of_brats(tmp_path: Path) -> None:
    folders = list(simulate_cases(tmp_path / "out", patients=2, seed=4, skull_stripped=True))
    assert [folder.name for folder in folders] == ["SIM-brain-4_00001", "SIM-brain-4_00002"]
    rows, notes = brats_rows(tmp_path / "out")
    assert not notes
    assert sorted({(row.patient, row.sequence) for row in rows}) == sorted(
        (folder.name, sequence) for folder in folders for sequence in ("T1", "T1CE", "T2", "FLAIR")
    )
    patient = simulate_patient(4, 2, skull_stripped=True)
    row = next(row for row in rows if row.patient == folders[1].name and row.sequence == "T2")
    array, affine, plane = read_nifti(row.path)
    assert plane is Plane.AXIAL
    np.testing.assert_array_equal(array, patient.volumes["T2"])
    np.testing.assert_allclose(affine, patient.affine, atol=1e-3)
    assert row.mask is not None
    np.testing.assert_array_equal(read_nifti(row.mask, plane)[0], patient.mask)
    truth = json.loads((folders[1] / "truth.json").read_text())
    assert truth["parameters"]["glioma"]["radius"] == patient.parameters.glioma.radius


def test_what_cannot_be_written_is_said(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="--patients 0"):
        simulate_cases(tmp_path / "out", patients=0, seed=1)
    (tmp_path / "file").touch()
    with pytest.raises(SettingsError, match="not an empty folder"):
        simulate_cases(tmp_path, patients=1, seed=1)
    with pytest.raises(DiskUnavailable, match="cannot write below"):
        list(simulate_cases(tmp_path / "file" / "out", patients=1, seed=1))
