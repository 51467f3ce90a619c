"""Simulated patients look like heads with gliomas, and their truth is true."""

import socket

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pacs_cbir.learn import anatomy, phantom
from pacs_cbir.learn.phantom import CORE, ENHANCING, OEDEMA, SEQUENCES, SimulatedPatient, simulate_patient
from pacs_cbir.learn.relaxation import Relaxation, Timing, Tissue, nulling_inversion_time

SEED = 7


@pytest.fixture(scope="module")
def patients() -> list[SimulatedPatient]:
    return [simulate_patient(SEED, number) for number in range(1, 6)]


@pytest.fixture(scope="module")
def stripped() -> SimulatedPatient:
    return simulate_patient(SEED, 1, skull_stripped=True)


def mean(patient: SimulatedPatient, sequence: str, tissue: Tissue) -> float:
    return float(patient.volumes[sequence][patient.tissues == tissue].mean())


def test_same_numbers_same_patient(patients: list[SimulatedPatient]) -> None:
    again = simulate_patient(SEED, 2)
    assert again.parameters == patients[1].parameters
    np.testing.assert_array_equal(again.mask, patients[1].mask)
    for sequence in SEQUENCES:
        np.testing.assert_array_equal(again.volumes[sequence], patients[1].volumes[sequence])


def test_patients_and_cohorts_differ(patients: list[SimulatedPatient]) -> None:
    centres = {patient.parameters.glioma.centre for patient in patients}
    assert len(centres) == len(patients)
    assert simulate_patient(SEED + 1, 1).parameters.glioma != patients[0].parameters.glioma


def test_arrays_are_what_the_docstring_says(patients: list[SimulatedPatient]) -> None:
    for patient in patients:
        shape = (patient.parameters.scan.slices, phantom.MATRIX, phantom.MATRIX)
        assert list(patient.volumes) == list(SEQUENCES)
        for volume in patient.volumes.values():
            assert volume.dtype == np.float32
            assert volume.shape == shape
            assert volume.min() >= 0
            assert 1000 < volume.max() <= phantom.MAXIMUM
        assert patient.mask.dtype == np.uint8
        assert patient.mask.shape == patient.brain.shape == shape
        assert set(np.unique(patient.mask)) <= {0, CORE, OEDEMA, ENHANCING}


def test_affine_runs_feet_to_head_anterior_to_posterior_right_to_left(patients: list[SimulatedPatient]) -> None:
    for patient in patients:
        scan = patient.parameters.scan
        slices, rows, columns = patient.affine[:3, :3].T
        assert slices.argmax() == 2
        assert rows.argmax() == 1
        assert columns.argmax() == 0
        lengths = [np.linalg.norm(axis) for axis in (slices, rows, columns)]
        assert lengths == pytest.approx([scan.slice_spacing, scan.pixel_spacing, scan.pixel_spacing])
        assert np.linalg.det(patient.affine[:3, :3] / lengths) == pytest.approx(-1.0)


def test_anatomy_is_the_right_way_round(patients: list[SimulatedPatient]) -> None:
    """The nose is low, in front and in the middle; the vertex is at the end."""
    for patient in patients:
        slices = patient.brain.shape[0]
        position, row, column = np.nonzero(patient.tissues == Tissue.MUCOSA)
        _, brain_row, brain_column = np.nonzero(patient.brain)
        assert position.max() < slices * 0.45
        assert np.median(row) < brain_row.min() + 40
        assert np.median(column) == pytest.approx(np.median(brain_column), abs=25)
        area = patient.brain.sum((1, 2))
        assert area[-1] < 0.3 * area.max()
        assert slices * 0.25 < area.argmax() < slices * 0.8


def test_contrast_of_healthy_tissue(patients: list[SimulatedPatient]) -> None:
    csf, grey, white, fat, bone = Tissue.CSF, Tissue.GREY, Tissue.WHITE, Tissue.FAT, Tissue.BONE
    for patient in patients:
        assert 1.4 * mean(patient, "T1", csf) < mean(patient, "T1", grey)
        assert 1.05 * mean(patient, "T1", grey) < mean(patient, "T1", white) < 0.8 * mean(patient, "T1", fat)
        assert 1.2 * mean(patient, "T2", white) < mean(patient, "T2", grey) < 0.8 * mean(patient, "T2", csf)
        assert 2.0 * mean(patient, "FLAIR", csf) < mean(patient, "FLAIR", white) < 0.95 * mean(patient, "FLAIR", grey)
        for sequence in SEQUENCES:
            assert mean(patient, sequence, bone) < 0.5 * mean(patient, sequence, white)


