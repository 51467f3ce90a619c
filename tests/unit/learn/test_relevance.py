"""Relevance against closed forms, and what must not change it."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from lesions import Mask, disc, lesion_stack
from scipy import ndimage
from scipy.spatial.distance import pdist

from pacs_cbir.errors import NotMeasurable
from pacs_cbir.learn.relevance import (
    gfd,
    gfd_d95,
    grey_histogram,
    intersection,
    iou,
    parameter_relevance,
    relevance,
)

PIXEL_TOLERANCE = 0.25
"""City-block distance of the 45 coefficients between a shape and itself on other pixels; of 80 gliomas' lesions the
nearest two are 0.41 apart, and half of all pairs more than 1.36."""

pieces = arrays(np.bool_, (12, 12)).filter(lambda mask: bool(mask.any()))


def flower(angle: float, radius: float, petals: int, row: float = 127.5, column: float = 127.5) -> Mask:
    """A smooth shape without a symmetry of its own: petals of different sizes."""
    rows, columns = np.ogrid[:256, :256]
    radii, angles = np.hypot(rows - row, columns - column), np.arctan2(rows - row, columns - column) - angle
    edge = radius * (0.75 + 0.15 * np.cos(petals * angles) + 0.1 * np.cos(angles))
    drawn: Mask = radii <= edge
    return drawn


def apart(one: Mask, two: Mask) -> float:
    return float(np.abs(gfd(one) - gfd(two)).sum())


THREE_IN_A_ROW = np.ones((1, 3), np.bool_)
"""The middle one lies at the centroid."""


@given(mask=pieces, turns=st.integers(1, 3))
@example(mask=THREE_IN_A_ROW, turns=1)
def test_quarter_turns_change_nothing(mask: Mask, turns: int) -> None:
    np.testing.assert_allclose(gfd(np.rot90(mask, turns)), gfd(mask), atol=1e-9)


@given(mask=pieces, row=st.integers(0, 50), column=st.integers(0, 50), more=st.integers(0, 40))
def test_the_place_and_the_pictures_size_change_nothing(mask: Mask, row: int, column: int, more: int) -> None:
    moved = np.zeros((62 + more, 62), dtype=bool)
    moved[row : row + 12, column : column + 12] = mask
    np.testing.assert_allclose(gfd(moved), gfd(mask), atol=1e-9)


@settings(deadline=None, max_examples=40)
@given(angle=st.floats(0, 2 * np.pi), radius=st.floats(40, 100), petals=st.integers(2, 5))
def test_any_turn_changes_pixels_alone(angle: float, radius: float, petals: int) -> None:
    assert apart(flower(angle, radius, petals), flower(0, radius, petals)) < PIXEL_TOLERANCE


@settings(deadline=None, max_examples=40)
@given(radius=st.floats(30, 60), factor=st.floats(1, 2), petals=st.integers(2, 5))
def test_the_size_changes_pixels_alone(radius: float, factor: float, petals: int) -> None:
    assert apart(flower(0, radius * factor, petals), flower(0, radius, petals)) < PIXEL_TOLERANCE


def test_shapes_that_differ_are_farther_apart_than_pixels() -> None:
    assert apart(flower(0, 80, 2), flower(0, 80, 3)) > 2 * PIXEL_TOLERANCE


def test_a_disc_has_its_closed_form() -> None:
    """|∫ 2 s exp(-2πiρs) ds| over 0 … 1 is 1/(πρ); whatever turns is 0, and a disc fills its circle."""
    coefficients = gfd(disc(300, 320, 320, edge=641)).reshape(5, 9)
    expected = np.zeros((5, 9))
    expected[0, 0] = 1
    expected[1:, 0] = 1 / (np.pi * np.arange(1, 5))
    np.testing.assert_allclose(coefficients, expected, atol=5e-3)


def test_a_wheel_of_eight_sectors_has_its_closed_form() -> None:
    """Sectors of half the circle: |sin(φw/2) / (φw/2)| with w = π/8, which is 2/π at φ = 8, and 0 at all others."""
    rows, columns = np.mgrid[-300.5:301, -300.5:301]
    mask = (np.hypot(rows, columns) <= 300) & (np.mod(np.arctan2(rows, columns), np.pi / 4) < np.pi / 8)
    coefficients = gfd(mask).reshape(5, 9)
    assert coefficients[0, 0] == pytest.approx(0.5, abs=5e-3)
    assert coefficients[0, 8] == pytest.approx(2 / np.pi, abs=5e-3)
    np.testing.assert_allclose(coefficients[0, 1:8], 0, atol=5e-3)


def test_pieces_are_taken_together() -> None:
    """Two small discs far apart: about the point between them they turn into one another after half a turn."""
    coefficients = gfd(disc(4, 30, 30) | disc(4, 90, 90)).reshape(5, 9)
    assert coefficients[0, 1] == pytest.approx(0, abs=1e-9)
    assert coefficients[0, 2] > 0.95
    assert coefficients[0, 0] == pytest.approx(2 * 4**2 / (np.hypot(30, 30) + 4) ** 2, rel=0.05)


def test_a_mask_of_one_pixel_is_a_small_disc() -> None:
    mask = np.zeros((128, 128), dtype=bool)
    mask[3, 4] = True
    assert np.isfinite(gfd(mask)).all()
    assert gfd(mask)[0] == pytest.approx(4 / np.pi)


def shapes() -> list[Mask]:
    rows, columns = np.ogrid[:128, :128]
    ellipses = [np.hypot((rows - 60) / (8 + 2 * k), (columns - 60) / 10) <= 1 for k in range(5)]
    return [ndimage.shift(e.astype(float), (k, 0), order=0) > 0.5 for k, e in enumerate(ellipses)]


def test_d95_is_between_patients_not_stacks() -> None:
    alone = [lesion_stack(str(k), mask) for k, mask in enumerate(shapes())]
    more = [lesion_stack("0", shapes()[3], sequence="T1") for _ in range(9)]
    expected = np.percentile(pdist([gfd(mask) for mask in shapes()], "cityblock"), 95)
    assert gfd_d95([*alone, *more]) == pytest.approx(expected)
    assert gfd_d95([lesion_stack("none"), *alone]) == pytest.approx(expected)


def test_d95_needs_two_shapes() -> None:
    with pytest.raises(NotMeasurable, match="1 patients have a lesion mask"):
        gfd_d95([lesion_stack("a", disc(5)), lesion_stack("a", disc(9)), lesion_stack("b")])
    with pytest.raises(NotMeasurable, match="of one shape"):
        gfd_d95([lesion_stack("a", disc(5)), lesion_stack("b", disc(5))])


def test_relevance_is_the_mean_of_three() -> None:
    query = lesion_stack("a", disc(20, 60, 60), grey=0.5)
    bar = np.zeros((128, 128), dtype=bool)
    bar[58:62, 40:80] = True
    found = relevance([query], [query, lesion_stack("b", bar, grey=0.9)], d95=1e6)
    np.testing.assert_allclose([found.iou[0, 0], found.histogram[0, 0], found.gfd[0, 0], found.mean[0, 0]], 1)

    shared, union = (disc(20, 60, 60) & bar).sum(), (disc(20, 60, 60) | bar).sum()
    assert found.iou[0, 1] == pytest.approx(shared / union)
    head, lesion, other = disc(55), disc(20, 60, 60), bar
    same = min((head & ~lesion).sum() / (head | lesion).sum(), (head & ~other).sum() / (head | other).sum())
    assert found.histogram[0, 1] == pytest.approx(same)
    assert found.gfd[0, 1] == pytest.approx(1 - apart(lesion, other) / 1e6)
    assert found.mean[0, 1] == pytest.approx((found.iou + found.histogram + found.gfd)[0, 1] / 3)
    assert relevance([query], [lesion_stack("b", bar)], d95=1e-6).gfd[0, 0] == 0


def test_relevance_wants_masks() -> None:
    with pytest.raises(NotMeasurable, match="1 of 2 stacks have no lesion mask"):
        relevance([lesion_stack("a", disc(5))], [lesion_stack("b"), lesion_stack("c", disc(5))], 1.0)


def test_the_histogram_is_of_the_foreground() -> None:
    levels = np.array([0.0, 0.04, 0.05, 0.06, 0.5, 1.0])
    histogram = grey_histogram(levels)
    assert histogram.shape == (64,)
    assert np.flatnonzero(histogram).tolist() == [int(0.06 * 64), 32, 63]
    assert histogram.sum() == pytest.approx(1)
    assert grey_histogram(np.zeros(4)).sum() == 0


@given(a=arrays(np.float64, (3, 8), elements=st.floats(0, 1)), b=arrays(np.float64, (2, 8), elements=st.floats(0, 1)))
def test_intersection_is_the_sum_of_minima(a: np.ndarray, b: np.ndarray) -> None:
    np.testing.assert_allclose(intersection(a, b), np.minimum(a[:, None], b).sum(axis=2), atol=1e-12)


def test_iou_of_nothing_is_nothing() -> None:
    nothing = np.zeros((1, 4, 4), dtype=bool)
    assert iou(nothing, nothing) == 0


def test_true_parameters_have_their_scales() -> None:
    def patient(name: str, x: float, y: float, radius: float, enhancement: float) -> object:
        parameters = {"place_x_mm": x, "place_y_mm": y, "place_z_mm": 0.0}
        return lesion_stack(name, disc(5), parameters=parameters | {"radius_mm": radius, "enhancement": enhancement})

    one, two = patient("a", 0, 0, 10, 0.0), patient("b", 12, 16, 10 * np.e, 0.5)
    found = parameter_relevance([one], [one, two])  # type: ignore[list-item]
    np.testing.assert_allclose(found["place"], [[1, np.exp(-1)]])
    np.testing.assert_allclose(found["size"], [[1, np.exp(-2)]])
    np.testing.assert_allclose(found["enhancement"], [[1, np.exp(-2)]])
    assert parameter_relevance([one], [lesion_stack("c", disc(5))]) == {}  # type: ignore[list-item]
