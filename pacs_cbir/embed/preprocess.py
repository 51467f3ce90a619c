"""Volume → slices an encoder can see: one field of view, one spacing, one range of grey levels.

Runs in the process that decodes pixels, and so must not import torch.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
from scipy import ndimage
from scipy.optimize import linear_sum_assignment

from pacs_cbir.dicom.volume import FrameReference, Plane, Volume
from pacs_cbir.errors import NotAVolume

REVISION = 2
"""Raised with every change of what `draw_slices` returns: embeddings from before it are another encoder's."""

FOREGROUND_GRID_MM = 4.0
"""The foreground is looked for on a grid about this coarse, so that a large volume is never copied whole."""
FOREGROUND_GRID_POINTS = 16
"""Of a small volume this many points along each axis are looked at, if it has them."""
FOREGROUND_SMOOTHING_MM = 3.0
"""Standard deviation of the Gaussian that takes noise out of the foreground."""
FOREGROUND_CLOSING_MM = 8.0
"""Gaps up to about this width are bridged: the skull, dark in every sequence, parts brain and scalp."""
FOREGROUND_SHARE = 0.1
"""End slices with less foreground than this share of the fullest slice's are left out."""
MINIMUM_RESLICED_EXTENT_MM = 60.0
"""A thinner slab keeps its plane: resliced it would be a strip."""
SPACING_ROUNDING_MM = 0.01
"""Headers carry positions as decimal strings: 2 mm may read as 2.0001."""
NATIVE_SPACING_TOLERANCE = 0.05
"""Slices up to this share nearer than the grid's spacing are each taken."""
LARGEST_SIZE = 1024
"""Edge of a slice in pixels: a stack of `MAX_SLICES` is drawn in 4 GiB."""
MAX_SLICES = 1000
"""Of one stack; coarse or fine, it would be metres long, which a header may claim and no patient is."""

DISPLAY_AXES: dict[Plane, npt.NDArray[np.float64]] = {
    # Unit vectors in LPS of (slices, rows, columns), as `Volume.array` describes them.
    Plane.AXIAL: np.array([[0, 0, 1], [0, 1, 0], [1, 0, 0]], dtype=np.float64),
    Plane.CORONAL: np.array([[0, 1, 0], [0, 0, -1], [1, 0, 0]], dtype=np.float64),
    Plane.SAGITTAL: np.array([[1, 0, 0], [0, 0, -1], [0, 1, 0]], dtype=np.float64),
}


@dataclass(frozen=True)
class Preprocessing:
    """How slices are drawn; part of an encoder's identity.

    Attributes:
        field_of_view_mm: edge of the square that a slice shows.
        size: its edge in pixels.
        slice_spacing_mm: distance between the slices that are taken from a finely spaced stack.
        resliced_plane: the plane into which stacks of other planes are resliced.
        reslice_max_spacing_mm: largest through-plane spacing at which they are.
        revision: the `REVISION` of this module that it describes.
    """

    field_of_view_mm: float = 224.0
    size: int = 128
    slice_spacing_mm: float = 5.0
    resliced_plane: Plane = Plane.AXIAL
    reslice_max_spacing_mm: float = 2.0
    revision: int = REVISION

    def __post_init__(self) -> None:
        """Refuse values that `draw_slices` cannot work with, with ValueError."""
        for name in ("field_of_view_mm", "size", "slice_spacing_mm", "reslice_max_spacing_mm"):
            length = getattr(self, name)
            if not (np.isfinite(length) and length > 0):
                raise ValueError(f"{name} is a length above 0, not {length}")
        if self.size > LARGEST_SIZE:
            raise ValueError(f"slices have at most {LARGEST_SIZE} pixels along an edge, not {self.size}")


@dataclass(frozen=True)
class Slices:
    """What is drawn from one volume.

    Attributes:
        pixels: float32, shape (n, size, size), n >= 1, in [0, 1]: 0 is black and outside the foreground, 1 the
            volume's brightest voxel, so that nothing is cut off. Display order of the plane.
        masks: bool, shape (n, size, size): a mask of the volume, drawn alike; None if none was given.
        plane: the plane of all n.
        frames: the source of each; of a resliced one the source frame nearest to its centre.
        positions_mm: float64, shape (n,), ascending: position of each along the plane's normal in LPS.
        image_positions: float64, shape (n, 3): the middle of each one's first pixel in LPS, in mm.
        orientation: cosines of the row's and of the column's direction, as in Image Orientation (Patient).
    """

    pixels: npt.NDArray[np.float32]
    plane: Plane
    frames: tuple[FrameReference, ...]
    positions_mm: npt.NDArray[np.float64]
    image_positions: npt.NDArray[np.float64]
    orientation: tuple[float, ...]
    masks: npt.NDArray[np.bool_] | None = None


