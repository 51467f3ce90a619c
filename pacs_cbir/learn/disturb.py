"""What a hospital changes of a query: its grey levels, the head's position, the field of view, the slice.

Changes are made on the source, before slices are drawn: the preprocessing meets them as it would in a hospital. The
lesion's mask stays where it was; it says nothing but which slice the query is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from types import MappingProxyType

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from pacs_cbir.dicom.volume import Volume
from pacs_cbir.embed.preprocess import Preprocessing
from pacs_cbir.learn.sources import Source
from pacs_cbir.learn.stacks import Change, Stack

BIAS_FACTORS = (0.7, 1.4)
"""In the two opposite corners of a slice; BrainWeb's strongest field is 0.8 to 1.2."""
SHIFT_MM = 15.0
ROTATION_DEGREES = 10.0


def scale_grey(volume: Volume, factor: float) -> Volume:
    """Grey levels times a factor; nothing is cut off."""
    return replace(volume, array=volume.array * np.float32(factor))


def gamma(volume: Volume, exponent: float) -> Volume:
    """Grey levels to a power, their largest staying what it is; what is below 0 becomes 0."""
    white = np.float32(max(float(np.max(volume.array, where=np.isfinite(volume.array), initial=0)), 1e-6))
    return replace(volume, array=white * np.clip(volume.array / white, 0, None) ** np.float32(exponent))


def bias_field(volume: Volume) -> Volume:
    """A receive coil's field: grey levels times a factor that rises evenly in its logarithm from corner to corner."""
    rows, columns = (np.linspace(0, 1, size, dtype=np.float32) for size in volume.array.shape[1:])
    low, high = np.log(BIAS_FACTORS)
    field = np.exp(low + (high - low) * (rows[:, None] + columns) / 2)
    return replace(volume, array=volume.array * field.astype(np.float32))


def shift(volume: Volume, rows_mm: float, columns_mm: float) -> Volume:
    """The head elsewhere in the same field."""
    return _move(volume, np.eye(2), np.array([rows_mm, columns_mm]))


def rotate(volume: Volume, degrees: float) -> Volume:
    """The head turned in the slices' plane about the field's centre, clockwise as shown."""
    angle = np.deg2rad(degrees)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    return _move(volume, turn, np.zeros(2))


def field_of_view(volume: Volume, factor: float) -> Volume:
    """A field so much wider, the head so much smaller in it, and the header's spacing as before.

    With a spacing that told of it, preprocessing would undo the change.
    """
    return _move(volume, np.eye(2) * factor, np.zeros(2))


def _move(volume: Volume, matrix: npt.NDArray[np.float64], offset: npt.NDArray[np.float64]) -> Volume:
    """Each slice resampled: what was at `matrix @ (p - offset)` is shown at p, in mm (row, column) from the centre."""
    spacing = np.array(volume.spacing[1:])
    pixels = matrix * spacing / spacing[:, None]
    centre = (np.array(volume.array.shape[1:]) - 1) / 2
    start = centre - pixels @ (centre + offset / spacing)
    black = float(np.min(volume.array, where=np.isfinite(volume.array), initial=np.inf))
    moved = [ndimage.affine_transform(s, pixels, start, order=1, mode="constant", cval=black) for s in volume.array]
    return replace(volume, array=np.stack(moved))


def step_slices(source: Source, step: int) -> Source:
    """The mask so many drawn slices further, so that the query is the neighbour of its best slice."""
    if source.mask is None:
        return source
    slices = step * max(1, round(Preprocessing.slice_spacing_mm / source.volume.spacing[0]))
    return replace(source, mask=ndimage.shift(source.mask, (slices, 0, 0), order=0, mode="constant", cval=0))


def _of_volume(source: Source, change: Callable[[Volume], Volume]) -> Source:
    return replace(source, volume=change(source.volume))


_VOLUMES: Mapping[str, Callable[[Volume], Volume]] = {
    "grey levels × 0.5": partial(scale_grey, factor=0.5),
    "grey levels × 2": partial(scale_grey, factor=2.0),
    "gamma 0.7": partial(gamma, exponent=0.7),
    "gamma 1.4": partial(gamma, exponent=1.4),
    "bias field": bias_field,
    "shift 15 mm down": partial(shift, rows_mm=SHIFT_MM, columns_mm=0.0),
    "shift 15 mm right": partial(shift, rows_mm=0.0, columns_mm=SHIFT_MM),
    "rotation +10°": partial(rotate, degrees=ROTATION_DEGREES),
    "rotation −10°": partial(rotate, degrees=-ROTATION_DEGREES),
    "field of view +20 %": partial(field_of_view, factor=1.2),
    "field of view −20 %": partial(field_of_view, factor=0.8),
}
_SLICES: Mapping[str, int] = {"slice +1": 1, "slice −1": -1}

CHANGES: Mapping[str, Change] = MappingProxyType(
    {name: partial(_of_volume, change=change) for name, change in _VOLUMES.items()}
    | {name: partial(step_slices, step=step) for name, step in _SLICES.items()}
)
"""Name → what `load_stacks` and `simulate_stacks` do to each source."""
SKULL_STRIPPED = "skull stripped"
"""A change that simulated patients alone allow: which voxels are brain is known of them."""


def change_queries(
    stacks: Sequence[Stack], names: Iterable[str], load: Callable[[str], Sequence[Stack]]
) -> dict[str, list[Stack | None]]:
    """The queries of `protocols.robustness`: of every stack its best slice, with each change.

    Args:
        stacks: unchanged.
        names: of changes: keys of `CHANGES`, or others that `load` knows.
        load: name of a change → the same stacks again, in the same order, with it.

    Raises:
        ValueError: `load` gives other stacks.
    """
    return {
        name: [
            query_of(stack, other, own_best=name in _SLICES) for stack, other in zip(stacks, load(name), strict=True)
        ]
        for name in names
    }


def query_of(stack: Stack, changed: Stack, *, own_best: bool = False) -> Stack | None:
    """Of a changed stack the one slice that is the unchanged one's best, or None where that was not drawn.

    A changed head may be drawn in other slices, and a query in a hospital has no mask to choose one with.

    Args:
        own_best: the changed stack's own best slice instead.

    Raises:
        ValueError: the two are not of one patient, study and sequence.
    """
    if (stack.patient, stack.study, stack.sequence) != (changed.patient, changed.study, changed.sequence):
        raise ValueError("the changed stacks are not in the order of the unchanged")
    if stack.best is None or changed.best is None or changed.picture is None:
        return None
    same = [changed.best] if own_best else np.flatnonzero(changed.levels == stack.levels[stack.best])
    if not len(same):
        return None
    k = int(same[0])
    return replace(changed, pixels=changed.pixels[[k]], levels=changed.levels[[k]], masks=None, best=0)