def test_contrast_of_the_tumour(patients: list[SimulatedPatient]) -> None:
    white, oedema, rim = Tissue.WHITE, Tissue.OEDEMA, Tissue.RIM
    rims = 0
    for patient in patients:
        if (patient.mask == OEDEMA).sum() > 100:
            assert mean(patient, "T1", oedema) < mean(patient, "T1", white)
            assert mean(patient, "T2", oedema) > 1.5 * mean(patient, "T2", white)
            assert mean(patient, "FLAIR", oedema) > 1.3 * mean(patient, "FLAIR", white)
        if (patient.mask == ENHANCING).sum() > 100:
            rims += 1
            before = mean(patient, "T1", rim) / mean(patient, "T1", white)
            assert mean(patient, "T1CE", rim) / mean(patient, "T1CE", white) > 1.3 * before
    assert rims >= 2


def test_mask_is_where_the_tumour_was_placed(patients: list[SimulatedPatient]) -> None:
    for patient in patients:
        glioma = patient.parameters.glioma
        tumour = np.argwhere((patient.mask == CORE) | (patient.mask == ENHANCING))
        centroid = (patient.affine @ [*tumour.mean(0), 1])[:3]
        assert np.linalg.norm(centroid - glioma.centre) < 0.5 * glioma.radius + 2.0
        volume = len(tumour) * abs(np.linalg.det(patient.affine[:3, :3]))
        assert volume == pytest.approx(4 / 3 * np.pi * glioma.radius**3, rel=0.6)
        assert patient.brain[patient.mask > 0].all()


def test_mask_agrees_with_parameters(patients: list[SimulatedPatient]) -> None:
    for patient in patients:
        glioma = patient.parameters.glioma
        assert bool((patient.mask == ENHANCING).any()) == (glioma.enhancement > 0)
        if glioma.enhancement:
            assert bool((patient.mask == CORE).any()) == (glioma.necrosis > 0)


def test_skull_stripped_is_the_same_brain_and_nothing_else(
    stripped: SimulatedPatient, patients: list[SimulatedPatient]
) -> None:
    whole = patients[0]
    np.testing.assert_array_equal(stripped.mask, whole.mask)
    for sequence in SEQUENCES:
        assert (stripped.volumes[sequence][~stripped.brain] == 0).all()
        np.testing.assert_array_equal(stripped.volumes[sequence][stripped.brain], whole.volumes[sequence][whole.brain])
        assert whole.volumes[sequence][~whole.brain].max() > 200
    skull = (Tissue.BONE, Tissue.MARROW, Tissue.FAT)
    assert np.isin(whole.tissues[whole.brain], skull).mean() < 0.01


def test_background_noise_is_rician(patients: list[SimulatedPatient]) -> None:
    """In air the magnitude of complex noise is Rayleigh distributed: mean / standard deviation is 1.91."""
    for patient in patients:
        air = patient.volumes["T1"][-1, :20, :20]
        assert air.mean() / air.std() == pytest.approx(1.91, rel=0.15)


def test_negative_seed_is_refused() -> None:
    with pytest.raises(ValueError, match="non-negative"):
        simulate_patient(-1)


def test_nothing_is_downloaded(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object, **kwargs: object) -> None:
        raise OSError("no network")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    anatomy.template.cache_clear()
    assert 1.0e6 < (anatomy.template().grey + anatomy.template().white > 0.5).sum() < 2.2e6


@settings(max_examples=20, deadline=None)
@given(scale=st.floats(4, 60), seed=st.integers(0, 2**32))
def test_smooth_noise_is_smooth_and_of_unit_variance(scale: float, seed: int) -> None:
    field = phantom.smooth_noise(np.random.default_rng(seed), (200, 100, 100), (2.0, 1.0, 1.0), scale)
    assert field.dtype == np.float32
    assert np.abs(np.diff(field, axis=1)).mean() < 3.0 / scale
    if scale < 8:
        assert field.std() == pytest.approx(1.0, abs=0.15)


@given(t1=st.floats(200, 4500), repetition=st.floats(3000, 12000))
def test_inversion_time_nulls(t1: float, repetition: float) -> None:
    inversion = nulling_inversion_time(t1, repetition)
    water = Relaxation(t1, 2000, 1.0)
    assert Timing(repetition, 100, inversion).signal(water) < 1e-6
    assert Timing(repetition, 100, inversion * 1.2).signal(water) > 0.01


def test_gadolinium_shortens_both_relaxation_times() -> None:
    tissue = Relaxation(1000, 100, 1.0)
    assert tissue.enhanced(0.0) == tissue
    enhanced = tissue.enhanced(0.5)
    assert enhanced.t1 == pytest.approx(1 / (1 / 1000 + 0.5 * 4.1e-3))
    assert enhanced.t2 == pytest.approx(1 / (1 / 100 + 0.5 * 4.6e-3))