@dataclass(frozen=True)
class _Foreground:
    """The head on a coarse grid: `mask[i]` is at voxel `i * stride`.

    Attributes:
        mask: bool, shape (slices, rows, columns) of the coarse grid.
        stride: voxels between neighbours of the coarse grid.
        centre: middle of the foreground in voxels of the volume: (slice, row, column).
        black: grey value shown as 0.
        white: grey value shown as 1.
    """

    mask: npt.NDArray[np.bool_]
    stride: tuple[int, int, int]
    centre: tuple[float, float, float]
    black: float
    white: float


def draw_slices(
    volume: Volume,
    preprocessing: Preprocessing,
    mask: npt.NDArray[np.bool_] | None = None,
    through: npt.NDArray[np.float64] | None = None,
) -> Slices:
    """Draw the slices of a volume that are embedded.

    The field of view is centred on the foreground. A stack that is fine enough is resliced into
    `preprocessing.resliced_plane`, obliques along their own axes; any other keeps its plane. A finely spaced stack
    gives the slices nearest to multiples of `slice_spacing_mm` along the plane's normal, a coarser one each slice. What
    is missing between others is never drawn by itself, and no wider a gap than `slice_spacing_mm` is resliced.

    Args:
        mask: of the volume's shape, such as a lesion; it moves nothing, and is drawn where the slices are.
        through: a point in LPS, shape (3,): instead of those slices draw the one nearest to it.

    Raises:
        NotAVolume: nothing stands out from the background: all values are alike, or none is finite; or more than
            `MAX_SLICES` would be drawn.
    """
    plane = _plane_to_draw(volume, preprocessing)
    array, affine, frames, frames_axis = _orient(volume, plane)
    masks = None if mask is None else _orient(replace(volume, array=mask.astype(np.float32)), plane)[0]
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    foreground = _find_foreground(array, spacing)

    normal = affine[:3, 0] / spacing[0]
    first = affine[:3] @ (0, *foreground.centre[1:], 1)  # LPS of the first slice's centre
    positions = first @ normal + np.arange(len(array)) * spacing[0]
    if through is None:
        chosen = _choose_slices(positions, foreground, preprocessing.slice_spacing_mm)
    else:
        chosen = [int(np.argmin(np.abs(positions - through @ normal)))]
    there = np.array([i for i, frame in enumerate(frames) if frame is not None])
    if frames_axis == 0:
        chosen = sorted({_nearest(there, k) for k in chosen})
    if len(chosen) > MAX_SLICES:
        raise NotAVolume(f"it would be {len(chosen)} slices, and {MAX_SLICES} are drawn at most")

    pixels = np.stack([_draw(array, k, spacing, foreground, preprocessing) for k in chosen])
    drawn = (
        masks if masks is None else np.stack([_draw_mask(masks[k], spacing, foreground, preprocessing) for k in chosen])
    )
    across = _nearest(there, foreground.centre[frames_axis])
    sources = chosen if frames_axis == 0 else [across] * len(chosen)
    zoom = preprocessing.field_of_view_mm / preprocessing.size / spacing
    corner = np.array(foreground.centre) - zoom * (preprocessing.size - 1) / 2
    return Slices(
        pixels=pixels,
        plane=plane,
        frames=tuple(frame for i in sources if (frame := frames[i]) is not None),
        positions_mm=positions[chosen],
        image_positions=np.stack([affine[:3] @ (k, *corner[1:], 1) for k in chosen]),
        orientation=tuple((affine[:3, [2, 1]] / spacing[[2, 1]]).T.ravel().tolist()),
        masks=drawn,
    )


def _plane_to_draw(volume: Volume, preprocessing: Preprocessing) -> Plane:
    through_plane = volume.spacing[0]
    fine = through_plane <= preprocessing.reslice_max_spacing_mm + SPACING_ROUNDING_MM
    thick = through_plane * len(volume.array) >= MINIMUM_RESLICED_EXTENT_MM
    there = [i for i, frame in enumerate(volume.frames) if frame is not None]
    gap = through_plane * max(np.diff(there), default=1)
    bridged = gap <= max(preprocessing.slice_spacing_mm, through_plane) + SPACING_ROUNDING_MM
    return preprocessing.resliced_plane if fine and thick and bridged else volume.plane


