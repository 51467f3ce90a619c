"""Slices land where the patient's axes say, whatever way round the scanner stored them."""

from __future__ import annotations

import itertools
import subprocess
import sys
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pacs_cbir.dicom.volume import FrameReference, Plane, Volume
from pacs_cbir.embed.preprocess import MAX_SLICES, Preprocessing, Slices, draw_slices
from pacs_cbir.errors import NotAVolume

PREPROCESSING = Preprocessing()
PIXEL_MM = PREPROCESSING.field_of_view_mm / PREPROCESSING.size
HEAD_CENTRE = np.array([12.0, -20.0, 35.0])  # LPS
HEAD_RADII = np.array([70.0, 90.0, 80.0])
MARKER = np.array([42.0, -60.0, 50.0])  # 30 mm left of, 40 mm before, 15 mm above the centre

# Steps of (slices, rows, columns) in LPS, as `Volume.array` has them.
AXES = {
    Plane.AXIAL: np.array([[0, 0, 1], [0, 1, 0], [1, 0, 0]]),
    Plane.CORONAL: np.array([[0, 1, 0], [0, 0, -1], [1, 0, 0]]),
    Plane.SAGITTAL: np.array([[1, 0, 0], [0, 0, -1], [0, 1, 0]]),
}


def head(plane: Plane, spacing: tuple[float, float, float], *, tilt: float = 0.0) -> Volume:
    """An ellipsoid of value 100 in a 256 mm cube of air, with a bright ball of 6 mm radius at MARKER."""
    steps = AXES[plane].T * np.array(spacing)  # column j: step of array axis j
    turn = np.array([[1, 0, 0], [0, np.cos(tilt), -np.sin(tilt)], [0, np.sin(tilt), np.cos(tilt)]])
    steps = turn @ steps
    shape = tuple(round(256 / s) for s in spacing)
    affine = np.eye(4)
    affine[:3, :3] = steps
    affine[:3, 3] = -steps @ ((np.array(shape) - 1) / 2) + [10, -15, 30]
    index = np.stack(np.meshgrid(*(np.arange(n) for n in shape), indexing="ij"), axis=-1)
    at = index @ affine[:3, :3].T + affine[:3, 3]
    array = 100.0 * ((((at - HEAD_CENTRE) / HEAD_RADII) ** 2).sum(axis=-1) < 1)
    array[((at - MARKER) ** 2).sum(axis=-1) < 6**2] = 250
    frames = tuple(FrameReference(f"1.2.{i}", 1) for i in range(shape[0]))
    return Volume(array.astype(np.float32), affine, plane, frames)


def stored_otherwise(volume: Volume, order: tuple[int, ...], flips: tuple[int, ...]) -> Volume:
    """The same voxels with the array's axes permuted and flipped, the affine with them."""
    array = volume.array.transpose(order)
    affine = volume.affine[:, [*order, 3]].copy()
    for i in flips:
        affine[:, 3] += affine[:, i] * (array.shape[i] - 1)
        affine[:, i] *= -1
    return Volume(np.flip(array, flips), affine, volume.plane, volume.frames)


def brightest(slices: Slices) -> tuple[int, float, float]:
    """Slice with the marker, and the marker's middle there in pixels (row, column)."""
    bright = slices.pixels > 0.6 * slices.pixels.max()  # the head is shown as 0.4 of the marker
    k = int(bright.sum(axis=(1, 2)).argmax())
    rows, columns = np.nonzero(bright[k])
    return k, float(rows.mean()), float(columns.mean())


def expected(*offsets_mm: float) -> npt.NDArray[np.float64]:
    """Pixel (row, column) of a point that lies so far from the head's centre."""
    return np.array(offsets_mm) / PIXEL_MM + (PREPROCESSING.size - 1) / 2


def test_axial_slices_show_the_marker_left_and_in_front_of_the_middle() -> None:
    slices = draw_slices(head(Plane.AXIAL, (5, 1, 1)), PREPROCESSING)
    k, row, column = brightest(slices)
    assert slices.plane is Plane.AXIAL
    assert slices.pixels.shape[1:] == (128, 128)
    assert slices.pixels.dtype == np.float32
    assert (row, column) == pytest.approx(expected(-40, 30), abs=2)
    assert slices.positions_mm[k] == pytest.approx(MARKER[2], abs=2.6)


