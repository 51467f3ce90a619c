"""A box in a stored frame → the slice that shows it, and where it is there; runs in the decoder's child process.

The way goes through the patient's axes: a slice may be drawn flipped, turned, resampled, or across the frame.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from highdicom.spatial import ImageToReferenceTransformer, ReferenceToImageTransformer

from pacs_cbir.dicom.frames import Frame
from pacs_cbir.dicom.volume import build_volume, read_stacks
from pacs_cbir.embed.preprocess import Preprocessing, Slices, draw_slices
from pacs_cbir.errors import InvalidQuery, NotAVolume, SeriesChanged


class Box(NamedTuple):
    """Columns `left` to `right - 1` and rows `top` to `bottom - 1` of a frame, counted from 0."""

    left: int
    top: int
    right: int
    bottom: int


@dataclass(frozen=True)
class DrawnRegion:
    """What a box shows.

    Attributes:
        pixels: float32, shape (size, size), the slice through the box's middle, as `draw_slices` draws it. It need not
            be one of those that are embedded.
        inside: float32, shape (size, size), the share of each pixel that the box covers.
    """

    pixels: npt.NDArray[np.float32]
    inside: npt.NDArray[np.float32]


def draw_region(
    paths: Sequence[Path],
    separated_by: Mapping[str, Any],
    picture: tuple[str, int | None],
    box: Box,
    preprocessing: Preprocessing,
) -> DrawnRegion | None:
    """Draw the slice of a stored stack that shows a box in one of its frames.

    Args:
        paths: of the whole series as it was embedded.
        separated_by: what tells the stack from the series' others.
        picture: SOP Instance UID and frame number; no number where the instance has one frame.
        box: in the pixels of that frame.

    Returns:
        None where the frame is not of that stack.

    Raises:
        InvalidQuery: the box is not in the frame, or not in the field that the encoder sees.
        SeriesChanged: it has no such stack any more.
        DecodingError: as `draw_series`.
    """
    stack = next((stack for stack in read_stacks(paths) if stack.key.as_dict() == separated_by), None)
    if stack is None:
        raise SeriesChanged("the series has changed since it was embedded")
    uid, number = picture
    frames = [f for f in stack.frames if f.sop_instance_uid == uid and number in {None, f.number}]
    if len({frame.number for frame in frames}) > 1:
        raise InvalidQuery("region: the example names an instance of several frames; name the frame")
    if not frames:
        return None
    frame, box = _tile(frames, _checked(box, frames[0]))
    corners = _corners(frame, box)
    slices = draw_slices(build_volume(stack), preprocessing, through=corners.mean(axis=0))
    return _shown(slices, corners, preprocessing)


def _checked(box: Box, frame: Frame) -> Box:
    rows, columns = (int(frame.instance.get(keyword) or 0) for keyword in ("Rows", "Columns"))
    if box.right > columns or box.bottom > rows:
        raise InvalidQuery(f"region: the frame has {columns} columns and {rows} rows: x1 to {columns}, y1 to {rows}")
    return box


def _tile(frames: Sequence[Frame], box: Box) -> tuple[Frame, Box]:
    """Of a mosaic the tile that holds the box's middle, and the box in its pixels; else the frame as it is."""
    for frame in frames:
        if frame.tile is None:
            return frame, box
        rows, columns = frame.tile
        if rows.start <= (box.top + box.bottom) / 2 < rows.stop and (
            columns.start <= (box.left + box.right) / 2 < columns.stop
        ):
            left, right = np.clip([box.left, box.right], columns.start, columns.stop) - columns.start
            top, bottom = np.clip([box.top, box.bottom], rows.start, rows.stop) - rows.start
            return frame, Box(int(left), int(top), int(right), int(bottom))
    raise InvalidQuery("region: the mosaic shows no slice there")


def _corners(frame: Frame, box: Box) -> npt.NDArray[np.float64]:
    """The box as a block in the patient: shape (8, 3), LPS in mm.

    It is as deep as it is wide and high in the mean: a slice that is drawn across the frame meets more than a line.
    """
    position, orientation = frame.numbers_of("ImagePositionPatient", 3), frame.numbers_of("ImageOrientationPatient", 6)
    spacing = frame.numbers_of("PixelSpacing", 2)
    if position is None or orientation is None or spacing is None:
        raise NotAVolume("the frame has no position")
    to_patient = ImageToReferenceTransformer(position, orientation, spacing)
    edges = [(x, y) for x in (box.left, box.right) for y in (box.top, box.bottom)]
    flat = to_patient(np.array(edges, dtype=np.float64))
    area = (box.right - box.left) * spacing[1] * (box.bottom - box.top) * spacing[0]
    away = np.cross(orientation[:3], orientation[3:]) * np.sqrt(area) / 2
    return np.concatenate([flat - away, flat + away])


def _shown(slices: Slices, corners: npt.NDArray[np.float64], preprocessing: Preprocessing) -> DrawnRegion:
    pixel_mm = preprocessing.field_of_view_mm / preprocessing.size
    to_slice = ReferenceToImageTransformer(slices.image_positions[0].tolist(), slices.orientation, (pixel_mm, pixel_mm))
    across, down, _ = to_slice(corners).T
    inside = np.outer(_covered(down, preprocessing.size), _covered(across, preprocessing.size)).astype(np.float32)
    if not inside.any():
        raise InvalidQuery(
            f"region: the encoder sees {preprocessing.field_of_view_mm:g} mm round the head, and nothing of the box"
        )
    return DrawnRegion(slices.pixels[0], inside)


def _covered(edges: npt.NDArray[np.float64], size: int) -> npt.NDArray[np.float64]:
    """How much of each of `size` pixels in a row lies between the outermost of some places, 0 to 1."""
    pixels = np.arange(size)
    covered: npt.NDArray[np.float64] = np.minimum(edges.max(), pixels + 1) - np.maximum(edges.min(), pixels)
    return covered.clip(0, 1)
