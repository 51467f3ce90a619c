"""What the changes do to a head of known place, size and grey levels."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from lesions import disc, lesion_stack
from PIL import Image

from pacs_cbir.dicom.volume import FrameReference, Plane, Volume
from pacs_cbir.embed.preprocess import Preprocessing, draw_slices
from pacs_cbir.learn.disturb import BIAS_FACTORS, CHANGES, change_queries, query_of
from pacs_cbir.learn.manifest import Manifest, Row
from pacs_cbir.learn.sources import Source
from pacs_cbir.learn.stacks import Change, Stack, _draw, load_stacks

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


def changed(name: str, volume: Volume | None = None) -> Volume:
    whole = head() if volume is None else volume
    return CHANGES[name](Source(whole, None, np.arange(4), 900.0)).volume


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
    assert [name.rsplit(" ", 1)[0] for name in CHANGES] == [
        *["grey levels ×"] * 2,
        *["gamma"] * 2,
        "bias",
        *["shift 15 mm"] * 2,
        *["rotation"] * 2,
        *["field of view +20", "field of view −20"],
        *["slice"] * 2,
    ]


@pytest.mark.parametrize("name", [name for name in CHANGES if not name.startswith("slice")])
def test_a_change_keeps_what_a_volume_is(name: str) -> None:
    before = head()
    after = changed(name, before)
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
    np.testing.assert_allclose(spot(changed(name)), [row, column], atol=0.3)


@pytest.mark.parametrize(("name", "degrees"), [("rotation +10°", 10), ("rotation −10°", -10)])
def test_turns_are_clockwise_and_of_millimetres_not_pixels(name: str, degrees: int) -> None:
    before, after = spot(head()), spot(changed(name))
    assert np.hypot(*after) == pytest.approx(np.hypot(*before), rel=0.02)
    turned = np.rad2deg(np.arctan2(after[0], after[1]) - np.arctan2(before[0], before[1]))
    assert turned == pytest.approx(degrees, abs=0.5)


def test_the_field_of_view_changes_the_heads_size() -> None:
    whole = area(head())
    assert area(changed("field of view +20 %")) == pytest.approx(whole / 1.44, rel=0.02)
    assert area(changed("field of view −20 %")) == pytest.approx(whole / 0.64, rel=0.02)


def test_what_moves_in_is_background() -> None:
    assert changed("shift 15 mm right", head(background=30)).array[1, 5, :10].tolist() == [30] * 10


def test_grey_levels_are_not_cut_off() -> None:
    before = head()
    np.testing.assert_allclose(changed("grey levels × 2", before).array, before.array * 2)
    np.testing.assert_allclose(changed("grey levels × 0.5", before).array, before.array / 2)
    for name, power in (("gamma 0.7", 0.7), ("gamma 1.4", 1.4)):
        after = changed(name, before).array
        white = before.array.max()
        np.testing.assert_allclose(after, white * (before.array / white) ** power, rtol=1e-4)


def test_gamma_knows_no_negative_base() -> None:
    below = replace(head(), array=head().array - 100)
    assert np.isfinite(changed("gamma 0.7", below).array).all()
    nothing = replace(head(), array=np.zeros_like(head().array))
    assert not changed("gamma 1.4", nothing).array.any()


def test_the_bias_field_goes_from_corner_to_corner() -> None:
    even = replace(head(), array=np.full_like(head().array, 100))
    field = changed("bias field", even).array / 100
    assert (field[0, 0, 0], field[3, -1, -1]) == pytest.approx(BIAS_FACTORS, rel=1e-4)
    assert (np.diff(field, axis=1) > 0).all()
    assert (np.diff(field, axis=2) > 0).all()


@pytest.mark.parametrize(("spacing", "slices"), [(5.0, 1), (6.5, 1), (1.0, 5)])
def test_a_slice_further_is_a_drawn_slice_further(spacing: float, slices: int) -> None:
    volume = head()
    affine = volume.affine @ np.diag([spacing / SPACING[0], 1, 1, 1])
    mask = np.zeros((20, 3, 3), dtype=bool)
    mask[10] = True
    source = Source(replace(volume, affine=affine), mask, np.arange(20), 1.0)
    for name, step in (("slice +1", slices), ("slice −1", -slices)):
        after = CHANGES[name](source)
        assert after.mask is not None
        assert np.flatnonzero(after.mask.any(axis=(1, 2))).tolist() == [10 + step]
        assert after.volume is source.volume
    unknown = replace(source, mask=None)
    assert CHANGES["slice +1"](unknown).mask is None


@pytest.fixture(scope="module")
def drawn() -> tuple[list[Stack], dict[str, list[Stack | None]]]:
    """Two heads of four different slices, whose third shows most of the lesion."""
    mask = np.zeros((4, 120, 240), dtype=bool)
    for level, reach in enumerate((4, 8, 12, 6)):
        mask[level, 40 - reach : 40, 120 : 120 + reach] = True
    volume = replace(head(), array=head().array * np.linspace(1, 1.3, 4, dtype=np.float32)[:, None, None])
    source = Source(volume, mask, np.arange(10, 14), 1200.0)

    def load(change: Change | None = None) -> list[Stack]:
        shown = source if change is None else change(source)
        return [_draw(shown, Preprocessing(size=48), name, name, "T1") for name in ("a", "b")]

    return load(), change_queries(load(), CHANGES, lambda name: load(CHANGES[name]))


def test_changed_queries_are_one_slice_of_the_level_of_the_unchanged(
    drawn: tuple[list[Stack], dict[str, list[Stack | None]]],
) -> None:
    stacks, queries = drawn
    assert list(queries) == list(CHANGES)
    assert [stack.levels[stack.best or 0] for stack in stacks] == [12, 12]
    for name, found in queries.items():
        assert len(found) == 2
        for stack, query in zip(stacks, found, strict=True):
            assert stack.best is not None
            assert query is not None
            assert query.pixels.shape == (1, 48, 48)
            assert query.best == 0
            step = {"slice +1": 1, "slice −1": -1}.get(name, 0)
            assert query.levels.tolist() == [stack.levels[stack.best + step]]
            assert query.picture is not None
            assert not np.array_equal(query.picture, stack.picture)


def test_shifted_heads_are_centred_again_and_their_pictures_are_not(
    drawn: tuple[list[Stack], dict[str, list[Stack | None]]],
) -> None:
    stacks, queries = drawn
    stack, query = stacks[0], queries["shift 15 mm right"][0]
    assert query is not None
    assert stack.picture is not None
    assert query.picture is not None
    apart = np.abs(query.pixels[0].astype(float) - stack.pixels[stack.best or 0]).mean()
    assert apart < 0.3 * np.abs(query.picture - stack.picture).mean()


def test_a_changed_stack_that_lost_the_slice_is_no_query() -> None:
    stack = lesion_stack("a", disc(9), slices=5)
    shorter = replace(stack, pixels=stack.pixels[:2], levels=stack.levels[:2], masks=None, best=1)
    assert query_of(stack, shorter) is None
    assert query_of(stack, stack) is not None
    assert query_of(lesion_stack("a", slices=5), stack) is None
    with pytest.raises(ValueError, match="not in the order"):
        query_of(stack, lesion_stack("b", disc(9)))


def test_a_manifests_pictures_are_changed_before_they_are_drawn(tmp_path: Path) -> None:
    grey = np.clip(head().array[1, :, ::2] / 4, 0, 255).astype(np.uint8)
    Image.fromarray(grey).save(tmp_path / "head.png")
    Image.fromarray((grey > 150).astype(np.uint8)).save(tmp_path / "mask.png")
    row = Row(
        path=tmp_path / "head.png",
        mask=tmp_path / "mask.png",
        patient="a",
        study="a",
        sequence="T1",
        spacing_mm=2.0,
    )
    (found,) = load_stacks(Manifest((row,)), Preprocessing(size=48), change=CHANGES["grey levels × 0.5"])
    assert found.picture is not None
    shown = np.asarray(Image.fromarray(grey.astype(np.float32)).resize((128, 128), Image.Resampling.BOX))
    np.testing.assert_allclose(found.picture, shown / 255 / 2, atol=1e-3)
    assert found.pixels.max() > 0.7  # the preprocessing undoes it