def test_fine_sagittal_stack_is_resliced_to_axial() -> None:
    volume = head(Plane.SAGITTAL, (1, 1, 2))
    slices = draw_slices(volume, PREPROCESSING)
    k, row, column = brightest(slices)
    assert slices.plane is Plane.AXIAL
    assert (row, column) == pytest.approx(expected(-40, 30), abs=2)
    assert slices.positions_mm[k] == pytest.approx(MARKER[2], abs=3)
    assert np.diff(slices.positions_mm) == pytest.approx(5.0)
    (frame,) = set(slices.frames)
    source = volume.frames.index(frame)
    left = volume.affine[0, 3] + source * volume.affine[0, 0]
    assert left == pytest.approx(HEAD_CENTRE[0], abs=4)


def test_coarse_coronal_stack_keeps_its_plane_and_its_slices() -> None:
    volume = head(Plane.CORONAL, (5, 1, 1))
    slices = draw_slices(volume, PREPROCESSING)
    k, row, column = brightest(slices)
    assert slices.plane is Plane.CORONAL
    assert (row, column) == pytest.approx(expected(-15, 30), abs=2)
    assert slices.positions_mm[k] == pytest.approx(MARKER[1], abs=2.6)
    first = volume.frames.index(slices.frames[0])
    assert slices.frames == volume.frames[first : first + len(slices.frames)]
    position = volume.affine[1, 3] + (first + k) * volume.affine[1, 0]
    assert slices.positions_mm[k] == pytest.approx(position)


def test_two_millimetres_as_a_header_rounds_them_are_still_resliced() -> None:
    assert draw_slices(head(Plane.SAGITTAL, (2.0001, 2, 2)), PREPROCESSING).plane is Plane.AXIAL
    assert draw_slices(head(Plane.SAGITTAL, (2.1, 2, 2)), PREPROCESSING).plane is Plane.SAGITTAL


def test_thin_sagittal_slab_keeps_its_plane() -> None:
    volume = head(Plane.SAGITTAL, (1, 2, 2))
    slab = Volume(volume.array[120:124], volume.affine, volume.plane, volume.frames[120:124])
    assert draw_slices(slab, PREPROCESSING).plane is Plane.SAGITTAL


def without(volume: Volume, missing: range) -> Volume:
    """As `build_volume` makes it where slices are missing; what it fills in for them must not show."""
    array = volume.array.copy()
    array[missing.start : missing.stop] = volume.array[missing.start - 1]
    return replace(volume, array=array, frames=tuple(None if i in missing else f for i, f in enumerate(volume.frames)))


@pytest.mark.parametrize("missing", [range(20, 21), range(18, 25)], ids=str)
def test_of_a_coarse_stack_the_slices_that_are_there_are_drawn(missing: range) -> None:
    volume = head(Plane.AXIAL, (5, 2, 2))
    whole, slices = draw_slices(volume, PREPROCESSING), draw_slices(without(volume, missing), PREPROCESSING)
    left = [k for k, frame in enumerate(whole.frames) if volume.frames.index(frame) not in missing]
    assert slices.frames == tuple(whole.frames[k] for k in left)
    np.testing.assert_allclose(slices.positions_mm, whole.positions_mm[left])


def test_of_a_fine_stack_the_nearest_slices_that_are_there_are_drawn() -> None:
    volume = head(Plane.AXIAL, (1, 2, 2))
    whole = draw_slices(volume, PREPROCESSING)
    place = volume.frames.index(whole.frames[5])
    slices = draw_slices(without(volume, range(place, place + 1)), PREPROCESSING)
    assert whole.frames[5] not in slices.frames
    assert np.abs(slices.positions_mm - whole.positions_mm).max() == pytest.approx(1.0)
    assert np.flatnonzero(slices.positions_mm != whole.positions_mm).tolist() == [5]


def test_no_wider_a_gap_than_two_slices_that_are_embedded_is_resliced() -> None:
    volume = head(Plane.SAGITTAL, (1, 2, 2))
    narrow = draw_slices(without(volume, range(128, 132)), PREPROCESSING)
    assert narrow.plane is Plane.AXIAL
    assert None not in narrow.frames
    assert draw_slices(without(volume, range(128, 133)), PREPROCESSING).plane is Plane.SAGITTAL