def _nearest(there: npt.NDArray[np.int_], place: float) -> int:
    return int(there[np.argmin(np.abs(there - place))])


def _orient(
    volume: Volume, plane: Plane
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float64], tuple[FrameReference | None, ...], int]:
    """Permute and flip a volume into the display order of a plane.

    Returns:
        A view of the array, its affine, the frames in the order of the axis along which they now lie, and that axis.
    """
    directions = volume.affine[:3, :3] / np.linalg.norm(volume.affine[:3, :3], axis=0)
    along = DISPLAY_AXES[plane] @ directions  # along[i, j]: cosine of display axis i to array axis j
    _, order = linear_sum_assignment(-np.abs(along))
    flips = tuple(i for i, j in enumerate(order) if along[i, j] < 0)

    array = np.flip(volume.array.transpose(order), flips)
    affine = volume.affine[:, [*order, 3]].copy()
    for i in flips:
        affine[:, 3] += affine[:, i] * (array.shape[i] - 1)
        affine[:, i] *= -1
    frames_axis = int(np.flatnonzero(order == 0)[0])
    frames = volume.frames[::-1] if frames_axis in flips else volume.frames
    return array, affine, frames, frames_axis


def _find_foreground(array: npt.NDArray[np.float32], spacing: npt.NDArray[np.float64]) -> _Foreground:
    """Otsu's threshold (1979) on smoothed grey values; of what lies above it the largest piece, holes filled."""
    if not array.size:
        raise NotAVolume("the volume has no voxels")
    fitting = np.array(array.shape) // FOREGROUND_GRID_POINTS
    strides = np.maximum(1, np.minimum(np.rint(FOREGROUND_GRID_MM / spacing), fitting)).astype(int)
    coarse = array[:: strides[0], :: strides[1], :: strides[2]].astype(np.float64)
    finite = np.isfinite(coarse)
    if not finite.any() or np.ptp(coarse[finite]) == 0:
        raise NotAVolume("the volume shows nothing: its values are all alike")
    black = float(np.quantile(coarse[finite], 0.005))
    coarse[~finite] = black
    steps = spacing * strides
    smooth = ndimage.gaussian_filter(coarse, FOREGROUND_SMOOTHING_MM / steps, mode="nearest")
    above = smooth > _otsu_threshold(smooth, black)
    mask = _largest_piece(above, steps)
    inside = [np.quantile(axis, (0.01, 0.99)).mean() for axis in np.nonzero(mask)]
    slices, rows, columns = (float(middle * stride) for middle, stride in zip(inside, strides, strict=True))
    white = float(np.max(array, where=np.isfinite(array), initial=black))
    return _Foreground(mask, (int(strides[0]), int(strides[1]), int(strides[2])), (slices, rows, columns), black, white)


def _otsu_threshold(values: npt.NDArray[np.float64], black: float) -> float:
    """Otsu's threshold between background and foreground.

    It is sought on the square root: on the grey values themselves bright fluid or fat would be parted from all else.
    """
    brighter = values[values > black]
    white = float(np.quantile(brighter, 0.99)) if brighter.size else black
    if white <= black:
        raise NotAVolume("the volume shows nothing that stands out from its background")
    scaled = np.sqrt(np.clip((values - black) / (white - black), 0, 1))
    counts, edges = np.histogram(scaled, bins=128, range=(0, 1))
    levels = (edges[1:] + edges[:-1]) / 2
    below = np.cumsum(counts)[:-1].astype(np.float64)
    beyond = counts.sum() - below
    sums = np.cumsum(counts * levels)
    # Voxels below and above times the squared distance of their means; 0 where one side is empty.
    means = sums[:-1] / np.maximum(below, 1), (sums[-1] - sums[:-1]) / np.maximum(beyond, 1)
    best = edges[1 + int(np.argmax(below * beyond * (means[0] - means[1]) ** 2))]
    return float(black + (white - black) * best**2)


