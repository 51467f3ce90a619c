"""What the changes do to a head of known place, size and grey levels."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pytest

from lesions import disc, lesion_stack
from pacs_cbir.dicom.volume import FrameReference, Plane, Volume
from pacs_cbir.embed.preprocess import Preprocessing, draw_slices
from pacs_cbir.learn.disturb import BIAS_FACTORS, CHANGES, SLICES, in_place_of, neighbour

SPACING = (5.0, 2.0, 1.0)
"""Slices, rows, columns in mm: pixels that are not square."""


def head(background: float = 0.0) -> Volume:
    """A head of 60 by 45 mm radii round the field's centre, with a spot 30 mm above it and 10 mm to its right."""
    rows, columns = ((np.arange(n) - (n - 1) / 2) * mm for n, mm in zip((120, 240), SPACING[1:], strict=True))
    grey = np.where(np.hypot(rows[:, None] / 60, columns / 45) <= 1, 400.0, background)
    grey += 500.0 * np.exp(-((rows[:, None] + 30) ** 2 + (columns - 10) ** 2) / (2 * 4.0**2))
    array = np.repeat(grey[None], 4, axis=0).astype(np.float32)
    affine = np.eye(4)
    affine[:3, :3] = [[0, 0, SPACING[2]], [0, SPACING[1], 0], [SPACING[0], 0, 0]]
    return Volume(array, affine, Plane.AXIAL, tuple(FrameReference("", k + 1) for k in range(4)))


def spot(volume: Volume) -> npt.NDArray[np.float64]:
    """Where the brightest place is, mm (row, column) from the field's centre."""
    bright = np.clip(volume.array[1].astype(np.float64) - 500, 0, None)
    rows, columns = np.nonzero(bright)
    weights = bright[rows, columns]
    place = np.array([np.average(rows, weights=weights), np.average(columns, weights=weights)])
    return (place - (np.array(bright.shape) - 1) / 2) * SPACING[1:]


def area(volume: Volume) -> float:
    return float((volume.array[1] > 200).sum()) * SPACING[1] * SPACING[2]


def test_every_change_of_the_list_is_there() -> None:
    assert [name.rsplit(" ", 1)[0] for name in (*CHANGES, *SLICES)] == [
        *["grey levels ×"] * 2,
        *["gamma"] * 2,
        "bias",
        *["shift 15 mm"] * 2,
        *["rotation"] * 2,
        *["field of view +20", "field of view −20"],
        *["slice"] * 2,
    ]


@pytest.mark.parametrize("name", CHANGES)
def test_a_change_keeps_what_a_volume_is(name: str) -> None:
    before = head()
    after = CHANGES[name](before)
    assert after.array.dtype == np.float32
    assert after.array.shape == before.array.shape
    assert after.frames == before.frames
    np.testing.assert_array_equal(after.affine, before.affine)
    np.testing.assert_array_equal(before.array, head().array)
    assert not np.allclose(after.array, before.array)
    drawn = draw_slices(after, Preprocessing(size=32))
    assert len(drawn.pixels) == 4
    assert np.isfinite(drawn.pixels).all()


@pytest.mark.parametrize(
    ("name", "row", "column"),
    [
        ("shift 15 mm down", -15.0, 10.0),
        ("shift 15 mm right", -30.0, 25.0),
        ("field of view +20 %", -30 / 1.2, 10 / 1.2),
        ("field of view −20 %", -30 / 0.8, 10 / 0.8),
    ],
)
def test_places_move(name: str, row: float, column: float) -> None:
    np.testing.assert_allclose(spot(CHANGES[name](head())), [row, column], atol=0.3)


@pytest.mark.parametrize(("name", "degrees"), [("rotation +10°", 10), ("rotation −10°", -10)])
def test_turns_are_clockwise_and_of_millimetres_not_pixels(name: str, degrees: int) -> None:
    before, after = spot(head()), spot(CHANGES[name](head()))
    assert np.hypot(*after) == pytest.approx(np.hypot(*before), rel=0.02)
    turned = np.rad2deg(np.arctan2(after[0], after[1]) - np.arctan2(before[0], before[1]))
    assert turned == pytest.approx(degrees, abs=0.5)


def test_the_field_of_view_changes_the_heads_size() -> None:
    whole = area(head())
    assert area(CHANGES["field of view +20 %"](head())) == pytest.approx(whole / 1.44, rel=0.02)
    assert area(CHANGES["field of view −20 %"](head())) == pytest.approx(whole / 0.64, rel=0.02)


def test_what_moves_in_is_background() -> None:
    assert CHANGES["shift 15 mm right"](head(background=30)).array[1, 5, :10].tolist() == [30] * 10


def test_grey_levels_are_not_cut_off() -> None:
    before = head()
    np.testing.assert_allclose(CHANGES["grey levels × 2"](before).array, before.array * 2)
    np.testing.assert_allclose(CHANGES["grey levels × 0.5"](before).array, before.array / 2)
    for name, power in (("gamma 0.7", 0.7), ("gamma 1.4", 1.4)):
        after = CHANGES[name](before).array
        white = before.array.max()
        np.testing.assert_allclose(after, white * (before.array / white) ** power, rtol=1e-4)


def test_gamma_knows_no_negative_base() -> None:
    below = replace(head(), array=head().array - 100)
    assert np.isfinite(CHANGES["gamma 0.7"](below).array).all()
    nothing = replace(head(), array=np.zeros_like(head().array))
    assert not CHANGES["gamma 1.4"](nothing).array.any()


def test_the_bias_field_goes_from_corner_to_corner() -> None:
    even = replace(head(), array=np.full_like(head().array, 100))
    field = CHANGES["bias field"](even).array / 100
    assert (field[0, 0, 0], field[3, -1, -1]) == pytest.approx(BIAS_FACTORS, rel=1e-4)
    assert (np.diff(field, axis=1) > 0).all()
    assert (np.diff(field, axis=2) > 0).all()


def test_a_neighbour_is_the_next_slice_or_nothing() -> None:
    stack = lesion_stack("a", disc(9), slices=3)
    above, below = (neighbour(stack, step) for step in SLICES.values())
    assert above is not None
    assert below is not None
    assert (above.best, below.best) == (2, 0)
    assert neighbour(above, 1) is None
    assert neighbour(below, -1) is None
    assert neighbour(lesion_stack("a", slices=3), 1) is None


def test_a_changed_stack_shows_the_slice_of_the_unchanged() -> None:
    stack = lesion_stack("a", disc(9), slices=5)
    shorter = replace(stack, pixels=stack.pixels[1:], levels=stack.levels[1:], masks=None, best=None)
    shown = in_place_of(stack, shorter)
    assert shown is not None
    assert shown.levels[shown.best] == stack.levels[stack.best or 0]
    assert in_place_of(lesion_stack("b", slices=2), shorter) is None