def test_spacing_decides_which_slices_are_taken() -> None:
    fine = draw_slices(head(Plane.AXIAL, (1, 2, 2)), PREPROCESSING)
    assert np.diff(fine.positions_mm) == pytest.approx(5.0)
    assert np.abs(fine.positions_mm - 5 * np.rint(fine.positions_mm / 5)).max() <= 0.5 + 1e-9
    coarse = draw_slices(head(Plane.AXIAL, (7, 2, 2)), PREPROCESSING)
    assert np.diff(coarse.positions_mm) == pytest.approx(7.0)
    # The head is 160 mm tall: the air above and below is left out.
    for slices in (fine, coarse):
        assert HEAD_CENTRE[2] - 85 < slices.positions_mm[0] < slices.positions_mm[-1] < HEAD_CENTRE[2] + 85


def test_tilted_stack_is_drawn_along_its_own_axes() -> None:
    slices = draw_slices(head(Plane.AXIAL, (5, 1, 1), tilt=np.radians(20)), PREPROCESSING)
    normal = np.array([0, -np.sin(np.radians(20)), np.cos(np.radians(20))])
    k, _, _ = brightest(slices)
    assert slices.plane is Plane.AXIAL
    assert slices.positions_mm[k] == pytest.approx(MARKER @ normal, abs=2.6)


STORED = head(Plane.AXIAL, (2, 2, 2))
DRAWN = draw_slices(STORED, PREPROCESSING)


@settings(max_examples=15, deadline=None)
@given(
    order=st.sampled_from(list(itertools.permutations(range(3)))),
    flips=st.sets(st.integers(0, 2)).map(lambda flips: tuple(sorted(flips))),
)
def test_any_flip_and_permutation_gives_the_same_slices(order: tuple[int, ...], flips: tuple[int, ...]) -> None:
    slices = draw_slices(stored_otherwise(STORED, order, flips), PREPROCESSING)
    # The coarse foreground starts at another corner, so its edge may move by one coarse voxel.
    assert slices.positions_mm == pytest.approx(DRAWN.positions_mm, abs=2.1)
    k, row, column = brightest(slices)
    assert (row, column) == pytest.approx(brightest(DRAWN)[1:], abs=2.5)
    assert slices.positions_mm[k] == pytest.approx(MARKER[2], abs=4)


def test_frames_follow_a_stack_stored_backwards() -> None:
    volume = head(Plane.AXIAL, (5, 2, 2))
    backwards = stored_otherwise(volume, (0, 1, 2), (0,))
    backwards = Volume(backwards.array, backwards.affine, volume.plane, volume.frames[::-1])
    drawn = draw_slices(volume, PREPROCESSING)
    forwards = dict(zip(drawn.frames, drawn.positions_mm, strict=True))
    slices = draw_slices(backwards, PREPROCESSING)
    for frame, position in zip(slices.frames, slices.positions_mm, strict=True):
        assert position == pytest.approx(forwards.get(frame, position))
    assert len(set(slices.frames) & set(forwards)) >= len(forwards) - 2


@settings(max_examples=10, deadline=None)
@given(scale=st.floats(1e-3, 1e4), shift=st.floats(-1000, 1000))
def test_grey_levels_do_not_depend_on_the_scanners_scale(scale: float, shift: float) -> None:
    volume = Volume(
        (STORED.array * scale + shift * scale).astype(np.float32), STORED.affine, STORED.plane, STORED.frames
    )
    np.testing.assert_allclose(draw_slices(volume, PREPROCESSING).pixels, DRAWN.pixels, atol=2e-3)