def _largest_piece(above: npt.NDArray[np.bool_], steps: npt.NDArray[np.float64]) -> npt.NDArray[np.bool_]:
    """The largest connected piece of a mask after narrow gaps are bridged; holes filled in each slice."""
    reach = np.rint(FOREGROUND_CLOSING_MM / 2 / steps).astype(int)
    padded = np.pad(above, [(n, n) for n in reach])  # else closing eats what touches the border
    closed = ndimage.binary_closing(padded, structure=np.ones(2 * reach + 1, dtype=bool))
    closed = closed[tuple(slice(n, n + size) for n, size in zip(reach, above.shape, strict=True))]
    pieces, _ = ndimage.label(closed, structure=np.ones((3, 3, 3)))
    largest = pieces == 1 + int(np.argmax(np.bincount(pieces.ravel())[1:]))
    return np.stack([ndimage.binary_fill_holes(piece) for piece in largest])


def _choose_slices(positions: npt.NDArray[np.float64], foreground: _Foreground, step: float) -> list[int]:
    """Indices, ascending, of the slices to draw; at least one."""
    areas = foreground.mask.sum(axis=(1, 2))
    full = np.flatnonzero(areas >= FOREGROUND_SHARE * areas.max()) * foreground.stride[0]
    first, last = int(full[0]), min(int(full[-1]) + foreground.stride[0] - 1, len(positions) - 1)
    spacing = positions[1] - positions[0] if len(positions) > 1 else step
    if spacing >= step * (1 - NATIVE_SPACING_TOLERANCE):
        return list(range(first, last + 1))
    grid = np.arange(np.ceil(positions[first] / step), np.floor(positions[last] / step) + 1) * step
    # Half-way between two slices the upper one, whatever the last bit of the position says.
    chosen = np.floor((grid - positions[0]) / spacing + 0.5 + 1e-6).astype(int).clip(first, last)
    return [int(k) for k in np.unique(chosen)] or [(first + last) // 2]


def _draw(
    array: npt.NDArray[np.float32],
    k: int,
    spacing: npt.NDArray[np.float64],
    foreground: _Foreground,
    preprocessing: Preprocessing,
) -> npt.NDArray[np.float32]:
    """One slice as float32 (size, size) in [0, 1]."""
    size = preprocessing.size
    zoom = preprocessing.field_of_view_mm / size / spacing[1:]  # source pixels a drawn pixel
    centre = np.array(foreground.centre[1:])
    source = np.nan_to_num(array[k].astype(np.float64), nan=foreground.black, posinf=foreground.black)
    source = (source - foreground.black) / (foreground.white - foreground.black)
    # A drawn pixel wider than a source pixel averages: Gaussian of the standard deviation that parts their widths.
    source = ndimage.gaussian_filter(source, np.sqrt(np.maximum(zoom**2 - 1, 0)) / 2, mode="nearest")
    grey = _window(source, zoom, centre, size)

    # The mask is coarse, so it is widened by one of its steps: nothing of the head's rim may be lost.
    coarse = foreground.mask[min(round(k / foreground.stride[0]), len(foreground.mask) - 1)]
    wide = ndimage.binary_dilation(coarse, structure=np.ones((3, 3))).astype(np.float64)
    stride = np.array(foreground.stride[1:])
    shown = _window(wide, zoom / stride, centre / stride, size) > 0.5
    return np.where(shown, np.clip(grey, 0, 1), 0).astype(np.float32)


def _draw_mask(
    mask: npt.NDArray[np.float32],
    spacing: npt.NDArray[np.float64],
    foreground: _Foreground,
    preprocessing: Preprocessing,
) -> npt.NDArray[np.bool_]:
    zoom = preprocessing.field_of_view_mm / preprocessing.size / spacing[1:]
    smooth = ndimage.gaussian_filter(mask.astype(np.float64), np.sqrt(np.maximum(zoom**2 - 1, 0)) / 2, mode="nearest")
    covered: npt.NDArray[np.bool_] = _window(smooth, zoom, np.array(foreground.centre[1:]), preprocessing.size) >= 0.5
    return covered


def _window(
    image: npt.NDArray[np.float64], zoom: npt.NDArray[np.float64], centre: npt.NDArray[np.float64], size: int
) -> npt.NDArray[np.float64]:
    """Square of `size` pixels round `centre`, bilinear; `zoom` is the width of one of its pixels in the image's."""
    offset = centre - zoom * (size - 1) / 2
    drawn: npt.NDArray[np.float64] = ndimage.affine_transform(
        image, zoom, offset, output_shape=(size, size), order=1, mode="grid-constant"
    )
    return drawn