def test_head_is_found_in_noise_beside_a_bright_artefact() -> None:
    volume = head(Plane.AXIAL, (5, 1, 1))
    rng = np.random.default_rng(0)
    noise = rng.normal(0, 8, (2, *volume.array.shape))
    array = np.hypot(volume.array + noise[0], noise[1]).astype(np.float32)
    array[:, :6, :6] = 3000  # a zipper in the corner
    noisy = draw_slices(Volume(array, volume.affine, volume.plane, volume.frames), PREPROCESSING)
    clean = draw_slices(volume, PREPROCESSING)
    assert abs(len(noisy.pixels) - len(clean.pixels)) <= 2
    assert brightest(noisy)[1:] == pytest.approx(brightest(clean)[1:], abs=2)
    assert noisy.pixels[:, 0, 0].max() == 0
    inside = noisy.pixels[len(noisy.pixels) // 2, 54:74, 54:74]
    assert inside.mean() == pytest.approx(100 / 3000, abs=0.01)  # the volume's own scale, whatever is bright in it


def test_bright_fluid_does_not_pass_for_the_whole_head() -> None:
    volume = head(Plane.AXIAL, (5, 2, 2))
    fluid = volume.array.copy()
    fluid[18:34, 58:74, 52:84] = 500  # as cerebrospinal fluid in a T2 image
    slices = draw_slices(Volume(fluid, volume.affine, volume.plane, volume.frames), PREPROCESSING)
    plain = draw_slices(volume, PREPROCESSING)
    assert len(slices.pixels) == len(plain.pixels)
    assert (slices.pixels > 0).sum() == pytest.approx((plain.pixels > 0).sum(), rel=0.05)


@pytest.mark.parametrize("shape", [(1, 1, 2), (1, 3, 3), (2, 5, 1), (1, 64, 64)])
def test_tiny_volumes_give_at_least_one_slice(shape: tuple[int, int, int]) -> None:
    array = np.arange(np.prod(shape), dtype=np.float32).reshape(shape)
    frames = tuple(FrameReference("1.2", i + 1) for i in range(shape[0]))
    slices = draw_slices(Volume(array, np.eye(4), Plane.AXIAL, frames), PREPROCESSING)
    assert len(slices.pixels) == len(slices.frames) == len(slices.positions_mm) >= 1
    assert np.isfinite(slices.pixels).all()
    assert slices.pixels.min() >= 0
    assert slices.pixels.max() <= 1


def test_not_a_number_stays_local() -> None:
    array = STORED.array.copy()
    array[60:62, 60:62, 60:62] = np.nan
    array[70, 70, 70] = np.inf
    slices = draw_slices(Volume(array, STORED.affine, STORED.plane, STORED.frames), PREPROCESSING)
    assert np.isfinite(slices.pixels).all()
    assert np.abs(slices.pixels - DRAWN.pixels).max(axis=(1, 2)).astype(bool).sum() <= 3


@pytest.mark.parametrize(
    "array",
    [
        np.zeros((4, 8, 8)),
        np.full((4, 8, 8), 7.0),
        np.full((4, 8, 8), np.nan),
        np.zeros((0, 8, 8)),
        np.zeros((4, 0, 8)),
    ],
    ids=["zeros", "constant", "nan", "no slices", "no rows"],
)
def test_a_volume_that_shows_nothing_is_refused_with_the_reason(array: npt.NDArray[np.float64]) -> None:
    frames = tuple(FrameReference("1.2", i + 1) for i in range(len(array)))
    with pytest.raises(NotAVolume, match="the volume"):
        draw_slices(Volume(array.astype(np.float32), np.eye(4), Plane.AXIAL, frames), PREPROCESSING)


def test_a_mask_is_drawn_where_its_slices_are() -> None:
    for volume in (STORED, stored_otherwise(STORED, (2, 0, 1), (1,)), head(Plane.SAGITTAL, (1, 1, 1))):
        slices = draw_slices(volume, PREPROCESSING, mask=volume.array > 200)
        assert slices.masks is not None
        assert slices.masks.any()
        np.testing.assert_array_equal(slices.masks, slices.pixels > 175 / 250)


@pytest.mark.parametrize("wrong", [{"size": 0}, {"field_of_view_mm": -1.0}, {"slice_spacing_mm": float("nan")}])
def test_preprocessing_refuses_what_cannot_be_drawn(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="is a length above 0, not "):
        Preprocessing(**wrong)  # type: ignore[arg-type]


def test_the_decoders_process_does_not_import_torch() -> None:
    code = "import sys, pacs_cbir.embed.preprocess, pacs_cbir.embed.checkpoint; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_stack_of_more_slices_than_a_patient_has_is_not_drawn() -> None:
    """Nothing of it is drawn: a header may claim what no memory holds."""
    array = np.zeros((MAX_SLICES + 1, 8, 8), np.float32)
    array[:, 2:6, 2:6] = 1
    frames = tuple(FrameReference("1.2", number) for number in range(1, len(array) + 1))

    def tower(slices: int) -> Volume:
        affine = np.diag([5.0, 5.0, 5.0, 1.0])[[2, 1, 0, 3]]
        return Volume(array[:slices], affine, Plane.AXIAL, frames[:slices])

    small = Preprocessing(size=32)
    assert len(draw_slices(tower(MAX_SLICES), small).pixels) == MAX_SLICES
    with pytest.raises(NotAVolume, match=f"{MAX_SLICES + 1} slices, and {MAX_SLICES} are drawn at most"):
        draw_slices(tower(MAX_SLICES + 1), small)
